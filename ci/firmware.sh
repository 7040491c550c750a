#!/bin/sh
# Fetches the files that a board's firmware wants on its card, from Debian's packages, and prints the
# folder that holds them.
#
#   ci/firmware.sh rpi4       to target/firmware/rpi4: start4.elf, fixup4.dat, bcm2711-*.dtb
#
# Nothing is installed. The packages are raspi-firmware, of the component non-free-firmware, and Linux's
# for the device trees. The firmware is Raspberry Pi's and may be used on its boards alone: see
# LICENCE.broadcom.
set -eu
cd "$(dirname "$0")/.."

[ "${1:-}" = rpi4 ] || {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
folder=target/firmware/rpi4
if [ -e "$folder/.complete" ]; then
    echo "$folder"
    exit
fi
say() { echo "firmware: $*" >&2; }
by_hand() {
    say "$*"
    say 'get these files by hand, and name their folder with FIRMWARE=DIR:'
    say '    start4.elf fixup4.dat bcm2711-rpi-4-b.dtb overlays/disable-bt.dtbo'
    say 'They are in the folder boot/ of the GitHub repository raspberrypi/firmware.'
    exit 1
}

# What is fetched gets its name once it is whole, and two that fetch do not share a folder.
mkdir -p target/firmware
work=$(mktemp -d target/firmware/part.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
part=$work/rpi4
mkdir "$part"
ci/debian.sh "$work/debian" arm64 - raspi-firmware 'linux-image-*-arm64' ||
    by_hand 'the packages raspi-firmware and linux-image-arm64 cannot be had, see above'
# copy NAME...: files of the packages, wherever they lie.
copy() {
    for name; do
        find "$work/debian" -type f -path "*/$name" -exec cp {} "$part/" \;
    done
}
copy start4.elf fixup4.dat 'bcm2711-*.dtb' raspi-firmware/copyright
mv "$part/copyright" "$part/LICENCE.broadcom"
# Linux names it after the carrier board, the firmware looks for the module's own name.
[ ! -e "$part/bcm2711-rpi-cm4-io.dtb" ] ||
    mv "$part/bcm2711-rpi-cm4-io.dtb" "$part/bcm2711-rpi-cm4.dtb"
# One of an older version of this script, or broken off by it, is not complete.
[ -e "$folder/.complete" ] || rm -rf "$folder"
touch "$part/.complete"
# Another one may have been first.
mv -T "$part" "$folder" || [ -e "$folder/.complete" ]
echo "$folder"
