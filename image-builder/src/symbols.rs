//! The symbol table in the kernel's image, for the functions in fault reports.
//!
//! In the file, the table starts where the kernel's `.bss` starts in memory (the linker's
//! `__bss_start`), and is the end of the file. `boot.s` moves the table before it clears `.bss`.
//! In memory, the table starts at the end of the kernel's own memory (`__image_end`). The table
//! ends `image_size` bytes from the image's first byte; `image_size` is in the header. An image
//! without the table ends at `__image_end`. All numbers are little endian:
//!
//! | bytes | |
//! |---|---|
//! | 4 | `n`, the number of functions |
//! | (`n` + 1) × 8 | an entry for each function, sorted by address |
//! | the rest | the names, UTF-8, one behind the other |
//!
//! An entry has two numbers of 4 bytes. The first is the function's place in the image, the second
//! its name's place in the names. The last entry is the end of the code and of the names.
//!
//! Function `i` covers the addresses from entry `i` up to entry `i + 1`. The same holds for its
//! name.

use std::collections::BTreeMap;
use std::ops::Range;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// The place for the table in the file of the image whose first loaded byte is at `base`.
///
/// The place ends before the early page tables, which are in use when the table is moved. The
/// result is `None` if the file does not name the place.
pub fn place<E: object::Endian>(elf: &ElfFile64<'_, E>, base: u64) -> Option<Range<usize>> {
    let offset = |name| {
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name))?;
        usize::try_from(symbol.address().checked_sub(base)?).ok()
    };
    Some(offset("__bss_start")?..offset("early_tables")?)
}

/// The table of the functions in `elf`, whose first loaded byte is at `base`.
///
/// The result is `None` if the file has no function names, as after stripping.
pub fn table<E: object::Endian>(elf: &ElfFile64<'_, E>, base: u64) -> Option<Vec<u8>> {
    let code = elf.sections().filter(|s| s.kind() == SectionKind::Text);
    let code_end = code.map(|s| s.address() + s.size() - base).max()?;
    let mut functions = BTreeMap::new();
    for symbol in elf.symbols() {
        let in_code = symbol
            .section_index()
            .and_then(|index| elf.section_by_index(index).ok())
            .is_some_and(|section| section.kind() == SectionKind::Text);
        let (Ok(name), true) = (symbol.name(), in_code) else { continue };
        // Labels of assembly files count as functions. The marks of the assembler (`$x`, `.L1`) and
        // of the linker script (`__text_end`) do not.
        let is_function = symbol.kind() == SymbolKind::Text;
        let is_mark = name.starts_with(['$', '.']) || name.starts_with("__");
        if name.is_empty() || (is_mark && !is_function) {
            continue;
        }
        let name = format!("{:#}", rustc_demangle::demangle(name));
        let place = functions.entry(symbol.address() - base).or_insert((is_function, name.clone()));
        // The linker merges identical functions, which keep all their names. The choice of the name
        // must not depend on the order of the symbols.
        if (!is_function, &name) < (!place.0, &place.1) {
            *place = (is_function, name);
        }
    }
    if functions.is_empty() {
        return None;
    }
    let mut entries = Vec::new();
    let mut names = String::new();
    for (address, (_, name)) in &functions {
        entries.push((*address, names.len()));
        names.push_str(name);
    }
    entries.push((code_end, names.len()));

    let word = |n: usize| u32::try_from(n).expect("an image of under 4 GiB").to_le_bytes();
    let mut table = Vec::from(word(functions.len()));
    for (address, name) in entries {
        table.extend(word(address as usize));
        table.extend(word(name));
    }
    table.extend(names.as_bytes());
    Some(table)
}
