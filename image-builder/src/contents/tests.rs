use std::fs;

use kernel::llm::gguf::write::Builder;
use kernel::runtime::fs::FileSystem as _;
use kernel::settings::{ChatTemplate, MAX_TEXT};

use super::inputs::{open_models, read_config, read_prompt, with_chat_template};
use super::options::{volume_label, volume_size};
use super::*;

const LABEL: Label = *b"TEST       ";
/// The first byte of the volume in its file.
const VOLUME_START: u64 = 3 * 512;

/// Two models with a prompt and a configuration, and the folder of the models.
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
        BootFile::read("start.elf", "fw/start.elf".into(), vec![7; 5003]),
        BootFile::read("overlays/a-b.dtbo", "fw/a-b.dtbo".into(), vec![11; 13]),
    ];
    let settings = Config::from_toml(&config).unwrap();
    (folder, Contents { boot_files, config, settings, prompt, models })
}

/// An empty disk image.
fn disk() -> Output {
    Output::new(tempfile::tempfile().unwrap(), Path::new("m.img"))
}

#[test]
fn the_disk_reads_back_as_it_was_written() {
    let (_folder, contents) = contents();
    let mut file = disk();
    let layout = contents.lay_out(VolumeSize::Auto, LABEL, 0).unwrap();
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
    verify(file.read_back().unwrap(), VOLUME_START, &written).unwrap();
}

/// A changed bit in a file's bytes, its name, its size or a link is found.
#[test]
fn verify_finds_a_changed_bit() {
    let (_folder, contents) = contents();
    let mut file = disk();
    let layout = contents.lay_out(VolumeSize::Auto, LABEL, 0).unwrap();
    let written = contents.write(&mut file, VOLUME_START, &layout).unwrap();
    let mut places = Vec::new();
    for (_, content) in &written {
        let run = content.extents[0];
        places.extend([run.start, run.start + run.bytes / 2, run.start + run.bytes - 1]);
    }
    let root = layout.geometry.root_start();
    let models = layout.geometry.cluster_start(fat::CLUSTERS_FROM + 1);
    // A letter of the first name, the size of anchorite.toml, the first model's first cluster, and
    // the third link of the table.
    places.extend([root + 32 + 1, root + 7 * 32 + 28, models + 3 * 32 + 26]);
    places.push(layout.geometry.table_start(0) + 2 * 5);
    for place in places {
        flip(&mut file, VOLUME_START + place);
        assert!(verify(file.read_back().unwrap(), VOLUME_START, &written).is_err(), "byte {place}");
        flip(&mut file, VOLUME_START + place);
    }
    verify(file.read_back().unwrap(), VOLUME_START, &written).unwrap();
}

