#!/bin/sh
# Gets what it takes to try the image as a Raspberry Pi 4: a QEMU that has that machine, and the
# board's device tree. Both come from Debian, and the system stays as it is.
#
#   ci/boards.sh
#
# Puts `bcm2711-rpi-4-b.dtb` and, where the system's own QEMU is too old, another one into
# target/boards/; prints the path of the QEMU to use. Ends with status 1 where they cannot be had.
set -eu
cd "$(dirname "$0")/.."

boards=target/boards
has_board() { "$1" -M help 2>/dev/null | grep -q '^raspi4b '; }

# What is fetched gets its name once it is whole, and two that fetch do not share a folder.
mkdir -p "$boards"
work=$(mktemp -d "$boards/part.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

tree=$boards/bcm2711-rpi-4-b.dtb
if [ ! -f "$tree" ]; then
    ci/debian.sh "$work/linux" arm64 - 'linux-image-*-arm64' || exit 1
    mv "$work"/linux/usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb "$tree"
fi

qemu='qemu-system-aarch64'
if ! has_board "$qemu"; then
    qemu=$boards/qemu/usr/bin/qemu-system-aarch64
    if [ ! -x "$qemu" ]; then
        ci/debian.sh "$work/qemu" "$(dpkg --print-architecture)" backports qemu-system-arm || exit 1
        # Another one may have been first.
        mv -T "$work/qemu" "$boards/qemu" || [ -x "$qemu" ] || exit 1
    fi
    has_board "$qemu" || {
        echo "boards: $qemu does not run: $("$qemu" --version 2>&1 | head -n 1)" >&2
        echo "boards: remove $boards/qemu to have it fetched again" >&2
        exit 1
    }
fi
echo "$qemu"
