#!/bin/sh
# The checks that run nothing: what is said of `unsafe`, format, and clippy's warnings as errors for the
# host and the bare target.
set -eu
cd "$(dirname "$0")/.."

ci/unsafe.sh
ci/toolchain.sh host fmt --all --check
ci/toolchain.sh host fmt --manifest-path fuzz/Cargo.toml --check
ci/toolchain.sh host clippy --workspace --all-targets -- -D warnings
# The library's tests need a host; everything else must hold on the bare target too.
ci/toolchain.sh bare clippy -p kernel --lib --bins -- -D warnings
