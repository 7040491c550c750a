//! `image-builder disk` and `inspect`, checked by the system's own tools.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kernel::llm::gguf::write::Builder;

use super::common::{Place, model, read, sum_line, system_tool};

/// `fsck.fat` finds no fault, and mtools read every file unchanged.
#[track_caller]
fn is_sound(image: &Path, files: &[(&str, &[u8])]) {
    if let Some(output) = system_tool("fsck.fat", &["-n".as_ref(), image.as_ref()]) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        // A banner and a line of figures are normal. Any other line is a complaint.
        assert_eq!(text.lines().count(), 2, "{text}");
    }
    for (path, bytes) in files {
        let source = format!("::{path}");
        let arguments = ["-i".as_ref(), image.as_ref(), source.as_ref()];
        if let Some(output) = system_tool("mtype", &arguments) {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == *bytes, "{path} reads otherwise");
        }
    }
    if let Some(output) = system_tool(
        "mdir",
        &["-/".as_ref(), "-b".as_ref(), "-i".as_ref(), image.as_ref(), "::".as_ref()],
    ) {
        let text = String::from_utf8_lossy(&output.stdout);
        for (path, _) in files {
            assert!(text.lines().any(|line| line == format!("::/{path}")), "{path} not in {text}");
        }
    }
}

/// A path as an argument.
fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_systems_tools_read_each_kind_of_volume() {
    let place = Place::new();
    let config = b"max_tokens = 7\nmodel = \"two.gguf\"\n";
    place.write("c.toml", config);
    let (one, two) = (model(0, 1009), model(7, 500_009));
    place.write("a first model, with a long name.gguf", &one);
    place.write("two.gguf", &two);
    for size in ["auto", "8M", "17M", "64M", "511M", "512M", "3G"] {
        let arguments = ["disk", "--verify", "--label", "my disk", "--config", "c.toml", "--size"];
        let rest = [size, "--out", "m.img", "a first model, with a long name.gguf", "two.gguf"];
        place.run(arguments.iter().chain(&rest)).succeeds();
        is_sound(
            &place.path("m.img"),
            &[
                ("anchorite.toml", config),
                ("models/a first model, with a long name.gguf", &one),
                ("models/two.gguf", &two),
            ],
        );
    }
}

#[test]
fn equal_input_gives_an_equal_image_and_other_input_another() {
    let place = Place::new();
    place.write("one.gguf", model(0, 1009));
    place.run(["disk", "--out", "a.img", "one.gguf"]).succeeds();
    // Neither the time nor the folder may change the disk.
    let other = Place::new();
    fs::copy(place.path("one.gguf"), other.path("one.gguf")).unwrap();
    other.run(["disk", "--out", "b.img", "one.gguf"]).succeeds();
    assert!(read(&place.path("a.img")) == read(&other.path("b.img")));
    other.write("one.gguf", model(1, 1009));
    other.run(["disk", "--out", "b.img", "one.gguf"]).succeeds();
    assert!(read(&place.path("a.img")) != read(&other.path("b.img")));
}

