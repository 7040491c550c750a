#!/bin/sh
# Boots the probe, an application that tries out the runtime, and checks what it finds and what the
# reports of the faults say that it makes. Ends with how many of the checks passed.
#
#   ci/runtime.sh [WORD]     only the checks whose names hold WORD
#
# The serial lines are kept in target/probe/.
set -eu
cd "$(dirname "$0")/.."

only=${1:-}
logs=target/probe
image=target/probe.img
rm -rf "$logs"
mkdir -p "$logs"
. ci/checks.sh

ci/toolchain.sh bare build --release -p kernel --bin probe
target/debug/image-builder kernel --elf target/bare/aarch64-unknown-none/release/probe --out "$image"

# boot NAME BOOTARGS QEMU-ARGUMENT...: starts a check; false if it was not asked for.
boot() {
    begin "$1" || return 1
    words=$2
    shift 2
    timeout 60 "${qemu:-qemu-system-aarch64}" -nic none -display none -monitor none -serial "${serial:-stdio}" \
        -kernel "${kernel:-$image}" -append "$words" "$@" >"$log" 2>&1 </dev/null ||
        problem="QEMU ends with status $?"
}

# works NAME QEMU-ARGUMENT...: the trials that check must all hold.
works() {
    check=$1
    shift
    boot "$check" 'early-map memory threads futex sleep bounds protect' "$@" || return 0
    for trial in early-map memory threads futex sleep bounds protect; do
        must_say "^$trial: ok\$"
    done
    must_exit 0
    verdict
}

works one-core -M virt -cpu cortex-a72 -smp 1 -m 64M
works gic2 -M virt,gic-version=2 -cpu cortex-a72 -smp 4 -m 128M
works gic3 -M virt,gic-version=3 -cpu neoverse-n1 -smp 4 -m 1G
works max -M virt,gic-version=3 -cpu max,pauth-impdef=on -smp 2 -m 4G
works el2-gic2 -M virt,gic-version=2,virtualization=on -cpu cortex-a53 -smp 3 -m 128M
works el2-gic3 -M virt,gic-version=3,virtualization=on -cpu max,pauth-impdef=on -smp 3 -m 128M
works twelve-cores -M virt,gic-version=3 -cpu cortex-a72 -smp 12 -m 128M

# Cores of three kinds: the first thread runs on the fastest, and others on the boot core too.
machine='virt,gic-version=3'
tree=$logs/kinds
qemu-system-aarch64 -M "$machine,dumpdtb=$tree.dtb" -cpu cortex-a72 -smp 4 -m 128M -nic none \
    -display none >"$logs/dumpdtb.out" 2>&1
{
    dtc -q -I dtb -O dts "$tree.dtb"
    echo '/ { cpus {'
    for kind in 0:400 1:400 2:1024 3:760; do
        echo "cpu@${kind%:*} { capacity-dmips-mhz = <${kind#*:}>; };"
    done
    echo '}; };'
} >"$tree.dts"
dtc -q -I dts -O dtb -o "$tree.dtb" "$tree.dts"
if boot fast-core 'first-core=2 memory threads futex sleep' -M "$machine" -cpu cortex-a72 -smp 4 -m 128M \
    -dtb "$tree.dtb"; then
    for trial in first-core memory threads futex sleep; do
        must_say "^$trial: ok\$"
    done
    must_exit 0
    verdict
fi
if boot boot-core first-core=0 -M "$machine" -cpu cortex-a72 -smp 4 -m 128M; then
    must_say '^first-core: ok$'
    must_exit 0
    verdict
fi

