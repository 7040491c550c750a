use super::super::testing::*;
use super::super::volume::Volume;
use super::*;
use crate::runtime::dev::block::fake::{self, Script};
use alloc::sync::Arc;
use alloc::vec;
use std::sync::Mutex;

fn mounted(files: &[(&str, Vec<u8>)]) -> (Files, Arc<Mutex<Script>>) {
    let (disk, script) = fake::disk(volume(LAYOUTS[1], files, usize::MAX), 512, 4);
    let mut table = Files::new();
    table.mount(Volume::find(disk).unwrap());
    table.set_memory(|| Memory { total_bytes: 64 << 20, free_bytes: 17 << 10 });
    std::thread_local! { static CELSIUS: core::cell::Cell<u32> = const { core::cell::Cell::new(0) } }
    CELSIUS.set(0);
    table.set_board(|| std::format!("temperature={}C\n", CELSIUS.replace(CELSIUS.get() + 1)));
    (table, script)
}

fn read(files: &mut Files, fd: i32, bytes: usize) -> Result<Vec<u8>, i32> {
    let mut data = vec![0xA5; bytes];
    let n = files.read(fd, lend(&mut data))?;
    assert!(data[n..].iter().all(|&byte| byte == 0xA5));
    data.truncate(n);
    Ok(data)
}

fn text(files: &mut Files, path: &str) -> String {
    let fd = files.open(path, 0).unwrap();
    let text = String::from_utf8(read(files, fd, 4096).unwrap()).unwrap();
    files.close(fd).unwrap();
    text
}

#[test]
fn reads_go_on_where_the_last_one_ended() {
    let data = content(10_007, 1);
    let (mut files, _) = mounted(&[("models/a.gguf", data.clone()), ("b", vec![])]);
    let a = files.open("/models/a.gguf", 0).unwrap();
    let b = files.open("/b", 0).unwrap();
    assert_eq!((a, b), (3, 4));
    let mut joined = Vec::new();
    loop {
        let part = read(&mut files, a, 1009).unwrap();
        if part.is_empty() {
            break;
        }
        joined.extend(part);
        assert!(read(&mut files, b, 7).unwrap().is_empty());
    }
    assert!(joined == data);

    assert_eq!(files.seek(a, -7, SEEK_END), Ok(10_000));
    assert!(read(&mut files, a, 100).unwrap() == data[10_000..]);
    assert_eq!(files.seek(a, 13, SEEK_SET), Ok(13));
    assert_eq!(files.seek(a, 4, SEEK_CUR), Ok(17));
    assert!(read(&mut files, a, 3).unwrap() == data[17..20]);
    assert_eq!(files.seek(a, -21, SEEK_CUR), Err(EINVAL));
    assert_eq!(files.seek(a, isize::MAX, SEEK_CUR), Err(EINVAL));
    assert_eq!(files.seek(a, 0, 3), Err(EINVAL));
    assert_eq!(files.seek(a, 99_991, SEEK_SET), Ok(99_991));
    assert!(read(&mut files, a, 3).unwrap().is_empty());
}

#[test]
fn descriptors_are_used_again_and_run_out() {
    let (mut files, _) = mounted(&[("a", vec![1])]);
    for n in 0..MAX_OPEN as i32 {
        assert_eq!(files.open("a", 0), Ok(FIRST_FD + n));
    }
    assert_eq!(files.open("a", 0), Err(EMFILE));
    files.close(7).unwrap();
    assert_eq!(files.close(7), Err(EBADF));
    assert_eq!(read(&mut files, 7, 1), Err(EBADF));
    assert_eq!(files.open("a", 0), Ok(7));
    for bad in [-1, 0, 2, FIRST_FD + MAX_OPEN as i32, i32::MAX, i32::MIN] {
        assert_eq!(files.close(bad), Err(EBADF));
        assert_eq!(files.seek(bad, 0, SEEK_SET), Err(EBADF));
        assert_eq!(files.fstat(bad).map(|_| ()), Err(EBADF));
    }
    // A failed open takes no descriptor.
    files.close(9).unwrap();
    assert_eq!(files.open("missing", 0), Err(ENOENT));
    assert_eq!(files.open("a", 0), Ok(9));
}