fn flip(file: &mut Output, place: u64) {
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

/// Opens contents with this configuration and these boot arguments.
///
/// The disk has two models, a prompt, and a file in the board's folder.
fn settings(config: Option<&str>, bootargs: Option<&str>) -> Result<Config, String> {
    let (folder, contents) = contents();
    let path = |name: &str| folder.path().join(name);
    let options = ContentOptions {
        size: VolumeSize::Auto,
        label: LABEL,
        config: config.map(|text| {
            fs::write(path("c.toml"), text).unwrap();
            path("c.toml")
        }),
        prompt_file: Some(path("Tales of old.txt")),
        verify: false,
        models: vec![path("a.gguf"), path("b c.gguf")],
    };
    let opened = Contents::open(&options, contents.boot_files, bootargs);
    opened.map(|contents| contents.settings).map_err(|e| format!("{e:#}"))
}

#[test]
fn the_configuration_is_checked_before_the_boot() {
    let config = settings(Some("model = \"b c.gguf\"\nseed = 7\n"), None).unwrap();
    assert_eq!((config.model.as_deref(), config.seed), (Some("b c.gguf"), Some(7)));
    let refused = |text: &str| settings(Some(text), None).unwrap_err();
    assert!(refused("seeds = 7\n").contains("there is no setting `seeds`"));
    let error = refused("model = \"x.gguf\"\n");
    assert!(error.contains("c.toml asks for the model x.gguf"), "{error}");
    assert!(error.contains("the models are a.gguf, b c.gguf"), "{error}");
    let long = format!("#{}", " ".repeat(MAX_TEXT));
    assert!(refused(&long).contains("longer than a configuration's 4.0 MiB"));
    // The configuration that the command writes by itself must pass too.
    let config = settings(None, None).unwrap();
    assert_eq!(config.model.as_deref(), Some("a.gguf"));
    assert_eq!(config.prompt, Prompt::File("Tales of old.txt".into()));
}

#[test]
fn a_prompt_file_that_is_not_on_the_disk_is_refused() {
    let config = |prompt: &str| format!("model = \"a.gguf\"\nprompt_file = \"{prompt}\"\n");
    for there in [
        "Tales of old.txt",
        "/tales OF old.txt",
        "anchorite.toml",
        "./models//A.gguf.sha256",
        "overlays/../start.elf",
        "overlays/a-b.dtbo",
    ] {
        let settings = settings(Some(&config(there)), None).unwrap();
        assert_eq!(settings.prompt, Prompt::File(there.into()));
    }
    for missing in ["old.txt", "models/Tales of old.txt", "models", "a-b.dtbo", "/", "Tales of old"]
    {
        let error = settings(Some(&config(missing)), None).unwrap_err();
        let says = format!("c.toml asks for the prompt_file {missing}, which is not on the disk");
        assert!(error.contains(&says) && error.contains("--prompt-file FILE"), "{error}");
    }
    // Boot arguments that go with the disk override the configuration.
    let given = |bootargs| settings(Some(&config("none.txt")), Some(bootargs));
    assert!(given("seed=7").unwrap_err().contains("c.toml asks for the prompt_file none.txt"));
    assert_eq!(given("prompt=Once").unwrap().prompt, Prompt::Text("Once".into()));
    let error = given("prompt_file=gone.txt").unwrap_err();
    assert!(error.starts_with("--bootargs asks for the prompt_file gone.txt"), "{error}");
    let error = settings(None, Some("model=x.gguf")).unwrap_err();
    assert!(error.starts_with("--bootargs asks for the model x.gguf, but"), "{error}");
    assert_eq!(settings(None, Some("context=64")).unwrap().context_options().n_ctx, Some(64));
}

/// The kernel's own reader finds the files that are written here.
///
/// Names have letters of one and of two UTF-16 units, the maximum length, and capitals.
#[test]
fn the_kernel_finds_each_name_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let longest = format!("{}é.gguf", "🦙".repeat(60));
    assert_eq!(longest.len(), 247);
    let names = ["🦙.gguf", "Größe 日本語.GGUF", "X.Gguf", "𝄞 – a𐀀b\u{10fffd}.gguf", &longest];
    let mut paths = Vec::new();
    for (i, name) in names.iter().enumerate() {
        paths.push(folder.path().join(name));
        let model = Builder::new().tensor_f32("t", &[7], &[i as f32; 7]);
        let model = model.string("general.architecture", "llama").build();
        fs::write(paths.last().unwrap(), model).unwrap();
    }
    let models = open_models(&paths).unwrap();
    let config = read_config(None, &models, None).unwrap();
    let settings = Config::from_toml(&config).unwrap();
    let contents = Contents { boot_files: Vec::new(), config, settings, prompt: None, models };
    let mut file = disk();
    let layout = contents.lay_out(VolumeSize::Auto, LABEL, 0).unwrap();
    let written = contents.write(&mut file, 0, &layout).unwrap();
    verify(file.read_back().unwrap(), 0, &written).unwrap();

    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let mut volume = kernels_reader::mount(bytes);
    let listed = volume.directory("models").unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
    let of_models = listed.iter().filter(|name| kernel::model_files::is_model(name));
    assert!(of_models.eq(names.iter()), "{listed:?}");
    for (name, path) in names.iter().zip(&paths) {
        let place = format!("/models/{}", name.to_lowercase());
        assert_eq!(volume.entry(&place).unwrap().bytes, fs::metadata(path).unwrap().len());
        assert!(volume.entry(&format!("{place}.SHA256")).is_ok(), "{name}");
    }
}

/// A device of the kernel's over bytes in memory.
mod kernels_reader {
    use kernel::runtime::dev::block::ram::RamDisk;
    use kernel::runtime::dev::block::{Clock, Disk};
    use kernel::runtime::fs::volume::Volume;

    /// An unused clock: each request is complete at once.
    struct Still;

    impl Clock for Still {
        fn now_us(&self) -> u64 {
            0
        }

        fn pause(&self, _: u32) {}
    }

    pub fn mount(bytes: Vec<u8>) -> Volume {
        let device = RamDisk::new(bytes.leak());
        Volume::find(Disk::new(Box::new(device), Box::new(Still))).unwrap()
    }
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
        ("a\u{85}b", b"", "'\\u{85}', which FAT cannot hold"),
        ("a\u{ffff}", b"", "'\\u{ffff}', which FAT cannot hold"),
    ] {
        let error = refused(name, text).unwrap();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn a_model_that_changes_while_it_is_copied_is_noticed() {
    let mut disk = disk();
    for (bytes, problem) in [(1012, "m.gguf grew"), (1014, "m.gguf shrank")] {
        let file = FileSpec { path: "m".into(), bytes };
        let error = copy(&mut &[7; 1013][..], "m.gguf", &mut disk, 0, &file).unwrap_err();
        let error = error.to_string();
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
    // Nothing is added for no model, for a model without a template, or over a setting.
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
