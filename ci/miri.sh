#!/bin/sh
# Runs in Miri the tests of `unsafe` code that needs no machine: the portable engine's memory and what
# its threads share, the application's team of threads, the runtime's lock, its futexes, and the memory
# that is lent to it. Miri finds undefined behaviour: memory that is used beyond its end or its life,
# aliased, raced for.
# Needs a nightly toolchain with Miri; where there is none, it says so and nothing runs.
#
# What is not here: Miri knows no instructions of a machine, so that kernels for vector units, and what
# reads or writes registers, are tested on the host and in QEMU alone.
set -eu
cd "$(dirname "$0")/.."

cargo +nightly miri --version >/dev/null 2>&1 || {
    echo 'skipped     miri: there is no nightly Rust with Miri (rustup toolchain install nightly -c miri)'
    echo 'miri: 0 passed, 0 failed, 1 skipped'
    exit 0
}
mkdir -p target/ci
log=target/ci/miri.log
# The tests with such words in their names.
run() {
    cargo +nightly miri test -p kernel --lib --target-dir target/miri -- "$@" 2>&1 ||
        echo "miri: status $?"
}
{
    run llm::arena llm::workers runtime::sched::sleep_lock runtime::sched::futex runtime::abi::lent
    # A team's threads never end, as a machine's cores do not; and the ABI hands a thread a number, which
    # is an address.
    MIRIFLAGS='-Zmiri-ignore-leaks -Zmiri-permissive-provenance' run app::thread_pool
} | tee "$log"
awk '
    /^test result:/ { passed += $4; failed += $6 }
    /^miri: status/ { broken = 1 }
    END {
        if ((broken || passed == 0) && failed == 0) failed = 1
        printf "miri: %d passed, %d failed\n", passed, failed
        exit failed > 0
    }' "$log"
