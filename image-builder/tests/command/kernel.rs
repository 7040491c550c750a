//! `image-builder kernel`, on ELF files that are made here byte by byte.

use super::common::{Place, read, system_tool};

const TEXT: u64 = 0x1000;
const BSS_START: u64 = 0x3000;
const BSS_END: u64 = 0x5000;

/// The `image_size` in the header.
const IMAGE_SIZE: u64 = BSS_END;

/// Name, address, type (2: function, 0: label).
type Symbol = (&'static str, u64, u8);

/// An ELF file for aarch64: code at 0, data at 0x2003 that continues in memory.
///
/// Symbols behind the code belong to no section.
struct Elf {
    machine: u16,
    magic: [u8; 4],
    slot_mark: [u8; 8],
    image_size: u64,
    symbols: Vec<Symbol>,
}

impl Elf {
    fn new() -> Elf {
        let symbols = vec![
            ("_ZN6kernel5after17h0123456789abcdefE", 0x93, 2),
            ("$x", 0x40, 0),
            ("_start", 0x0, 0),
            ("__text_start", 0x0, 0),
            ("zebra", 0x40, 2),
            ("aardvark", 0x40, 2),
            ("label", 0x50, 0),
            ("__bss_start", BSS_START, 0),
            ("early_tables", BSS_END - 0x1000, 0),
        ];
        Elf {
            machine: 183,
            magic: *b"ARM\x64",
            slot_mark: *b"SHA-256=",
            image_size: IMAGE_SIZE,
            symbols,
        }
    }

    fn build(&self) -> Vec<u8> {
        let mut text = vec![0x11; TEXT as usize];
        text[0x10..0x18].copy_from_slice(&self.image_size.to_le_bytes());
        text[0x38..0x3c].copy_from_slice(&self.magic);
        text[0x40..0x48].copy_from_slice(&self.slot_mark);
        text[0x48..0x68].fill(0);
        let data = [0x22; 13];

        let mut names = vec![0];
        let mut symbols = vec![0; 24];
        for (name, address, kind) in &self.symbols {
            symbols.extend((names.len() as u32).to_le_bytes());
            symbols.extend([0x10 | kind, 0]);
            symbols.extend(if *address < TEXT { 1_u16 } else { 0xfff1 }.to_le_bytes());
            symbols.extend(address.to_le_bytes());
            symbols.extend(7_u64.to_le_bytes());
            names.extend(name.as_bytes());
            names.push(0);
        }
        let section_names = b"\0.text\0.symtab\0.strtab\0";

        // Headers, then the parts one after the other.
        let parts = [&text[..], &data, &symbols, &names, section_names];
        let mut place = 64 + 2 * 56;
        let at: Vec<u64> = parts
            .iter()
            .map(|part| {
                place += part.len() as u64;
                place - part.len() as u64
            })
            .collect();

        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        for half in [3, self.machine] {
            out.extend(half.to_le_bytes());
        }
        out.extend(1_u32.to_le_bytes());
        for word in [0, 64, place] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 2, 64, 4, 3] {
            out.extend(half.to_le_bytes());
        }
        // Segments: flags, offset, address, size in the file and in memory.
        for (flags, offset, address, bytes, memory) in
            [(5_u32, at[0], 0, TEXT, TEXT), (6, at[1], 0x2003, data.len() as u64, BSS_END - 0x2003)]
        {
            out.extend(1_u32.to_le_bytes());
            out.extend(flags.to_le_bytes());
            for word in [offset, address, address, bytes, memory, 1] {
                out.extend(word.to_le_bytes());
            }
        }
        for part in parts {
            out.extend(part);
        }
        // Sections: name, type, flags, address, offset, size, link, info, alignment, entry.
        type Section = (u32, u32, u64, u64, u64, u32, u32, u64);
        let sections: [Section; 4] = [
            (0, 0, 0, 0, 0, 0, 0, 0),
            (1, 1, 6, at[0], TEXT, 0, 0, 0),
            (7, 2, 0, at[2], symbols.len() as u64, 3, 1, 24),
            (15, 3, 0, at[3], (names.len() + section_names.len()) as u64, 0, 0, 0),
        ];
        for (name, kind, flags, offset, bytes, link, info, entry) in sections {
            // The names of the sections are in the same table, behind the names of the symbols.
            let name = if name == 0 { 0 } else { names.len() as u32 + name };
            for word in [name, kind] {
                out.extend(word.to_le_bytes());
            }
            for word in [flags, 0, offset, bytes] {
                out.extend(word.to_le_bytes());
            }
            for word in [link, info] {
                out.extend(word.to_le_bytes());
            }
            for word in [1, entry] {
                out.extend(word.to_le_bytes());
            }
        }
        out
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn segments_lie_where_they_lie_in_memory_and_symbols_are_in_the_place_of_bss() {
    let place = Place::new();
    place.write("k.elf", Elf::new().build());
    place.run(["kernel", "--elf", "k.elf", "--out", "k.img"]).succeeds();
    let image = read(&place.path("k.img"));
    assert_eq!(image[0x38..0x3c], *b"ARM\x64");
    assert!(image[0x68..TEXT as usize].iter().all(|&byte| byte == 0x11));
    assert!(image[TEXT as usize..0x2003].iter().all(|&byte| byte == 0));
    assert!(image[0x2003..0x2003 + 13].iter().all(|&byte| byte == 0x22));
    assert!(image[0x2003 + 13..BSS_START as usize].iter().all(|&byte| byte == 0));

    // The header's `image_size` covers the place that the table is moved to, in whole pages.
    let table = &image[BSS_START as usize..];
    assert_eq!(word(&image, 0x10), BSS_END as usize + table.len());
    assert_eq!(table.len(), 4096);

    let n = word(table, 0);
    let names = 4 + (n + 1) * 8;
    let symbols: Vec<_> = (0..n)
        .map(|i| {
            let entry = 4 + i * 8;
            let name = names + word(table, entry + 4)..names + word(table, entry + 12);
            (word(table, entry), std::str::from_utf8(&table[name]).unwrap())
        })
        .collect();
    assert_eq!(
        symbols,
        [(0, "_start"), (0x40, "aardvark"), (0x50, "label"), (0x93, "kernel::after")]
    );
    assert_eq!(word(table, 4 + n * 8), TEXT as usize, "the last entry is the end of the code");
}

#[test]
fn a_stripped_file_makes_an_image_without_symbols() {
    let place = Place::new();
    place.write("k.elf", Elf { symbols: Vec::new(), ..Elf::new() }.build());
    place.run(["kernel", "--elf", "k.elf", "--out", "k.img"]).succeeds();
    let image = read(&place.path("k.img"));
    assert_eq!(image.len(), 0x2003 + 13);
    assert_eq!(word(&image, 0x10), IMAGE_SIZE as usize);
}

#[test]
fn what_cannot_be_booted_is_refused() {
    let place = Place::new();
    let good = Elf::new().build();
    let with_symbols = |change: &dyn Fn(&mut Vec<Symbol>)| {
        let mut elf = Elf::new();
        change(&mut elf.symbols);
        elf.build()
    };
    let no_place = with_symbols(&|symbols| symbols.truncate(symbols.len() - 1));
    let no_room = with_symbols(&|symbols| symbols.last_mut().unwrap().1 = BSS_START + 0xfff);
    let overlap = with_symbols(&|symbols| symbols[7].1 = 0x2000);
    let cases: [(&[u8], &str); 9] = [
        (&no_place, "lacks the symbols `__bss_start` and `early_tables`"),
        (&no_room, "room for 4095 bytes"),
        (&overlap, "ends behind `__bss_start`"),
        (b"no ELF file at all", "not a 64-bit ELF file"),
        (&Elf { machine: 62, ..Elf::new() }.build(), "not for little-endian aarch64"),
        (&Elf { magic: *b"ARM?", ..Elf::new() }.build(), "does not start with an arm64 Image"),
        (&Elf { slot_mark: *b"SHA-512=", ..Elf::new() }.build(), "no slot for the SHA-256"),
        (&Elf { image_size: BSS_END - 1, ..Elf::new() }.build(), "needs 20480"),
        (&good[..good.len() / 2], "cannot be booted"),
    ];
    for (elf, says) in cases {
        place.write("k.elf", elf);
        place.run(["kernel", "--elf", "k.elf", "--out", "k.img"]).fails(1, says);
        assert_eq!(place.names(), ["k.elf"], "{says}");
    }
    place.run(["kernel", "--elf", "none.elf", "--out", "k.img"]).fails(1, "make build");
    place.run(["kernel", "--elf", "k.elf"]).fails(2, "--out");
}

/// The checksum of the whole file with zeros in the slot.
#[test]
fn the_image_holds_its_own_sum() {
    let place = Place::new();
    place.write("k.elf", Elf::new().build());
    let printed = place.run(["kernel", "--elf", "k.elf", "--out", "k.img"]).succeeds().stdout();
    let image = read(&place.path("k.img"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sum = hex(&image[0x48..0x68]);
    let mut zeroed = image.clone();
    zeroed[0x48..0x68].fill(0);
    place.write("zeroed.img", &zeroed);
    let path = place.path("zeroed.img");
    if let Some(output) = system_tool("sha256sum", &[path.as_ref()]) {
        assert!(output.stdout.starts_with(sum.as_bytes()), "{sum}");
    }
    assert!(printed.contains(&sum), "{printed}");

    let shown = place.run(["inspect", "k.img"]).succeeds().stdout();
    assert!(shown.contains(&format!("SHA-256 {sum} (it is right)")), "{shown}");
    let json = place.run(["inspect", "--json", "k.img"]).succeeds().stdout();
    assert!(json.contains(&format!("\"sha256\": \"{sum}\"")), "{json}");
    assert!(json.contains("\"verified\""), "{json}");

    // A change shows in the header, the code, the data, the symbols and the checksum.
    for at in [0x10, 0x3f, 0x48, 0x67, 0x68, 0x2003, BSS_START as usize, image.len() - 1] {
        let mut damaged = image.clone();
        damaged[at] ^= 1;
        place.write("damaged.img", damaged);
        let outcome = place.run(["inspect", "damaged.img"]).fails(1, "ChecksumMismatch");
        assert!(outcome.stdout().contains("WRONG"), "{at:#x}");
    }
    let shown = place.run(["inspect", "zeroed.img"]).succeeds().stdout();
    assert!(shown.contains("no SHA-256 in it"), "{shown}");
    place.write("zeroed.img", &zeroed[..0x40]);
    place.run(["inspect", "zeroed.img"]).succeeds();
}

/// An ELF file that gives a valid image.
pub fn good() -> Vec<u8> {
    Elf::new().build()
}