# A boot loader that leaves image and device tree elsewhere: QEMU starts it as a kernel of its own,
# and it copies the tree and jumps to the image, which QEMU has put in its place.
word() {
    for shift in 0 8 16 24; do
        # shellcheck disable=SC2059 # the format is the byte
        printf "\\$(printf %03o $(($1 >> shift & 255)))"
    done
}
# header: the image header of such a kernel. Its code follows, at 0x40.
header() {
    word 0x14000010                                 # b       0x40
    word 0
    for quad in 0 0x1000 0xa 0 0 0; do              # text_offset, image_size, flags
        word $quad
        word 0
    done
    word 0x644d5241                                 # the magic number
    word 0
}
# moves NAME IMAGE-ADDRESS TREE-ADDRESS QEMU-ARGUMENT...
moves() {
    check=$1
    kernel=$logs/loader.img
    {
        header
        word 0x58000181                             # ldr     x1, 0x70
        word 0x580001a2                             # ldr     x2, 0x78
        word 0xaa0103e3                             # mov     x3, x1
        word 0xb9400404                             # ldr     w4, [x0, #4]
        word 0x5ac00884                             # rev     w4, w4
        word 0xf8408405                             # ldr     x5, [x0], #8
        word 0xf8008465                             # str     x5, [x3], #8
        word 0x71002084                             # subs    w4, w4, #8
        word 0x54ffffa8                             # b.hi    0x54
        word 0xaa0103e0                             # mov     x0, x1
        word 0xd61f0040                             # br      x2
        word 0
        word $(($3 & 0xffffffff))
        word $(($3 >> 32))
        word $(($2 & 0xffffffff))
        word $(($2 >> 32))
    } >"$kernel"
    image_at=$2
    shift 3
    works "$check" -device "loader,file=$image,addr=$image_at,force-raw=on" "$@"
    kernel=
}
# A fault before there is anything to tell it on, as where the device tree is said to be there is nothing: the
# core stops, and its registers hold what happened and where. An external abort, on reading the tree's size.
if begin early-fault; then
    kernel=$logs/loader.img
    {
        header
        word 0x58000080                             # ldr     x0, 0x50
        word 0x580000a1                             # ldr     x1, 0x58
        word 0xd61f0020                             # br      x1
        word 0
        word 0
        word 8
        word 0x4c000000
        word 0
    } >"$kernel"
    {
        sleep 3
        echo 'info registers'
        echo quit
    } | timeout 60 qemu-system-aarch64 -nic none -display none -monitor stdio -serial none \
        -kernel "$kernel" -device "loader,file=$image,addr=0x4c000000,force-raw=on" \
        -M virt -cpu cortex-a72 -m 256M >"$log" 2>&1 || problem="QEMU ends with status $?"
    must_say 'X00=0000000096000010 X01=000000004c0'
    must_say 'X02=0000000800000004'
    verdict
    kernel=
fi
moves end-of-a-gib 0x7fe00000 0xbff80000 -M virt -cpu cortex-a72 -smp 2 -m 3G
# The image takes 1.5 MiB; the tree starts behind it, in the same block of 2 MiB.
moves one-block 0xc0000000 0xc01c0000 -M virt,virtualization=on -cpu cortex-a72 -smp 2 -m 3G
moves above-4-gib 0x180000000 0x13ffff008 -M virt -cpu cortex-a72 -smp 2 -m 6G

