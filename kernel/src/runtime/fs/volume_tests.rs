use super::super::FileSystem as _;
use super::super::testing::*;
use super::*;
use crate::runtime::dev::block::fake;
use std::process::Command;

fn mount(image: Vec<u8>) -> Result<Volume, MountError> {
    Volume::find(fake::disk(image, 512, 8).0)
}

/// Files whose lengths sit around the cluster's, in directories, with long names.
fn files(cluster: usize) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", vec![]),
        ("anchorite.toml", content(1, 1)),
        ("models/short.gguf", content(cluster - 1, 2)),
        ("models/whole.gguf", content(cluster, 3)),
        ("models/A rather long name, with Großbuchstaben.gguf", content(cluster + 1, 4)),
        ("models/large.gguf", content(300_007, 5)),
        ("models/other.gguf", content(150_001, 8)),
        ("models/deeper/still/file.gguf.sha256", content(3 * cluster + 211, 6)),
    ]
}

#[test]
fn files_of_all_lengths_are_read_from_all_kinds_of_volumes() {
    for layout in LAYOUTS {
        let files = files(layout.cluster_bytes as usize);
        for chunk in [usize::MAX, layout.cluster_bytes as usize] {
            for sector_bytes in [512, 4096] {
                let image = volume(layout, &files, chunk);
                let mut volume = Volume::find(fake::disk(image, sector_bytes, 8).0).unwrap();
                for (path, data) in &files {
                    assert!(read_file(&mut volume, path).unwrap() == *data, "{layout:?} {path}");
                }
                let large = volume.extents("MODELS//./LARGE.GGUF").unwrap();
                assert_eq!(large.len() > 30, chunk != usize::MAX);
                let report = volume.report();
                assert_eq!(report.label, "ANCHORITE");
                assert_eq!(report.cluster_bytes, layout.cluster_bytes);
                let name = alloc::format!("{:?}", layout.fat_type).to_uppercase();
                assert_eq!(report.filesystem, name);
                assert_eq!(report.bytes, layout.bytes as u64);
            }
        }
    }
}

#[test]
fn any_part_of_a_file_can_be_read() {
    let data = content(300_007, 5);
    let files = [("a", data.clone()), ("b", content(200_003, 7))];
    for (layout, chunk) in [(LAYOUTS[0], 1024), (LAYOUTS[1], 1 << 20), (LAYOUTS[3], 4096)] {
        let image = volume(layout, &files, chunk);
        let mut volume = Volume::find(fake::disk(image, 2048, 8).0).unwrap();
        let mut state = 11;
        for _ in 0..97 {
            let offset = fake::random(&mut state) as usize % data.len();
            let bytes = fake::random(&mut state) as usize % (data.len() - offset);
            let read = read_at(&mut volume, "a", offset as u64, bytes).unwrap();
            assert!(read == data[offset..offset + bytes], "{bytes} bytes at {offset}");
        }
        let past_the_end = read_at(&mut volume, "a", data.len() as u64 - 5, 6);
        assert!(matches!(past_the_end, Err(FsError::Damaged(_))));
    }
}

#[test]
fn a_large_file_is_read_in_few_requests_straight_to_its_place() {
    let data = content(5_000_011, 5);
    let image = volume(LAYOUTS[1], &[("a", data.clone())], usize::MAX);
    let (disk, script) = fake::disk(image, 512, 8);
    let mut volume = Volume::find(disk).unwrap();
    let extents = volume.extents("a").unwrap();
    assert_eq!(extents.len(), 1);
    script.lock().unwrap().log.clear();
    assert!(read_file(&mut volume, "a").unwrap() == data);
    let script = script.lock().unwrap();
    let large = (REQUEST_BYTES / 512) as u64;
    assert_eq!(script.log.iter().filter(|(_, n)| *n == large).count(), 5_000_011 / REQUEST_BYTES);
    // The other two: what is left in whole sectors, and the last bytes through the cache.
    assert!(script.log.len() <= 5_000_011 / REQUEST_BYTES + 2, "{:?}", script.log);
    assert_eq!(script.most_in_flight, 8);
}

