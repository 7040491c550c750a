//! Disks that fail, and disks with false contents.
//!
//! QEMU's `blkdebug` fails requests; QEMU's throttling delays them.

use anyhow::{Context, Result, ensure};
use kernel::report::Code;

use super::faults::PLACE_IN_MODEL;
use crate::boot::{Boot, Verdict, boot};
use crate::check::{Check, Passed, check, lazy};
use crate::disk::{CARD, Disk, TINY_ON_DISK, Table, tiny};
use crate::event;
use crate::expect::{literal, pattern};
use crate::goldens::{TOKENS, tokens};
use crate::lab::Lab;
use crate::machine::{Failing, Throttle};
use crate::seen::Line;
use crate::volume::{END, Entry, Volume};

/// The sector in the middle of the model on the disk [`tiny`].
pub fn sector(lab: &Lab) -> Result<u64> {
    let start = Volume::read(&lab.disk(&tiny())?)?.start_of(TINY_ON_DISK)?;
    Ok((start + PLACE_IN_MODEL) / 512)
}

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![
        // One sector in the middle of the model fails: each time, or only once.
        lazy("bad-sector", |lab, boot| {
            let sector = sector(lab)?;
            let number = sector.to_string();
            Ok(boot
                .failing_disk(tiny(), Failing::Sector(sector))
                .fails(Code::DiskError, number.as_str()))
        }),
        lazy("passing-fault", |lab, boot| {
            Ok(boot
                .failing_disk(tiny(), Failing::SectorOnce(sector(lab)?))
                .set("max_tokens", TOKENS)
                .verdict(Verdict::Tokens(TOKENS))
                .line("failed reads: 1, the first at sector [0-9]+; each came when tried again")
                .event(event!(Result { tokens == tokens() }))
                .exits(0))
        }),
        check("vanishing-disk", vanishing),
        check("shrinking", shrinking).alone(),
    ];
    checks.extend(silent().map(Check::from));
    checks.extend(truncated().into_iter().map(Check::from));
    checks.extend(damaged().into_iter().map(Check::from));
    checks
}

/// A disk that vanishes while the volume, the checksum or the model is read.
fn vanishing(lab: &Lab) -> Result<Passed> {
    let reads = [1, 2, 3, 5, 8, 12, 15];
    for reads in reads {
        boot(format!("vanishing-disk-{reads}"))
            .failing_disk(tiny(), Failing::After(reads))
            .fails(Code::DiskError, "sector [0-9]+ cannot be read")
            .run(lab)
            .with_context(|| format!("after {reads} reads"))?;
    }
    Ok(Passed::tries(reads.len() as u64))
}

/// A device that never completes a request: the first one, or one in the middle of the model.
///
/// The guest's clock counts instructions, so that its timeout of 30 s passes at once.
fn silent() -> [Boot; 2] {
    let silence = literal("no answer from the device within 30 s (sector ");
    let slow =
        |name, burst| boot(name).icount().slow_disk(tiny(), Throttle { bytes_per_s: 1, burst });
    [
        slow("silent-disk", None).fails(Code::DiskError, format!("{silence}[0-9]+\\)")),
        slow("silent-disk-in-model", Some(2_000_000))
            .fails(Code::DiskError, format!("{silence}[1-9][0-9]*\\)")),
    ]
}

/// Truncated images: a bare volume, and cards with a partition.
fn truncated() -> Vec<Boot> {
    const WHOLE: &str = "it has 8388608 bytes, but its device or partition ends at 4194304";
    let half = tiny().damaged("truncated", |volume| {
        volume.cut(4 << 20);
        Ok(())
    });
    let cards = [("truncated-dos", Table::Mbr), ("truncated-gpt", Table::Gpt)];
    let cards = cards.map(|(name, table)| (name, tiny().in_partition(name, table, 8 << 20)));
    [("truncated", half)]
        .into_iter()
        .chain(cards)
        .map(|(name, disk)| boot(name).disk(disk).fails(Code::DiskError, WHOLE))
        .collect()
}

/// A disk that is truncated while the model is read.
fn shrinking(lab: &Lab) -> Result<Passed> {
    let disk = tiny().damaged("shrinking", |_| Ok(()));
    let file = std::fs::File::options().write(true).open(lab.disk(&disk)?)?;
    let end = Volume::read(&lab.disk(&tiny())?)?.start_of(TINY_ON_DISK)? + 5_000_000;
    let boot = boot("shrinking")
        .slow_disk(disk, Throttle { bytes_per_s: 1_000_000, burst: None })
        .watched()
        .fails(Code::ChecksumMismatch, "");
    let mut child = boot.start(lab)?;
    // The checksum lies behind the model, and has been read by then.
    let bar = pattern(r"tiny\.gguf \[#");
    let loads = |line: &Line| matches!(line, Line::Text(text) if bar.is_in(text));
    child.wait_for("a part of the model is loaded", |lines| lines.iter().any(loads))?;
    file.set_len(end)?;
    let status = child.wait()?;
    boot.check(&boot.seen(lab, status)?)?;
    Ok(Passed::default())
}

/// Damaged FAT volumes: the good one with one field changed.
fn damaged() -> Vec<Boot> {
    type Damage = fn(&mut Volume, Entry) -> Result<()>;
    let faults: [(&str, Damage, Code, &str); 6] = [
        (
            "fat-circle",
            |volume, model| volume.link(model.first + 1009, model.first),
            Code::DiskError,
            "a file runs in a circle",
        ),
        (
            "fat-outside",
            |volume, model| volume.link(model.first + 1009, 9001),
            Code::DiskError,
            "a cluster lies outside the volume",
        ),
        (
            "fat-cut",
            |volume, model| volume.link(model.first + 1009, 0),
            Code::DiskError,
            "a file is shorter than its directory says",
        ),
        (
            "fat-size",
            |volume, model| volume.set_size(model, model.bytes + 0x800),
            Code::DiskError,
            "a file is shorter than its directory says",
        ),
        (
            "fat-boot-sector",
            |volume, _| volume.set_sectors_per_cluster(3),
            Code::DiskError,
            "its FAT volume is damaged: its boot sector gives 3 sectors per cluster",
        ),
        // The model's chain runs through the cluster of `anchorite.toml`, which is the one before.
        // Only the checksum shows this.
        (
            "fat-crossed",
            |volume, model| {
                let settings = model.first - 1;
                ensure!(volume.next(settings) == END, "the settings have more than a cluster");
                volume.link(model.last - 1, settings)
            },
            Code::ChecksumMismatch,
            "SHA-256",
        ),
    ];
    let boots = faults.into_iter().map(|(name, damage, code, message)| {
        let disk = tiny().damaged(name, move |volume| {
            let model = volume.entry("TINY~1  GGU")?;
            ensure!(volume.next(model.last) == END, "the model is not one run of clusters");
            damage(volume, model)
        });
        boot(name).disk(disk).fails(code, message)
    });
    boots.collect()
}

/// A card with the volume in its partition.
pub fn card(name: &'static str, table: Table) -> Disk {
    tiny().in_partition(name, table, CARD)
}
