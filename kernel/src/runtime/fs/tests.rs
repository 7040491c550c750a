use super::initrd::File;
use super::testing::*;
use super::*;
use crate::runtime::dev::block::fake;
use alloc::string::String;
use alloc::vec;

#[test]
fn the_first_disk_with_a_volume_is_mounted() {
    let image = volume(LAYOUTS[1], &[("models/a.gguf", content(20_011, 1))], usize::MAX);
    let disks = vec![fake::disk(vec![0; 1 << 20], 512, 4).0, fake::disk(image, 512, 4).0];
    let report = mount(disks, None).unwrap();
    assert_eq!((&*report.filesystem, report.bytes), ("FAT16", 16 << 20));
}

#[test]
fn the_fault_is_that_of_the_preferred_disk() {
    let fault = mount(vec![], None).unwrap_err();
    assert_eq!((fault.code, &*fault.message), (Code::ModelNotFound, "there is no disk"));

    let mut truncated = volume(LAYOUTS[0], &[], 1024);
    truncated.truncate(1 << 20);
    let empty = || fake::disk(vec![0; 1 << 20], 512, 4).0;
    let fault = mount(vec![fake::disk(truncated, 512, 4).0, empty()], None).unwrap_err();
    assert_eq!(fault.code, Code::DiskError);
    assert!(fault.message.contains("2097152 bytes"), "{}", fault.message);
    assert_eq!(mount(vec![empty()], None).unwrap_err().code, Code::ModelNotFound);

    // One of which more is known goes before one that says nothing.
    let mut exfat = vec![0; 1 << 20];
    exfat[3..11].copy_from_slice(b"EXFAT   ");
    let disks = vec![empty(), fake::disk(exfat, 512, 4).0, empty()];
    let fault = mount(disks, None).unwrap_err();
    assert_eq!(fault.code, Code::ModelNotFound);
    assert_eq!(fault.message, "fake: it is an exFAT volume, not a FAT volume");
    assert!(fault.hint.contains("format it as FAT32"), "{}", fault.hint);
    // The application is told.
    let told = DiskFailure { message: fault.message, hint: Some(fault.hint) };
    assert_eq!(failure(), Some(told));

    let (disk, script) = fake::disk(vec![0; 1 << 20], 512, 4);
    script.lock().unwrap().bad.insert(0, u32::MAX);
    let fault = mount(vec![disk], None).unwrap_err();
    assert_eq!(fault.code, Code::DiskError);
    assert_eq!(fault.message, "fake: sector 0 cannot be read");
}

#[test]
fn an_archive_is_mounted_where_no_disk_has_a_volume() {
    let archive = || {
        let initrd = b"0123456789".as_slice();
        let files = vec![File { path: "models/a.gguf".into(), data: 2..9 }];
        Some(Archive::new(vec![initrd], "cpio", files))
    };
    let image = volume(LAYOUTS[1], &[], usize::MAX);
    let disks = |image| vec![fake::disk(image, 512, 4).0];
    let with_volume = mount(disks(image), archive()).unwrap();
    assert_eq!(with_volume.filesystem, "FAT16");
    let report = mount(disks(vec![0; 1 << 20]), archive()).unwrap();
    let expected = report::Disk {
        device: "initrd".into(),
        bytes: 10,
        filesystem: "cpio".into(),
        label: String::new(),
        cluster_bytes: 0,
    };
    assert_eq!(report, expected);
}