#[test]
fn small_reads_in_a_row_share_a_request() {
    let data = content(50_021, 5);
    let (disk, script) = fake::disk(volume(LAYOUTS[1], &[("a", data.clone())], usize::MAX), 512, 8);
    let mut volume = Volume::find(disk).unwrap();
    script.lock().unwrap().log.clear();
    for (i, part) in data.chunks(512).enumerate() {
        assert!(read_at(&mut volume, "a", 512 * i as u64, part.len()).unwrap() == *part);
    }
    assert!(script.lock().unwrap().log.len() <= 3);
}

#[test]
fn directories_are_listed() {
    let image = volume(LAYOUTS[0], &files(1024), usize::MAX);
    let mut volume = mount(image).unwrap();
    let mut names: Vec<_> =
        volume.directory("/models/").unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    let expected = [
        ".",
        "..",
        "A rather long name, with Großbuchstaben.gguf",
        "deeper",
        "large.gguf",
        "other.gguf",
        "short.gguf",
        "whole.gguf",
    ];
    assert_eq!(names, expected);
    assert_eq!(volume.entry("models/deeper/..").unwrap().name, "..");
    assert!(volume.entry("/").unwrap().is_dir);
    assert_eq!(volume.entry("nothing").unwrap_err(), FsError::NotFound);
    assert_eq!(volume.entry("models/nothing/x").unwrap_err(), FsError::NotFound);
    assert_eq!(volume.entry("empty/x").unwrap_err(), FsError::NotADirectory);
    assert_eq!(volume.directory("empty").unwrap_err(), FsError::NotADirectory);
    assert_eq!(volume.extents("models").unwrap_err(), FsError::NotFound);
}

/// Runs a tool of the system; `None`, and a line that says so, if it is not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<()> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => {
            let complaint = std::string::String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{tool} {arguments:?}: {complaint}");
            Some(())
        }
        Err(error) => {
            std::println!("skipped: {tool} cannot be run ({error})");
            None
        }
    }
}

#[test]
fn volumes_made_by_other_tools_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let (image, source) = (path("disk.img"), path("source"));
    let data = content(700_001, 3);
    std::fs::write(&source, &data).unwrap();
    for (bits, sectors_per_cluster, megabytes) in
        [("12", "4", 3), ("16", "1", 16), ("16", "64", 140), ("32", "1", 40), ("32", "2", 70)]
    {
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let format = ["-F", bits, "-s", sectors_per_cluster, "-n", "MODELS", image.as_str()];
        // On Debian it lies where only root looks.
        let tool = ["mkfs.fat", "/usr/sbin/mkfs.fat", "/sbin/mkfs.fat"];
        let tool = tool.into_iter().find(|tool| Command::new(tool).output().is_ok());
        let Some(()) = run(tool.unwrap_or("mkfs.fat"), &format) else { return };
        let Some(()) = run("mmd", &["-i", &image, "::models"]) else { return };
        let to = "::models/My Model.gguf";
        let Some(()) = run("mcopy", &["-i", &image, &source, to]) else { return };
        let mut volume = mount(std::fs::read(&image).unwrap()).unwrap();
        assert_eq!(volume.report().label, "MODELS");
        assert_eq!(volume.report().filesystem, alloc::format!("FAT{bits}"));
        assert!(read_file(&mut volume, "/models/my model.gguf").unwrap() == data);
    }
}

