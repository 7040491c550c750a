//! The processor of a core, and its instructions.
//!
//! Source: Arm Architecture Reference Manual for A-profile, Arm DDI 0487, chapter D24 (the
//! `ID_AA64*` registers and `MIDR_EL1`). The part numbers are from the processors' own manuals.
//! Apple's are from the Linux kernel's `cputype.h`.

use alloc::vec::Vec;
use core::fmt;

/// The values of the registers that name a core's features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct IdRegisters {
    /// `ID_AA64ISAR0_EL1`: instructions.
    isar0: u64,
    /// `ID_AA64ISAR1_EL1`: more instructions.
    isar1: u64,
    /// `ID_AA64PFR0_EL1`: floating point, Advanced SIMD, SVE.
    pfr0: u64,
    /// `ID_AA64PFR1_EL1`: SME.
    pfr1: u64,
    /// `ID_AA64ZFR0_EL1`: the version of SVE; 0 without it.
    zfr0: u64,
}

/// The instructions that the processor is known to have.
///
/// A value is a proof: its holder may execute the instructions that the value names. Only this
/// module makes a value, from the processor's registers. So safe code cannot claim a missing
/// instruction.
///
/// ```
/// use kernel::cpu::Features;
/// let features = Features::of_this_core();
/// assert_eq!(features.i8mm(), features.names().any(|name| name == "i8mm"));
/// ```
///
/// The fields are private:
///
/// ```compile_fail,E0451
/// use kernel::cpu::Features;
/// let forged = Features { i8mm: true, ..Features::of_this_core() };
/// ```
///
/// ```compile_fail,E0616
/// use kernel::cpu::Features;
/// let mut forged = Features::of_this_core();
/// forged.i8mm = true;
/// ```
///
/// The registers are private as well, as their values could be made up:
///
/// ```compile_fail,E0624
/// use kernel::cpu::Features;
/// let forged = Features::decode(&Default::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Floating point and Advanced SIMD.
    neon: bool,
    /// Arithmetic on 16-bit floats, scalar and vector.
    fp16: bool,
    /// Multiplication of 16-bit floats to 32-bit ones (`FMLAL`).
    fhm: bool,
    /// Dot products of bytes (`SDOT`).
    dotprod: bool,
    /// Products of matrices of bytes (`SMMLA`).
    i8mm: bool,
    /// Arithmetic on bfloat16 (`BFDOT`).
    bf16: bool,
    /// AES.
    aes: bool,
    /// SHA-1.
    sha1: bool,
    /// SHA-256.
    sha2: bool,
    /// SHA-512.
    sha512: bool,
    /// CRC-32.
    crc32: bool,
    /// Single atomic instructions (LSE).
    atomics: bool,
    /// Scalable vectors.
    sve: bool,
    /// The second version of scalable vectors.
    sve2: bool,
    /// Scalable matrices.
    sme: bool,
}

impl Features {
    /// Decodes the registers.
    fn decode(id: &IdRegisters) -> Features {
        // All bits set means that there is no floating point, or no SIMD (D24.2.86).
        let simd = field(id.pfr0, 20).min(field(id.pfr0, 16));
        let neon = field(id.pfr0, 20) != 0xf && field(id.pfr0, 16) != 0xf;
        let sve = field(id.pfr0, 32) >= 1;
        Features {
            neon,
            fp16: neon && simd >= 1,
            fhm: field(id.isar0, 48) >= 1,
            dotprod: field(id.isar0, 44) >= 1,
            i8mm: field(id.isar1, 52) >= 1,
            bf16: field(id.isar1, 44) >= 1,
            aes: field(id.isar0, 4) >= 1,
            sha1: field(id.isar0, 8) >= 1,
            sha2: field(id.isar0, 12) >= 1,
            sha512: field(id.isar0, 12) >= 2,
            crc32: field(id.isar0, 16) >= 1,
            atomics: field(id.isar0, 20) >= 2,
            sve,
            sve2: sve && field(id.zfr0, 0) >= 1,
            sme: field(id.pfr1, 24) >= 1,
        }
    }

    /// The features of the calling core; none where programs cannot read the registers.
    ///
    /// All cores of the known machines have the same features.
    pub fn of_this_core() -> Features {
        Features::decode(&IdRegisters::read())
    }

