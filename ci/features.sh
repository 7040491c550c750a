#!/bin/sh
# Builds and tests the kernel with each of its features switched off: `llm-transformer`, the engine, and
# `simd`, the kernels for vector units. Ends with how many checks and tests passed.
#
# On the host, clippy looks at all targets, and the library's tests run; without `simd` those of the
# engine's kernels, as nothing else names the feature. For the bare target, clippy looks at the library
# and the commands.
set -eu
cd "$(dirname "$0")/.."

passed=0
failed=0
logs=target/ci/features
rm -rf "$logs"
mkdir -p "$logs"

# check NAME COMMAND...
check() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
    fi
}

# tests FEATURE WORD...: the library's tests with this feature alone, those with a word in their names. An
# unoptimised build is made sooner, and these tests are over in seconds.
tests() {
    feature=$1
    shift
    log=$logs/$feature.log
    status=0
    ci/toolchain.sh host test -p kernel --lib --no-default-features --features "$feature" \
        --config profile.dev.package.kernel.opt-level=0 -- "$@" >"$log" 2>&1 || status=$?
    line=$(grep '^test result: ' "$log" || tail -n 20 "$log")
    echo "$line"
    case $status$line in
    *' 0 passed'*) echo 'no test ran' ;;
    0*) return 0 ;;
    esac
    grep -A 5 -e ' FAILED$' -e '^error' -e 'panicked at' "$log" || :
    return 1
}

for feature in llm-transformer simd; do
    check "clippy for the host with $feature alone" ci/toolchain.sh host clippy -p kernel --all-targets \
        --no-default-features --features "$feature" -- -D warnings
    check "clippy for the bare target with $feature alone" ci/toolchain.sh bare clippy -p kernel --lib \
        --bins --no-default-features --features "$feature" -- -D warnings
done
check 'tests without simd' tests llm-transformer llm::kernels
check 'tests without llm-transformer' tests simd

echo "features: $passed passed, $failed failed"
[ "$failed" = 0 ]
