#!/bin/sh
# Starts the image under QEMU as m1n1 starts it on an Apple M1, and compares what it generates with
# what it generates on the plain `virt` machine, and what is on the screen with the serial line.
#
#   ci/m1n1.sh [WORD]     only the checks whose names hold WORD
#
# A stub (qemu/m1n1-stub) plays m1n1: EL2 with the host extensions on, the MMU off, the other cores in
# a spin table. The device tree is QEMU's with what an M1 has not taken out (PSCI, the GIC, the virtio
# devices, the PCI host) and a framebuffer added, which is memory that no display shows; the model is the
# initrd. Two of the cores are fast ones, whose clock's registers are memory too. Serial lines and screens are kept in target/m1n1/, the latter as text and as pictures.
set -eu
cd "$(dirname "$0")/.."

only=${1:-}
logs=target/m1n1
image=target/anchorite.img
probe=target/probe.img
stub=target/bare/aarch64-unknown-none/release/m1n1-stub
cores=4
tokens=16
rm -rf "$logs"
mkdir -p "$logs"
unset PROMPT SYSTEM ANCHORITE_QEMU
. ci/checks.sh

ci/toolchain.sh bare build --release -p m1n1-stub
ci/toolchain.sh bare build --release -p kernel --bin probe
ci/toolchain.sh host build -p kernel --example screen
target/debug/image-builder kernel --elf target/bare/aarch64-unknown-none/release/probe --out "$probe"
target/debug/image-builder disk --out "$logs/model.img" test_models/tiny.gguf

image_sha256=$(target/debug/image-builder inspect "$image" |
    sed -n 's/^ *SHA-256 \([0-9a-f]*\) (it is right)$/\1/p')

# Where things lie; stub.s has the first three.
image_at=0x40200000
tree_at=0x48000000
table_at=0x48100000
initrd_at=0x4a000000
# The end of the 512 MiB, behind what the tree lists as memory. Its rows have something at their ends.
screen_at=0x5f800000
screen_width=1280
screen_height=800
screen_stride=$((screen_width * 4 + 128))
screen_bytes=$((screen_stride * screen_height))
screen_format=x2r10g10b10
# Behind it, what plays the registers of the fast cores' clock: the command, at 7, and the status.
clock_at=0x5fff0000
clock_command=$((clock_at + 0x20))
clock_status=$((clock_at + 0x50))

# What is typed on the serial line once the model is loaded; boot arguments beside `max_tokens`.
typed=
mode=
# Other boot arguments than those.
words=

# tree NAME INITRD [CHANGE]: writes the device tree, QEMU's with m1n1's changes and another one.
machine='virt,virtualization=on,gic-version=2'
cpu='max,pauth-impdef=on'
qemu-system-aarch64 -M "$machine,dumpdtb=$logs/virt.dtb" -cpu "$cpu" -smp "$cores" -m 512M \
    -nic none -display none
