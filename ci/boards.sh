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

tree=$boards/bcm2711-rpi-4-b.dtb
if [ ! -f "$tree" ]; then
    ci/debian.sh "$boards/linux" arm64 - 'linux-image-*-arm64' || exit 1
    cp "$boards"/linux/usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb "$tree"
    rm -r "$boards/linux"
fi

qemu=qemu-system-aarch64
if ! has_board "$qemu"; then
    qemu=$boards/qemu/usr/bin/qemu-system-aarch64
    if [ ! -x "$qemu" ]; then
        ci/debian.sh "$boards/qemu" "$(dpkg --print-architecture)" backports qemu-system-arm || exit 1
    fi
    has_board "$qemu" || {
        echo "boards: $qemu does not run: $("$qemu" --version 2>&1 | head -n 1)" >&2
        exit 1
    }
fi
echo "$qemu"
