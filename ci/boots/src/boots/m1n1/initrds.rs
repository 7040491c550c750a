//! What m1n1 may hand over as an initrd: a disk, a model, or cpio archives, packed or not.
//!
//! m1n1 itself unpacks a gzip payload. It hands over an `m1n1_initramfs` payload, or the file that its
//! linux.py is given, as it is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::report::Code;
use kernel::runtime::fs::cpio;
use sha2::{Digest, Sha256};

use super::Mac;
use crate::boot::Boot;
use crate::check::Check;
use crate::disk::{Disk, TINY, tiny};
use crate::event;
use crate::gzip;

/// Where what is cut off ends: within the model.
const HALF: u64 = 2_000_000;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let mac = |name: &str| Mac::new(format!("m1n1-{name}"));
    let of_cpio = |boot: Boot| {
        boot.event(event!(Disk { device == "initrd", filesystem == "cpio" })).answers_verified()
    };
    let mut checks = vec![
        // The disk in a cpio archive, the only form that older versions of m1n1 take.
        mac("cpio").initrd(disk_in_archive()).check(|boot| {
            boot.event(event!(Disk { device == "initrd", filesystem == "FAT16" }))
                .answers_verified()
        }),
        mac("cpio-model").initrd(archive()).check(of_cpio),
        mac("gzip")
            .initrd(packed())
            .check(move |boot| of_cpio(boot.line("the initrd unpacks to [0-9]* KiB"))),
        mac("archives").initrd(archives()).check(of_cpio),
        mac("model-alone")
            .initrd(Disk::new("m1n1-model-alone", |_, out| Ok(fs::copy(TINY, out).map(drop)?)))
            .check(|boot| {
                boot.event(event!(Disk { device == "initrd", filesystem == "GGUF" }))
                    .answers_and_stays_on()
            }),
    ];
    // Cores that wait for work only nap here, so that those of one boot take all of the host's.
    checks = checks.into_iter().map(Check::alone).collect();
    checks.extend(refused());
    checks
}

/// What is no initrd, or not all of one.
fn refused() -> Vec<Check> {
    const TRUNCATED: &str = "^the initrd's cpio archive is truncated";
    let half = |whole: Disk, name: &str| {
        whole.damaged(name, |volume| {
            volume.cut(HALF);
            Ok(())
        })
    };
    let cases = [
        (
            "cpio-without-trailer",
            archive().damaged("m1n1-cpio-without-trailer", |volume| {
                volume.cut((volume.bytes().len() - cpio::trailer().len()) as u64);
                Ok(())
            }),
            TRUNCATED,
        ),
        ("tar", Disk::new("m1n1-tar", |_, out| tar(out)), "^the initrd is a tar archive"),
        ("truncated-cpio", half(archive(), "m1n1-truncated-cpio"), TRUNCATED),
        (
            "truncated-gzip",
            half(packed(), "m1n1-truncated-gzip"),
            "^the initrd, compressed with gzip, is truncated",
        ),
        (
            "corrupt-gzip",
            // The last byte of the checksum, which stands before the four of the size.
            packed().damaged("m1n1-corrupt-gzip", |volume| {
                volume.flip(volume.bytes().len() as u64 - 5, 0)
            }),
            "^the initrd, compressed with gzip, is damaged: its checksum",
        ),
        // A disk that ends in the middle of the model.
        ("truncated", half(tiny(), "m1n1-truncated"), "^initrd: its FAT volume is damaged"),
    ];
    let checks = cases.into_iter().map(|(name, initrd, message)| {
        Mac::new(format!("m1n1-{name}")).initrd(initrd).check(move |boot| {
            boot.event(event!(Error { code == Code::DiskError, message ~ message }))
                .ends_badly("^DiskError: ")
        })
    });
    checks.collect()
}

/// An archive of these files.
fn archive_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    const REGULAR_FILE: u32 = 0o100_644;
    let members: Vec<_> =
        files.iter().map(|(name, bytes)| (*name, REGULAR_FILE, 1, *bytes)).collect();
    cpio::archive(&members)
}

fn disk_in_archive() -> Disk {
    Disk::new("m1n1-cpio", |lab, out| {
        let disk = fs::read(lab.disk(&tiny())?)?;
        Ok(fs::write(out, archive_of(&[("disk.img", &disk)]))?)
    })
}

const SETTINGS: (&str, &[u8]) = ("anchorite.toml", b"log = \"info\"\n");

/// The model's file and what belongs to it, with these settings.
fn with_model(settings: (&str, &[u8])) -> Result<Vec<u8>> {
    let model = fs::read(TINY).with_context(|| format!("cannot read {TINY}"))?;
    let digest: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
    let sum = format!("{digest}  {TINY}\n");
    Ok(archive_of(&[
        settings,
        ("models/tiny.gguf", &model),
        ("models/tiny.gguf.sha256", sum.as_bytes()),
    ]))
}

fn archive() -> Disk {
    Disk::new("m1n1-archive", |_, out| Ok(fs::write(out, with_model(SETTINGS)?)?))
}

fn packed() -> Disk {
    Disk::new("m1n1-packed", |lab, out| {
        Ok(fs::write(out, gzip::pack(&fs::read(lab.disk(&archive())?)?)?)?)
    })
}

/// Two archives one behind the other, as boot loaders hand over several files.
///
/// The second archive is packed. Its settings replace those of the first, which would be refused.
fn archives() -> Disk {
    Disk::new("m1n1-archives", |_, out| {
        let first = with_model(("anchorite.toml", b"colour = \"red\"\n"))?;
        let second = gzip::pack(&archive_of(&[SETTINGS]))?;
        Ok(fs::write(out, [first, vec![0; 512], second].concat())?)
    })
}

fn tar(out: &Path) -> Result<()> {
    let status =
        Command::new("tar").args(["-c", "-f"]).arg(out).arg("test_models/README.md").status()?;
    ensure!(status.success(), "tar fails");
    Ok(())
}