dtc -q -I dtb -O dts -o "$logs/virt.dts" "$logs/virt.dtb"
tree() {
    bytes=$(($(wc -c <"$2")))
    {
        # What m1n1 reserves for itself has the spin table in it.
        sed "1a /memreserve/ $table_at 0x1000;" "$logs/virt.dts"
        echo '/ {'
        echo '    model = "m1n1 stub";'
        echo '    compatible = "apple,t8103", "apple,arm-platform";'
        echo '    points: opp-table {'
        echo '        compatible = "operating-points-v2";'
        echo '        opp12 { opp-level = <12>; };'
        echo '        opp13 { opp-level = <13>; turbo-mode; };'
        echo '    };'
        echo '    clock: performance-controller {'
        echo '        compatible = "apple,t8103-cluster-cpufreq", "apple,cluster-cpufreq";'
        echo "        reg = <0 $clock_at 0 0x1000>;"
        echo '    };'
        echo '    /delete-node/ psci;'
        echo '    /delete-node/ pcie@10000000;'
        sed -n 's|^\t\(virtio_mmio@[0-9a-f]*\) {$|    /delete-node/ \1;|p' "$logs/virt.dts"
        echo '    intc@8000000 { status = "disabled"; };'
        echo '    memory@40000000 {'
        printf '        reg = <0 0x40000000 0 0x%x>;\n' $((screen_at - 0x40000000))
        echo '    };'
        echo "    ${3:-}"
        echo '    chosen {'
        echo '        #address-cells = <2>;'
        echo '        #size-cells = <2>;'
        echo '        ranges;'
        echo "        bootargs = \"${words:-max_tokens=$tokens $mode}\";"
        printf '        linux,initrd-start = <0 0x%x>;\n' "$((initrd_at))"
        printf '        linux,initrd-end = <0 0x%x>;\n' "$((initrd_at + bytes))"
        echo '        framebuffer {'
        echo '            compatible = "apple,simple-framebuffer", "simple-framebuffer";'
        printf '            reg = <0 0x%x 0 0x%x>;\n' "$((screen_at))" "$screen_bytes"
        echo "            width = <$screen_width>;"
        echo "            height = <$screen_height>;"
        echo "            stride = <$screen_stride>;"
        echo "            format = \"$screen_format\";"
        echo '        };'
        echo '    };'
        echo '    cpus {'
        core=0
        while [ "$core" -lt "$cores" ]; do
            echo "        cpu@$core {"
            echo '            enable-method = "spin-table";'
            printf '            cpu-release-addr = <0 0x%x>;\n' $((table_at + 8 * core))
            if [ "$core" -lt 2 ]; then
                echo '            capacity-dmips-mhz = <714>;'
            else
                echo '            capacity-dmips-mhz = <1024>;'
                echo '            operating-points-v2 = <&points>;'
                echo '            performance-domains = <&clock>;'
            fi
            echo '        };'
            core=$((core + 1))
        done
        echo '    };'
        echo '};'
    } >"$logs/$1.dts"
    dtc -q -I dts -O dtb -o "$logs/$1.dtb" "$logs/$1.dts"
}

# Nothing turns an M1 off, so that neither does this machine: the last line asks a person to.
last_line='It is now safe to switch off.'
# What the screen says before it, besides $good_end.
bad_end='Anchorite has failed, see above.'

# What a display may show at the start.
head -c "$screen_bytes" /dev/zero | tr '\0' '\132' >"$logs/logo.img"

# save_screen: has QEMU's monitor save the screen's memory.
save_screen() {
    echo "pmemsave $screen_at $screen_bytes \"$logs/$name.raw\""
}

# read_screen: the text on the screen to NAME.screen, its picture to NAME.png. Fails before there is one.
read_screen() {
    target/debug/examples/screen "$screen_width" "$screen_height" "$screen_stride" \
        "$screen_format" "$logs/$name.raw" "$logs/$name.png" >"$logs/$name.screen" 2>/dev/null
}

# Whether the last line is there: on the serial line or, without one, on the screen.
has_ended() {
    if [ "$has_port" = true ]; then
        lines | grep -qx "$last_line"
    else
        read_screen && grep -qx "$last_line" "$logs/$name.screen"
    fi
}

# When the run has ended, or was given up, has QEMU's monitor save the screen, show the cores' registers
# and end.
commands() {
    left=120
    while ! has_ended && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        # Saving it takes QEMU a moment: it is looked at after that.
        [ "$has_port" = true ] || save_screen
        sleep 1
    done
    # A line is on the screen a little after it is on the serial line.
    sleep 1
    save_screen
    echo "xp /1gx $clock_command"
    echo 'info registers -a'
    echo quit
}

# Types as a person would who waits for the model.
type_in() {
    left=60
    while ! events | grep -q '"event":"model"' && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 1
    done
    printf '%s' "$typed"
}

