# shellcheck shell=sh
# U-Boot's way: `ci/boot.sh` sources this file behind its functions. U-Boot loads the image and the model's
# file from a USB stick and starts them by `booti`, with the commands that docs/boards.md has typed on a Mac.

# Where Debian's u-boot-qemu and Fedora's uboot-images-armv8 put it.
uboot=
for file in /usr/lib/u-boot/qemu_arm64/u-boot.bin /usr/share/uboot/qemu_arm64/u-boot.bin; do
    [ ! -e "$file" ] || uboot=$file
done

# What is typed. U-Boot itself replaces what begins with `$`, and `load` sets the last one of these.
typed="usb start
load usb 0:1 \$kernel_addr_r anchorite.img
load usb 0:1 \$ramdisk_addr_r model.gguf
setenv initrd_high ffffffffffffffff
setenv bootargs max_tokens=$tokens
booti \$kernel_addr_r \$ramdisk_addr_r:\$filesize \$fdtcontroladdr"

# type_in: stops U-Boot's countdown with a key, and types. It takes what is typed when it has time for it.
type_in() {
    left=60
    while ! grep -q 'Hit any key' "$log" && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 1
    done
    printf '\n%s\n' "$typed"
}

# by_uboot NAME MACHINE LEVEL: U-Boot must boot the image on MACHINE, where it runs at this exception level.
by_uboot() {
    begin "$1" || return 0
    : >"$log"
    type_in | timeout 120 qemu-system-aarch64 -M "$2" -cpu cortex-a72 -smp 2 -m 1G -nic none \
        -display none -monitor none -serial stdio -bios "$uboot" -device usb-ehci -device usb-storage,drive=d \
        -drive "if=none,id=d,format=raw,read-only=on,file=$logs/stick.img" >"$log" 2>"$logs/$name.out" ||
        problem="QEMU ends with status $?"
    must_hold "^{\"event\":\"hello\".*\"image_sha256\":\"$image_sha256\".*\"cores\":2,\"exception_level\":$3,"
    must_hold '^{"event":"disk","device":"initrd".*"filesystem":"GGUF"'
    must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
    must_exit 0
    verdict
}

case uboot-el2 in *"$only"*)
    if [ -n "$uboot" ]; then
        dd if=/dev/null of="$logs/stick.img" bs=1M seek=68 status=none
        echo 'label: dos
start=4MiB, type=c' | /usr/sbin/sfdisk --quiet "$logs/stick.img"
        volume=$logs/stick.img@@4M
        mformat -F -i "$volume" ::
        mcopy -i "$volume" "$image" ::anchorite.img
        mcopy -i "$volume" test_models/tiny.gguf ::model.gguf
        by_uboot uboot virt 1
        by_uboot uboot-el2 virt,virtualization=on 2
    else
        echo 'skipped     uboot: no U-Boot for QEMU (u-boot-qemu)'
    fi
    ;;
esac
