#!/bin/sh
# Runs the tests of the portable engine's `unsafe` code, its memory and what its threads share, in Miri,
# which finds undefined behaviour: memory that is used beyond its end or its life, aliased, raced for.
# Needs a nightly toolchain with Miri; where there is none, it says so and nothing runs.
set -eu
cd "$(dirname "$0")/.."

cargo +nightly miri --version >/dev/null 2>&1 || {
    echo 'miri: skipped, no nightly Rust with Miri here (rustup toolchain install nightly -c miri)'
    exit 0
}
mkdir -p target/ci
log=target/ci/miri.log
{ cargo +nightly miri test -p kernel --lib --target-dir target/miri -- llm::arena llm::workers 2>&1 ||
    echo "miri: status $?"; } | tee "$log"
awk '
    /^test result:/ { passed += $4; failed += $6 }
    /^miri: status/ { broken = 1 }
    END {
        if ((broken || passed == 0) && failed == 0) failed = 1
        printf "miri: %d passed, %d failed\n", passed, failed
        exit failed > 0
    }' "$log"
