#!/bin/sh
# Builds and tests the kernel with each of its features switched off: `llm-transformer`, the engine, and
# `simd`, the kernels for vector units. Ends with how many checks and tests passed.
#
# Clippy looks at the kernel with each feature alone: at all targets on the host, at the library and the
# commands for the bare target. The library's tests run on the host with both features switched off, so
# that a single build tests what is left of the kernel, and the portable kernels of the engine.
set -eu
cd "$(dirname "$0")/.."
. ci/checks.sh

logs=target/ci/features
rm -rf "$logs"
mkdir -p "$logs"

# tests: the library's tests without features.
tests() {
    log=$logs/tests.log
    status=0
    # Less optimised than the host's tests: the build is what takes the time.
    ci/toolchain.sh host test -p kernel --lib --no-default-features \
        --config profile.dev.package.kernel.opt-level=1 >"$log" 2>&1 || status=$?
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
done
check 'tests without features' tests
# These come last: in `ci/test.sh` they may wait until the images are built.
for feature in llm-transformer simd; do
    check "clippy for the bare target with $feature alone" ci/toolchain.sh bare clippy --release -p kernel \
        --lib --bins --no-default-features --features "$feature" -- -D warnings
done

total features