#[test]
fn only_reading_is_allowed() {
    let (mut files, _) = mounted(&[("a", vec![1])]);
    for flags in [O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_RDWR | O_CREAT | O_EXCL] {
        assert_eq!(files.open("a", flags), Err(EROFS));
    }
    assert_eq!(files.open("a", 1 << 30), Err(EINVAL));
    assert_eq!(files.open("a", O_DIRECTORY), Err(ENOTDIR));
    assert_eq!(files.open("a/b", 0), Err(ENOTDIR));
}

#[test]
fn stat_tells_files_from_directories() {
    let (mut files, _) = mounted(&[("models/a.gguf", content(10_007, 1))]);
    let a = files.stat("/models/a.gguf").unwrap();
    assert_eq!((a.st_mode, a.st_size, a.st_blksize), (S_IFREG | 0o444, 10_007, 2048));
    assert_eq!(a.st_blocks, 20);
    let directory = files.stat("/models").unwrap();
    assert_eq!((directory.st_mode, directory.st_size), (S_IFDIR | 0o555, 0));
    assert_eq!(files.stat("/").unwrap().st_mode, S_IFDIR | 0o555);
    assert_eq!(files.stat("/other").map(|_| ()), Err(ENOENT));
    let fd = files.open("models/a.gguf", 0).unwrap();
    assert_eq!(files.fstat(fd).unwrap().st_size, 10_007);
    let device = files.stat("/dev/disk").unwrap();
    assert_eq!((device.st_mode, device.st_size), (S_IFBLK | 0o444, 16 << 20));
}

/// Reads the name and type of each record, and the size of all records in bytes.
fn list(files: &mut Files, fd: i32, room: usize) -> Result<(Vec<(String, u8)>, usize), i32> {
    let mut bytes = vec![0; room];
    let used = files.entries(fd, room, &mut |at, record| {
        bytes[at..at + record.len()].copy_from_slice(record);
    })?;
    let (mut names, mut at) = (Vec::new(), 0);
    while at < used {
        let record = &bytes[at..];
        let name = record[19..].split(|&byte| byte == 0).next().unwrap();
        names.push((String::from_utf8(name.to_vec()).unwrap(), record[18]));
        let length = usize::from(u16::from_ne_bytes([record[16], record[17]]));
        assert!(length.is_multiple_of(8) && length > 19 + name.len());
        at += length;
    }
    assert_eq!(at, used);
    Ok((names, used))
}

#[test]
fn directories_are_listed_in_as_many_calls_as_it_takes() {
    let (mut files, _) = mounted(&[("models/a.gguf", vec![]), ("models/sub/x", vec![])]);
    let fd = files.open("/models", O_DIRECTORY).unwrap();
    let expected = [(".", DT_DIR), ("..", DT_DIR), ("sub", DT_DIR), ("a.gguf", DT_REG)];
    let expected = expected.map(|(name, kind)| (String::from(name), kind));
    let (names, used) = list(&mut files, fd, 4096).unwrap();
    assert_eq!(names, expected);
    assert_eq!(list(&mut files, fd, 4096), Ok((vec![], 0)));

    files.seek(fd, 0, SEEK_SET).unwrap();
    let (mut names, first) = list(&mut files, fd, used - 1).unwrap();
    assert_eq!(names.len(), 3);
    let (rest, second) = list(&mut files, fd, used - 1).unwrap();
    names.extend(rest);
    assert_eq!((names, first + second), (expected.to_vec(), used));

    files.seek(fd, 0, SEEK_SET).unwrap();
    assert_eq!(list(&mut files, fd, 23), Err(EINVAL));
    assert_eq!(read(&mut files, fd, 1), Err(EISDIR));
    let file = files.open("/models/a.gguf", 0).unwrap();
    assert_eq!(list(&mut files, file, 4096), Err(ENOTDIR));
}

