"""Stands in for m1n1's module of this name: what ci/m1n1-load.py takes of it, and nothing else."""

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
