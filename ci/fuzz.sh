#!/bin/sh
# Runs the fuzz targets, each for some seconds, from the inputs that git keeps.
#
#   ci/fuzz.sh                        runs all targets, 10 seconds each
#   ci/fuzz.sh SECONDS [TARGET...]    runs these targets for so many seconds
#   ci/fuzz.sh minimise [TARGET...]   merges what the runs found into fuzz/corpus.tar.gz
#   ci/fuzz.sh unpack                 unpacks fuzz/corpus.tar.gz into target/fuzz/archive
#   ci/fuzz.sh pack                   packs target/fuzz/archive into fuzz/corpus.tar.gz
#
# The inputs of a target are the named seeds in fuzz/corpus/TARGET, its part of the archive
# fuzz/corpus.tar.gz, and what earlier runs left in target/fuzz/corpus/TARGET. libFuzzer runs each of
# them before it mutates any. As many targets run at a time as there are cores. An input that ends in
# a panic is left in fuzz/artifacts/TARGET.
#
# LLVM's coverage counters are in every compiler, so no special compiler is needed. The flags are those
# of cargo-fuzz. The targets are built for the host, into target/fuzz.
set -eu
cd "$(dirname "$0")/.."

archive=fuzz/corpus.tar.gz
unpacked=target/fuzz/archive

# unpack: the archive's inputs, in $unpacked. An older archive's inputs go.
unpack() {
    # shellcheck disable=SC2015 # an archive that cannot be compared is unpacked too
    [ -e "$unpacked" ] && cmp -s "$archive" "$unpacked.of" && return
    rm -rf "$unpacked" "$unpacked.of"
    mkdir -p "$unpacked"
    gzip -dc "$archive" | tar -xf - -C "$unpacked"
    cp "$archive" "$unpacked.of"
}

# pack: the archive, from the inputs in $unpacked. The same inputs give the same bytes: the files are
# sorted, and neither times nor owners are kept. The options are GNU tar's.
pack() {
    (cd "$unpacked" && find . -type f | sed 's|^\./||' | LC_ALL=C sort) |
        tar -cf - -C "$unpacked" -T - --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner \
            --mode=u=rw,go=r |
        gzip -n -9 >"$archive"
    cp "$archive" "$unpacked.of"
    echo "$archive: $(find "$unpacked" -type f | wc -l) inputs, $(wc -c <"$archive") bytes"
}

# seeds_of TARGET: the folders of inputs that a target starts from. Large inputs are those of other
# tests: the device trees of real machines, a model of each architecture.
seeds_of() {
    for folder in "fuzz/corpus/$1" "$unpacked/$1"; do
        [ ! -d "$folder" ] || echo "$folder"
    done
    case $1 in
    device_tree) echo kernel/src/runtime/machine/testdata ;;
    gguf) echo test_models/architectures ;;
    esac
}

# longest_of TARGET: the length of the longest input, which for `gguf` is a whole model.
longest_of() {
    case $1 in
    gguf) echo $((160 << 10)) ;;
    *) echo $((64 << 10)) ;;
    esac
}

# run_one PROGRAMS SECONDS TARGET: runs a target, and leaves the line that reports it in
# target/fuzz/TARGET.verdict.
run_one() {
    programs=$1
    seconds=$2
    target=$3
    log=target/fuzz/$target.log
    verdict=target/fuzz/$target.verdict
    mkdir -p "target/fuzz/corpus/$target" "fuzz/artifacts/$target"
    # shellcheck disable=SC2046 # the seeds are a list
    if "$programs/$target" -max_total_time="$seconds" -max_len="$(longest_of "$target")" -timeout=20 \
        -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        "target/fuzz/corpus/$target" $(seeds_of "$target") >"$log" 2>&1; then
        inputs=$(sed -n 's/^INFO: seed corpus: files: \([0-9]*\) .*/\1/p' "$log")
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
        echo "$target: $runs runs in $seconds s from $inputs inputs, $edges edges of the code reached" \
            >"$verdict"
    else
        {
            echo "$target: FAILED, the input is in fuzz/artifacts/$target; see $log:"
            grep -A 2 -e 'panicked at' -e 'ERROR: libFuzzer' "$log" | cut -c -2000 || tail -20 "$log"
        } >"$verdict"
    fi
    cat "$verdict"
}

seconds=10
case ${1:-} in
pack | unpack)
    "$1"
    exit
    ;;
# How this script calls itself.
run_one)
    "$@"
    exit
    ;;
esac
if [ $# -gt 0 ]; then
    seconds=$1
    shift
fi
case $seconds in
minimise) ;;
'' | *[!0-9]* | 0)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

targets=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)
for target; do
    echo "$targets" | grep -qx "$target" || {
        echo "there is no fuzz target $target; the targets are:" >&2
        echo "$targets" >&2
        exit 2
    }
done
[ $# = 0 ] || targets=$*

unpack
host=$(ci/toolchain.sh host -vV | sed -n 's/^host: //p')
flags='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target, the flags are not for what runs in the compiler.
RUSTFLAGS=$flags ci/toolchain.sh host build --locked --release --manifest-path fuzz/Cargo.toml \
    --target "$host" --target-dir target/fuzz --bins
programs=target/fuzz/$host/release

if [ "$seconds" = minimise ]; then
    for target in $targets; do
        found=target/fuzz/corpus/$target
        merged=target/fuzz/merged/$target
        rm -rf "$merged"
        mkdir -p "$found" "$merged" "$unpacked/$target"
        # The named seeds come first: an input that reaches no edge of its own beside them goes.
        cp "fuzz/corpus/$target"/* "$merged/"
        # Inputs are merged for the edges that they reach, not for how often: the corpus stays small.
        # shellcheck disable=SC2046 # the seeds are a list
        "$programs/$target" -merge=1 -use_counters=0 "$merged" $(seeds_of "$target") "$found" \
            2>"target/fuzz/$target.log"
        for seed in "fuzz/corpus/$target"/*; do
            rm "$merged/${seed##*/}"
        done
        # Large inputs stay out, trees of real machines among them: the fuzzer finds its way there.
        find "$merged" -type f -size +5 -exec rm {} +
        rm -rf "${unpacked:?}/$target"
        mv "$merged" "$unpacked/$target"
        echo "$target: $(find "$unpacked/$target" -type f | wc -l) inputs"
    done
    pack
    exit
fi

for target in $targets; do
    rm -f "target/fuzz/$target.verdict"
done
# shellcheck disable=SC2086 # the targets are a list
printf '%s\n' $targets | xargs -P "$(getconf _NPROCESSORS_ONLN)" -n 1 "$0" run_one "$programs" "$seconds"
passed=0
failed=0
for target in $targets; do
    case $(cat "target/fuzz/$target.verdict") in
    "$target: FAILED"*) failed=$((failed + 1)) ;;
    "$target: "*) passed=$((passed + 1)) ;;
    # A run that was broken off reports nothing.
    *) failed=$((failed + 1)) ;;
    esac
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]
