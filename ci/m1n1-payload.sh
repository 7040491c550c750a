#!/bin/sh
# Lets m1n1's own payload parser read what `image-builder m1n1` makes.
#
#   ci/m1n1-payload.sh CLONE
#
# CLONE is a clone of the GitHub repository AsahiLinux/m1n1:
#
#   git clone https://github.com/AsahiLinux/m1n1
#
# Its src/payload.c, src/tinf and src/libfdt are built for this computer, with what they call played by
# ci/m1n1-payload.c. Where CLONE/build/m1n1.bin is, that is what the payloads stand behind.
set -eu
cd "$(dirname "$0")/.."

clone=${1:-}
[ -f "$clone/src/payload.c" ] || {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
only=
logs=target/m1n1-payload
rm -rf "$logs"
mkdir -p "$logs/src" "$logs/build"
. ci/checks.sh
. ci/harness.sh

# The parser, beside headers for this computer in place of those for an M1.
cp "$clone/src/payload.c" "$logs/src/"
: >"$logs/build/build_cfg.h"
: >"$logs/build/build_tag.h"
cat >"$logs/src/utils.h" <<'END'
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "types.h"
#define mrs(reg)        0
#define msr(reg, value) ((void)(value))
extern int boot_cpu_idx;
extern char *payload;
#define _payload_start payload
END
cat >"$logs/src/smp.h" <<'END'
#define MAX_CPUS 24
void smp_start_secondaries(void);
bool smp_is_alive(int cpu);
#define smp_call0(cpu, f) ((void)(f))
#define smp_wait(cpu)     ((void)0)
END
echo 'int display_configure(const char *config);' >"$logs/src/display.h"
cc -std=gnu11 -O1 -g -w -o "$logs/parse" "-I$logs/src" "-I$clone/src" "$logs/src/payload.c" ci/m1n1-payload.c \
    "$clone"/src/tinf/*.c "$clone"/src/libfdt/*.c

m1n1=$clone/build/m1n1.bin
[ -f "$m1n1" ] || {
    m1n1=$logs/m1n1.bin
    dd if=/dev/null of="$m1n1" bs=1k seek=32 status=none
    printf '##m1n1_ver##' | dd of="$m1n1" conv=notrunc status=none
}
# Names of odd lengths, so that what follows them would not be aligned by itself.
for mac in j274 j313 j456; do
    echo "/dts-v1/; / { compatible = \"apple,$mac\", \"apple,t8103\"; model = \"A Mac, ${mac#j}\"; };" |
        dtc -q -I dts -O dtb -o "$logs/$mac.dtb"
done
made=$logs/m1.bin
bootargs='max_tokens=7 prompt="It was"'
"$builder" m1n1 --m1n1 "$m1n1" --dtb "$logs/j274.dtb" --dtb "$logs/j313.dtb" --dtb "$logs/j456.dtb" \
    --kernel "$image" --bootargs "$bootargs" --out "$made" --verify test_models/tiny.gguf >"$logs/made.out"
volume_at=$(sed -n 's/.* from byte \([0-9]*\) on.*/\1/p' "$logs/made.out")

# parse TARGET: the parser reads the file on a Mac of that type.
parse() {
    "$logs/parse" "$made" "$(wc -c <"$m1n1")" "$1" "$logs/kernel" "$logs/initrd" >"$log" 2>&1 </dev/null
}

for mac in J274 J313 J456; do
    begin "$mac" || continue
    parse "$mac" || problem="the parser ends with status $?"
    must_say "^tree: apple,$(echo "$mac" | tr J j)\$"
    # m1n1 takes blanks behind them along.
    must_say "^chosen: bootargs=$bootargs *\$"
    must_say '^boots$'
    [ -n "$problem" ] || cmp -s "$logs/kernel" "$image" || problem='the kernel is another one'
    bytes=$(($(wc -c <"$made") - volume_at - 4))
    [ -n "$problem" ] || [ "$(wc -c <"$logs/initrd")" = "$bytes" ] || problem='the initrd has another size'
    [ -n "$problem" ] || tail -c +$((volume_at + 1)) "$made" | head -c "$bytes" | cmp -s - "$logs/initrd" ||
        problem='the initrd is another one'
    [ -n "$problem" ] || mcopy -n -i "$logs/initrd" ::models/tiny.gguf - | cmp -s - test_models/tiny.gguf ||
        problem='there is another model in the initrd'
    verdict
done
if begin another-mac; then
    ! parse J293 || problem='the parser is content'
    must_say 'Kernel found but no devicetree for apple,j293'
    verdict
fi

rm -f "$logs"/*.bin "$logs/kernel" "$logs/initrd"
total 'm1n1 payloads'