#[test]
fn a_volume_in_a_partition_is_found() {
    let files = files(1024);
    let inner = volume(LAYOUTS[0], &files, 1024);
    for (gpt, damage) in [(false, None), (true, None), (true, Some(512)), (true, Some(1024 + 40))] {
        let mut image = vec![0; inner.len() + (70 << 10)];
        let end = image.len();
        let start = 34 << 10;
        image[start..start + inner.len()].copy_from_slice(&inner);
        if gpt {
            write_gpt(&mut image, &[(3, 5), (start / 512, (start + inner.len()) / 512 - 1)]);
        } else {
            write_mbr(&mut image, &[(0x83, 2, 3), (0x0C, start / 512, inner.len() / 512)]);
        }
        if let Some(at) = damage {
            image[at] ^= 1;
        }
        let mut volume = mount(image).unwrap();
        assert_eq!(volume.report().bytes, end as u64);
        for (path, data) in &files {
            assert!(read_file(&mut volume, path).unwrap() == *data, "{path}");
        }
    }
}

#[test]
fn a_device_that_ends_within_its_partition_says_so() {
    let inner = volume(LAYOUTS[0], &[], 1024);
    let start = 34 << 10;
    for gpt in [false, true] {
        let mut image = vec![0; inner.len() + (70 << 10)];
        image[start..start + inner.len()].copy_from_slice(&inner);
        if gpt {
            write_gpt(&mut image, &[(start / 512, (start + inner.len()) / 512 - 1)]);
        } else {
            write_mbr(&mut image, &[(0x0C, start / 512, inner.len() / 512)]);
        }
        for missing in [512, 1 << 20, inner.len() - 512] {
            let available = (inner.len() - missing) as u64;
            let image = image[..start + available as usize].to_vec();
            let reason = BootSectorError::Truncated { volume: inner.len() as u64, available };
            assert_eq!(mount(image).err(), Some(MountError::Unusable(reason)));
        }
        // None of it is there.
        let image = image[..start].to_vec();
        assert!(matches!(mount(image).err(), Some(MountError::NoVolume(_))));
    }
}

#[test]
fn a_gpt_counts_only_with_right_checksums() {
    let inner = volume(LAYOUTS[0], &[], 1024);
    let mut image = vec![0; inner.len() + (70 << 10)];
    let start = 34 << 10;
    image[start..start + inner.len()].copy_from_slice(&inner);
    write_gpt(&mut image, &[(start / 512, (start + inner.len()) / 512 - 1)]);
    let backup = image.len() - 512;
    // The disk's own identifier, which nothing but the header's sum covers; and a partition's name.
    let no_volume = Some(MountError::NoVolume(BootSectorError::BytesPerSector(0)));
    for (first, second) in [(512 + 56, backup + 56), (1024 + 56, backup - 32 * 512 + 56)] {
        let mut image = image.clone();
        image[first] ^= 1;
        assert!(mount(image.clone()).is_ok());
        image[second] ^= 1;
        assert_eq!(mount(image).err(), no_volume);
    }
}

#[test]
fn a_device_without_a_volume_says_why() {
    let no_signature = MountError::NoVolume(BootSectorError::NoSignature);
    assert_eq!(mount(vec![0; 64 << 10]).err(), Some(no_signature));
    let too_small = MountError::NoVolume(BootSectorError::TooSmall);
    assert_eq!(mount(vec![]).err(), Some(too_small));

    let mut image = volume(LAYOUTS[1], &[], 1024);
    image.truncate(15 << 20);
    let reason = BootSectorError::Truncated { volume: 16 << 20, available: 15 << 20 };
    assert_eq!(mount(image).err(), Some(MountError::Unusable(reason)));
}

