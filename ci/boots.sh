#!/bin/sh
# Builds the table of boots and runs it: `ci/boots.sh --help` says how, ci/boots/ has the boots.
set -eu
cd "$(dirname "$0")/.."

# With the other commands, so that what they share is built once.
ci/toolchain.sh host build --quiet -p kernel -p image-builder -p anchorite-qemu -p bench -p boots
exec target/debug/boots "$@"
