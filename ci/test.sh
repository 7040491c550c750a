#!/bin/sh
# Every check and test there is: `make test` calls it once everything it needs is there.
set -eu
cd "$(dirname "$0")/.."

step() {
    echo "==> $1"
    "$1"
}
step ci/check.sh
step ci/host-tests.sh
step ci/build.sh
step ci/image.sh
step ci/runtime.sh
step ci/boot.sh
