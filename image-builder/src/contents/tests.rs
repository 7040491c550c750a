use kernel::llm::gguf::build::Builder;

use super::*;
use kernel::app::config::Prompt;

const LABEL: Label = *b"TEST       ";
/// Where the volume starts in its file.
const VOLUME_START: u64 = 3 * 512;

/// Two models and a configuration, and the folder that the models are in.
fn contents() -> (tempfile::TempDir, Contents) {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, weights) in [("a.gguf", 1009), ("b c.gguf", 70_001)] {
        let values: Vec<f32> = (0..weights).map(|i| i as f32).collect();
        let model = Builder::new()
            .string("general.architecture", "llama")
            .tensor_f32("t", &[weights as u64], &values)
            .build();
        paths.push(folder.path().join(name));
        fs::write(paths.last().unwrap(), model).unwrap();
    }
    let models = open_models(&paths).unwrap();
    let path = folder.path().join("Tales of old.txt");
    fs::write(&path, "Once upon a time").unwrap();
    let prompt = Some(read_prompt(&path).unwrap());
    let config = read_config(None, &models, prompt.as_ref()).unwrap();
    let boot_files = vec![
        BootFile { path: "start.elf".into(), bytes: vec![7; 5003] },
        BootFile { path: "overlays/a-b.dtbo".into(), bytes: vec![11; 13] },
    ];
    (folder, Contents { boot_files, config, prompt, models })
}

#[test]
fn the_disk_reads_back_as_it_was_written() {
    let (_folder, contents) = contents();
    let mut file = tempfile::tempfile().unwrap();
    let layout = contents.lay_out_as(VolumeSize::Auto, LABEL, 0).unwrap();
    let written = contents.write(&mut file, VOLUME_START, &layout).unwrap();
    let paths: Vec<_> = written.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "start.elf",
            "overlays/a-b.dtbo",
            "anchorite.toml",
            "Tales of old.txt",
            "models/a.gguf",
            "models/a.gguf.sha256",
            "models/b c.gguf",
            "models/b c.gguf.sha256"
        ]
    );
    verify(file, VOLUME_START, &written).unwrap();
}

/// One changed bit in any file's first, middle or last byte, in a name, a size or a link.
#[test]
fn verify_finds_a_changed_bit() {
    let (_folder, contents) = contents();
    let mut file = tempfile::tempfile().unwrap();
    let layout = contents.lay_out_as(VolumeSize::Auto, LABEL, 0).unwrap();
    let written = contents.write(&mut file, VOLUME_START, &layout).unwrap();
    let mut places = Vec::new();
    for (_, content) in &written {
        let run = content.extents[0];
        places.extend([run.start, run.start + run.bytes / 2, run.start + run.bytes - 1]);
    }
    let root = layout.geometry.root_start();
    let models = layout.geometry.cluster_start(fat::CLUSTERS_FROM + 1);
    // A letter of the firmware's first name, the size of anchorite.toml, the first cluster of the first
    // model, and the third link of the table that is read.
    places.extend([root + 32 + 1, root + 7 * 32 + 28, models + 3 * 32 + 26]);
    places.push(layout.geometry.table_start(0) + 2 * 5);
    for place in places {
        flip(&mut file, VOLUME_START + place);
        assert!(verify(file.try_clone().unwrap(), VOLUME_START, &written).is_err(), "byte {place}");
        flip(&mut file, VOLUME_START + place);
    }
    verify(file, VOLUME_START, &written).unwrap();
}

