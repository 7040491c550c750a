#!/bin/sh
# What must hold however often and for however long it is tried: boots do not differ, one seed gives one
# text on every machine, and a text goes on for ever in a context that is long full. Ends with how many of
# the checks passed. (A thousand inferences in one boot are among the self-tests that `ci/boot.sh` runs.)
#
#   ci/endurance.sh [BOOTS [TOKENS]]     so many boots, and a text of so many tokens: 10 and 1000
#
# The serial lines are kept in target/endurance/.
set -eu
cd "$(dirname "$0")/.."

boots=${1:-10}
long=${2:-1000}
only=
logs=target/endurance
rm -rf "$logs"
mkdir -p "$logs"
. ci/checks.sh
. ci/harness.sh

disk=$logs/tiny.img
"$builder" disk --out "$disk" --verify test_models/tiny.gguf
# A text that is drawn, and goes on behind the token that ends one.
end=2
sampled="--seed 7 --temperature 0.9 --set logit_bias=$end:-inf"

# is_the_text: the text must be of this many tokens, and the same each time.
text=
is_the_text() {
    must_hold '^{"event":"result".*"stop":"max_tokens"'
    [ -z "$problem" ] || return 0
    this=$(events | sed -n 's/^{"event":"result".*"tokens":\[\([0-9,]*\)\].*/\1/p')
    [ "$(echo "$this" | tr , '\n' | wc -l)" = 48 ] || problem="these are not 48 tokens: $this"
    [ "$this" = "${text:=$this}" ] || problem="$this instead of $text"
}

begin boots
for boot in $(seq "$boots"); do
    # shellcheck disable=SC2086 # the words are to be split
    start --disk "$disk" --smp 2 --cpu cortex-a72 --tokens 48 $sampled
    is_the_text
    must_exit 0
    [ -z "$problem" ] || {
        problem="boot $boot: $problem"
        break
    }
done
verdict "$boots tries"

for cpu in cortex-a72 neoverse-n1 max,sve=off,pauth-impdef=on; do
    for cores in 1 2 4 8; do
        # shellcheck disable=SC2086
        boot "seed-${cpu%%,*}-$cores" --disk "$disk" --smp "$cores" --cpu "$cpu" --tokens 48 $sampled
        is_the_text
        must_exit 0
        verdict
    done
done
if find_pi4 seed-pi4; then
    # shellcheck disable=SC2086
    boot seed-pi4 $pi4 --disk "$disk" --tokens 48 $sampled
    is_the_text
    must_exit 0
    verdict
fi

# The same engine with debug assertions, and where a sum that wraps is a panic.
ci/toolchain.sh bare build -p kernel --bin anchorite
release=$image
image=$logs/debug.img
"$builder" kernel --elf target/bare/aarch64-unknown-none/debug/anchorite --out "$image"
# shellcheck disable=SC2086
boot seed-debug --disk "$disk" --cpu cortex-a72 --tokens 48 $sampled
is_the_text
must_exit 0
verdict
image=$release

# Half of the context is forgotten each time that it is full.
timeout=3600
# shellcheck disable=SC2086
boot sliding-context --disk "$disk" --ctx 256 --context-shift --tokens "$long" \
    --expect-tokens "$long" $sampled
shifts=$(((long - 256) / 128))
must_hold "^{\"event\":\"result\".*\"stop\":\"max_tokens\",\"context_shifts\":\(${shifts}\|$((shifts + 1))\)[,}]"
must_exit 0
verdict "$long tokens"

rm -f "$disk" "$logs/debug.img"
total endurance