# Registers that reset leaves UNKNOWN, which QEMU clears: a boot loader fills those of each core with
# rubbish of its own before the image has it. QEMU's Raspberry Pi 4 lets it have all cores, by the words at 0xd8
# and behind that the board's spin table has, too.
case rubbish in *"$only"*)
    if new_qemu=$(ci/boards.sh 2>"$logs/boards.out"); then
        kernel=$logs/rubbish.img
        {
            header
            word 0xaa0003f4                     # mov     x20, x0
            word 0xd2801c02                     # mov     x2, #0xe0
            word 0x100001c1                     # adr     x1, 0x80
            word 0xa9000441                     # stp     x1, x1, [x2]
            word 0xf9000841                     # str     x1, [x2, #16]
            word 0xd5033f9f                     # dsb     sy
            word 0xd503209f                     # sev
            word 0xa9401043                     # ldp     x3, x4, [x2]
            word 0xf9400845                     # ldr     x5, [x2, #16]
            word 0xaa040063                     # orr     x3, x3, x4
            word 0xaa050063                     # orr     x3, x3, x5
            word 0xb5ffff83                     # cbnz    x3, 0x5c
            word 0x94000010                     # bl      0xb0
            word 0xaa1403e0                     # mov     x0, x20
            word 0xd2a00804                     # mov     x4, #0x400000
            word 0xd61f0080                     # br      x4
            word 0x9400000c                     # bl      0xb0                the other cores
            word 0xd53800a5                     # mrs     x5, mpidr_el1
            word 0x924004a5                     # and     x5, x5, #3
            word 0xd2801b02                     # mov     x2, #0xd8
            word 0x8b050c42                     # add     x2, x2, x5, lsl #3
            word 0xf900005f                     # str     xzr, [x2]
            word 0xd5033f9f                     # dsb     sy
            word 0xd503209f                     # sev
            word 0xd503205f                     # wfe
            word 0xf9400044                     # ldr     x4, [x2]
            word 0xb4ffffc4                     # cbz     x4, 0xa0
            word 0xd61f0080                     # br      x4
            word 0xd53800a9                     # mrs     x9, mpidr_el1       the rubbish
            word 0xaa2903e9                     # mvn     x9, x9
            word 0x925df92a                     # bic     x10, x9, #(1 << 34)
            word 0xd51c110a                     # msr     hcr_el2, x10
            word 0xd53800aa                     # mrs     x10, mpidr_el1
            word 0xd3585d4a                     # lsl     x10, x10, #40
            word 0xd51ce06a                     # msr     cntvoff_el2, x10
            word 0xd51c2109                     # msr     vttbr_el2, x9
            word 0xd51c2149                     # msr     vtcr_el2, x9
            word 0xd51c0009                     # msr     vpidr_el2, x9
            word 0xd51c00a9                     # msr     vmpidr_el2, x9
            word 0xd51c1149                     # msr     cptr_el2, x9
            word 0xd51c1169                     # msr     hstr_el2, x9
            word 0xd51c1129                     # msr     mdcr_el2, x9
            word 0xd51ce109                     # msr     cnthctl_el2, x9
            word 0xd51cd049                     # msr     tpidr_el2, x9
            word 0xd5181009                     # msr     sctlr_el1, x9
            word 0xd5182009                     # msr     ttbr0_el1, x9
            word 0xd5182029                     # msr     ttbr1_el1, x9
            word 0xd5182049                     # msr     tcr_el1, x9
            word 0xd518a209                     # msr     mair_el1, x9
            word 0xd518105f                     # msr     cpacr_el1, xzr
            word 0xd518c009                     # msr     vbar_el1, x9
            word 0xd518d089                     # msr     tpidr_el1, x9
            word 0xd51bd049                     # msr     tpidr_el0, x9
            word 0xd51bd069                     # msr     tpidrro_el0, x9
            word 0xd518d029                     # msr     contextidr_el1, x9
            word 0xd5184109                     # msr     sp_el0, x9
            word 0xd51c4109                     # msr     sp_el1, x9
            word 0xd5184029                     # msr     elr_el1, x9
            word 0xd5184009                     # msr     spsr_el1, x9
            word 0xd518e109                     # msr     cntkctl_el1, x9
            word 0xd51be35f                     # msr     cntv_cval_el0, xzr
            word 0xd280002a                     # mov     x10, #1
            word 0xd51be32a                     # msr     cntv_ctl_el0, x10
            word 0xd51be22a                     # msr     cntp_ctl_el0, x10
            word 0xd5033fdf                     # isb
            word 0xd65f03c0                     # ret
        } >"$kernel"
        qemu=$new_qemu
        # The console is the second port.
        serial=null
        if boot rubbish 'threads futex sleep quiet' -M raspi4b -smp 4 -no-reboot -serial stdio \
            -dtb target/boards/bcm2711-rpi-4-b.dtb -device "loader,file=$image,addr=0x400000,force-raw=on"; then
            must_hold '"cores":4,"exception_level":2,'
            for trial in threads futex sleep quiet; do
                must_say "^$trial: ok\$"
            done
            must_exit 0
            verdict
        fi
        kernel=
        qemu=
        serial=
    else
        echo "skipped rubbish: no QEMU with a Raspberry Pi 4: $(tail -n 1 "$logs/boards.out")"
    fi
    ;;
esac

# The words of the boot arguments.
if boot words 'echo="a \"b\" \\ c"  echo= echo=d' -M virt -cpu cortex-a72 -m 64M; then
    must_say '^echo: \[a "b" \\ c\]$'
    must_say '^echo: \[\]$'
    must_say '^echo: \[d\]$'
    must_exit 0
    verdict
fi

