#!/bin/sh
# Makes what a board boots, and puts it where the board finds it.
#
#   ci/flash.sh pi4     an SD card for a Raspberry Pi 4: FIRMWARE, DEVICE, OUT
#   ci/flash.sh m1      a file for m1n1 on an Apple M1: M1N1, DTB, OUT, USB
#
# The settings come in the environment: `make help` lists them; docs/boards.md says what to do then.
set -eu
cd "$(dirname "$0")/.."
board=${1:-}
case $board in pi4 | m1) ;; *)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
. ci/settings.sh

# A tree of each machine; shells split a list at blanks.
trees() {
    # shellcheck disable=SC2086
    for tree in ${DTB:-}; do
        printf -- '--dtb=%s\n' "$tree"
    done
}
if [ "$board" = m1 ]; then
    if [ -z "${M1N1:-}" ] || [ -z "${DTB:-}" ]; then
        cat >&2 <<'END'
An Apple M1 boots Anchorite through m1n1, Asahi Linux's boot loader. Give two files:

    make flash-m1 M1N1=path/to/m1n1.bin DTB="path/to/t8103-j274.dtb path/to/t8103-j313.dtb"

m1n1.bin comes from the repository AsahiLinux/m1n1 (make), the device trees from Linux's sources
(make dtbs; arch/arm64/boot/dts/apple/). There are two ways to start what comes out:

1. First try, nothing is installed: m1n1 runs on the Mac already, and a USB cable leads to another
   computer. With USB=path/to/m1n1's-sources this command starts it there.
2. Installed: from the Mac's recovery system (1TR), for good.

docs/boards.md has both, step by step.
END
        exit 2
    fi
    [ -z "${USB:-}" ] || [ -f "$USB/proxyclient/tools/chainload.py" ] ||
        stop "USB=$USB: there is no proxyclient/tools/chainload.py; name a clone of AsahiLinux/m1n1."
fi

ci/setup.sh build
ci/build.sh
builder=target/debug/image-builder
mkdir -p target/boards
image=target/anchorite.img
set -- --verify
[ -z "${CONFIG:-}" ] || set -- "$@" "--config=$CONFIG"
[ -z "${PROMPT_FILE:-}" ] || set -- "$@" "--prompt-file=$PROMPT_FILE"
# Settings become boot arguments, in quotes, behind those of BOOTARGS.
for key in ${SET_KEYS:-}; do
    eval "[ -n \"\${SET_$key+given}\" ] && value=\$SET_$key" || continue
    # The point keeps newlines at the end.
    value=$(printf '%s.' "$value" | sed 's/[\\"]/\\&/g')
    # shellcheck disable=SC2089 # the kernel reads these quotes
    BOOTARGS="${BOOTARGS:-}${BOOTARGS:+ }$key=\"${value%.}\""
done

# shellcheck disable=SC2090 # as above
case $board in
pi4)
    firmware=${FIRMWARE:-}
    [ -n "$firmware" ] || firmware=$(ci/firmware.sh rpi4)
    out=${OUT:-target/boards/rpi4.img}
    [ -z "${DEVICE:-}" ] || set -- "$@" "--device=$DEVICE"
    # A card is the administrator's to write.
    as_root=
    if [ -n "${DEVICE:-}" ] && [ -e "$DEVICE" ] && [ ! -w "$DEVICE" ]; then
        command -v sudo >/dev/null || stop "$DEVICE can be written by the administrator only."
        as_root=sudo
    fi
    $as_root "$builder" sd --board=rpi4 "--firmware=$firmware" "--kernel=$image" \
        ${BOOTARGS:+"--bootargs=$BOOTARGS"} "--out=$out" "$@" -- "$model"
    if [ -n "${DEVICE:-}" ]; then
        echo "Take the card out, put it into the Pi, connect the serial adapter: docs/boards.md."
    else
        echo "Write $out to a card: make flash-pi4 DEVICE=/dev/sdX, or with Raspberry Pi Imager."
    fi
    ;;
m1)
    trees=$(trees)
    # m1n1's chainload.py holds the file twice in 1 GiB, packed and unpacked. Tests set a lower limit.
    if [ -n "${USB:-}" ] && [ $(($(wc -c <"$model") >> 20)) -ge "${CHAINLOAD_MIB:-480}" ]; then
        out=${OUT:-target/boards/m1.img}
        "$builder" disk "--out=$out" "$@" -- "$model"
        echo "The model is too large for m1n1's scripts. Sending $M1N1, then the model by ci/m1n1-load.py:"
        python3 "$USB/proxyclient/tools/chainload.py" --raw "$M1N1"
        # shellcheck disable=SC2086 # one word each
        exec env M1N1WAIT=1 python3 ci/m1n1-load.py "--m1n1=$USB" "--kernel=$image" $trees \
            ${BOOTARGS:+"--bootargs=$BOOTARGS"} "$out"
    fi
    out=${OUT:-target/boards/m1.bin}
    # shellcheck disable=SC2086 # one word each
    "$builder" m1n1 "--m1n1=$M1N1" $trees "--kernel=$image" ${BOOTARGS:+"--bootargs=$BOOTARGS"} \
        "--out=$out" "$@" -- "$model"
    if [ -n "${USB:-}" ]; then
        echo "Sending it over USB (M1N1DEVICE=${M1N1DEVICE:-/dev/m1n1}):"
        exec python3 "$USB/proxyclient/tools/chainload.py" --raw "$out"
    fi
    cat <<END
To start it over USB:
    python3 path/to/m1n1/proxyclient/tools/chainload.py --raw $out
To install it, in the Mac's recovery system, with the file on a USB stick or fetched there:
    kmutil configure-boot -c ${out##*/} --raw --entry-point 2048 --lowest-virtual-address 0 -v /Volumes/NAME
docs/boards.md has what comes before and after.
END
    ;;
esac
