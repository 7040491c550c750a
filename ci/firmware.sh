#!/bin/sh
# Fetches the files that a board's firmware wants on its card, from Debian's packages, and prints the
# folder that holds them.
#
#   ci/firmware.sh rpi4       to target/firmware/rpi4: start4.elf, fixup4.dat, bcm2711-*.dtb
#
# Nothing is installed. The packages come from the mirrors that this system uses, with the component
# non-free-firmware added: raspi-firmware, and the kernel of linux-image-arm64 for the device trees. The
# firmware is Raspberry Pi's and may be used on its boards alone: see LICENCE.broadcom.
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
for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || by_hand "this system has no $tool"
done

work=$PWD/target/firmware/apt
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"
# The system's own sources; the component with the firmware is added to those that have main.
: >"$work/apt.sources"
: >"$work/apt.list"
for sources in /etc/apt/sources.list.d/*.sources; do
    [ ! -e "$sources" ] || {
        sed '/^Components:.*main/s/$/ non-free-firmware/' "$sources"
        echo
    } >>"$work/apt.sources"
done
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ ! -e "$list" ] || sed '/^deb .* main/s/$/ non-free-firmware/' "$list" >>"$work/apt.list"
done
mkdir -p "$work/sources"
mv "$work/apt.sources" "$work/sources/system.sources"
mv "$work/apt.list" "$work/sources/system.list"
# For the board's architecture, without a look at what is installed here.
# shellcheck disable=SC2089 # the words have no blanks but those of the checkout's path
apt() {
    command=$1
    shift
    "$command" -qq -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/sources" \
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o Dir::State::status=/dev/null \
        -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root "$@"
}
say 'looking for raspi-firmware and linux-image-arm64'
apt apt-get update >&2 || by_hand 'apt-get update failed, see above'
kernel=$(apt apt-cache depends linux-image-arm64 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-.*\)/\1/p')
[ -n "$kernel" ] || by_hand 'this system knows no package linux-image-arm64: is it a Debian?'
say "fetching raspi-firmware and $kernel"
(cd "$work" && rm -f ./*.deb && apt apt-get download raspi-firmware "$kernel" >&2) ||
    by_hand 'apt-get download failed, see above'

# unpack PACKAGE PATTERN...: the files like these, without their folders.
unpack() {
    package=$1
    shift
    dpkg-deb --fsys-tarfile "$work/$package"_*.deb |
        tar -x -C "$folder" --wildcards --transform 's|.*/||' "$@"
}
unpack raspi-firmware '*/start4.elf' '*/fixup4.dat' '*/raspi-firmware/copyright'
mv "$folder/copyright" "$folder/LICENCE.broadcom"
unpack "$kernel" '*/bcm2711-*.dtb'
# Linux names it after the carrier board, the firmware looks for the module's own name.
[ ! -e "$folder/bcm2711-rpi-cm4-io.dtb" ] ||
    mv "$folder/bcm2711-rpi-cm4-io.dtb" "$folder/bcm2711-rpi-cm4.dtb"
rm -rf "$work"
touch "$folder/.complete"
echo "$folder"
