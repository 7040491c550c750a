#!/bin/sh
# Builds the commands for the host, the kernel, and its bootable image target/anchorite.img.
#
#   ci/build.sh               the release build
#   ci/build.sh debugger      the same code, with all that gdb can be told about it
#   ci/build.sh commands      the commands for the host alone
#
# With COMMANDS_BUILT in the environment, the commands are there already.
set -eu
cd "$(dirname "$0")/.."
profile=${1:-release}

[ "${COMMANDS_BUILT:-}" ] || ci/toolchain.sh host build
[ "$profile" != commands ] || exit 0
ci/toolchain.sh bare build -p kernel --bin anchorite --profile "$profile" \
    --config 'profile.debugger.inherits="release"' --config 'profile.debugger.debug="full"'
target/debug/image-builder kernel \
    --elf "target/bare/aarch64-unknown-none/$profile/anchorite" --out target/anchorite.img
