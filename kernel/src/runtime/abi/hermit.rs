//! Notes of the ELF file for Hermit's tools: entry version and operating system.

hermit_entry::define_abi_tag!();
hermit_entry::define_entry_version!();