# Lines that four cores print at once: 23 of each core, all whole.
if boot pieces pieces -M virt -cpu cortex-a72 -smp 4 -m 64M; then
    whole=$(lines | grep -c -E '^<(a{61}|b{61}|c{61}|d{61})>$' || true)
    [ -n "$problem" ] || [ "$whole" = 92 ] || problem="$whole of 92 lines are whole"
    must_exit 0
    verdict
fi

# breaks NAME BOOTARGS CODE PATTERN [QEMU-ARGUMENT...]: the run must end with this error, its message
# like PATTERN, and nothing else after it. Where the trial says at what address the fault is to come,
# that must be the one in the message.
breaks() {
    breaks_code=$3
    breaks_pattern=$4
    breaks_name=$1
    words=$2
    shift 4
    [ $# -gt 0 ] || set -- -M virt -cpu cortex-a72 -smp 3 -m 64M
    boot "$breaks_name" "$words" "$@" || return 0
    must_hold "^{\"event\":\"error\",\"code\":\"$breaks_code\",\"message\":\"$breaks_pattern"
    aim=$(lines | sed -n 's/^aim: //p' | head -n 1)
    [ -z "$aim" ] || must_hold "^{\"event\":\"error\".*, address $aim, at "
    [ -n "$problem" ] || [ "$(grep -c '"event":"error"' "$log")" = 1 ] || problem='two errors'
    must_exit 1
    verdict
}

breaks open-quote 'echo="a' InvalidConfig 'the boot arguments hold a double quote at byte 5'

# What the memory map forbids, and what the processor does: the class, the address and the function.
at='at probe::trials::'
breaks null null Exception "data abort: translation fault, level [0-3], reading, address 0x7, ${at}read+.*, core 0\""
breaks null-on-2 null-on=2 Exception "data abort: translation fault, level [0-3], reading, .*, ${at}read+.*, core 2\""
breaks call-null call-null Exception 'instruction abort: translation fault, level [0-3], address 0x0, at 0x0, core 0"'
breaks write-code write-code Exception "data abort: permission fault, level 3, writing, .*, ${at}write+.*, core 0\""
breaks write-constant write-constant Exception "data abort: permission fault, level 3, writing, .*, ${at}write+.*, core 0\""
breaks write-protected write-protected Exception \
    "data abort: permission fault, level 3, writing, .*, ${at}write_again+.*, core 1\""
# The model, by the application's own way of loading it: whole blocks of 2 MiB, and the pages at its end.
model='-M virt -cpu cortex-a72 -smp 3 -m 1G -initrd test_models/tiny.gguf'
# An initrd where QEMU puts it, and what is unpacked from one, where it says.
packed=$logs/packed.gz
gzip -1 <test_models/tiny.gguf >"$packed"
# shellcheck disable=SC2086 # the words are to be split
{
    breaks write-initrd write-at=0x48000000 Exception \
        "data abort: permission fault, level [23], writing, .*, ${at}write+.*, core 0\"" $model
    if boot write-unpacked-at 'echo=' -M virt -cpu cortex-a72 -m 64M -initrd "$packed"; then
        must_say 'the initrd unpacks to [0-9]* KiB at 0x'
        must_exit 0
        verdict
    fi
    unpacked=$(sed -n 's/.* KiB at \(0x[0-9a-f]*\), in .*/\1/p' "$logs/write-unpacked-at.log" 2>/dev/null || true)
    breaks write-unpacked "write-at=$unpacked" Exception \
        "data abort: permission fault, level [23], writing, .*, ${at}write+.*, core 0\"" \
        -M virt -cpu cortex-a72 -m 64M -initrd "$packed"
    breaks write-model write-model Exception \
        "data abort: permission fault, level 2, writing, .*, ${at}write+.*, core 0\"" $model
    breaks write-model-small write-model Exception \
        "data abort: permission fault, level 3, writing, .*, ${at}write+.*, core 0\"" \
        -M virt -cpu cortex-a72 -smp 3 -m 64M -initrd test_models/tiny.gguf
    breaks write-model-end write-model=last Exception \
        "data abort: permission fault, level 3, writing, .*, ${at}write+.*, core 0\"" $model
}
for what in stack heap constant; do
    breaks "run-$what" "run-$what" Exception 'instruction abort: permission fault, level [23], '
done
breaks undefined undefined Exception "undefined instruction ${at}undefined+0x[0-9a-f]*, core 0\""
for core in 1 2; do
    breaks "overflow-on-$core" "overflow-on=$core" Exception "stack overflow on core $core ${at}recurse+"
done
breaks overflow overflow Exception "stack overflow on core 0 ${at}recurse+"

# PAN, where the processor has it; without it the same access is no fault.
breaks user-page user-page Exception "data abort: permission fault, level [23], reading, .*, ${at}read+" \
    -M virt -cpu neoverse-n1 -smp 1 -m 64M
if boot user-page-without-pan user-page -M virt -cpu cortex-a72 -m 64M; then
    must_say '^user-page: ok$'
    must_exit 0
    verdict
fi

# A word of a device that does not lie on a multiple of its size; QEMU knows of that fault from 9.0 on.
case misaligned-device in *"$only"*)
    new_qemu=$(ci/boards.sh 2>"$logs/boards.out") || new_qemu=
    if [ -n "$new_qemu" ]; then
        qemu=$new_qemu
        breaks misaligned-device misaligned-device=0x9000000 Exception \
            "data abort: alignment fault, reading, .*, ${at}misaligned_device+"
        qemu=
    else
        echo "skipped misaligned-device: no QEMU of version 9 or later: $(tail -n 1 "$logs/boards.out")"
    fi
    ;;
