#!/usr/bin/env python3
"""Starts Anchorite on an Apple M1 over m1n1's USB proxy, with an initrd of any size that the Mac's memory holds.

m1n1's own scripts keep all that they send in a heap of 1 GiB. Its linux.py gives half of that to the kernel, and
its chainload.py puts the file there twice, packed and unpacked. Here the initrd lies behind the heap, and goes
there piece by piece.

The proxy's modules are those of the clone of AsahiLinux/m1n1 that --m1n1 names; M1N1DEVICE names the port.
m1n1's proxy changes without notice: what runs on the Mac must come from that clone, too.
"""

import argparse
import pathlib
import struct
import sys

MIB = 1 << 20
# The heap of the scripts' side: the kernel, a device tree and texts.
HEAP = 128 * MIB
# Bytes that are sent at a time.
PIECE = 8 * MIB
# m1n1 takes memory for devices from the end.
AT_THE_END = 64 * MIB
# The heads of an arm64 Image and of a device tree.
IMAGE_MAGIC = b"ARM\x64"
TREE_MAGIC = b"\xd0\x0d\xfe\xed"


def stop(message):
    sys.exit(f"m1n1-load: {message}")


def read(path, offset, magic, what):
    data = path.read_bytes()
    if data[offset : offset + len(magic)] != magic:
        stop(f"{path} is no {what}")
    return data


def target_type(adt):
    """`target-type` of the root of Apple's device tree, such as J274.

    A node is the count of its properties and that of its children. A property is a name of 32 bytes, a size
    whose highest bit is a flag, and a value that is padded to 4 bytes.
    """
    (count,) = struct.unpack_from("<I", adt)
    at = 8
    for _ in range(count):
        name, size = struct.unpack_from("<32sI", adt, at)
        at += 36
        size &= 0x7FFF_FFFF
        if name.rstrip(b"\0") == b"target-type":
            return adt[at : at + size].rstrip(b"\0").decode()
        at += (size + 3) & ~3
    stop("this Mac's device tree has no target-type")


def tree_for(trees, target):
    """The one of the trees that is compatible with the machine, by the name that m1n1 makes of its type."""
    name = f"apple,{target.lower()}"
    for path, tree in trees:
        if name.encode() + b"\0" in tree:
            return tree
    stop(f"none of the device trees is for this Mac, {name}: {', '.join(str(path) for path, _ in trees)}")


def send(iface, address, path, size):
    with path.open("rb") as file:
        sent = 0
        while sent < size:
            piece = file.read(PIECE)
            if not piece:
                stop(f"{path} has become shorter")
            iface.writemem(address + sent, piece)
            sent += len(piece)
            print(f"\rinitrd: {sent // MIB} of {size // MIB} MiB", end="", flush=True)
    print()


def main():
    parser = argparse.ArgumentParser(description="Starts Anchorite over m1n1's USB proxy")
    parser.add_argument("--m1n1", required=True, type=pathlib.Path, help="a clone of AsahiLinux/m1n1")
    parser.add_argument("--kernel", required=True, type=pathlib.Path, help="Anchorite's image")
    parser.add_argument("--dtb", required=True, type=pathlib.Path, action="append", help="trees of Macs")
    parser.add_argument("--bootargs", default="", help="boot arguments")
    parser.add_argument("initrd", type=pathlib.Path, help="a model's disk, or what else an initrd may be")
    options = parser.parse_args()

    kernel = read(options.kernel, 0x38, IMAGE_MAGIC, "image for arm64")
    (kernel_size,) = struct.unpack_from("<Q", kernel, 16)
    trees = [(path, read(path, 0, TREE_MAGIC, "device tree")) for path in options.dtb]
    initrd_size = options.initrd.stat().st_size

    modules = options.m1n1 / "proxyclient"
    if not (modules / "m1n1" / "proxyutils.py").exists():
        stop(f"{options.m1n1} is no clone of AsahiLinux/m1n1: it lacks proxyclient/m1n1")
    sys.path.insert(0, str(modules))
    try:
        from m1n1.proxy import M1N1Proxy, UartInterface
        from m1n1.proxyutils import ProxyUtils, bootstrap_port
    except ModuleNotFoundError as error:
        stop(f"{error}: python3 -m pip install pyserial construct")

    iface = UartInterface()
    p = M1N1Proxy(iface, debug=False)
    bootstrap_port(iface, p)
    u = ProxyUtils(p, heap_size=HEAP)
    tree = tree_for(trees, target_type(u.get_adt()))

    initrd_at = -(-u.heap_top // (2 * MIB)) * 2 * MIB
    end = u.ba.phys_base + u.ba.mem_size - AT_THE_END
    if initrd_at + initrd_size > end:
        stop(
            f"{options.initrd} has {initrd_size // MIB} MiB, and this Mac's memory has room for "
            f"{max(end - initrd_at, 0) // MIB} MiB"
        )
    # The kernel copies the model out of it.
    if initrd_at + 2 * initrd_size > end:
        print("warning: the initrd and the model beside it hardly fit into this Mac's memory")

    if options.bootargs:
        p.kboot_set_chosen("bootargs", options.bootargs)
    tree_at = u.malloc(len(tree))
    iface.writemem(tree_at, tree)
    kernel_at = u.memalign(2 * MIB, max(kernel_size, len(kernel)))
    p.kboot_set_initrd(initrd_at, initrd_size)

    # As m1n1's linux.py does it; but what takes its time to send comes last.
    p.cpufreq_init()
    p.smp_start_secondaries()
    if p.kboot_prepare_dt(tree_at):
        stop("m1n1 cannot prepare the device tree: see what it says on its screen")
    iface.dev.timeout = 40
    print(f"image: at {kernel_at:#x}, initrd: at {initrd_at:#x}")
    send(iface, initrd_at, options.initrd, initrd_size)
    iface.writemem(kernel_at, kernel)
    p.dc_cvau(kernel_at, len(kernel))
    p.ic_ivau(kernel_at, len(kernel))
    u.msr("DAIF", 0xC0)
    p.kboot_boot(kernel_at)
    print("m1n1 starts the image. Its text is on the Mac's screen and its serial port.")


if __name__ == "__main__":
    main()
