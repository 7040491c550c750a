#!/bin/sh
# Builds the table of boots and runs it: `ci/boots.sh --help` says how, ci/boots/ has the boots.
set -eu
cd "$(dirname "$0")/.."

# With the other commands, so that what they share is built once.
ci/toolchain.sh host build --quiet -p kernel -p image-builder -p anchorite-qemu -p bench -p boots
# What is booted beside the image: the probe of the runtime, and the stub that plays m1n1.
ci/toolchain.sh bare build --quiet --release -p kernel --bin probe
ci/toolchain.sh bare build --quiet --release -p m1n1-stub
target/debug/image-builder kernel --elf target/bare/aarch64-unknown-none/release/probe \
    --out target/probe.img >/dev/null
exec target/debug/boots "$@"
