#!/usr/bin/env python3
"""Plays a Mac on which m1n1 runs, to whoever speaks to its proxy: for ci/boots/src/boots/m1n1/load.rs.

    m1n1_mac.py FOLDER MIB    a Mac with so much memory, on a pseudo-terminal whose path it prints

FOLDER gets `memory`, the Mac's memory from 0x8_0000_0000 on, and `calls`, a line for each call that changes what
is booted. The way the bytes go is that of m1n1's src/uartproxy.c and of proxyclient/m1n1/proxy.py.
"""

import os
import pathlib
import pty
import signal
import struct
import sys
import tty

MIB = 1 << 20
DRAM = 0x8_0000_0000
# Where Apple's boot loader put things, and where m1n1's heap begins.
PHYS_BASE = DRAM + 16 * MIB
BOOT_ARGS = PHYS_BASE + 1 * MIB
ADT = PHYS_BASE + 2 * MIB
M1N1 = PHYS_BASE + 4 * MIB
HEAP = PHYS_BASE + 16 * MIB

# Requests, and the numbers of those calls that are answered.
NOP, PROXY, MEMREAD, MEMWRITE = (0x00AA55FF | number << 24 for number in range(4))
QUIET = {0x002: "call", 0x007: "set_exc_guard", 0x008: "get_exc_count"}
LOGGED = {
    0x302: "ic_ivau",
    0x309: "dc_cvau",
    0x500: "smp_start_secondaries",
    0x700: "kboot_boot",
    0x701: "kboot_set_chosen",
    0x702: "kboot_set_initrd",
    0x703: "kboot_prepare_dt",
    0x1300: "cpufreq_init",
}


def adt():
    """Apple's device tree of a Mac mini, as far as its root goes."""
    properties = [(b"compatible", b"J274AP\0AppleARM\0"), (b"target-type", b"J274\0")]
    tree = struct.pack("<II", len(properties), 0)
    for name, value in properties:
        tree += struct.pack("<32sI", name, len(value)) + value + bytes(-len(value) & 3)
    return tree


class Mac:
    """Its memory, and what it was asked."""

    def __init__(self, folder, mem_size):
        folder = pathlib.Path(folder)
        self.memory = os.open(folder / "memory", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.calls = (folder / "calls").open("w", buffering=1)
        self.mem_size = mem_size
        boot_args = struct.pack("<HH4xQQQQ", 2, 2, PHYS_BASE, PHYS_BASE, mem_size, HEAP)
        boot_args += struct.pack("<6QI4xQI", 0, 0, 0, 0, 0, 0, 0, ADT, len(adt()))
        self.write(BOOT_ARGS, boot_args + struct.pack("<608s4xQQ", b"", 0, mem_size))
        self.write(ADT, adt())

    def write(self, address, data):
        if not PHYS_BASE <= address <= PHYS_BASE + self.mem_size - len(data):
            sys.exit(f"a write outside the memory, to {address:#x}")
        # Zeros are there already, unless something lies there.
        if data.strip(b"\0") or self.read(address, len(data)).strip(b"\0"):
            os.pwrite(self.memory, data, address - DRAM)

    def read(self, address, size):
        return os.pread(self.memory, size, address - DRAM).ljust(size, b"\0")

    def call(self, name, *arguments):
        self.calls.write(" ".join([name, *(a if isinstance(a, str) else f"{a:#x}" for a in arguments)]) + "\n")
        if name != "kboot_prepare_dt":
            return 0
        # What is shorter than its header cannot be prepared.
        magic, size = struct.unpack(">II", self.read(arguments[0], 8))
        return int(magic != 0xD00DFEED or size < 40)

    def text(self, address):
        return self.read(address, 1024).split(b"\0")[0].decode()


class Port:
    """The Mac's end of the proxy."""

    def __init__(self, mac, fd):
        self.mac, self.fd = mac, fd

    def bytes(self, size):
        data = bytearray()
        while len(data) < size:
            data += os.read(self.fd, min(size - len(data), MIB))
        return bytes(data)

    def checksum(self, data):
        total = 0xDEADBEEF
        for byte in data:
            total = (total * 31337 + (byte ^ 0x5A)) & 0xFFFFFFFF
        return total ^ 0xADDEDBAD

    def reply(self, request, payload=b"", status=0):
        reply = struct.pack("<Ii24s", request, status, payload)
        os.write(self.fd, reply + struct.pack("<I", self.checksum(reply)))

    def answer(self):
        """Answers a request; false once the next stage is to start."""
        frame = self.bytes(64)
        (request,) = struct.unpack_from("<I", frame)
        if self.checksum(frame[:60]) != struct.unpack_from("<I", frame, 60)[0]:
            sys.exit(f"a request with a wrong sum: {frame.hex()}")
        if request == NOP:
            # Data go without sums, as over USB.
            self.reply(NOP, struct.pack("<Q", 1))
        elif request == MEMWRITE:
            address, size, _ = struct.unpack_from("<QQI", frame, 4)
            while size:
                data = self.bytes(min(size, MIB))
                self.mac.write(address, data)
                address += len(data)
                size -= len(data)
            if self.bytes(4) != struct.pack("<I", 0xB0CACC10):
                sys.exit("data without their end")
            self.reply(MEMWRITE)
        elif request == MEMREAD:
            address, size = struct.unpack_from("<QQ", frame, 4)
            self.reply(MEMREAD, struct.pack("<I", 0xD0DECADE))
            os.write(self.fd, self.mac.read(address, size) + struct.pack("<I", 0xB0CACC10))
        elif request == PROXY:
            code, *arguments = struct.unpack_from("<7Q", frame, 4)
            status, value = self.proxy(code, arguments)
            self.reply(PROXY, struct.pack("<QqQ", code, status, value))
            return LOGGED.get(code) != "kboot_boot"
        else:
            sys.exit(f"an unknown request {request:#x}")
        return True

    def proxy(self, code, arguments):
        values = {0x003: BOOT_ARGS, 0x004: M1N1, 0x600: HEAP, 0x905: 4}
        if code in values:
            return 0, values[code]
        if code == 0x107:
            return 0, self.mac.read(arguments[0], 1)[0]
        if code in QUIET:
            return 0, 0
        name = LOGGED.get(code)
        if name is None:
            return -1, 0
        if name == "kboot_set_chosen":
            arguments = [self.mac.text(arguments[0]), self.mac.text(arguments[1])]
        elif name in ("smp_start_secondaries", "cpufreq_init"):
            arguments = []
        elif name in ("kboot_boot", "kboot_prepare_dt"):
            arguments = arguments[:1]
        else:
            arguments = arguments[:2]
        return 0, self.mac.call(name, *arguments)


def main():
    folder, mib = sys.argv[1:]
    mac = Mac(folder, int(mib) * MIB)
    fd, other = pty.openpty()
    tty.setraw(other)
    print(os.ttyname(other), flush=True)
    port = Port(mac, fd)
    while port.answer():
        pass
    # The last answer would go with the port.
    signal.pause()


if __name__ == "__main__":
    main()