    /// Dot products of bytes (`SDOT`).
    pub const fn dotprod(&self) -> bool {
        self.dotprod
    }

    /// Products of matrices of bytes (`SMMLA`).
    pub const fn i8mm(&self) -> bool {
        self.i8mm
    }

    /// SHA-256.
    pub const fn sha2(&self) -> bool {
        self.sha2
    }

    /// The names of the features that the core has, in the order of the fields.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            ("neon", self.neon),
            ("fp16", self.fp16),
            ("fhm", self.fhm),
            ("dotprod", self.dotprod),
            ("i8mm", self.i8mm),
            ("bf16", self.bf16),
            ("aes", self.aes),
            ("sha1", self.sha1),
            ("sha2", self.sha2),
            ("sha512", self.sha512),
            ("crc32", self.crc32),
            ("atomics", self.atomics),
            ("sve", self.sve),
            ("sve2", self.sve2),
            ("sme", self.sme),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
    }
}

/// The four bits of a register from `lowest` on.
fn field(register: u64, lowest: u32) -> u64 {
    register >> lowest & 0xf
}

/// `MIDR_EL1`: maker and model of a core.
///
/// Displayed as the model's name, or as the numbers of maker and part if the name is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Midr(pub u64);

impl Midr {
    /// The register of the calling core.
    #[cfg(target_os = "none")]
    pub fn of_this_core() -> Midr {
        let midr;
        // SAFETY: reads a register.
        unsafe {
            core::arch::asm!("mrs {}, midr_el1", out(reg) midr,
                options(nomem, nostack, preserves_flags));
        }
        Midr(midr)
    }

    /// The maker's number: 0x41 is Arm, 0x61 Apple.
    pub const fn implementer(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The maker's number of the model.
    pub const fn part(self) -> u16 {
        (self.0 >> 4 & 0xfff) as u16
    }

    /// The model's name.
    pub const fn name(self) -> Option<&'static str> {
        Some(match (self.implementer(), self.part()) {
            // QEMU's `-cpu max` has the maker 0.
            (0x00, 0x051) => "QEMU max",
            (0x41, 0xd03) => "Cortex-A53",
            (0x41, 0xd04) => "Cortex-A35",
            (0x41, 0xd05) => "Cortex-A55",
            (0x41, 0xd07) => "Cortex-A57",
            (0x41, 0xd08) => "Cortex-A72",
            (0x41, 0xd09) => "Cortex-A73",
            (0x41, 0xd0a) => "Cortex-A75",
            (0x41, 0xd0b) => "Cortex-A76",
            (0x41, 0xd0c) => "Neoverse-N1",
            (0x41, 0xd0d) => "Cortex-A77",
            (0x41, 0xd40) => "Neoverse-V1",
            (0x41, 0xd41) => "Cortex-A78",
            (0x41, 0xd44) => "Cortex-X1",
            (0x41, 0xd46) => "Cortex-A510",
            (0x41, 0xd47) => "Cortex-A710",
            (0x41, 0xd49) => "Neoverse-N2",
            (0x41, 0xd4f) => "Neoverse-V2",
            (0x61, 0x022) => "Apple M1 Icestorm",
            (0x61, 0x023) => "Apple M1 Firestorm",
            (0x61, 0x024) => "Apple M1 Pro Icestorm",
            (0x61, 0x025) => "Apple M1 Pro Firestorm",
            (0x61, 0x028) => "Apple M1 Max Icestorm",
            (0x61, 0x029) => "Apple M1 Max Firestorm",
            (0x61, 0x032) => "Apple M2 Blizzard",
            (0x61, 0x033) => "Apple M2 Avalanche",
            _ => return None,
        })
    }
}

impl fmt::Display for Midr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}/{:#05x}", self.implementer(), self.part()),
        }
    }
}

/// The kinds of a machine's cores with their counts, in the order of the first core of each.
///
/// Displayed as "4 × Cortex-A53 + 4 × Cortex-A72".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(Vec<(Midr, usize)>);

