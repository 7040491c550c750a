#!/bin/sh
# Tries ci/m1n1-load.py on a Mac that ci/m1n1_mac.py plays.
#
#   ci/m1n1-load.sh          with modules that stand in for m1n1's
#   ci/m1n1-load.sh CLONE    with m1n1's own, over a pseudo-terminal
#
# CLONE is a clone of the GitHub repository AsahiLinux/m1n1; Python must have its pyserial and construct. What is
# sent and asked must be the same either way.
set -eu
cd "$(dirname "$0")/.."

clone=${1:-}
only=
logs=target/m1n1-load
rm -rf "$logs"
mkdir -p "$logs"
. ci/checks.sh

command -v python3 >/dev/null 2>&1 || {
    echo 'skipped     m1n1 loader: there is no python3'
    exit 0
}
image=target/anchorite.img
modules=${clone:-$logs/clone}

# Stands in for m1n1's modules: what the loader takes of them, and nothing else.
if [ -z "$clone" ]; then
    mkdir -p "$modules/proxyclient/m1n1"
    : >"$modules/proxyclient/m1n1/__init__.py"
    cat >"$modules/proxyclient/m1n1/proxy.py" <<'END'
import os
from m1n1_mac import MIB, Mac


class UartInterface:
    def __init__(self):
        self.dev = self
        self.mac = Mac(os.environ["M1N1DEVICE"], int(os.environ["MAC_MIB"]) * MIB)

    def writemem(self, address, data):
        self.mac.write(address, data)


class M1N1Proxy:
    def __init__(self, iface, debug):
        self.iface = iface

    def __getattr__(self, name):
        return lambda *arguments: self.iface.mac.call(name, *arguments)
END
    cat >"$modules/proxyclient/m1n1/proxyutils.py" <<'END'
from types import SimpleNamespace
from m1n1_mac import ADT, HEAP, MIB, PHYS_BASE, adt


def bootstrap_port(iface, proxy):
    pass