esac

# The end, from any core and from all of them, with other cores printing, without any memory, and when
# what is to be shown breaks itself.
breaks panic panic Panic 'as asked (.*probe.rs:[0-9]*), core 0'
breaks panic-on-2 panic-on=2 Panic 'as asked, by 2 (.*core 2"'
breaks panic-all panic-all Panic 'as asked, by [012] (.*core [012]"'
breaks null-all null-all Exception "data abort: .*${at}read+.*, core [012]\""
breaks panic-in-noise panic-in-noise Panic 'in the middle of noise'
breaks stall-2 stall=2 Panic 'core 2 did not answer for 2 s in the middle of a job (.*, core 0"'
# A job that starts another one of its team, which would wait for itself: by the caller, by a member.
for member in 0 2; do
    breaks "job-in-job-$member" "job-in-job=$member" Panic \
        "a job of a thread pool must not start another job of that pool (.*, core $member\""
done
# A thread that stops while a model is loaded. Whoever waits for it says so: another core.
# shellcheck disable=SC2086 # the words are to be split
{
    breaks stall-load-0 stall-load=0 Panic 'thread 0 has read nothing of the model for 2 s (.*, core [12]"' $model
    breaks stall-load-1 stall-load=1 Panic 'thread 1 has hashed nothing of the model for 2 s (.*, core [02]"' $model
}
breaks abort abort Panic 'the application aborts'
breaks out-of-memory out-of-memory OutOfMemory '13631488 bytes were asked for, [0-9]* bytes are free'
breaks exhausted-panic 'exhaust panic' Panic 'as asked (.*probe.rs:[0-9]*), core 0'
breaks exhausted-panic-all 'exhaust panic-all' Panic 'as asked, by [012] (.*core [012]"'
breaks exhausted-undefined 'exhaust undefined' Exception "undefined instruction ${at}undefined+"
breaks exhausted-all 'exhaust out-of-memory-all' OutOfMemory '[0-9]* bytes were asked for, 0 bytes are free'
breaks brittle-panic panic-brittle=0 Exception "data abort: .*${at}read+"
breaks brittle-panic-shown panic-brittle=1 Panic 'shown as long as it held (.*, core 0"'
if boot panic-without-console panic-without-console=0x9000000 -M virt -cpu cortex-a72 -m 64M; then
    # Nothing can be said, but the machine does not hang.
    must_say '^from here on there is no console$'
    [ -n "$problem" ] || ! grep -q '"event":"error"' "$log" || problem='the console is still there'
    verdict
fi

# Backtraces lead from the fault to the start of the core.
for fault in panic null overflow-on-1; do
    [ -f "$logs/$fault.log" ] || continue
    begin "backtrace-of-$fault" || true
    log=$logs/$fault.log
    shown=$log
    must_say '^  \(probe::trials::\|runtime_entry\)'
    must_say '^  \(move_to_stacks\|secondary_core\)+0x'
    verdict
