"""Stands in for m1n1's script of this name: says how it was called."""

import sys

print("chainload", *sys.argv[1:])