fn flip(file: &mut File, place: u64) {
    let mut byte = [0];
    file.seek(SeekFrom::Start(place)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

#[test]
fn labels_are_what_fat_can_hold() {
    assert_eq!(volume_label("My_disk"), Ok(*b"MY_DISK    "));
    for bad in ["", "   ", "twelve chars", "a.b", "a/b", "Grün", "a\n"] {
        assert!(volume_label(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn sizes_are_what_fat_can_have() {
    assert!(matches!(volume_size("auto"), Ok(VolumeSize::Auto)));
    assert!(matches!(volume_size("64M"), Ok(VolumeSize::Bytes(n)) if n == 64 << 20));
    for bad in ["7M", "3T", "67108865", "much"] {
        assert!(volume_size(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_configuration_is_checked_before_the_boot() {
    let (folder, contents) = contents();
    let path = folder.path().join("c.toml");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_config(Some(&path), &contents.models, None).map_err(|e| format!("{e:#}"))
    };
    assert_eq!(
        read("model = \"b c.gguf\"\nseed = 7\n").unwrap(),
        "model = \"b c.gguf\"\nseed = 7\n"
    );
    assert!(read("seeds = 7\n").unwrap_err().contains("there is no setting `seeds`"));
    assert!(read("model = \"x.gguf\"\n").unwrap_err().contains("the models are a.gguf, b c.gguf"));
    // What is written where none is given must itself pass.
    let config = Config::from_toml(&contents.config).unwrap();
    assert_eq!(config.model.as_deref(), Some("a.gguf"));
    assert_eq!(config.prompt, Prompt::File("Tales of old.txt".into()));
}

#[test]
fn a_prompt_that_the_kernel_would_not_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        read_prompt(&path).err().map(|e| format!("{e:#}"))
    };
    assert_eq!(refused("a.txt", &vec![b' '; MAX_TEXT]), None);
    for (name, text, problem) in [
        ("a.txt", &vec![b' '; MAX_TEXT + 1][..], "longer than a prompt's 4.0 MiB"),
        ("a.txt", b"\xff", "UTF-8"),
        ("Models", b"", "the disk's own Models"),
        ("a:b", b"", "':', which FAT cannot hold"),
    ] {
        let error = refused(name, text).unwrap();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn a_model_that_changes_while_it_is_copied_is_noticed() {
    let mut disk = tempfile::tempfile().unwrap();
    for (bytes, problem) in [(1012, "grew"), (1014, "shrank")] {
        let file = FileSpec { path: "m".into(), bytes };
        let error = copy(&mut &[7; 1013][..], &mut disk, 0, &file).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn the_texts_of_the_models_chat_template_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, template) in [
        ("a.gguf", "{% for m in messages %}A{{ m.content }}{% endfor %}"),
        ("b.gguf", "{% for m in messages %}B{{ m.content }}{% endfor %}"),
        ("none.gguf", ""),
        ("broken.gguf", "{% if"),
    ] {
        let model = Builder::new()
            .string("general.architecture", "llama")
            .string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &["<unk>", "<s>", "</s>"])
            .f32s("tokenizer.ggml.scores", &[0.0; 3])
            .i32s("tokenizer.ggml.token_type", &[2, 3, 3])
            .tensor_f32("t", &[7], &[0.0; 7]);
        let model = match template {
            "" => model,
            template => model.string("tokenizer.chat_template", template),
        };
        paths.push(folder.path().join(name));
        fs::write(paths.last().unwrap(), model.build()).unwrap();
    }
    let models = open_models(&paths).unwrap();
    let added = |text: &str| with_chat_template(text.to_owned(), &models).unwrap();
    let prefix = |text: &str| {
        let text = added(text);
        let config = Config::from_toml(&text).unwrap();
        (config.chat_template == ChatTemplate::Texts).then_some(config.chat_texts.user.prefix)
    };
    assert_eq!(prefix("model = \"a.gguf\""), Some("A".into()));
    assert_eq!(prefix("seed = 7 # b\nmodel = \"b.gguf\" # b"), Some("B".into()));
    // Of no model, of one without a template, or against what is set.
    for text in [
        "",
        "model = \"none.gguf\"\n",
        "model = \"broken.gguf\"\n",
        "chat_template = \"plain\"\nmodel = \"a.gguf\"",
        "chat_template = \"auto\"\nmodel = \"a.gguf\"",
        "chat_template = \"gemma\"\nmodel = \"a.gguf\"",
        "chat_user_suffix = \"x\"\nmodel = \"a.gguf\"",
    ] {
        assert_eq!(added(text), text);
    }
    let alone = open_models(&paths[..1]).unwrap();
    let text = with_chat_template(String::new(), &alone).unwrap();
    assert!(text.contains("\nchat_user_prefix = \"A\"\n"), "{text}");
}
