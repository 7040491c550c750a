//! `image-builder cached`: the right disk, whatever is in the folder.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime};

use kernel::llm::gguf::write::Builder;

use super::common::{Outcome, Place, model, read};

/// The disk that the command prints at its end.
#[track_caller]
fn disk_of(place: &Place, outcome: Outcome) -> PathBuf {
    let said = outcome.succeeds().stdout();
    let path = said.lines().last().unwrap_or_else(|| panic!("no path"));
    place.path(path)
}

fn cached(place: &Place, arguments: &[&str]) -> PathBuf {
    let words = ["cached", "--folder", "disks"];
    disk_of(place, place.run(words.iter().chain(arguments)))
}

/// The disk that `image-builder disk` makes of the same files.
fn made_anew(place: &Place, arguments: &[&str]) -> Vec<u8> {
    place.run(["disk", "--out", "anew.img"].iter().chain(arguments)).succeeds();
    read(&place.path("anew.img"))
}

/// Makes the file older, so that its checksum may be remembered.
fn settle(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    // The new time was a change too.
    thread::sleep(Duration::from_millis(2100));
}

#[test]
fn a_disk_is_made_once_for_the_same_content() {
    let place = Place::new();
    place.write("a.gguf", model(0, 1009));
    place.write("p.txt", "Once");
    place.write("c.toml", "max_tokens = 3\n");
    let all: &[&[&str]] = &[
        &["a.gguf"],
        &["--prompt-file", "p.txt", "a.gguf"],
        &["--config", "c.toml", "a.gguf"],
        &["--size", "16M", "a.gguf"],
        &["--label", "OTHER", "a.gguf"],
        &["--verify", "--config", "c.toml", "--prompt-file", "p.txt", "a.gguf"],
    ];
    let disks: Vec<PathBuf> = all.iter().map(|arguments| cached(&place, arguments)).collect();
    for (disk, arguments) in disks.iter().zip(all) {
        assert!(read(disk) == made_anew(&place, arguments), "{arguments:?}");
        let made = disk.metadata().unwrap().ino();
        assert_eq!(cached(&place, arguments), *disk);
        assert_eq!(disk.metadata().unwrap().ino(), made, "{arguments:?} made it again");
        assert_eq!(disks.iter().filter(|other| *other == disk).count(), 1, "{arguments:?}");
    }
    // An incomplete disk is not used.
    File::options().write(true).open(&disks[0]).unwrap().set_len(4096).unwrap();
    assert!(read(&cached(&place, all[0])) == made_anew(&place, all[0]));
}

#[test]
fn another_file_in_the_place_of_one_is_seen_whatever_its_size_and_times() {
    let place = Place::new();
    let path = place.write("a.gguf", model(0, 1009));
    settle(&path);
    let first = cached(&place, &["a.gguf"]);
    assert!(read(&place.path("disks/.sums")).len() > 64, "the sum is remembered");
    let copy_time = |from: &Path, to: &Path| {
        let time = from.metadata().unwrap().modified().unwrap();
        File::options().write(true).open(to).unwrap().set_modified(time).unwrap();
    };
    // Another file in the model's place, and the model overwritten, both with the old time.
    let other = place.write("other", model(1, 1009));
    copy_time(&path, &other);
    fs::rename(&other, &path).unwrap();
    let second = cached(&place, &["a.gguf"]);
    assert!(second != first && read(&second) == made_anew(&place, &["a.gguf"]));
    settle(&path);
    assert_eq!(cached(&place, &["a.gguf"]), second);
    let reference = place.write("reference", "");
    copy_time(&path, &reference);
    fs::write(&path, model(2, 1009)).unwrap();
    copy_time(&reference, &path);
    let third = cached(&place, &["a.gguf"]);
    assert!(third != second && read(&third) == made_anew(&place, &["a.gguf"]));
    // The old model again gives the old disk. A moved file is the same model.
    fs::write(&path, model(0, 1009)).unwrap();
    assert_eq!(cached(&place, &["a.gguf"]), first);
    fs::create_dir(place.path("-folder")).unwrap();
    fs::rename(&path, place.path("-folder/a.gguf")).unwrap();
    assert_eq!(cached(&place, &["--", "-folder/a.gguf"]), first);
}

