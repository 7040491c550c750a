"""Stands in for m1n1's module of this name: what ci/m1n1-load.py takes of it, and nothing else."""

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