# boot NAME INITRD [CHANGE]: starts a check and boots until the last line is there; false if it was not
# asked for.
has_port=true
boot() {
    begin "$1" || return 1
    : >"$log"
    tree "$1" "$2" "${3:-}"
    serial=file:$log
    if [ -n "$typed" ]; then
        # QEMU reads one of the pipes and writes to the other.
        serial=pipe:$logs/line
        mkfifo "$logs/line.in" "$logs/line.out"
        cat "$logs/line.out" >"$log" &
        type_in >"$logs/line.in" &
    fi
    commands | timeout 180 qemu-system-aarch64 -M "$machine" -cpu "$cpu" -smp "$cores" -m 512M \
        -nic none -display none -monitor stdio -serial "$serial" -kernel "$stub" \
        -device "loader,file=$image,addr=$image_at,force-raw=on" \
        -device "loader,file=$logs/$1.dtb,addr=$tree_at,force-raw=on" \
        -device "loader,file=$logs/logo.img,addr=$screen_at,force-raw=on" \
        -device "loader,file=$2,addr=$initrd_at,force-raw=on" \
        -device "loader,addr=$clock_command,data=0x7007,data-len=8" \
        -device "loader,addr=$clock_status,data=0xc0,data-len=8" >"$logs/$1.out" 2>&1 ||
        problem="QEMU ends with status $?"
    [ -z "$typed" ] || {
        wait
        rm "$logs/line.in" "$logs/line.out"
    }
    # What `hello` tells is the level at entry.
    at_el2=$(grep -c 'PSTATE=.* EL2' "$logs/$1.out" || true)
    [ -n "$problem" ] || [ "$at_el2" = "$cores" ] || problem="$at_el2 of $cores cores are at EL2"
    [ -n "$problem" ] || read_screen || problem='there is no picture of the screen'
    rm -f "$logs/$1.raw"
}

# must_show_end WORDS: the last lines on the screen must be these words and that it is safe to switch off.
must_show_end() {
    [ -z "$problem" ] || return 0
    shown=$logs/$name.screen
    [ "$(grep -v '^$' "$shown" | tail -n 2)" = "$(printf '%s\n%s' "$1" "$last_line")" ] ||
        problem="the screen does not end with '$1'"
}

# What the plain machine says.
target/debug/anchorite-qemu --kernel "$image" --disk "$logs/model.img" --tokens "$tokens" \
    --keep-log "$logs/plain.log" --timeout 120 >"$logs/plain.out" 2>&1 </dev/null
expected=$(events "$logs/plain.log" | sed -n 's/.*"event":"result".*"tokens":\[\([0-9,]*\)\].*/\1/p')
[ -n "$expected" ] || {
    echo "the plain machine gives no result: see $logs/plain.out" >&2
    exit 1
}

# must_answer: it must give the plain machine's tokens, of a model that was verified.
must_answer() {
    must_hold '^{"event":"model".*"checksum":"verified"'
    must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
    must_exit 0 "$last_line"
}

if boot model "$logs/model.img"; then
    must_hold "^{\"event\":\"hello\".*\"image_sha256\":\"$image_sha256\".*\"machine\":\"m1n1 stub\".*\"cores\":$cores,\"exception_level\":2,"
    must_hold "^{\"event\":\"hello\".*\"consoles\":\[\"pl011\",\"framebuffer 1280x800, text 128x40\"\]"
    must_hold '^{"event":"hello".*"board":\[.*"left-out=[0-9]* KiB, m1n1 to 0x48101000"'
    must_hold '^{"event":"hello".*"board":\[.*"pcpu=pstate 12, was 7"'
    # E2H and TGE are the stub's; API, APK and RW the image adds.
    must_hold '^{"event":"hello".*"board":\[.*"hcr=0x30488000000"'
    [ -n "$problem" ] || grep -q ': 0x000000000200c00c' "$logs/$name.out" ||
        problem="the clock's command is not that for the highest point: see $logs/$name.out"
    # The stages of the start, each overwritten by what comes next.
    [ -n "$problem" ] || {
        tr '\r' '|' <"$log" >"$logs/stages"
        grep -q '^1|2|' "$logs/stages" && grep -q '^3|Anchorite ' "$logs/stages"
    } || problem='not all stages of the start are shown'
    must_hold '^{"event":"disk","device":"initrd"'
    must_answer
    must_show '^Anchorite .* on m1n1 stub: 4 × '
    must_show_all
    must_show_end "$good_end"
    verdict
