#!/bin/sh
# What must hold of the kernel's image without booting it. Ends with how many checks passed.
set -eu
cd "$(dirname "$0")/.."

image=target/anchorite.img
passed=0
failed=0
check() {
    if [ "$2" ]; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1"
    fi
}

# Words of 32 bits in hexadecimal, from byte $1, $2 bytes.
words() { od -A n -v -t x4 -w4 -j "$1" -N "$2" "$image"; }

bytes=$(($(wc -c <"$image")))
check "$bytes bytes are at most 2.25 MiB" "$([ "$bytes" -le $((9 << 18)) ] && echo 1)"
check 'the magic number of an arm64 Image' "$(words 56 4 | grep -x ' 644d5241')"
image_size=$((0x$(words 16 4 | tr -d ' ')))
check "the header asks for $image_size bytes, all of the file and more" \
    "$([ "$image_size" -ge "$bytes" ] && echo 1)"
check 'it may lie anywhere in memory, little endian' "$(words 24 4 | grep -x ' 0000000a')"

# SMULL or SMLAL on eight bytes at once: Arm ARM, C7.2, "0 Q 0 01110 00 1 Rm 1 1/0 000 00 Rn Rd".
neon=$(words 0 "$bytes" | grep -c -E '^ [04]e[23].[8c][0-3]..$' || true)
check "$neon vector multiplications of the engine" "$([ "$neon" -ge 8 ] && echo 1)"

# The linker is told to allow relocations anywhere, since `core` comes compiled for a fixed place and
# has pointers among its constants. None may be in the code, which is only ever executed and read. The
# format lists addresses (even words, each before the bits of those that follow it) in order.
elf=target/bare/aarch64-unknown-none/release/anchorite
# section NAME: its address, offset and size in hexadecimal.
section() { readelf -SW "$elf" | sed -n "s/^ *\[ *[0-9]*\] $1  *[A-Z_0-9]*  *\([0-9a-f]*\) \([0-9a-f]*\) \([0-9a-f]*\) .*/\1 \2 \3/p"; }
# shellcheck disable=SC2046 # the words are to be split
{
    set -- $(section '\.text')
    text_end=$((0x$1 + 0x$3))
    set -- $(section '\.relr\.dyn')
    first=$((0x$(od -A n -t x8 -j $((0x$2)) -N 8 "$elf" | tr -d ' ')))
}
check "the first of $((0x$3 / 8)) words of relocations is behind the code" \
    "$([ "$first" -ge "$text_end" ] && [ "$text_end" -gt 4096 ] && echo 1)"

# The same again, made in another folder from crates that lie elsewhere.
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$again/anchorite"
tar --exclude ./.git --exclude ./target -cf - . | tar -xf - -C "$again/anchorite"
ln -s "${CARGO_HOME:-$HOME/.cargo}" "$again/cargo"
(
    cd "$again/anchorite"
    CARGO_HOME=$again/cargo ci/toolchain.sh bare build -p kernel --bin anchorite --release
)
target/debug/image-builder kernel --out "$again/anchorite.img" \
    --elf "$again/anchorite/target/bare/aarch64-unknown-none/release/anchorite"
check 'the image built elsewhere is the same' "$(cmp "$image" "$again/anchorite.img" >&2 && echo 1)"
for folder in "$again" "$again/anchorite"; do
    # FAT counts time in steps of two seconds; none may show.
    target/debug/image-builder disk --out "$folder/disk.img" "$again/anchorite/test_models/tiny.gguf"
    sleep 2
done
check 'a disk made again is the same' \
    "$(cmp "$again/disk.img" "$again/anchorite/disk.img" >&2 && echo 1)"

echo "image: $passed passed, $failed failed"
[ "$failed" = 0 ]
