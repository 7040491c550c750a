#!/bin/sh
# Builds the table of boots and runs it: `ci/boots.sh --help` says how, ci/boots/ has the boots.
set -eu
cd "$(dirname "$0")/.."

ci/toolchain.sh host build --quiet -p boots
exec target/debug/boots "$@"