class ProxyUtils:
    def __init__(self, proxy, heap_size=1024 * MIB):
        self.mac = proxy.iface.mac
        self.ba = SimpleNamespace(phys_base=PHYS_BASE, mem_size=self.mac.mem_size)
        self.next = HEAP + 128 * MIB
        self.heap_top = self.next + heap_size

    def get_adt(self):
        return self.mac.read(ADT, len(adt()))

    def memalign(self, align, size):
        address = -(-self.next // align) * align
        self.next = address + size
        if self.next > self.heap_top:
            raise Exception("Out of memory")
        return address

    def malloc(self, size):
        return self.memalign(64, size)

    def msr(self, name, value):
        assert (name, value) == ("DAIF", 0xC0)
END
fi

# A tree of each of two Macs, one that is no tree but for its first bytes, and a model's disk that m1n1's own
# scripts cannot carry: nothing but a start and an end.
for mac in j274 j313; do
    echo "/dts-v1/; / { compatible = \"apple,$mac\", \"apple,t8103\", \"apple,arm-platform\"; };" |
        dtc -q -I dts -O dtb -o "$logs/$mac.dtb"
done
printf '\320\015\376\355\000\000\000\000apple,j274\000' >"$logs/damaged.dtb"
initrd=$logs/initrd.img
mib=1100
dd if=/dev/null of="$initrd" bs=1M seek="$mib" status=none
echo 'The start.' | dd of="$initrd" conv=notrunc status=none
echo 'The end.' | dd of="$initrd" bs=1 seek=$((mib * 1048576 - 9)) conv=notrunc status=none

# load MIB ARGUMENT...: starts the loader for the check that has begun, with a Mac of so much memory; false if
# it fails.
load() {
    folder=$logs/$name
    mkdir -p "$folder"
    mac_mib=$1
    shift
    if [ -n "$clone" ]; then
        python3 ci/m1n1_mac.py "$folder" "$mac_mib" >"$folder/port" 2>"$folder/device.out" &
        device=$!
        while [ ! -s "$folder/port" ]; do sleep 0.1; done
        port=$(cat "$folder/port")
    else
        port=$folder
    fi
    status=0
    PYTHONPATH=ci PYTHONDONTWRITEBYTECODE=1 MAC_MIB=$mac_mib M1N1DEVICE=$port python3 ci/m1n1-load.py \
        --m1n1 "$modules" --kernel "$image" "$@" "$initrd" >"$log" 2>&1 || status=$?
    # Of a run that has failed, the Mac still waits for more.
    [ -z "$clone" ] || kill "$device" 2>/dev/null || true
    return "$status"
}

# has FILE ADDRESS: the file must lie in the Mac's memory there.
has() {
    [ -z "$problem" ] || return 0
    # Its length is that of the part that is compared.
    tail -c +$(($2 - 0x800000000 + 1)) "$folder/memory" | head -c "$(wc -c <"$1")" | cmp -s - "$1" ||
        problem="$1 is not in memory at $2"
}

# called NAME: the arguments of the call.
called() { sed -n "s/^$1 //p" "$folder/calls"; }

if begin boots; then
    load 4096 --dtb "$logs/j313.dtb" --dtb "$logs/j274.dtb" --bootargs 'max_tokens=7 prompt="It was"' ||
        problem='the loader fails'
    calls=$(grep -v '^[di]c_\(cv\|iv\)au' "$folder/calls" | cut -d ' ' -f 1 | tr '\n' ' ')
    expected='kboot_set_chosen kboot_set_initrd cpufreq_init smp_start_secondaries kboot_prepare_dt kboot_boot '
    [ -n "$problem" ] || [ "$calls" = "$expected" ] || problem="it calls $calls"
    [ -n "$problem" ] || [ "$(called kboot_set_chosen)" = 'bootargs max_tokens=7 prompt="It was"' ] ||
        problem='the boot arguments do not arrive'
    initrd_at=$(called kboot_set_initrd | cut -d ' ' -f 1)
    kernel_at=$(called kboot_boot)
    [ -n "$problem" ] || [ "$(called kboot_set_initrd)" = "$initrd_at $(printf '0x%x' $((mib * 1048576)))" ] ||
        problem='the initrd has another size'
    [ -n "$problem" ] || [ $((kernel_at % 0x200000)) = 0 ] || problem="the image is at $kernel_at"
    has "$image" "$kernel_at"
    has "$initrd" "$initrd_at"
    has "$logs/j274.dtb" "$(called kboot_prepare_dt)"
    # What the image is read through must be in memory before it is.
    bytes=$(printf '0x%x' $(($(wc -c <"$image"))))
    for operation in dc_cvau ic_ivau; do
        [ -n "$problem" ] || grep -qx "$operation $kernel_at $bytes" "$folder/calls" ||
            problem="there is no $operation of the image"
    done
    [ -n "$problem" ] || [ "$(tail -n 1 "$folder/calls")" = "kboot_boot $kernel_at" ] ||
        problem='something is asked after the start'
    verdict "an initrd of $mib MiB at $initrd_at"
fi

# refuses NAME PATTERN MIB ARGUMENT...: the loader must fail with such a line, and start nothing.
refuses() {
    begin "$1" || return 0
    pattern=$2
    shift 2
    ! load "$@" || problem='the loader is content'
    must_say "$pattern"
    [ -n "$problem" ] || ! grep -q kboot_boot "$folder/calls" || problem='it starts all the same'
    verdict
}
refuses no-tree 'none of the device trees is for this Mac, apple,j274' 4096 --dtb "$logs/j313.dtb"
refuses no-room 'has 1100 MiB, and this Mac.s memory has room for [0-9]* MiB' 1300 --dtb "$logs/j274.dtb"
refuses bad-tree 'm1n1 cannot prepare the device tree' 4096 --dtb "$logs/damaged.dtb"

# What make does: a model that m1n1's own script carries goes by that, a larger one by the loader.
if [ -z "$clone" ]; then
    mkdir -p "$modules/proxyclient/tools"
    echo 'import sys; print("chainload", *sys.argv[1:])' >"$modules/proxyclient/tools/chainload.py"
    m1n1=$logs/m1n1.bin
    dd if=/dev/null of="$m1n1" bs=1k seek=32 status=none
    printf '##m1n1_ver##' | dd of="$m1n1" conv=notrunc status=none
    # flash MIB OUT: what `make flash-m1` runs, where m1n1's script carries less than MIB.
    flash() {
        folder=$logs/$name
        mkdir -p "$folder"
        CHAINLOAD_MIB=$1 PYTHONPATH=ci PYTHONDONTWRITEBYTECODE=1 MAC_MIB=4096 M1N1DEVICE=$folder \
            MODEL=tiny.gguf BOOTARGS='seed=7' M1N1=$m1n1 DTB="$logs/j313.dtb $logs/j274.dtb" \
            USB=$modules OUT=$2 ci/flash.sh m1 >"$log" 2>&1 </dev/null || problem="it ends with status $?"
    }
    if begin flash; then
        flash 6 "$logs/m1.bin"
        must_say "^chainload --raw $logs/m1.bin\$"
        [ -n "$problem" ] || [ ! -e "$folder/calls" ] || problem='the loader runs'
        verdict
    fi
    if begin flash-large; then
        flash 5 "$logs/m1.img"
        must_say "^chainload --raw $m1n1\$"
        [ -n "$problem" ] || [ "$(called kboot_set_chosen)" = 'bootargs seed=7' ] ||
            problem='the boot arguments do not arrive'
        has "$image" "$(called kboot_boot)"
        has "$logs/m1.img" "$(called kboot_set_initrd | cut -d ' ' -f 1)"
        [ -n "$problem" ] || mcopy -n -i "$logs/m1.img" ::models/tiny.gguf - |
            cmp -s - test_models/tiny.gguf || problem='there is another model on the disk'
        verdict
    fi
fi

rm -f "$logs"/*.img "$logs"/*.bin "$logs"/*/memory
total 'm1n1 loader'