done

# A status of its own.
if boot status 'exit=7' -M virt -cpu cortex-a72 -m 64M; then
    must_exit 7
    verdict
fi

# A restart at the end: the machine runs again and again, where it would be turned off without that.
if begin reboot; then
    qemu-system-aarch64 -nic none -display none -monitor none -serial stdio -kernel "$image" \
        -append 'reboot exit=3' -M virt -cpu cortex-a72 -m 64M >"$log" 2>&1 </dev/null &
    pid=$!
    left=60
    while [ "$(events | grep -c '"event":"exit","status":3')" -lt 3 ] && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 1
    done
    kill "$pid" 2>/dev/null || problem='QEMU has ended'
    wait "$pid" || true
    [ "$left" -gt 0 ] || problem='it does not run three times'
    verdict
fi

# The model disk, over each way that leads to it: four cores read a file at once.
disk=$logs/disk.img
file=$logs/file
head -c 9000011 /dev/urandom >"$file"
head -c 20000000 /dev/zero >"$disk"
PATH=$PATH:/usr/sbin:/sbin mkfs.fat -n MODELS "$disk" >/dev/null
mmd -i "$disk" ::models
mcopy -i "$disk" "$file" ::models/file.gguf
digest=$(sha256sum "$file" 2>/dev/null || shasum -a 256 "$file")
digest=${digest%% *}
drive="if=none,id=d,format=raw,file=$disk"

# reads NAME DEVICE QEMU-ARGUMENT...: the file is read, from this device.
reads() {
    check=$1
    device=$2
    shift 2
    boot "$check" 'file=/models/file.gguf no-file=/models/other.gguf' -smp 4 -m 256M "$@" || return 0
    must_hold "^{\"event\":\"disk\",\"device\":\"$device\".*\"FAT1[26]\".*\"MODELS\""
    must_say "^$digest  /models/file.gguf\$"
    must_say '^file: ok$'
    must_say '^no-file: ok$'
    must_exit 0
    verdict
}

virt='-M virt -cpu cortex-a72'
# shellcheck disable=SC2086 # the words are to be split
{
    reads disk-mmio-legacy 'virtio-blk (mmio)' $virt -drive "$drive" -device virtio-blk-device,drive=d
    reads disk-mmio 'virtio-blk (mmio)' $virt -drive "$drive" -device virtio-blk-device,drive=d \
        -global virtio-mmio.force-legacy=false
    reads disk-pci 'virtio-blk (pci)' $virt -drive "$drive" -device virtio-blk-pci,drive=d
    reads disk-pci-low 'virtio-blk (pci)' -M virt,highmem=off -cpu cortex-a72 -drive "$drive" \
        -device virtio-blk-pci,drive=d
    reads disk-initrd initrd $virt -initrd "$disk"
    reads disk-preferred 'virtio-blk (mmio)' $virt -initrd "$disk" -drive "$drive" \
        -device virtio-blk-device,drive=d
    reads disk-large-blocks 'virtio-blk (mmio)' $virt -drive "$drive" \
        -device virtio-blk-device,drive=d,logical_block_size=4096,physical_block_size=4096
    reads disk-plain-queue 'virtio-blk (pci)' $virt -drive "$drive" \
        -device virtio-blk-pci,drive=d,indirect_desc=off,event_idx=off
}

# A disk that fails where the file lies; `blkdebug` tells the raw format's reads by their sector.
failing() {
    printf '%s' "driver=raw,node-name=d,file.driver=blkdebug,file.image.driver=file"
    printf '%s' ",file.image.filename=$disk,file.inject-error.0.event=read_aio"
    printf '%s' ",file.inject-error.0.errno=5,file.inject-error.0.sector=$1"
}
if boot disk-bad-sector file=/models/file.gguf -M virt -cpu cortex-a72 -m 64M \
    -blockdev "$(failing 10007)" -device virtio-blk-device,drive=d; then
    must_say '^error 5: virtio-blk (mmio): sector 10007 cannot be read$'
    must_say '^file: FAILED$'
    must_exit 1
    verdict
