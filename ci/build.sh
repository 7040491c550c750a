#!/bin/sh
# Builds the commands for the host, the kernel, and its bootable image target/anchorite.img.
set -eu
cd "$(dirname "$0")/.."

ci/toolchain.sh host build
ci/toolchain.sh bare build --release -p kernel --bin anchorite
target/debug/image-builder kernel \
    --elf target/bare/aarch64-unknown-none/release/anchorite --out target/anchorite.img