#[test]
fn a_prompt_or_configuration_of_the_same_name_and_size_is_another() {
    let place = Place::new();
    place.write("a.gguf", model(0, 1009));
    for folder in ["one", "two"] {
        fs::create_dir(place.path(folder)).unwrap();
        place.write(&format!("{folder}/p.txt"), folder);
        place.write(&format!("{folder}/c.toml"), format!("system = \"{folder}\"\n"));
    }
    for (option, name) in [("--prompt-file", "p.txt"), ("--config", "c.toml")] {
        let disk = |folder: &str| cached(&place, &[option, &format!("{folder}/{name}"), "a.gguf"]);
        assert_ne!(disk("one"), disk("two"), "{name}");
    }
}

#[test]
fn a_sum_beside_the_model_is_compared_each_time() {
    let place = Place::new();
    let path = place.write("a.gguf", model(0, 1009));
    settle(&path);
    cached(&place, &["a.gguf"]);
    place.write("a.gguf.sha256", format!("{}  a.gguf\n", "a".repeat(64)));
    place.run(["cached", "--folder", "disks", "a.gguf"]).fails(1, "ChecksumMismatch");
}

#[test]
fn the_date_counts_where_the_template_has_it() {
    let place = Place::new();
    let with_template = |template: &str| {
        Builder::new()
            .string("general.architecture", "llama")
            .string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &["<unk>", "<s>", "</s>"])
            .f32s("tokenizer.ggml.scores", &[0.0; 3])
            .i32s("tokenizer.ggml.token_type", &[2, 3, 3])
            .string("tokenizer.chat_template", template)
            .tensor_f32("t", &[7], &[0.0; 7])
            .build()
    };
    let messages = "{% for m in messages %}U{{ m.content }}{% endfor %}";
    place.write("plain.gguf", with_template(messages));
    let date = "{{ strftime_now('%Y-%m-%d') }}";
    place.write("dated.gguf", with_template(&format!("{date}{messages}")));
    let disk = |name: &str, epoch: &str| {
        let mut command = place.command(["cached", "--folder", "disks", name]);
        let output = command.env("SOURCE_DATE_EPOCH", epoch).output().unwrap();
        let disk = disk_of(&place, Outcome::of(output));
        (String::from_utf8_lossy(&read(&disk)).contains("2001-09-09"), disk)
    };
    let (now, later) = ("1000000000", "1000090000");
    assert_eq!(disk("plain.gguf", now).1, disk("plain.gguf", later).1);
    assert!(disk("dated.gguf", now).0);
    assert!(!disk("dated.gguf", later).0);
    assert!(disk("dated.gguf", now).0, "the first one is still there");
}

/// Simultaneous runs with models and prompts of the same name get their own disks.
#[test]
fn runs_at_once_each_get_their_own_disk() {
    let place = Place::new();
    let all: Vec<[String; 3]> = (0..12)
        .map(|i| {
            let folder = format!("{}", i % 6);
            fs::create_dir_all(place.path(&folder)).unwrap();
            place.write(&format!("{folder}/a.gguf"), model(i % 3, 100_003));
            place.write(&format!("{folder}/p.txt"), &folder);
            [format!("--prompt-file={folder}/p.txt"), "--".into(), format!("{folder}/a.gguf")]
        })
        .collect();
    let runs: Vec<_> = all
        .iter()
        .map(|arguments| {
            let words = ["cached", "--folder", "disks"].map(String::from);
            let mut command = place.command(words.iter().chain(arguments));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (run, arguments) in runs.into_iter().zip(&all) {
        let disk = disk_of(&place, Outcome::of(run.wait_with_output().unwrap()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert!(read(&disk) == made_anew(&place, &arguments), "{arguments:?}");
    }
    let left = fs::read_dir(place.path("disks")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.iter().filter(|name| name.to_str().unwrap().starts_with("a-")).count(), 6);
}
