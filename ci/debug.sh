#!/bin/sh
# Boots the harness with the given arguments under gdb: `make debug` calls it.
#
# The guest waits at its first instruction. Its serial line goes to target/debug.log.
set -eu
cd "$(dirname "$0")/.."

port=1234
log=target/debug.log
# QEMU's `virt` loads an image that may lie anywhere 2 MiB above the start of its memory.
base=0x40200000

# In a session of its own: Ctrl-C in gdb is for gdb.
# shellcheck disable=SC2086 # ARGS is a list
setsid target/debug/anchorite-qemu run "$@" --gdb "$port" ${ARGS:-} >"$log" 2>&1 </dev/null &
harness=$!
trap 'kill "$harness" 2>/dev/null || true' EXIT
trap 'exit 1' HUP TERM
trap '' INT

echo "The guest's serial line goes to $log"
# shellcheck disable=SC2086 # GDB_ARGS is a list
gdb-multiarch -q \
    -ex 'set architecture aarch64' \
    -ex 'set confirm off' \
    -ex 'set tcp connect-timeout 10' \
    -ex "set substitute-path crates ${CARGO_HOME:-$HOME/.cargo}/registry/src" \
    -ex "add-symbol-file target/bare/aarch64-unknown-none/debugger/anchorite -o $base" \
    -ex "target remote localhost:$port" \
    ${GDB_ARGS:-}