/// A refused command leaves no file behind, and keeps the old image.
#[test]
fn a_refusal_leaves_no_output() {
    let place = Place::new();
    let whole = model(0, 4001);
    place.write("good.gguf", &whole);
    place.write("text.gguf", "This is no model.");
    place.write("empty.gguf", "");
    place.write("cut.gguf", &whole[..whole.len() - 1]);
    place.write("cut header.gguf", &whole[..61]);
    place.write("model.bin", &whole);
    place.write("wh?t.gguf", &whole);
    place.write("dri\u{9b}ve.gguf", &whole);
    place.write(&format!("{}.gguf", "n".repeat(244)), &whole);
    place.write("bad.toml", "sede = 7\n");
    place.write("summed.gguf", &whole);
    place.write("summed.gguf.sha256", format!("{}  summed.gguf\n", "a".repeat(64)));
    place.write("badly summed.gguf", &whole);
    place.write("badly summed.gguf.sha256", "none\n");
    place.write("listed.gguf", &whole);
    let list = |digit: &str| format!("SHA256 (listed.gguf) = {}\n", digit.repeat(64));
    place.write("listed.gguf.sha256", list("a") + &list("b"));
    place.write("folder sum.gguf", &whole);
    fs::create_dir(place.path("folder sum.gguf.sha256")).unwrap();
    place.write("asks.toml", "prompt_file = \"p.txt\"\n");
    fs::create_dir(place.path("folder")).unwrap();
    place.write("folder/GOOD.GGUF", &whole);
    // The kernel takes these two names for one: the second is the first in capitals.
    place.write("gr\u{f6}\u{df}e.gguf", &whole);
    place.write("folder/GR\u{d6}SSE.gguf", &whole);
    fs::create_dir(place.path("folder.gguf")).unwrap();
    let huge = File::create(place.path("huge.gguf")).unwrap();
    huge.write_all_at(&model(0, 7), 0).unwrap();
    huge.set_len(1 << 32).unwrap();
    let mut before = place.names();

    for there_is_one_already in [false, true] {
        if there_is_one_already {
            place.write("m.img", "what was there before");
            before.push("m.img".into());
            before.sort();
        }
        let long_name = format!("{}.gguf", "n".repeat(244));
        let cases: &[(&[&str], &str)] = &[
            (&["text.gguf"], "is no GGUF file"),
            (&["empty.gguf"], "is no GGUF file"),
            (&["cut.gguf"], "damaged or not all there"),
            (&["cut header.gguf"], "damaged or not all there"),
            (&["missing.gguf"], "cannot read missing.gguf"),
            (&["folder.gguf"], "is no file"),
            (&["model.bin"], "must end in .gguf"),
            (&["wh?t.gguf"], "'?', which FAT cannot hold"),
            (&["dri\u{9b}ve.gguf"], "'\\u{9b}', which FAT cannot hold"),
            (&[&long_name], "longer than 248 bytes"),
            (&["huge.gguf"], "at most 4 GiB less one byte"),
            (&["good.gguf", "folder/GOOD.GGUF"], "would have one name"),
            (&["gr\u{f6}\u{df}e.gguf", "folder/GR\u{d6}SSE.gguf"], "would have one name"),
            (&["good.gguf", "--config", "bad.toml"], "there is no setting `sede`"),
            (&["good.gguf", "--config", "none.toml"], "cannot read none.toml"),
            (&["summed.gguf"], &"a".repeat(64)),
            (&["summed.gguf"], "ChecksumMismatch"),
            (
                &["badly summed.gguf"],
                "badly summed.gguf.sha256 holds no SHA-256 digest of badly summed.gguf",
            ),
            (&["listed.gguf"], "listed.gguf.sha256 holds two SHA-256 digests of listed.gguf"),
            (&["folder sum.gguf"], "cannot read folder sum.gguf.sha256"),
            (
                &["good.gguf", "--config", "asks.toml"],
                "asks for the prompt_file p.txt, which is not",
            ),
        ];
        for (arguments, says) in cases {
            let printed =
                place.run(["disk", "--out", "m.img"].iter().chain(*arguments)).fails(1, says);
            assert!(!printed.stderr().contains("m.img"), "{}", printed.stderr());
            assert_eq!(place.names(), before, "{arguments:?}");
        }
        for (arguments, says) in [
            (&["good.gguf", "--size", "5M"][..], "8M to 2T"),
            (&["good.gguf", "--label", "much too long"], "1 to 11 letters"),
            (&[], "required"),
        ] {
            place.run(["disk", "--out", "m.img"].iter().chain(arguments)).fails(2, says);
        }
        place.run(["disk", "--out", "nowhere/m.img", "good.gguf"]).fails(1, "nowhere/m.img");
    }
    assert_eq!(read(&place.path("m.img")), b"what was there before");
}

/// Names of any letters work, and checksums from a list of several files.
#[test]
fn names_in_any_letters_and_lists_of_digests_will_do() {
    let place = Place::new();
    let names = ["🦙 Größe.GGUF", "Q.Gguf"];
    for (i, name) in names.iter().enumerate() {
        let bytes = model(i, 1009 + i);
        place.write(name, &bytes);
        let digest = sum_line(&bytes, "")[..64].to_owned();
        let zeros = "0".repeat(64);
        let list = [
            format!("{zeros}  other.gguf\nSHA256 (sub/{name}) = {digest}\n\\{zeros}  a\\nb\n"),
            format!("# two\r\n{zeros} *other.gguf\r\n{} *{name}\r\n", digest.to_uppercase()),
        ];
        place.write(&format!("{name}.sha256"), &list[i]);
    }
    place.run(["disk", "--verify", "--out", "m.img", names[0], names[1]]).succeeds();
    let image = place.path("m.img");
    is_sound(&image, &[("models/Q.Gguf", &read(&place.path(names[1])))]);
    // mtools show a character of two UTF-16 units as two other characters.
    let folder = place.path("copy");
    let arguments = ["-s", "-n", "-i", word(&image), "::models", word(&folder)].map(OsStr::new);
    if let Some(output) = system_tool("mcopy", &arguments) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(read(&folder.join("__ Größe.GGUF")) == read(&place.path(names[0])));
    }
    let listed = place.run(["inspect", "--json", "m.img"]).succeeds().stdout();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    for name in names {
        let files = listed["files"].as_array().unwrap();
        let path = format!("models/{name}");
        let file = files.iter().find(|file| file["path"] == path).unwrap();
        assert_eq!(file["checksum"], "verified", "{name}");
        let model = place.run(["inspect", "--json", name]).succeeds().stdout();
        assert!(model.contains("\"checksum\": \"verified\""), "{model}");
    }

    // The list's line for the model counts.
    let wrong = format!("{}  {}\n{}  b.gguf\n", "1".repeat(64), names[1], "2".repeat(64));
    place.write("Q.Gguf.sha256", wrong);
    let printed =
        place.run(["disk", "--out", "m.img", names[1]]).fails(1, "ChecksumMismatch").stderr();
    assert!(
        printed.contains("Q.Gguf.sha256 says") && printed.contains(&"1".repeat(64)),
        "{printed}"
    );
}