#[test]
fn names_are_whole_up_to_255_bytes_and_then_cut_at_a_character() {
    for (name, kept) in [
        ("a".repeat(252), 252),
        ("a".repeat(253), 253),
        ("a".repeat(254), 254),
        ("a".repeat(255), 255),
        ("ß".repeat(127), 254),
        ("ß".repeat(128), 254),
        ("a".to_owned() + &"ß".repeat(127), 255),
    ] {
        let expected = name[..kept].to_owned();
        let record = directory_record(&Entry { name, is_dir: false, bytes: 0 }, 1);
        assert!(record.len() <= size_of::<hermit_abi::dirent64>());
        let end = record[19..].iter().position(|&byte| byte == 0).unwrap();
        assert_eq!(core::str::from_utf8(&record[19..19 + end]), Ok(&*expected));
    }
}

#[test]
fn the_device_and_the_memory_are_files() {
    let (mut files, script) = mounted(&[("a", content(5003, 1))]);
    let fd = files.open("/dev/disk", 0).unwrap();
    files.seek(fd, 510, SEEK_SET).unwrap();
    assert_eq!(read(&mut files, fd, 2).unwrap(), [0x55, 0xAA]);
    files.seek(fd, 0, SEEK_SET).unwrap();
    script.lock().unwrap().log.clear();
    assert_eq!(read(&mut files, fd, 4 << 20).unwrap().len(), 4 << 20);
    assert_eq!(script.lock().unwrap().log.len(), 8);

    let expected =
        "MemTotal:          65536 kB\nMemFree:              17 kB\nMemAvailable:         17 kB\n";
    assert_eq!(text(&mut files, "/proc/meminfo"), expected);
    // The source is called at each opening.
    assert_eq!(text(&mut files, "/proc/board"), "temperature=0C\n");
    assert_eq!(text(&mut files, "/proc/board"), "temperature=1C\n");
}

#[test]
fn the_last_error_of_the_disk_can_be_read() {
    let (mut files, script) = mounted(&[("a", content(50_021, 1)), ("b", content(50_021, 1))]);
    assert_eq!(text(&mut files, "/proc/disk_error"), "");
    let (a, b) = (files.open("a", 0).unwrap(), files.open("b", 0).unwrap());
    let Content::Extents { extents, .. } = &lookup(&mut files.open, a).unwrap().content else {
        panic!()
    };
    let bad = extents[0].position / 512 + 3;
    script.lock().unwrap().bad.insert(bad, u32::MAX);
    assert_eq!(read(&mut files, a, 50_021), Err(EIO));
    let expected = format!("fake: sector {bad} cannot be read\n");
    assert_eq!(text(&mut files, "/proc/disk_error"), expected);
    // The failed read has not moved the position.
    assert!(read(&mut files, a, 1000).unwrap() == content(50_021, 1)[..1000]);

    script.lock().unwrap().never = Some(bad + 128);
    assert_eq!(read(&mut files, b, 50_021), Err(ETIMEDOUT));
    let error = text(&mut files, "/proc/disk_error");
    assert!(error.starts_with("fake: no answer from the device within 30 s"), "{error}");
}

#[test]
fn without_a_volume_there_are_no_files() {
    let mut files = Files::new();
    assert_eq!(files.open("/anchorite.toml", 0), Err(ENODEV));
    assert_eq!(files.open("/dev/disk", 0), Err(ENODEV));
    assert_eq!(files.open("/proc/meminfo", 0), Err(ENODEV));
    assert_eq!(files.open("/proc/board", 0), Err(ENODEV));
    files.set_memory(Memory::default);
    assert!(text(&mut files, "/proc/meminfo").starts_with("MemTotal:"));
    assert_eq!(text(&mut files, "/proc/disk_error"), "");
}