fi
if boot disk-passing-fault file=/models/file.gguf -M virt -cpu cortex-a72 -m 64M \
    -blockdev "$(failing 10007),file.inject-error.0.once=on" -device virtio-blk-device,drive=d; then
    must_say "^$digest  /models/file.gguf\$"
    must_exit 0
    verdict
fi
if boot disk-unreadable file=/models/file.gguf -M virt -cpu cortex-a72 -m 64M \
    -blockdev "$(failing 0)" -device virtio-blk-device,drive=d; then
    must_hold '"code":"DiskError","message":"virtio-blk (mmio): sector 0 cannot be read"'
    must_exit 1
    verdict
fi
if boot disk-none no-file=/anchorite.toml -M virt -cpu cortex-a72 -m 64M; then
    must_say '^no-file: ok$'
    must_exit 0
    verdict
fi
truncated=$logs/truncated.img
head -c 10000000 "$disk" >"$truncated"
if boot disk-truncated echo= -M virt -cpu cortex-a72 -m 64M -initrd "$truncated"; then
    must_hold '"code":"DiskError","message":"initrd: its FAT volume is damaged: it has '
    must_exit 1
    verdict
fi
# A tree that does not say whether DMA is coherent. A virtio device is, unless it leaves that to the tree.
unsaid=$logs/unsaid.dtb
qemu-system-aarch64 -M "virt,dumpdtb=$logs/virt.dtb" -cpu cortex-a72 -m 64M -nic none -display none \
    >"$logs/dumpdtb.out" 2>&1
LC_ALL=C sed 's/dma-coherent/dma-unspoken/' "$logs/virt.dtb" >"$unsaid"
if boot disk-coherence-unsaid no-file=/anchorite.toml -M virt -cpu cortex-a72 -m 64M -dtb "$unsaid" \
    -drive "$drive" -device virtio-blk-pci,drive=d,disable-legacy=on; then
    must_hold '^{"event":"disk","device":"virtio-blk (pci)"'
    must_say '^no-file: ok$'
    must_exit 0
    verdict
fi
# refuses NAME DEVICE: this one leaves it to the tree, and is not used.
refuses() {
    boot "$1" no-file=/anchorite.toml -M virt -cpu cortex-a72 -m 64M -dtb "$unsaid" \
        -global virtio-mmio.force-legacy=false -drive "$drive" \
        -device "$2,drive=d,iommu_platform=on" || return 0
    must_say 'virtio-blk (.*): its DMA may bypass the processor.s caches, .* does not say `dma-coherent`'
    must_say 'there is no disk'
    [ -n "$problem" ] || ! grep -q '"event":"disk"' "$log" || problem='the disk is used'
    must_exit 0
    verdict
}
refuses disk-not-coherent-pci virtio-blk-pci,disable-legacy=on
refuses disk-not-coherent-mmio virtio-blk-device
rm -f "$logs/virt.dtb" "$unsaid"
rm -f "$disk" "$truncated" "$file"

# A machine that waits for input leaves the host alone: less than a tenth of a core's time.
if [ -r /proc/self/stat ] && begin idle; then
    fifo=$logs/input
    mkfifo "$fifo"
    qemu-system-aarch64 -nic none -display none -monitor none -serial stdio -kernel "$image" \
        -append input -M virt -cpu cortex-a72 -smp 4 -m 64M <"$fifo" >"$log" 2>&1 &
    qemu=$!
    (sleep 60 && kill "$qemu") 2>/dev/null &
    guard=$!
    exec 3>"$fifo"
    sleep 5
    # Time in user and system mode, in hundredths of a second.
    used() { sed 's/.*) //' "/proc/$qemu/stat" | awk '{ print $12 + $13 }'; }
    before=$(used)
    sleep 4
    ticks=$(($(used) - before))
    printf 'ab q' >&3
    exec 3>&-
    wait "$qemu" || problem="QEMU ends with status $?"
    kill "$guard"
    [ -n "$problem" ] || [ "$ticks" -lt 40 ] || problem="$ticks hundredths of a second in 4 s"
    must_say '^input: ok$'
    must_exit 0
    verdict
    rm -f "$fifo"
fi

total runtime
