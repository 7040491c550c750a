//! What Hermit's tools read in the ELF file: the entry version and the operating system's tag.

hermit_entry::define_abi_tag!();
hermit_entry::define_entry_version!();