impl FromIterator<Midr> for Kinds {
    fn from_iter<T: IntoIterator<Item = Midr>>(cores: T) -> Kinds {
        let mut kinds: Vec<(Midr, usize)> = Vec::new();
        for core in cores {
            let model = |midr: Midr| (midr.implementer(), midr.part());
            match kinds.iter_mut().find(|(kind, _)| model(*kind) == model(core)) {
                Some((_, count)) => *count += 1,
                None => kinds.push((core, 1)),
            }
        }
        Kinds(kinds)
    }
}

impl Kinds {
    /// The kind, if all cores are of one kind.
    pub fn only(&self) -> Option<Midr> {
        match self.0[..] {
            [(kind, _)] => Some(kind),
            _ => None,
        }
    }

    /// The registers of the first core of each kind: "0x611f0221, 0x611f0231".
    pub fn registers(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.write(f, ", ", |f, &(kind, _)| write!(f, "{:#x}", kind.0)))
    }

    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        between: &str,
        write: impl Fn(&mut fmt::Formatter<'_>, &(Midr, usize)) -> fmt::Result,
    ) -> fmt::Result {
        for (i, kind) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { between })?;
            write(f, kind)?;
        }
        Ok(())
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, " + ", |f, (kind, count)| write!(f, "{count} × {kind}"))
    }
}

impl IdRegisters {
    /// The registers of a core without floating point and SIMD.
    #[cfg(not(all(target_arch = "aarch64", any(target_os = "none", target_os = "linux"))))]
    fn read() -> IdRegisters {
        IdRegisters { pfr0: 0xff_0000, ..IdRegisters::default() }
    }

