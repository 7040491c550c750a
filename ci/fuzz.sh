#!/bin/sh
# Runs the fuzz targets, each for some seconds, from the inputs in fuzz/corpus.
#
#   ci/fuzz.sh                        all of them, 10 seconds each
#   ci/fuzz.sh SECONDS [TARGET...]    those targets for so long; what they find of new ways through
#                                     the code stays in target/fuzz/corpus
#   ci/fuzz.sh minimise [TARGET...]   takes over what was found to fuzz/corpus, without what goes no
#                                     way of its own
#
# LLVM's counters come with every compiler, so none that is special is needed: these are the flags
# that cargo-fuzz gives. It is built once more, into target/fuzz, for the host. An input that ends in
# a panic is left in fuzz/artifacts.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-10}
[ $# = 0 ] || shift
case $seconds in
minimise) ;;
'' | *[!0-9]* | 0)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

targets=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)
for target in "$@"; do
    echo "$targets" | grep -qx "$target" || {
        echo "there is no fuzz target $target; there are:" $targets >&2
        exit 2
    }
done
[ $# = 0 ] || targets=$*

host=$(ci/toolchain.sh host -vV | sed -n 's/^host: //p')
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares'
# With a target, the flags are not for what runs in the compiler.
RUSTFLAGS="--cfg fuzzing $(echo $coverage)" ci/toolchain.sh host build --locked --release \
    --manifest-path fuzz/Cargo.toml --target "$host" --target-dir target/fuzz --bins
programs=target/fuzz/$host/release

# The inputs that a target starts from. What is larger is with other tests: the device trees of real
# machines, a model of each architecture.
seeds_of() {
    echo "fuzz/corpus/$1"
    case $1 in
    device_tree) echo kernel/src/runtime/machine/testdata ;;
    gguf) echo test_models/architectures ;;
    esac
}

# The length of the longest input of a target: that of a whole model, or less.
longest_of() {
    case $1 in
    gguf) echo $((160 << 10)) ;;
    *) echo $((64 << 10)) ;;
    esac
}

if [ "$seconds" = minimise ]; then
    for target in $targets; do
        found=target/fuzz/corpus/$target
        kept=target/fuzz/minimised/$target
        mkdir -p "$found" "fuzz/corpus/$target"
        rm -rf "$kept"
        mkdir -p "$kept"
        # Not for how often an edge is taken, only for the edges: the corpus stays small.
        # shellcheck disable=SC2046 # seeds are a list
        "$programs/$target" -merge=1 -use_counters=0 "$kept" $(seeds_of "$target") "$found" \
            2>"target/fuzz/$target.log"
        # What is large, trees of real machines among it, stays out: the fuzzer finds its way there.
        find "$kept" -type f -size +5 -exec rm {} +
        rm -rf "fuzz/corpus/$target"
        cp -r "$kept" "fuzz/corpus/$target"
        echo "$target: $(ls "$kept" | wc -l) inputs"
    done
    exit
fi

passed=0
failed=0
for target in $targets; do
    mkdir -p "target/fuzz/corpus/$target" "fuzz/corpus/$target" "fuzz/artifacts/$target"
    log=target/fuzz/$target.log
    # shellcheck disable=SC2046 # seeds are a list
    if "$programs/$target" -max_total_time="$seconds" -max_len="$(longest_of "$target")" -timeout=20 \
        -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        "target/fuzz/corpus/$target" $(seeds_of "$target") >"$log" 2>&1; then
        passed=$((passed + 1))
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
        echo "$target: $runs runs in $seconds s, $edges edges of the code reached"
    else
        failed=$((failed + 1))
        echo "$target: FAILED, the input is in fuzz/artifacts/$target; see $log:"
        grep -A 2 -e 'panicked at' -e 'ERROR: libFuzzer' "$log" | cut -c -2000 || tail -20 "$log"
    fi
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]
