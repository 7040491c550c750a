#!/bin/sh
# The tests that run on the host. Ends with how many there were.
#
#   ci/host-tests.sh          builds and runs the tests
#   ci/host-tests.sh build    builds the tests, and the commands for the host, alone
set -eu
cd "$(dirname "$0")/.."

# fsck.fat is the administrator's, and not on everyone's path.
PATH=$PATH:/usr/sbin:/sbin
export PATH

# All targets, and all packages: the commands for the host are built with the same features as the
# tests, so that nothing is compiled twice.
build() {
    ci/toolchain.sh host build --workspace --all-targets
}

if [ "${1:-}" = build ]; then
    build
    exit
fi

mkdir -p target/ci
log=target/ci/host-tests.log
{
    build 2>&1 && ci/toolchain.sh host test --workspace --no-fail-fast 2>&1 || echo "cargo test: status $?"
} | tee "$log"
# A test that is ignored has its reason behind it.
sed -n 's/^test \(.*\) \.\.\. ignored,* *\(.*\)/skipped     \1: \2/p' "$log"
awk '
    /^test result:/ { passed += $4; failed += $6; ignored += $8 }
    /^cargo test: status/ { broken = 1 }
    END {
        if (broken && failed == 0) failed = 1
        if (passed == 0) { print "no test ran"; failed++ }
        printf "host tests: %d passed, %d failed, %d skipped\n", passed, failed, ignored
        exit failed > 0
    }' "$log"