#[test]
fn what_is_no_fat_volume_is_named() {
    let named = |image: Vec<u8>| match mount(image).err() {
        Some(error @ MountError::Other(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for (at, magic, name) in [
        (3, &b"EXFAT   "[..], "it is an exFAT volume, not a FAT volume"),
        (3, b"NTFS    ", "it is an NTFS volume, not a FAT volume"),
        (1080, b"\x53\xef", "it is an ext2, ext3 or ext4 volume, not a FAT volume"),
        (65_600, b"_BHRfS_M", "it is a Btrfs volume, not a FAT volume"),
        (0, b"\x1f\x8b\x08", "it is compressed with gzip, not a FAT volume"),
        (0, b"GGUF", "it is a model's file, not a disk that holds one, not a FAT volume"),
    ] {
        let mut inner = vec![0; 1 << 20];
        inner[at..at + magic.len()].copy_from_slice(magic);
        // As those of exFAT and NTFS end.
        inner[510..512].copy_from_slice(&[0x55, 0xAA]);
        assert_eq!(named(inner.clone()), name);
        for gpt in [false, true] {
            let start = 128 << 10;
            let mut card = vec![0; start];
            card.extend_from_slice(&inner);
            card.resize(card.len() + (64 << 10), 0);
            if gpt {
                write_gpt(&mut card, &[(40, 60), (start / 512, start / 512 + 2047)]);
            } else {
                write_mbr(&mut card, &[(0x07, start / 512, 2048)]);
            }
            assert_eq!(named(card), name);
        }
        // A device that ends before.
        inner.truncate(at);
        assert!(matches!(mount(inner).err(), Some(MountError::NoVolume(_))), "{name}");
    }
}

#[test]
fn a_damaged_boot_sector_is_told_from_none() {
    for (layout, type_at) in [(LAYOUTS[0], 54), (LAYOUTS[1], 54), (LAYOUTS[2], 82)] {
        let mut image = volume(layout, &[], usize::MAX);
        image[13] = 3;
        let reason = BootSectorError::SectorsPerCluster(3);
        let mut card = vec![0; 1 << 20];
        card.extend_from_slice(&image);
        write_mbr(&mut card, &[(0x83, 3, 5), (0x0C, 2048, image.len() / 512)]);
        for image in [&image, &card] {
            assert_eq!(mount(image.clone()).err(), Some(MountError::Unusable(reason)));
        }
        image[type_at] = b' ';
        assert_eq!(mount(image).err(), Some(MountError::NoVolume(reason)));
    }
}

#[test]
fn a_directory_has_no_more_entries_than_its_volume_has_room_for() {
    let layout = Layout { bytes: 64 << 10, cluster_bytes: 512, ..LAYOUTS[0] };
    let mut image = volume(layout, &[("d/b", content(1, 2))], usize::MAX);
    let geometry = boot_sector::parse(&image, image.len() as u64).unwrap();
    // The first cluster is that of `d`: its own successor in the table of 12 bits, full of files.
    let entry = geometry.fat_start as usize + 3;
    image[entry..entry + 2].copy_from_slice(&[0x02, 0xf0]);
    let start = geometry.data_start as usize;
    let at = image.windows(11).position(|name| name == b"B          ").unwrap();
    assert!(at < start + 512);
    let file: [u8; 32] = *image[at..].first_chunk().unwrap();
    image[start..start + 512].as_chunks_mut().0.fill(file);
    let mut volume = mount(image).unwrap();
    let entries = volume.with_fatfs(|fs, wire| {
        let d = find(fs, wire, "d")?;
        Ok(open_dir(fs, wire, d.as_ref())?.iter().take_while(Result::is_ok).count())
    });
    assert!((2048..=4096).contains(&entries.unwrap()), "{entries:?}");
    assert_eq!(volume.directory("d"), Err(FsError::Damaged("a directory runs in a circle")));
}

#[test]
fn damaged_chains_and_directories_are_reported() {
    let layout = LAYOUTS[1];
    let cluster = layout.cluster_bytes as usize;
    let files = [("a", content(7 * cluster, 1)), ("d/b", content(cluster, 2))];
    let image = volume(layout, &files, usize::MAX);
    let geometry = boot_sector::parse(&image, image.len() as u64).unwrap();
    let entry_of = |n: usize| geometry.fat_start as usize + 2 * n;
    let with = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        mount(image).unwrap()
    };
    let find = |needle: &[u8]| image.windows(needle.len()).position(|w| w == needle).unwrap();
    let (dir_d, file_a) = (find(b"D          "), find(b"A          "));
    let cluster_of = |at: usize| usize::from(u16::from_le_bytes([image[at + 26], image[at + 27]]));
    let (d, a) = (cluster_of(dir_d), cluster_of(file_a));

    let circle = FsError::Damaged("a file runs in a circle");
    let mut volume = with(entry_of(a + 4), &(a as u16).to_le_bytes());
    assert_eq!(volume.extents("a").unwrap_err(), circle);

    let short = FsError::Damaged("a file is shorter than its directory says");
    for end in [0xFFFF_u16, 0xFFF7, 0] {
        let mut volume = with(entry_of(a + 3), &end.to_le_bytes());
        assert_eq!(volume.extents("a").unwrap_err(), short);
        assert_eq!(read_file(&mut volume, "d/b").unwrap(), files[1].1);
    }

    let outside = FsError::Damaged(OUTSIDE);
    for wild in [1_u16, geometry.clusters as u16 + 2, 0xFFF6] {
        let mut volume = with(entry_of(a + 2), &wild.to_le_bytes());
        assert_eq!(volume.extents("a").unwrap_err(), outside);
        let mut volume = with(file_a + 26, &wild.to_le_bytes());
        assert_eq!(volume.extents("a").unwrap_err(), outside);
        let mut volume = with(dir_d + 26, &wild.to_le_bytes());
        assert_eq!(volume.entry("d/b").unwrap_err(), outside);
    }

    let large = FsError::Damaged("a file is larger than the volume");
    let mut volume = with(file_a + 28, &(17_u32 << 20).to_le_bytes());
    assert_eq!(volume.extents("a").unwrap_err(), large);

    // A directory of deleted entries whose one cluster is its own successor.
    let circle = FsError::Damaged("a directory runs in a circle");
    let mut looped = image.clone();
    looped[entry_of(d)..entry_of(d) + 2].copy_from_slice(&(d as u16).to_le_bytes());
    let at = geometry.data_start as usize + (d - 2) * cluster;
    looped[at..at + cluster].fill(0xE5);
    let mut volume = mount(looped).unwrap();
    assert_eq!(volume.entry("d/b").unwrap_err(), circle);
    assert_eq!(volume.directory("d").unwrap_err(), circle);
}

#[test]
fn a_name_that_is_no_text_hides_no_other_file() {
    let files = [("Süß, and long.gguf", content(1_021, 1)), ("other.gguf", content(2_003, 2))];
    let image = volume(LAYOUTS[0], &files, usize::MAX);
    let sharp_s =
        image.windows(2).position(|w| w == "ß".encode_utf16().next().unwrap().to_le_bytes());
    for half_a_pair in [0xD800_u16, 0xDC00] {
        let mut image = image.clone();
        image[sharp_s.unwrap()..][..2].copy_from_slice(&half_a_pair.to_le_bytes());
        let mut volume = mount(image).unwrap();
        assert_eq!(volume.entry(files[0].0).unwrap_err(), FsError::NotFound);
        assert_eq!(read_file(&mut volume, files[1].0).unwrap(), files[1].1);
        // It is there to be read under the name that it is listed by.
        let listed = volume.directory("/").unwrap();
        assert_eq!(listed[0].name, "Sü\u{FFFD}, and long.gguf");
        assert_eq!(read_file(&mut volume, &listed[0].name).unwrap(), files[0].1);
    }
}

#[test]
fn every_boot_sector_field_is_checked() {
    let cases: [(usize, &[u8], BootSectorError); 9] = [
        (510, &[0x55, 0xAB], BootSectorError::NoSignature),
        (11, &[0, 0x01], BootSectorError::BytesPerSector(256)),
        (11, &[0x58, 0x02], BootSectorError::BytesPerSector(600)),
        (13, &[3], BootSectorError::SectorsPerCluster(3)),
        (14, &[0, 0], BootSectorError::NoReservedSectors),
        (16, &[0], BootSectorError::NoTable),
        (17, &[0, 0], BootSectorError::RootEntries(0)),
        (19, &[0, 0, 0], BootSectorError::TotalSectors),
        (22, &[1, 0], BootSectorError::TableTooShort { clusters: 0 }),
    ];
    let image = volume(LAYOUTS[0], &[], 1024);
    for (at, bytes, expected) in cases {
        let mut sector = image[..512].to_vec();
        sector[at..at + bytes.len()].copy_from_slice(bytes);
        let error = boot_sector::parse(&sector, image.len() as u64).unwrap_err();
        match (error, expected) {
            (BootSectorError::TableTooShort { .. }, BootSectorError::TableTooShort { .. }) => {}
            _ => assert_eq!(error, expected),
        }
    }
    let image = volume(LAYOUTS[2], &[], 1024);
    for root in [0_u32, 1, 0x0FFF_FFFF] {
        let mut sector = image[..512].to_vec();
        sector[44..48].copy_from_slice(&root.to_le_bytes());
        let error = boot_sector::parse(&sector, image.len() as u64).unwrap_err();
        assert_eq!(error, BootSectorError::RootCluster(root));
    }
    let mut sector = image[..512].to_vec();
    sector[13] = 64;
    let error = boot_sector::parse(&sector, image.len() as u64).unwrap_err();
    assert!(matches!(error, BootSectorError::FatType { .. }), "{error:?}");
}

#[test]
fn a_bad_sector_hurts_only_what_lies_in_it() {
    let layout = LAYOUTS[1];
    let files = [("a", content(200_003, 1)), ("b", content(100_003, 2))];
    let image = volume(layout, &files, usize::MAX);
    let (disk, script) = fake::disk(image, 512, 8);
    let mut volume = Volume::find(disk).unwrap();
    let a = volume.extents("a").unwrap()[0];
    let bad = (a.position + 100_000) / 512;
    script.lock().unwrap().bad.insert(bad, u32::MAX);
    let unreadable = FsError::Disk(DiskError::Unreadable { sector: bad });
    assert_eq!(read_file(&mut volume, "a").unwrap_err(), unreadable);
    assert!(read_file(&mut volume, "b").unwrap() == files[1].1);
    let start = read_at(&mut volume, "a", 0, 99_001).unwrap();
    assert!(start == files[0].1[..99_001]);

    // A bad sector beside the root directory is not needed to read the root directory.
    let image = super::super::testing::volume(layout, &files, usize::MAX);
    let geometry = boot_sector::parse(&image, image.len() as u64).unwrap();
    let (disk, script) = fake::disk(image, 512, 8);
    script.lock().unwrap().bad.insert(geometry.data_start / 512 - 1, u32::MAX);
    let mut volume = Volume::find(disk).unwrap();
    assert!(read_file(&mut volume, "b").unwrap() == files[1].1);
}

#[test]
fn corrupt_volumes_neither_panic_nor_hang() {
    let mut state = 0xC0FFEE;
    let mut damaged = 0;
    for layout in &LAYOUTS[..3] {
        let files = files(layout.cluster_bytes as usize);
        let image = volume(*layout, &files, layout.cluster_bytes as usize);
        let geometry = boot_sector::parse(&image, image.len() as u64).unwrap();
        // The boot sector, the first table, the root directory and the first directories.
        let data = geometry.data_start as usize;
        let table = geometry.fat_start as usize;
        let places = [0..512, table..table + 4096, data - 16384..data, data..data + 8192];
        // Large images take long to copy.
        for round in 0..240 >> (layout.bytes >> 24) {
            let mut image = image.clone();
            for _ in 0..1 + round % 7 {
                let place = &places[fake::random(&mut state) as usize % places.len()];
                let at = place.start + fake::random(&mut state) as usize % place.len();
                image[at] = fake::random(&mut state) as u8;
            }
            let Ok(mut volume) = mount(image) else {
                damaged += 1;
                continue;
            };
            let Ok(paths) = tree(&mut volume, "", 4) else {
                damaged += 1;
                continue;
            };
            for path in paths.iter().filter(|path| !path.ends_with('/')) {
                damaged += usize::from(read_file(&mut volume, path).is_err());
            }
        }
    }
    assert!(damaged > 100, "only {damaged} errors: the damage did not reach anything");
}

#[test]
fn corrupt_partition_tables_neither_panic_nor_hang() {
    let mut state = 0xBEEF;
    let inner = volume(LAYOUTS[0], &[], 1024);
    let start = 34 << 10;
    let mut found = 0;
    for round in 0..1000 {
        let mut image = vec![0; inner.len() + (70 << 10)];
        image[start..start + inner.len()].copy_from_slice(&inner);
        let entries = [(start / 512, (start + inner.len()) / 512 - 1); 4];
        if round % 2 == 0 {
            write_gpt(&mut image, &entries);
        } else {
            write_mbr(&mut image, &entries.map(|(first, last)| (0x0C, first, last + 1 - first)));
        }
        for _ in 0..1 + round % 5 {
            let at = 440 + fake::random(&mut state) as usize % 800;
            image[at] = fake::random(&mut state) as u8;
            // Half of the damage comes with right checksums.
            if round % 4 == 0 && at > 512 {
                seal_gpt(&mut image);
            }
        }
        found += usize::from(mount(image).is_ok());
    }
    assert!((1..1000).contains(&found), "{found} volumes found in 1000 images");
}

/// Writes an MBR with entries of type, first sector and number of sectors.
fn write_mbr(image: &mut [u8], entries: &[(u8, usize, usize)]) {
    image[510..512].copy_from_slice(&[0x55, 0xAA]);
    for (i, &(kind, first, sectors)) in entries.iter().enumerate() {
        let entry = &mut image[446 + 16 * i..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&(first as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(sectors as u32).to_le_bytes());
    }
}

/// Writes a protective MBR, a GPT with entries of first and last sector, and its backup.
fn write_gpt(image: &mut [u8], entries: &[(usize, usize)]) {
    let sectors = image.len() / 512;
    write_mbr(image, &[(0xEE, 1, sectors - 1)]);
    for (header, table) in [(1, 2), (sectors - 1, sectors - 33)] {
        let at = 512 * header;
        image[at..at + 8].copy_from_slice(b"EFI PART");
        image[at + 8..at + 12].copy_from_slice(&[0, 0, 1, 0]);
        image[at + 12..at + 16].copy_from_slice(&92_u32.to_le_bytes());
        image[at + 24..at + 32].copy_from_slice(&(header as u64).to_le_bytes());
        image[at + 72..at + 80].copy_from_slice(&(table as u64).to_le_bytes());
        image[at + 80..at + 84].copy_from_slice(&128_u32.to_le_bytes());
        image[at + 84..at + 88].copy_from_slice(&128_u32.to_le_bytes());
        for (i, &(first, last)) in entries.iter().enumerate() {
            let entry = &mut image[512 * table + 128 * i..][..128];
            entry[..16].fill(0xEB);
            entry[32..40].copy_from_slice(&(first as u64).to_le_bytes());
            entry[40..48].copy_from_slice(&(last as u64).to_le_bytes());
        }
    }
    seal_gpt(image);
}

/// Makes the checksums of both headers right.
fn seal_gpt(image: &mut [u8]) {
    let sectors = image.len() / 512;
    for (header, table) in [(1, 2), (sectors - 1, sectors - 33)] {
        let at = 512 * header;
        let crc = super::super::partition::crc32(&image[512 * table..][..128 * 128]);
        image[at + 88..at + 92].copy_from_slice(&crc.to_le_bytes());
        image[at + 16..at + 20].fill(0);
        let crc = super::super::partition::crc32(&image[at..at + 92]);
        image[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn the_checksum_is_the_usual_one() {
    assert_eq!(super::super::partition::crc32(b"123456789"), 0xCBF4_3926);
}
