use super::initrd::File;
use super::testing::*;
use super::*;
use crate::runtime::dev::block::fake;
use alloc::string::String;
use alloc::vec;

fn no_memory() -> Memory {
    Memory::default()
}

#[test]
fn the_first_disk_with_a_volume_is_mounted_and_serves_the_abi() {
    let data = content(20_011, 1);
    let image = volume(LAYOUTS[1], &[("models/a.gguf", data.clone())], usize::MAX);
    let disks = vec![fake::disk(vec![0; 1 << 20], 512, 4).0, fake::disk(image, 512, 4).0];
    let report = mount(disks, None, no_memory, String::new).unwrap();
    assert_eq!((&*report.filesystem, report.bytes), ("FAT16", 16 << 20));

    let mut read_back = vec![0; 20_012];
    let mut record = [0_u64; 35];
    // SAFETY: all pointers are to variables that are large enough and not used meanwhile.
    unsafe {
        let fd = open(c"/models/a.gguf".as_ptr(), 0, 0);
        assert_eq!(fd, 3);
        assert_eq!(read(fd, read_back.as_mut_ptr(), read_back.len()), 20_011);
        assert!(read_back[..20_011] == data);
        assert_eq!(read(fd, core::ptr::null_mut(), 1), -14);
        assert_eq!(read(fd, read_back.as_mut_ptr(), usize::MAX), -22);
        assert_eq!(lseek(fd, -11, 2), 20_000);
        assert_eq!(lseek(fd, -30_000, 2), -22);
        let mut result = Stat::default();
        assert_eq!(fstat(fd, &mut result), 0);
        assert_eq!(result.st_size, 20_011);
        assert_eq!(fstat(fd, core::ptr::null_mut()), -14);
        assert_eq!(stat(c"/models".as_ptr(), &mut result), 0);
        assert_eq!(result.st_mode & 0o17_0000, 0o4_0000);
        assert_eq!(open(c"/nothing".as_ptr(), 0, 0), -2);
        assert_eq!(open(c"/\xFF".as_ptr(), 0, 0), -2);
        assert_eq!(open(core::ptr::null(), 0, 0), -14);
        assert_eq!((close(fd), close(fd)), (0, -9));

        let directory = open(c"/models".as_ptr(), 0, 0);
        let bytes = getdents64(directory, record.as_mut_ptr().cast(), size_of_val(&record));
        assert_eq!(bytes, 24 + 24 + 32);
        assert_eq!(record[1], 1);
        assert_eq!(getdents64(directory, core::ptr::null_mut(), 100), -14);
        let entries = record.as_mut_ptr().cast();
        assert_eq!(getdents64(directory, entries, usize::MAX), -22);
        assert_eq!(close(directory), 0);
    }
}

#[test]
fn the_fault_is_that_of_the_preferred_disk() {
    let fault = mount(vec![], None, no_memory, String::new).unwrap_err();
    assert_eq!((fault.code, &*fault.message), (Code::ModelNotFound, "there is no disk"));

    let mut truncated = volume(LAYOUTS[0], &[], 1024);
    truncated.truncate(1 << 20);
    let empty = || fake::disk(vec![0; 1 << 20], 512, 4).0;
    let fault = mount(vec![fake::disk(truncated, 512, 4).0, empty()], None, no_memory, String::new)
        .unwrap_err();
    assert_eq!(fault.code, Code::DiskError);
    assert!(fault.message.contains("2097152 bytes"), "{}", fault.message);
    assert_eq!(
        mount(vec![empty()], None, no_memory, String::new).unwrap_err().code,
        Code::ModelNotFound
    );

    // A disk with a specific fault goes before a disk with none.
    let mut exfat = vec![0; 1 << 20];
    exfat[3..11].copy_from_slice(b"EXFAT   ");
    let disks = vec![empty(), fake::disk(exfat, 512, 4).0, empty()];
    let fault = mount(disks, None, no_memory, String::new).unwrap_err();
    assert_eq!(fault.code, Code::ModelNotFound);
    assert_eq!(fault.message, "fake: it is an exFAT volume, not a FAT volume");
    assert!(fault.hint.contains("format it as FAT32"), "{}", fault.hint);
    // The application reads the error.
    let mut text = [0; 512];
    // SAFETY: the pointers are to a variable that is large enough and not used meanwhile.
    let told = unsafe {
        let fd = open(c"/proc/disk_error".as_ptr(), 0, 0);
        let n = read(fd, text.as_mut_ptr(), text.len());
        assert_eq!(close(fd), 0);
        &text[..n as usize]
    };
    assert_eq!(told, format!("{}\n{}\n", fault.message, fault.hint).as_bytes());

    let (disk, script) = fake::disk(vec![0; 1 << 20], 512, 4);
    script.lock().unwrap().bad.insert(0, u32::MAX);
    let fault = mount(vec![disk], None, no_memory, String::new).unwrap_err();
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
    let with_volume = mount(disks(image), archive(), no_memory, String::new).unwrap();
    assert_eq!(with_volume.filesystem, "FAT16");
    let report = mount(disks(vec![0; 1 << 20]), archive(), no_memory, String::new).unwrap();
    let expected = report::Disk {
        device: "initrd".into(),
        bytes: 10,
        filesystem: "cpio".into(),
        label: String::new(),
        cluster_bytes: 0,
    };
    assert_eq!(report, expected);
}
