use super::super::testing::*;
use super::super::volume::Volume;
use super::*;
use crate::runtime::dev::block::fake::{self, Script};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use std::sync::Mutex;

fn mounted(files: &[(&str, Vec<u8>)]) -> (Files, Arc<Mutex<Script>>) {
    let (disk, script) = fake::disk(volume(LAYOUTS[1], files, usize::MAX), 512, 4);
    let mut table = Files::new();
    table.mount(Volume::find(disk).unwrap());
    (table, script)
}

fn read(files: &mut Files, handle: Handle, bytes: usize) -> Result<Vec<u8>, FileError> {
    let mut data = vec![0xA5; bytes];
    let n = files.read(handle, lend(&mut data))?;
    assert!(data[n..].iter().all(|&byte| byte == 0xA5));
    data.truncate(n);
    Ok(data)
}

#[test]
fn reads_go_on_where_the_last_one_ended() {
    let data = content(10_007, 1);
    let (mut files, _) = mounted(&[("models/a.gguf", data.clone()), ("b", vec![])]);
    let a = files.open("/models/a.gguf").unwrap();
    let b = files.open("/b").unwrap();
    assert_eq!((a, b), (Handle(0), Handle(1)));
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
    // One that is opened anew starts at the front.
    let again = files.open("/models/a.gguf").unwrap();
    assert!(read(&mut files, again, 20_000).unwrap() == data);
    assert!(read(&mut files, again, 3).unwrap().is_empty());
}

#[test]
fn handles_are_used_again_and_run_out() {
    let (mut files, _) = mounted(&[("a", vec![1])]);
    for n in 0..MAX_OPEN {
        assert_eq!(files.open("a"), Ok(Handle(n)));
    }
    assert_eq!(files.open("a"), Err(FileError::TooManyOpen));
    files.close(Handle(7)).unwrap();
    assert_eq!(files.close(Handle(7)), Err(FileError::NotOpen));
    assert_eq!(read(&mut files, Handle(7), 1), Err(FileError::NotOpen));
    assert_eq!(files.open("a"), Ok(Handle(7)));
    for bad in [Handle(MAX_OPEN), Handle(usize::MAX)] {
        assert_eq!(files.close(bad), Err(FileError::NotOpen));
        assert_eq!(files.metadata(bad), Err(FileError::NotOpen));
        assert_eq!(files.list(bad, &mut |_, _| true), Err(FileError::NotOpen));
    }
    // An open that fails takes no handle.
    files.close(Handle(9)).unwrap();
    assert_eq!(files.open("missing"), Err(FileError::NotFound));
    assert_eq!(files.open_directory("a"), Err(FileError::NotADirectory));
    assert_eq!(files.open("a/b"), Err(FileError::NotADirectory));
    assert_eq!(files.open("a"), Ok(Handle(9)));
}

#[test]
fn metadata_tells_files_from_directories() {
    let (mut files, _) = mounted(&[("models/a.gguf", content(10_007, 1))]);
    let mut of = |path| {
        let handle = files.open(path).unwrap();
        files.metadata(handle).unwrap()
    };
    let file = Metadata { kind: Kind::File, bytes: 10_007, block_bytes: 2048 };
    assert_eq!(of("/models/a.gguf"), file);
    assert_eq!(of("models/a.gguf"), file);
    let directory = Metadata { kind: Kind::Directory, bytes: 0, block_bytes: 2048 };
    assert_eq!((of("/models"), of("/")), (directory, directory));
    let device = Metadata { kind: Kind::Device, bytes: 16 << 20, block_bytes: 2048 };
    assert_eq!(of("/dev/disk"), device);
}

#[test]
fn directories_are_listed_in_as_many_calls_as_it_takes() {
    let (mut files, _) = mounted(&[("models/a.gguf", vec![]), ("models/sub/x", vec![])]);
    let handle = files.open_directory("/models").unwrap();
    let mut list = |at_most| {
        let mut names = Vec::new();
        let listed = files.list(handle, &mut |entry, next| {
            let takes = names.len() < at_most;
            if takes {
                names.push((entry.name.clone(), entry.is_dir, next));
            }
            takes
        });
        listed.map(|()| names)
    };
    let expected = [(".", true), ("..", true), ("sub", true), ("a.gguf", false)];
    let expected: Vec<_> = (1..)
        .zip(expected)
        .map(|(next, (name, is_dir))| (String::from(name), is_dir, next))
        .collect();
    assert_eq!(list(3).unwrap(), expected[..3]);
    assert_eq!(list(0), Ok(vec![]));
    assert_eq!(list(9).unwrap(), expected[3..]);
    assert_eq!(list(9), Ok(vec![]));
    assert_eq!(read(&mut files, handle, 1), Err(FileError::IsADirectory));
    let file = files.open("/models/a.gguf").unwrap();
    assert_eq!(files.list(file, &mut |_, _| true), Err(FileError::NotADirectory));
}

#[test]
fn the_device_is_a_file() {
    let (mut files, script) = mounted(&[("a", content(5003, 1))]);
    let device = files.open("/dev/disk").unwrap();
    assert_eq!(read(&mut files, device, 512).unwrap()[510..], [0x55, 0xAA]);
    script.lock().unwrap().log.clear();
    assert_eq!(read(&mut files, device, 4 << 20).unwrap().len(), 4 << 20);
    assert_eq!(script.lock().unwrap().log.len(), 8);
}

#[test]
fn the_last_failure_of_the_disk_is_kept() {
    let (mut files, script) = mounted(&[("a", content(50_021, 1)), ("b", content(50_021, 1))]);
    assert_eq!(files.failure(), None);
    let (a, b) = (files.open("a").unwrap(), files.open("b").unwrap());
    let Content::Extents { extents, .. } = &lookup(&mut files.open, a).unwrap().content else {
        panic!()
    };
    let bad = extents[0].position / 512 + 3;
    script.lock().unwrap().bad.insert(bad, u32::MAX);
    assert_eq!(read(&mut files, a, 50_021), Err(FileError::Failed));
    let message = format!("fake: sector {bad} cannot be read");
    assert_eq!(files.failure(), Some(&DiskFailure { message, hint: None }));
    // The failed read has not moved the position.
    assert!(read(&mut files, a, 1000).unwrap() == content(50_021, 1)[..1000]);

    script.lock().unwrap().never = Some(bad + 128);
    assert_eq!(read(&mut files, b, 50_021), Err(FileError::Silent));
    let message = &files.failure().unwrap().message;
    assert!(message.starts_with("fake: no answer from the device within 30 s"), "{message}");
}

#[test]
fn without_a_volume_there_are_no_files() {
    let mut files = Files::new();
    assert_eq!(files.open("/anchorite.toml"), Err(FileError::NoVolume));
    assert_eq!(files.open("/dev/disk"), Err(FileError::NoVolume));
    assert_eq!(files.failure(), None);
}
