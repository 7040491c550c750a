#!/bin/sh
# Decides, in this one place, which Rust builds what.
#
#   ci/toolchain.sh which host|bare     says which toolchain that is, or fails and says why none
#   ci/toolchain.sh host ARGUMENT...    runs that cargo for the host
#   ci/toolchain.sh bare ARGUMENT...    runs that cargo for the bare aarch64 target
#
# Two toolchains will do:
#
#   rustup   the cargo on the PATH, if it is new enough; for the bare target it must have the
#            libraries of that target, as `rustup target add` puts them there.
#   debian   Debian's rustc-web and cargo-web under /usr/bin. There is no package with libraries
#            for the bare target, so `core` and `alloc` are built from rust-web-src and linked by
#            LLVM's ld.lld. A compiler builds only the sources of its own version, hence not with
#            the compiler of rustup.
#
# The first that will do is taken. TOOLCHAIN=rustup or TOOLCHAIN=debian in the environment rules
# out the other.
set -eu
cd "$(dirname "$0")/.."

target=aarch64-unknown-none
minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# Whether the compiler $1 is as new as `minimum`.
new_enough() {
    version=$("$1" --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ "${version%.*}" -gt "${minimum%.*}" ] 2>/dev/null ||
        { [ "${version%.*}" = "${minimum%.*}" ] && [ "${version#*.}" -ge "${minimum#*.}" ]; }
}

# Whether the toolchain $1 will do for $2, `host` or `bare`.
will_do() {
    case $1 in
    rustup)
        command -v cargo >/dev/null && new_enough rustc || return 1
        [ "$2" = host ] || [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]
        ;;
    debian)
        [ -x /usr/bin/cargo ] && new_enough /usr/bin/rustc || return 1
        [ "$2" = host ] || {
            command -v ld.lld >/dev/null &&
                [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/core" ]
        }
        ;;
    esac
}

# Prints the toolchain for $1.
choose() {
    case ${TOOLCHAIN:-} in
    '') candidates='rustup debian' ;;
    rustup | debian) candidates=$TOOLCHAIN ;;
    *)
        echo "TOOLCHAIN=$TOOLCHAIN: expected rustup or debian" >&2
        return 2
        ;;
    esac
    for candidate in $candidates; do
        if will_do "$candidate" "$1"; then
            echo "$candidate"
            return
        fi
    done
    echo "no Rust of version $minimum or later for the $1 target; run: make setup" >&2
    return 1
}

# rustup's shells set this up, others may not.
[ ! -d "${HOME:-/}/.cargo/bin" ] || PATH=$PATH:${HOME:-/}/.cargo/bin
export PATH

# All scripts look for what is built in target/, for the host and for the bare target: what the
# user's configuration of cargo says of these is for other projects.
CARGO_TARGET_DIR=$PWD/target
export CARGO_TARGET_DIR
unset CARGO_BUILD_TARGET

case ${1:-} in
which)
    choose "$2"
    ;;
host | bare)
    built_for=$1
    shift
    toolchain=$(choose "$built_for")
    # Cargo calls the compiler by its bare name: the right one must be found first.
    [ "$toolchain" = rustup ] || PATH=/usr/bin:$PATH
    if [ "$built_for" = host ]; then
        exec cargo "$@"
    fi
    command=$1
    shift
    # Flags for the host, which would be taken in place of those that the bare target has.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    # A target directory of its own: cargo would otherwise lock it against builds for the host. Where
    # the crates' sources lie does not show in the image: it is the same, whoever builds it.
    sources=${CARGO_HOME:-${HOME:-/root}/.cargo}/registry/src
    set -- --target "$target" --target-dir target/bare \
        --config "target.$target.rustflags=['--remap-path-prefix=$sources=crates']" "$@"
    if [ "$toolchain" = debian ]; then
        export RUSTC_BOOTSTRAP=1 CARGO_TARGET_AARCH64_UNKNOWN_NONE_LINKER=ld.lld
        set -- -Z build-std=core,alloc "$@"
    fi
    exec cargo "$command" "$@"
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