    #[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "linux")))]
    fn read() -> IdRegisters {
        let mut id = IdRegisters::default();
        // SAFETY: reads registers; those of features that a core lacks read as 0. Linux emulates
        // that for programs.
        unsafe {
            core::arch::asm!(
                "mrs {isar0}, id_aa64isar0_el1",
                "mrs {isar1}, id_aa64isar1_el1",
                "mrs {pfr0}, id_aa64pfr0_el1",
                "mrs {pfr1}, id_aa64pfr1_el1",
                // ID_AA64ZFR0_EL1, which an assembler may know only together with SVE.
                "mrs {zfr0}, s3_0_c0_c4_4",
                isar0 = out(reg) id.isar0,
                isar1 = out(reg) id.isar1,
                pfr0 = out(reg) id.pfr0,
                pfr1 = out(reg) id.pfr1,
                zfr0 = out(reg) id.zfr0,
                options(nomem, nostack, preserves_flags)
            );
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(id: IdRegisters) -> Vec<&'static str> {
        Features::decode(&id).names().collect()
    }

    #[test]
    fn decodes_the_features_of_real_cores() {
        // Reset values from the processors' technical reference manuals.
        let a53 = IdRegisters { isar0: 0x1_1120, pfr0: 0x2222, ..IdRegisters::default() };
        assert_eq!(names(a53), ["neon", "aes", "sha1", "sha2", "crc32"]);
        // A Raspberry Pi 4's Cortex-A72 is built without the cryptographic extension.
        let pi4 = IdRegisters { isar0: 0x1_0000, pfr0: 0x2222, ..IdRegisters::default() };
        assert_eq!(names(pi4), ["neon", "crc32"]);
        let n1 = IdRegisters {
            isar0: 0x0000_1000_1021_1120,
            isar1: 0x0000_0000_0010_0001,
            pfr0: 0x1100_0000_1011_1112,
            ..IdRegisters::default()
        };
        assert_eq!(
            names(n1),
            ["neon", "fp16", "dotprod", "aes", "sha1", "sha2", "crc32", "atomics"]
        );
        // Read on an M1, by VirtualBox for its database of processors.
        let m1 = IdRegisters {
            isar0: 0x0221_1001_1021_2120,
            isar1: 0x0000_0111_1021_1202,
            pfr0: 0x1101_0000_1011_0111,
            ..IdRegisters::default()
        };
        assert_eq!(
            names(m1),
            ["neon", "fp16", "fhm", "dotprod", "aes", "sha1", "sha2", "sha512", "crc32", "atomics"]
        );
    }

    #[test]
    fn decodes_each_field() {
        let none = IdRegisters { pfr0: 0xff_0000, ..IdRegisters::default() };
        assert_eq!(names(none), [""; 0]);
        let one = |change: fn(&mut IdRegisters)| {
            let mut id = none;
            change(&mut id);
            names(id)
        };
        // Either without the other is neither.
        assert_eq!(one(|id| id.pfr0 = 0x0f_0000), [""; 0]);
        assert_eq!(one(|id| id.pfr0 = 0xf1_0000), [""; 0]);
        assert_eq!(one(|id| id.pfr0 = 0), ["neon"]);
        assert_eq!(one(|id| id.pfr0 = 0x01_0000), ["neon"]);
        assert_eq!(one(|id| id.pfr0 = 0x11_0000), ["neon", "fp16"]);
        assert_eq!(one(|id| id.isar0 = 1 << 48), ["fhm"]);
        assert_eq!(one(|id| id.isar0 = 1 << 44), ["dotprod"]);
        assert_eq!(one(|id| id.isar1 = 1 << 52), ["i8mm"]);
        assert_eq!(one(|id| id.isar1 = 1 << 44), ["bf16"]);
        assert_eq!(one(|id| id.isar0 = 2 << 4), ["aes"]);
        assert_eq!(one(|id| id.isar0 = 1 << 8), ["sha1"]);
        assert_eq!(one(|id| id.isar0 = 1 << 12), ["sha2"]);
        assert_eq!(one(|id| id.isar0 = 2 << 12), ["sha2", "sha512"]);
        assert_eq!(one(|id| id.isar0 = 1 << 16), ["crc32"]);
        assert_eq!(one(|id| id.isar0 = 1 << 20), [""; 0], "reserved");
        assert_eq!(one(|id| id.isar0 = 2 << 20), ["atomics"]);
        assert_eq!(one(|id| id.pfr0 |= 1 << 32), ["sve"]);
        assert_eq!(one(|id| id.zfr0 = 1), [""; 0], "the version of what is not there");
        assert_eq!(one(|id| (id.pfr0, id.zfr0) = (id.pfr0 | 1 << 32, 1)), ["sve", "sve2"]);
        assert_eq!(one(|id| id.pfr1 = 1 << 24), ["sme"]);
    }

    #[test]
    fn names_cores() {
        // As the manuals and QEMU give the register: revision and variant do not matter.
        for (midr, name) in [
            (0x410f_d034, "Cortex-A53"),
            (0x410f_d083, "Cortex-A72"),
            (0x411f_d070, "Cortex-A57"),
            (0x414f_d0b1, "Cortex-A76"),
            (0x414f_d0c1, "Neoverse-N1"),
            (0x411f_d402, "Neoverse-V1"),
            (0x611f_0221, "Apple M1 Icestorm"),
            (0x611f_0231, "Apple M1 Firestorm"),
            (0x000f_0510, "QEMU max"),
            (0x4e0f_0041, "0x4e/0x004"),
            (0x410f_d0e1, "0x41/0xd0e"),
            (0x610f_0d0c, "0x61/0x0d0"),
        ] {
            assert_eq!(Midr(midr).to_string(), name, "{midr:#x}");
        }
    }
    #[test]
    fn kinds_of_cores_are_counted() {
        let kinds = |midrs: &[u64]| midrs.iter().copied().map(Midr).collect::<Kinds>();
        let m1 = kinds(&[
            0x611f_0221,
            0x611f_0221,
            0x611f_0221,
            0x611f_0221,
            0x611f_0231,
            0x611f_0231,
            0x611f_0231,
            0x611f_0231,
        ]);
        assert_eq!(m1.to_string(), "4 × Apple M1 Icestorm + 4 × Apple M1 Firestorm");
        assert_eq!(
            (m1.only(), m1.registers().to_string()),
            (None, "0x611f0221, 0x611f0231".into())
        );
        // A revision makes no kind, and neither does the order.
        let pi = kinds(&[0x410f_d083, 0x411f_d083]);
        assert_eq!((pi.to_string(), pi.only()), ("2 × Cortex-A72".into(), Some(Midr(0x410f_d083))));
        let mixed = kinds(&[0x410f_d034, 0x410f_d083, 0x410f_d034]);
        assert_eq!(mixed.to_string(), "2 × Cortex-A53 + 1 × Cortex-A72");
        assert_eq!(kinds(&[]).only(), None);
    }
}
