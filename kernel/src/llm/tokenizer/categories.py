"""Writes categories.rs: the general categories of the Unicode character database.

Of each category only the first letter is kept ("L" for letters of all kinds). The version is that
of the tables in llama.cpp, which cut text by the same categories; Python 3.13 has it.

    python3.13 categories.py >categories.rs && rustfmt categories.rs
"""

import unicodedata

VERSION = "15.1.0"
ORDER = ["Cn", "C", "L", "M", "N", "P", "S", "Z"]  # as in the enum `Category`
HEAD = f"""//! The general categories of Unicode {VERSION}; made by categories.py.

/// Where a run of characters of one category starts, shifted to the left by 3, and the number of
/// the category; in order.
pub const RUNS: &[u32] = &["""


def category(code: int) -> int:
    """The number of a character's category."""
    name = unicodedata.category(chr(code))
    return ORDER.index(name if name == "Cn" else name[0])


def main() -> None:
    """Writes the table."""
    if unicodedata.unidata_version != VERSION:
        raise SystemExit(f"this Python has Unicode {unicodedata.unidata_version}, not {VERSION}")
    print(HEAD)
    last = None
    for code in range(0x110000):
        now = category(code)
        if now != last:
            print(f"    {code << 3 | now:#x},")
        last = now
    print("];")


if __name__ == "__main__":
    main()
