#!/bin/sh
# Builds the boot tests of ci/boots and runs them. `ci/boots.sh --help` lists the options.
set -eu
cd "$(dirname "$0")/.."

# `ci/test.sh` has built the host commands with their tests.
[ "${COMMANDS_BUILT:-}" ] ||
    ci/toolchain.sh host build --quiet -p kernel -p image-builder -p anchorite-qemu -p bench -p boots
# The boots need two more images: the probe of the runtime, and the stub that plays m1n1.
ci/toolchain.sh bare build --quiet --release -p kernel --bin probe
ci/toolchain.sh bare build --quiet --release -p m1n1-stub
target/debug/image-builder kernel --elf target/bare/aarch64-unknown-none/release/probe \
    --out target/probe.img >/dev/null
exec target/debug/boots "$@"