/// The largest file that fsck.fat can check.
///
/// fsck.fat counts the bytes of a file's clusters in 32 bits. Clusters have 32 KiB here.
#[test]
fn a_sparse_file_of_almost_four_gib_fits() {
    const BYTES: u64 = (1 << 32) - (32 << 10) - 1;
    const END: &[u8; 7] = b"the end";
    let place = Place::new();
    let start = model(0, 7);
    let file = File::create(place.path("huge.gguf")).unwrap();
    file.write_all_at(&start, 0).unwrap();
    file.write_all_at(END, BYTES - END.len() as u64).unwrap();
    drop(file);
    place
        .run(["disk", "--out", "m.img", "--size", "4095M", "huge.gguf"])
        .fails(1, "it takes at least --size 409");
    place.run(["disk", "--out", "m.img", "huge.gguf"]).succeeds();
    is_sound(&place.path("m.img"), &[]);

    let image = File::open(place.path("m.img")).unwrap();
    let stored = image.metadata().unwrap().blocks() * 512;
    assert!(stored < 64 << 20, "{stored} bytes of a sparse file's image are stored");
    let mut seen = vec![0; start.len()];
    let first = (0..image.metadata().unwrap().len()).step_by(32 << 10).find(|&at| {
        image.read_exact_at(&mut seen, at).unwrap();
        seen == start
    });
    let mut end = [0; END.len()];
    image.read_exact_at(&mut end, first.unwrap() + BYTES - END.len() as u64).unwrap();
    assert_eq!(&end, END);
}

#[test]
fn a_build_that_a_signal_ends_leaves_nothing_behind() {
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let place = Place::new();
        // The model is so large that the command still runs when the signal comes.
        let file = File::create(place.path("huge.gguf")).unwrap();
        file.write_all_at(&model(0, 7), 0).unwrap();
        file.set_len(3 << 30).unwrap();
        let mut child = place.command(["disk", "--out", "m.img", "huge.gguf"]).spawn().unwrap();
        while place.names().len() == 1 {
            assert_eq!(child.try_wait().unwrap(), None, "it ends before it writes");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The file exists a moment before it is guarded.
        std::thread::sleep(Duration::from_millis(300));
        let killed = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        assert_eq!(place.names(), ["huge.gguf"]);
    }
}

#[test]
fn inspect_tells_what_is_inside() {
    let place = Place::new();
    let bytes = model(0, 1009);
    place.write("one.gguf", &bytes);
    place.run(["disk", "--out", "m.img", "one.gguf"]).succeeds();

    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&place.run(arguments).succeeds().stdout()).unwrap()
    };
    let disk = json(&["inspect", "--json", "m.img"]);
    assert_eq!(disk["filesystem"], "FAT16");
    assert_eq!(disk["label"], "ANCHORITE");
    let file = &disk["files"][1];
    assert_eq!(file["path"], "models/one.gguf");
    assert_eq!(file["bytes"], bytes.len());
    assert_eq!(file["checksum"], "verified");
    let start = file["extents"][0]["start"].as_u64().unwrap() as usize;
    assert_eq!(file["extents"].as_array().unwrap().len(), 1);
    let mut image = read(&place.path("m.img"));
    assert!(image[start..start + bytes.len()] == bytes);

    let model = json(&["inspect", "--json", "one.gguf"]);
    assert_eq!(model["checksum"], "missing");
    assert_eq!(model["sha256"], file["sha256"]);
    assert_eq!(model["parameters"], 1009);
    assert_eq!(model["shape"]["block_count"], 7);
    assert_eq!(model["memory"], serde_json::Value::Null);
    let why = model["unsupported"].as_str().unwrap();
    assert!(why.contains("tokenizer"), "{why}");
    assert_eq!(model["tensor_types"][0]["type"], "F32");
    assert_eq!(model["tensors"][0]["name"], "output.weight");
    assert_eq!(model["tensors"][0]["dims"], serde_json::json!([1009]));

    let table = place.run(["inspect", "one.gguf"]).succeeds().stdout();
    assert!(table.contains("output.weight") && table.contains("block_count"), "{table}");
    assert!(!table.contains('\x1b'), "the model drives the terminal");
    let warned = place.run(["disk", "--out", "m.img", "one.gguf"]).stderr();
    assert!(warned.contains("will not run one.gguf"), "{warned}");
    assert!(!warned.contains('\x1b'), "the model drives the terminal");

    // This is a model that the engine can run.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test_models/tiny.gguf");
    let tiny = json(&["inspect", "--json", path]);
    assert_eq!(tiny["unsupported"], serde_json::Value::Null);
    assert_eq!(tiny["checksum"], "verified");
    // Keys and values are 128 F16 each in 6 layers, for 256 positions.
    assert_eq!(tiny["memory"]["kv_cache"], 2 * 128 * 2 * 6 * 256);

    // Both reports show a changed byte.
    image[start + 97] ^= 4;
    place.write("m.img", image);
    place.run(["inspect", "m.img"]).fails(1, "ChecksumMismatch: models/one.gguf");
    place.write("one.gguf.sha256", format!("{}  one.gguf\n", "0".repeat(64)));
    place.run(["inspect", "one.gguf"]).fails(1, "ChecksumMismatch: one.gguf");
    place.write("text", "This is neither.");
    place.run(["inspect", "text"]).fails(1, "no GGUF model, no kernel and no disk image");
}