fi

# Without a serial port: the same on the screen, less what is measured, a bar that only a load of some
# length draws, and the empty lines below the text.
unmeasured() {
    sed -e '/^\[/d' -e '/\[#*\] 100 % of /d' -e 's/,[^,]* MB in .*//' -e '/^$/d' \
        "$logs/$1.screen" >"$logs/$1.unmeasured"
}
has_port=false
if boot screen-alone "$logs/model.img" '/delete-node/ pl011@9000000;'; then
    must_show 'prompt tokens at'
    must_show_end "$good_end"
    if [ -z "$problem" ] && [ -e "$logs/model.screen" ]; then
        unmeasured model
        unmeasured "$name"
        diff "$logs/model.unmeasured" "$logs/$name.unmeasured" >"$logs/$name.diff" || {
            problem='it is not what there is beside a serial port'
            shown=$logs/$name.diff
        }
    fi
    verdict
fi
has_port=true

# The disk in a cpio archive, the only form that older versions of m1n1 take.
# pad BYTES: zeros up to a multiple of four.
pad() { head -c "$((-$1 & 3))" /dev/zero; }
# member NAME FILE: an entry of an archive, with the mode of a regular file.
member() {
    size=$(($(wc -c <"$2")))
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\000' \
        1 33188 0 0 1 0 "$size" 0 0 0 0 "$((${#1} + 1))" 0 "$1"
    pad $((110 + ${#1} + 1))
    cat "$2"
    pad "$size"
}
trailer() { member 'TRAILER!!!' /dev/null; }
{
    member disk.img "$logs/model.img"
    trailer
} >"$logs/archive.img"
if boot cpio "$logs/archive.img"; then
    must_hold '^{"event":"disk","device":"initrd".*"filesystem":"FAT16"'
    must_answer
    verdict
fi

# A cpio archive of the model's file and what belongs to it. m1n1 unpacks a gzip payload itself; what is
# in an `m1n1_initramfs` payload, or given to its linux.py, comes as it is.
sha256sum test_models/tiny.gguf >"$logs/sum"
echo 'log = "info"' >"$logs/toml"
{
    member anchorite.toml "$logs/toml"
    member models/tiny.gguf test_models/tiny.gguf
    member models/tiny.gguf.sha256 "$logs/sum"
} >"$logs/half.img"
{
    cat "$logs/half.img"
    trailer
} >"$logs/archive.img"
gzip -1 <"$logs/archive.img" >"$logs/archive.gz.img"
if boot cpio-model "$logs/archive.img"; then
    must_hold '^{"event":"disk","device":"initrd".*"filesystem":"cpio"'
    must_answer
    verdict
fi
if boot gzip "$logs/archive.gz.img"; then
    must_say 'the initrd unpacks to [0-9]* KiB'
    must_hold '^{"event":"disk","device":"initrd".*"filesystem":"cpio"'
    must_answer
    verdict
fi
# Two archives one behind the other, as boot loaders hand over several files: the second one, which is
# packed, takes the place of a configuration that would be refused.
echo 'colour = "red"' >"$logs/bad"
{
    member anchorite.toml "$logs/bad"
    member models/tiny.gguf test_models/tiny.gguf
    member models/tiny.gguf.sha256 "$logs/sum"
    trailer
    head -c 512 /dev/zero
    {
        member anchorite.toml "$logs/toml"
        trailer
    } | gzip -1
} >"$logs/archives.img"
if boot archives "$logs/archives.img"; then
    must_hold '^{"event":"disk","device":"initrd".*"filesystem":"cpio"'
    must_answer
    verdict
fi
if boot model-alone test_models/tiny.gguf; then
    must_hold '^{"event":"disk","device":"initrd".*"filesystem":"GGUF"'
    must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
    must_exit 0 "$last_line"
    verdict
fi

# refuses NAME INITRD PATTERN: the run must end with a DiskError whose message is like PATTERN.
refuses() {
    boot "$1" "$2" || return 0
    must_hold "^{\"event\":\"error\",\"code\":\"DiskError\",\"message\":\"$3"
    must_exit 1 "$last_line"
    must_show '^DiskError: '
    must_show_end "$bad_end"
    verdict
}
refuses cpio-without-trailer "$logs/half.img" "the initrd's cpio archive is truncated"
tar -c -f "$logs/tar.img" test_models/README.md
refuses tar "$logs/tar.img" 'the initrd is a tar archive'
head -c 2000000 "$logs/archive.img" >"$logs/half.img"
refuses truncated-cpio "$logs/half.img" "the initrd's cpio archive is truncated"
head -c 2000000 "$logs/archive.gz.img" >"$logs/half.img"
refuses truncated-gzip "$logs/half.img" 'the initrd, compressed with gzip, is truncated'
# The last byte of the checksum, before the four of the size, is not the one that it was.
{
    head -c "$(($(wc -c <"$logs/archive.gz.img") - 5))" "$logs/archive.gz.img"
    tail -c 5 "$logs/archive.gz.img" | head -c 1 | tr '\000-\377' '\001-\377\000'
    tail -c 4 "$logs/archive.gz.img"
} >"$logs/half.img"
refuses corrupt-gzip "$logs/half.img" 'the initrd, compressed with gzip, is damaged: its checksum'

# A chat, with a serial port that no interrupt announces: what is typed gets the plain machine's answers.
questions=$(printf 'Once upon a time\nThe capital of France is\n/quit\n.')
questions=${questions%.}
answers() { events "$1" | grep '"event":"result"' | grep -o '"tokens":\[[0-9,]*\]'; }
typed=$questions
mode=mode=chat
if boot chat "$logs/model.img"; then
    printf '%s' "$typed" | target/debug/anchorite-qemu chat --kernel "$image" --disk "$logs/model.img" \
        --tokens "$tokens" --keep-log "$logs/plain-chat.log" --timeout 120 >"$logs/plain-chat.out" 2>&1 ||
        problem="the plain machine's chat ends with status $?"
    plain=$(answers "$logs/plain-chat.log")
    [ -n "$problem" ] || [ "$(echo "$plain" | wc -l)" = 2 ] || problem="not two answers but $plain"
    said=$(answers "$log")
    [ -n "$problem" ] || [ "$said" = "$plain" ] || problem="the answers are $said, not $plain"
    must_exit 0 "$last_line"
    verdict
fi
typed=
# And one that nothing can be typed in.
has_port=false
if boot chat-alone "$logs/model.img" '/delete-node/ pl011@9000000;'; then
    must_show '^ConsoleError: cannot read the console: no such device$'
    must_show_end "$bad_end"
    verdict
fi
has_port=true
mode=

# A disk that ends in the middle of the model.
head -c 2000000 "$logs/model.img" >"$logs/half.img"
refuses truncated "$logs/half.img" 'initrd: its FAT volume is damaged'

# A tree that lists no memory.
if boot no-memory "$logs/model.img" '/delete-node/ memory@40000000;'; then
    must_hold '^{"event":"error","code":"Unsupported","message":"the device tree lists no memory"'
    must_exit 1 "$last_line"
    must_show '^Unsupported: the device tree lists no memory$'
    must_show_end "$bad_end"
    verdict
fi

# A panic on one core while the others print, and one without a serial port.
image=$probe
words=panic-in-noise
if boot panic "$logs/model.img"; then
    must_hold '^{"event":"error","code":"Panic"'
    must_exit 1 "$last_line"
    must_show '^Panic: in the middle of noise'
    must_show_end "$bad_end"
    verdict
fi
has_port=false
words=panic-on=2
if boot panic-alone "$logs/model.img" '/delete-node/ pl011@9000000;'; then
    # Number 2 of those beside the first thread's, which is on core 2.
    must_show '^Panic: as asked, by 2 .*, core 1$'
    must_show_end "$bad_end"
    verdict
fi

rm -f "$logs"/*.img "$logs/stages"
total m1n1