/// The repository's model with a chat template.
#[test]
fn a_chat_template_is_shown_and_written() {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models/chat");
    let mut model = read(&folder.join("model.gguf"));
    place.write("m.gguf", &model);
    let shown = place.run(["inspect", "m.gguf"]).succeeds().stdout();
    assert!(shown.contains("Chat template (the kernel recognises it as chatml)"), "{shown}");
    assert!(shown.contains("    chat_user_prefix = \"<|im_start|>user\\n\"\n"), "{shown}");
    let json = place.run(["inspect", "--json", "m.gguf"]).succeeds().stdout();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let found = &json["chat_template"];
    assert_eq!(found["recognised"], "chatml");
    assert_eq!(found["settings"]["chat_assistant_suffix"], "<|im_end|>\n");
    assert_eq!((&found["takes_system"], &found["problem"]), (&true.into(), &().into()));

    place.run(["disk", "--out", "m.img", "m.gguf"]).succeeds();
    let image = place.path("m.img");
    let config = ["-i".as_ref(), image.as_ref(), "::anchorite.toml".as_ref()];
    if let Some(output) = system_tool("mtype", &config) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("\nchat_assistant_prefix = \"<|im_start|>assistant\\n\"\n"),
            "{text}"
        );
    }
    // A broken template is a warning, and its text does not drive the terminal.
    let at = model.windows(5).position(|bytes| bytes == b"{%- f").unwrap();
    model[at..at + 9].copy_from_slice(b"{%-\x1b[2J %");
    place.write("m.gguf", &model);
    let said = place.run(["disk", "--out", "m.img", "m.gguf"]).succeeds().stderr();
    assert!(said.contains("warning: the chat template of m.gguf: line "), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
    place.run(["inspect", "m.gguf"]).succeeds();
}

#[test]
fn a_date_in_a_template_can_be_fixed() {
    let place = Place::new();
    let model = Builder::new()
        .string("general.architecture", "llama")
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &["<unk>", "<s>", "</s>"])
        .f32s("tokenizer.ggml.scores", &[0.0; 3])
        .i32s("tokenizer.ggml.token_type", &[2, 3, 3])
        .string(
            "tokenizer.chat_template",
            "{{ strftime_now('%s') }}{% for m in messages %}U{{ m.content }}{% endfor %}",
        )
        .tensor_f32("t", &[7], &[0.0; 7]);
    place.write("m.gguf", model.build());
    let image = |epoch: &str, name: &str| {
        let arguments = ["disk", "--out", name, "m.gguf"];
        place.command(arguments).env("SOURCE_DATE_EPOCH", epoch).output().unwrap()
    };
    for (epoch, name) in [("17", "a.img"), ("17", "b.img"), ("19", "c.img")] {
        assert!(image(epoch, name).status.success());
    }
    let [a, b, c] = ["a.img", "b.img", "c.img"].map(|name| read(&place.path(name)));
    assert!(a == b && b != c);
    let text = b"chat_first_user_prefix = \"17U\"";
    assert!(a.windows(text.len()).any(|bytes| bytes == text));
    let refused = image("soon", "d.img");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SOURCE_DATE_EPOCH"));
}
