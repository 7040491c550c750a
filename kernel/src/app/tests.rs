//! The program from its arguments to its exit status, on a played machine with the real model.

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::fs;
use std::path::Path;
use std::string::String;
use std::sync::LazyLock;
use std::vec::Vec;

use crate::app::fake_abi::{World, protected_so_far, reads_so_far, run_in_world};
use crate::app::run;
use hermit_abi::{PROT_READ, PROT_WRITE};

use crate::backend::self_test::TESTS;
use crate::backend::{ContextOptions, Plan};
use crate::llm::gguf::Gguf;
use crate::llm::gguf::write::{Description, header};
use crate::llm::kv_cache::CacheType;
use crate::model_files::LONGEST_SUM_FILE;
use crate::report::{
    Chat, ChatState, Checksum, Code, Event, Fault, Model, Outcome, StopReason, Test,
};
use crate::system::DiskFailure;

/// The test model and its checksum file.
static TINY: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models");
    let read = |name| fs::read(folder.join(name)).unwrap();
    (read("tiny.gguf"), read("tiny.gguf.sha256"))
});

static GPT2: &[u8] = include_bytes!("../../../test_models/tiny-gpt2.gguf");

const MODEL: &str = "/models/tiny.gguf";
const CHECKSUM: &str = "/models/tiny.gguf.sha256";

fn model_disk(world: &mut World) {
    world.files.insert(MODEL, TINY.0.clone());
    world.files.insert(CHECKSUM, TINY.1.clone());
}

/// What a run left behind.
struct Run {
    status: i32,
    console: String,
    events: Vec<Event>,
}

impl Run {
    fn new(set_up: impl FnOnce(&mut World), arguments: &[&str]) -> Run {
        Run::of_bytes(set_up, arguments)
    }

    fn of_bytes(
        set_up: impl FnOnce(&mut World),
        arguments: &[&(impl AsRef<[u8]> + ?Sized)],
    ) -> Run {
        let (status, console) = run_in_world(set_up, || run(arguments.iter().copied()));
        let events =
            console.lines().filter_map(Event::from_line).collect::<Result<_, _>>().unwrap();
        Run { status, console, events }
    }

    fn model(&self) -> &Model {
        let model = self.events.iter().find_map(|event| match event {
            Event::Model(model) => Some(model),
            _ => None,
        });
        model.unwrap_or_else(|| panic!("no model: {}", self.console))
    }

    fn results(&self) -> Vec<&Outcome> {
        let results = self.events.iter().filter_map(|event| match event {
            Event::Result(result) => Some(result),
            _ => None,
        });
        results.collect()
    }

    fn tests(&self) -> impl Iterator<Item = &Test> {
        self.events.iter().filter_map(|event| match event {
            Event::Test(test) => Some(test),
            _ => None,
        })
    }

    /// Checks that the run failed, with an error as its last event and no result.
    #[track_caller]
    fn fails_with(&self, code: Code, message: &str) -> &Fault {
        assert_eq!(self.status, 1, "{}", self.console);
        assert!(self.results().is_empty(), "{}", self.console);
        match self.events.last() {
            Some(Event::Error(fault)) => {
                assert_eq!(fault.code, code, "{fault:?}");
                assert!(fault.message.contains(message), "{fault:?}");
                assert!(!fault.hint.is_empty());
                fault
            }
            _ => panic!("no error: {}", self.console),
        }
    }
}

#[test]
fn a_server_needs_a_network_card() {
    Run::new(model_disk, &["mode=serve"]).fails_with(Code::NetworkError, "no network card");
}

#[test]
fn a_prompt_is_answered() {
    let run = Run::new(model_disk, &["prompt=Once upon a time", "max_tokens=7"]);
    assert_eq!(run.status, 0, "{}", run.console);
    let model = run.model();
    assert_eq!((model.file.as_str(), model.architecture.as_str()), ("tiny.gguf", "llama"));
    assert_eq!(model.bytes, TINY.0.len() as u64);
    assert_eq!(model.checksum, Checksum::Verified);
    assert!(TINY.1.starts_with(model.sha256.as_ref().unwrap().as_bytes()));
    let results = run.results();
    assert_eq!(results.len(), 1);
    assert_eq!((results[0].tokens_emitted, results[0].tokens.len()), (7, 7));
    assert_eq!(results[0].stop, StopReason::MaxTokens);
    assert!(run.console.contains(&format!("\nOnce upon a time{}\n", results[0].output)));
}

#[test]
fn a_prompt_that_is_no_utf8_is_refused_by_name() {
    let run = Run::of_bytes(model_disk, &[&b"max_tokens=1"[..], b"prompt=caf\xE9"]);
    run.fails_with(Code::InvalidConfig, "boot argument `prompt=caf\u{FFFD}`");
    for (path, argument) in
        [("/anchorite.toml", "max_tokens=1"), ("/prompt.txt", "prompt_file=prompt.txt")]
    {
        let with_file = |world: &mut World| {
            model_disk(world);
            world.files.insert(path, b"# one\n# caf\xE9".to_vec());
        };
        let expected = format!("{path} is not UTF-8: line 2 has the byte 0xE9 in column 6");
        let run = Run::new(with_file, &[argument]);
        assert!(run.fails_with(Code::InvalidConfig, &expected).hint.contains("Latin-1"));
    }
}

#[test]
fn the_model_is_read_only_while_it_answers() {
    // Repacked by the cores that load the model, and by the engine.
    for log in ["log=info", "log=debug"] {
        let (calls, console) = run_in_world(model_disk, || {
            assert_eq!(run(["prompt=Once", "max_tokens=2", log]), 0);
            protected_so_far()
        });
        let [(start, bytes, PROT_READ), (again, as_many, flags)] = calls[..] else {
            panic!("{calls:?}: {console}");
        };
        assert_eq!((again, as_many, flags), (start, bytes, PROT_READ | PROT_WRITE));
        assert_eq!(bytes, TINY.0.len());
        let at = |text: &str| console.find(text).unwrap_or_else(|| panic!("{text}: {console}"));
        assert!(at(" bytes of memory are read-only") < at("\"event\":\"model\""));
    }
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_cores() {
    let answer = |cores, threads: &[&str]| {
        let arguments = [&["max_tokens=11"], threads].concat();
        let run = Run::new(
            |world| {
                model_disk(world);
                world.cores = cores;
            },
            &arguments,
        );
        (run.results()[0].tokens.clone(), run.model().sha256.clone())
    };
    let alone = answer(1, &[]);
    assert_eq!(answer(3, &[]), alone);
    assert_eq!(answer(3, &["threads=2"]), alone);
}

#[test]
fn a_seed_repeats_a_run() {
    let answer = |seed| {
        let arguments = ["temperature=1.5", "max_tokens=13", seed];
        Run::new(model_disk, &arguments).results()[0].tokens.clone()
    };
    assert_eq!(answer("seed=3"), answer("seed=3"));
    assert_ne!(answer("seed=3"), answer("seed=5"));
}

#[test]
fn a_wrong_checksum_stops_the_run() {
    for cores in [1, 2] {
        let run = Run::new(
            |world| {
                model_disk(world);
                world.cores = cores;
                let middle = TINY.0.len() / 2;
                world.files.get_mut(MODEL).unwrap()[middle] ^= 1;
            },
            &[],
        );
        run.fails_with(Code::ChecksumMismatch, "its .sha256 file says");
    }
}

#[test]
fn a_missing_checksum_is_a_warning_and_verify_can_be_off() {
    let run = Run::new(
        |world| {
            model_disk(world);
            world.files.remove(CHECKSUM);
        },
        &["max_tokens=1"],
    );
    assert_eq!((run.status, run.model().checksum), (0, Checksum::Missing));
    assert!(run.model().sha256.is_some());
    assert!(run.console.contains("WARN  tiny.gguf is not checked: there is no tiny.gguf.sha256"));

    let run = Run::new(
        |world| {
            model_disk(world);
            world.files.insert(CHECKSUM, b"nonsense".to_vec());
        },
        &["verify=false", "max_tokens=1"],
    );
    assert_eq!((run.status, run.model().checksum), (0, Checksum::Skipped));
    assert_eq!(run.model().sha256, None);
    assert!(run.console.contains("not checked: verify = false"));
}

#[test]
fn a_malformed_checksum_is_an_error() {
    let too_large = [b'0'; LONGEST_SUM_FILE + 1];
    let of_others = [[b'0'; 64].as_slice(), b"  a.gguf\n", &[b'1'; 64], b"  b.gguf\n"].concat();
    for text in
        [&b""[..], b"0123  tiny.gguf\n", b"tiny.gguf\n", b"\xff\xfe", &too_large, &of_others]
    {
        let run = Run::new(
            |world| {
                model_disk(world);
                world.files.insert(CHECKSUM, text.to_vec());
            },
            &[],
        );
        run.fails_with(Code::ParseError, CHECKSUM);
    }
}

/// The model under a name with letters of two UTF-16 units, its ending in capitals, and a list of
/// digests in several forms beside it.
#[test]
fn a_name_in_any_letters_and_a_list_of_digests_will_do() {
    const NAME: &str = "🦙 Größe.GGUF";
    const MODEL: &str = "/models/🦙 Größe.GGUF";
    const SUMS: &str = "/models/🦙 Größe.GGUF.sha256";
    let digest = std::str::from_utf8(&TINY.1[..64]).unwrap();
    let list = |digest: &str| {
        let zeros = "0".repeat(64);
        format!("{zeros}  other.gguf\nSHA256 (models/{NAME}) = {digest}\n\\{zeros}  a\\\\b\n")
    };
    let load = |list: &str| {
        let list = list.to_owned();
        let set_up = |world: &mut World| {
            world.files.insert(MODEL, TINY.0.clone());
            world.files.insert(SUMS, list.into_bytes());
        };
        Run::new(set_up, &["max_tokens=1"])
    };
    let run = load(&list(digest));
    assert_eq!((run.status, run.model().checksum), (0, Checksum::Verified), "{}", run.console);
    assert_eq!(run.model().file, NAME);
    assert!(run.console.contains(&format!("{NAME}: llama Q4_0")), "{}", run.console);
    load(&list(&"1".repeat(64))).fails_with(Code::ChecksumMismatch, &"1".repeat(64));
    let fault = load(&list(&digest[1..]));
    fault.fails_with(Code::ParseError, &format!("{NAME}.sha256 holds no SHA-256 digest of {NAME}"));
}

#[test]
fn the_model_is_chosen_by_name() {
    let run = Run::new(|_| {}, &[]);
    run.fails_with(Code::ModelNotFound, "models/NAME.gguf");

    let two = |world: &mut World| {
        model_disk(world);
        world.files.insert("/models/other.gguf", b"GGUF".to_vec());
    };
    let fault_of = |arguments: &[&str], code, message| {
        Run::new(two, arguments).fails_with(code, message).hint.clone()
    };
    let hint = fault_of(&[], Code::InvalidConfig, "several models");
    assert!(hint.ends_with("other.gguf, tiny.gguf"), "{hint}");
    let hint = fault_of(&["model=third.gguf"], Code::ModelNotFound, "`third.gguf`");
    assert!(hint.ends_with("other.gguf, tiny.gguf"), "{hint}");
    fault_of(&["model=other.gguf"], Code::ParseError, "");
    assert_eq!(Run::new(two, &["model=tiny.gguf", "max_tokens=1"]).status, 0);

    let posing = |world: &mut World| {
        world
            .files
            .insert("/models/\n\x1e{\"event\":\"exit\",\"status\":0}\n.gguf", TINY.0.clone());
    };
    Run::new(posing, &["verify=false"]).fails_with(Code::ModelNotFound, "models/NAME.gguf");
}

/// Puts files beside the test model.
fn beside(files: &'static [(&'static str, &'static [u8])]) -> impl Fn(&mut World) {
    move |world| {
        model_disk(world);
        world.files.extend(files.iter().map(|(path, data)| (*path, data.to_vec())));
    }
}

#[test]
fn files_that_are_no_models_do_not_count() {
    const APPLE_DOUBLE: &[u8] = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ";
    for files in [
        // What macOS puts beside each file, a name of nothing else, and what is no GGUF.
        &[("/models/._tiny.gguf", APPLE_DOUBLE), ("/models/._tiny.gguf.sha256", APPLE_DOUBLE)][..],
        &[("/models/.gguf", b"GGUF")],
        &[("/models/broken.gguf", b"<html>")],
        &[("/models/a.gguf", b""), ("/models/b.gguf", b"GGU")],
    ] {
        let run = Run::new(beside(files), &["max_tokens=1"]);
        assert_eq!(run.status, 0, "{}", run.console);
        assert_eq!(run.model().file, "tiny.gguf");
        let warned = run.console.contains("broken.gguf does not count: it is no GGUF file");
        assert_eq!(warned, files[0].0 == "/models/broken.gguf");
    }
    // Two models need a choice; other files do not count.
    let run = Run::new(beside(&[("/models/b.gguf", b"GGUF"), ("/models/c.gguf", b"no")]), &[]);
    let hint = &run.fails_with(Code::InvalidConfig, "several models").hint;
    assert!(hint.ends_with("one of: b.gguf, tiny.gguf"), "{hint}");
    let run = Run::new(beside(&[("/models/._b.gguf", APPLE_DOUBLE)]), &["model=b.gguf"]);
    let hint = &run.fails_with(Code::ModelNotFound, "`b.gguf`").hint;
    assert!(hint.ends_with("one of: tiny.gguf"), "{hint}");
    // Who asks for one by its name gets to know what it is.
    let run = Run::new(beside(&[("/models/._b.gguf", APPLE_DOUBLE)]), &["model=._b.gguf"]);
    let hint = &run.fails_with(Code::ParseError, "AppleDouble").hint;
    assert!(hint.contains("`._`"), "{hint}");
}

#[test]
fn what_is_no_model_is_named_with_what_to_do() {
    for (start, message, hint) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"[..],
            "the file is a Git LFS pointer, not a GGUF model",
            "git lfs pull",
        ),
        (b"<!doctype html>\n<title>Sign in</title>", "an HTML page", "resolve"),
        (b"Entry not found", "the file is a text", "the download failed"),
        (b"", "the file is empty", "nothing was written"),
        (b"tjgg\x03\0\0\0", "a GGML file (ggjt)", "before GGUF"),
        (b"PK\x03\x04\x14\0\0\0", "a ZIP archive", "unpack"),
        (b"\x10\0\0\0\0\0\0\0{\"__metadata__\"", "a safetensors file", "convert_hf_to_gguf"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "the file is compressed with gzip", "unpack"),
    ] {
        let set_up = |world: &mut World| {
            world.files.insert(MODEL, start.to_vec());
        };
        let run = Run::new(set_up, &[]);
        let fault = run.fails_with(Code::ParseError, message);
        assert!(fault.hint.contains(hint), "{fault:?}");
    }
    let text = |value: &str| {
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        crate::llm::gguf::write::put_string(&mut bytes, value.as_bytes());
        bytes
    };
    for (key, value, message, hint) in [
        ("general.type", "adapter", "the file is a LoRA adapter", "llama-export-lora"),
        ("adapter.type", "lora", "the file is a LoRA adapter", "llama-export-lora"),
        ("general.type", "mmproj", "a projector for images or sounds (mmproj)", "lies beside"),
        (
            "general.architecture",
            "clip",
            "a projector for images or sounds (mmproj)",
            "lies beside",
        ),
        ("general.type", "imatrix", "an importance matrix", "made for"),
    ] {
        let set_up = |world: &mut World| {
            world.files.insert(MODEL, with_entry(&TINY.0, key, text(value)));
        };
        let run = Run::new(set_up, &[]);
        let fault = run.fails_with(Code::ParseError, message);
        assert!(fault.hint.contains(hint), "{fault:?}");
    }
    // What is a model says so.
    let set_up = |world: &mut World| {
        world.files.insert(MODEL, with_entry(&TINY.0, "general.type", text("model")));
    };
    assert_eq!(Run::new(set_up, &["max_tokens=1"]).status, 0);
}

#[test]
fn why_a_disk_holds_no_model_is_reported_with_it() {
    let set_up = |world: &mut World| {
        world.no_disk = true;
        world.disk_failure = Some(DiskFailure {
            message: "sd card: it is an exFAT volume".into(),
            hint: Some("format it".into()),
        });
    };
    let run = Run::new(set_up, &[]);
    let fault = run.fails_with(Code::ModelNotFound, "NAME.gguf (sd card: it is an exFAT volume)");
    assert_eq!(fault.hint, "format it");
    let run = Run::new(|world| world.no_disk = true, &[]);
    run.fails_with(Code::ModelNotFound, "models/NAME.gguf");
}

/// The model with a value of its header replaced or added: the bytes from the value's type on.
fn with_entry(model: &[u8], key: &str, value: Vec<u8>) -> Vec<u8> {
    let gguf = Gguf::parse(model).unwrap();
    let others = gguf.raw_metadata().filter(|(other, _)| *other != key);
    let entries: Vec<(&str, &[u8])> = others.chain([(key, &value[..])]).collect();
    let tensors = gguf.tensors().iter().map(|tensor| Description {
        name: tensor.name,
        dims: &tensor.dims[..tensor.n_dims],
        kind: tensor.kind,
        size: tensor.size,
    });
    let alignment = gguf.alignment();
    let mut file = header(gguf.version(), &entries, tensors, alignment);
    file.resize(file.len().next_multiple_of(alignment as usize), 0);
    file.extend(&model[gguf.data_offset() as usize..]);
    file
}

#[test]
fn a_name_that_is_no_utf8_costs_nothing() {
    let mut latin_1 = 8_u32.to_le_bytes().to_vec();
    crate::llm::gguf::write::put_string(&mut latin_1, b"Caf\xE9");
    for (value, name) in [
        (latin_1, "Caf\u{FFFD}"),
        // What is no text at all is shown as what it is.
        ([4_u32, 7].iter().flat_map(|word| word.to_le_bytes()).collect(), "7"),
    ] {
        let set_up = |world: &mut World| {
            world.files.insert(MODEL, with_entry(&TINY.0, "general.name", value.clone()));
        };
        let run = Run::new(set_up, &["max_tokens=1"]);
        assert_eq!((run.status, run.model().name.as_str()), (0, name), "{}", run.console);
    }
}

#[test]
fn a_failing_disk_is_reported_at_whatever_read_it_fails() {
    // The reads of a run that goes well: two of the checksum, then chunks of the model.
    assert!(chunks(TINY.0.len()).len() >= 3);
    for reads_left in 0..2 + chunks(TINY.0.len()).len() {
        let run = Run::new(
            |world| {
                model_disk(world);
                world.reads_left = reads_left;
            },
            &[],
        );
        run.fails_with(Code::DiskError, "input/output error");
    }
}

/// The lengths of the reads of a model: from 512 KiB on twice as many each time, up to 8 MiB.
fn chunks(mut length: usize) -> Vec<usize> {
    let mut chunks = Vec::new();
    let mut chunk = 512 << 10;
    while length > 0 {
        chunks.push(length.min(chunk));
        length -= length.min(chunk);
        chunk = (2 * chunk).min(8 << 20);
    }
    chunks
}

#[test]
fn a_model_is_read_in_growing_chunks() {
    let arguments = ["max_tokens=1", "verify=false"];
    let reads_of = |model: Vec<u8>, arguments: &[&str]| {
        let mut reads = Vec::new();
        let set_up = |world: &mut World| {
            model_disk(world);
            world.files.insert(MODEL, model);
        };
        let (status, console) = run_in_world(set_up, || {
            let status = run(arguments.iter().copied());
            reads = reads_so_far();
            status
        });
        assert_eq!(status, 0, "{console}");
        reads
    };
    let tiny = TINY.0.len();
    assert_eq!(reads_of(TINY.0.clone(), &arguments), chunks(tiny));
    assert_eq!(reads_of(TINY.0.clone(), &["max_tokens=1"]), chunks(tiny));
    // So large that the last chunks do not grow any more.
    let large = with_long_header(17 << 20);
    let length = large.len();
    assert_eq!(reads_of(large, &arguments), chunks(length));
}

/// The test model with a key of about this many bytes more.
fn with_long_header(bytes: usize) -> Vec<u8> {
    // The key, the value's type and length take 8 + 4 + 4 + 8 bytes. With a multiple of the
    // alignment nothing else moves.
    let bytes = bytes.next_multiple_of(32);
    let mut file = TINY.0.clone();
    let n_keys = u64::from_le_bytes(file[16..24].try_into().unwrap());
    file[16..24].copy_from_slice(&(n_keys + 1).to_le_bytes());
    let mut entry = Vec::with_capacity(bytes);
    crate::llm::gguf::write::put_string(&mut entry, b"long");
    entry.extend(8_u32.to_le_bytes());
    crate::llm::gguf::write::put_string(&mut entry, &std::vec![b' '; bytes - 24]);
    file.splice(24..24, entry);
    file
}

/// The test model with a value of its header replaced: the bytes from the value's type on.
fn with_value(key: &str, skip: usize, value: &[u8]) -> Vec<u8> {
    let mut file = TINY.0.clone();
    let at = Gguf::parse(&file).unwrap().entry(key).unwrap().at as usize + skip;
    file[at..at + value.len()].copy_from_slice(value);
    file
}

#[test]
fn a_memory_too_small_for_the_model_is_found_out_whatever_the_header_is_long() {
    // Memory for the file there is, for more not.
    let little = |world: &mut World| {
        world.memory.free_bytes = 64 << 10;
    };
    for header in [100, 1 << 20, 17 << 20] {
        let set_up = |world: &mut World| {
            little(world);
            world.files.insert(MODEL, with_long_header(header));
        };
        let run = Run::new(set_up, &["max_tokens=1"]);
        run.fails_with(Code::OutOfMemory, "the model with its cache and tables needs");
    }
}

#[test]
fn the_error_says_which_settings_make_the_model_fit() {
    let needed = |n_ctx: usize, kv_cache| {
        let context = ContextOptions { n_ctx: Some(n_ctx), kv_cache, ..ContextOptions::default() };
        Plan::read(&TINY.0, TINY.0.len() as u64).unwrap().needed(context).unwrap().total()
    };
    let hint = |bytes: usize, arguments: &[&str]| {
        let set_up = |world: &mut World| {
            model_disk(world);
            world.memory.free_bytes = bytes.next_multiple_of(1024) as u64;
        };
        let run = Run::new(set_up, arguments);
        (run.status == 1)
            .then(|| run.fails_with(Code::OutOfMemory, "the model with its").hint.clone())
    };
    use CacheType::{F16, F32, Q8_0};
    for (free, arguments, ways) in [
        (needed(256, Q8_0), &[][..], "set `kv_cache` to q8_0 or lower `context` to 128; or"),
        (needed(128, F16), &[], "lower `context` to 128; or"),
        (needed(32, F16), &[], "lower `context` to 32; or"),
        (
            needed(256, F16),
            &["kv_cache=f32"],
            "set `kv_cache` to f16 or lower `context` to 128; or",
        ),
        (needed(128, Q8_0), &["kv_cache=q8_0"], "lower `context` to 128; or"),
        (needed(96, F32), &["kv_cache=f32", "context=192"], "lower `context` to 96; or"),
        (needed(1, F16) - 2048, &[], "give the machine more memory"),
    ] {
        let hint = hint(free, arguments).unwrap();
        assert!(hint.starts_with(ways), "{arguments:?}: {hint:?}, expected {ways:?}");
        assert!(hint.contains("MEM="), "{hint:?}");
    }
    assert_eq!(hint(needed(256, F16), &["max_tokens=1"]), None);
}

#[test]
fn an_answer_that_does_not_fit_the_memory_is_an_error_too() {
    let arguments = ["context_shift=true", "max_tokens=4294967295"];
    let run = Run::new(model_disk, &arguments);
    let fault = run.fails_with(Code::OutOfMemory, "the answer needs");
    assert!(fault.hint.starts_with("lower `max_tokens`; or give"), "{fault:?}");
}

#[test]
fn what_the_header_decides_is_said_before_the_rest_is_read() {
    let fails_with = |model: Vec<u8>, arguments: &[&str], code, message| {
        let set_up = |world: &mut World| {
            model_disk(world);
            world.files.insert(MODEL, model);
            // Two reads of the checksum, one of the model.
            world.reads_left = 3;
        };
        Run::new(set_up, arguments).fails_with(code, message);
    };
    // A string's type and length come before its text.
    let other = with_value("general.architecture", 12, b"mamba");
    fails_with(other, &[], Code::Unsupported, "the architecture `mamba`");
    let many = TINY.0.clone();
    fails_with(many, &["context=1000000"], Code::InvalidConfig, "`context` is 1000000");
}

#[test]
fn damage_to_the_header_is_reported_by_the_checksum() {
    for at in [0, 8] {
        let set_up = |world: &mut World| {
            model_disk(world);
            world.files.get_mut(MODEL).unwrap()[at] ^= 0x40;
        };
        Run::new(set_up, &[]).fails_with(Code::ChecksumMismatch, "");
        Run::new(set_up, &["verify=false"]).fails_with(Code::ParseError, "at byte");
    }
}

#[test]
fn more_threads_than_cores_are_a_warning() {
    let run = Run::new(model_disk, &["threads=3", "max_tokens=1"]);
    assert_eq!(run.status, 0);
    assert!(run.console.contains("WARN  threads = 3, but there are 2 cores"), "{}", run.console);
    let run = Run::new(model_disk, &["threads=2", "max_tokens=1"]);
    assert!(!run.console.contains("WARN"), "{}", run.console);
}

#[test]
fn a_model_larger_than_the_memory_is_reported_with_what_it_needs() {
    let run = Run::new(
        |world| {
            model_disk(world);
            world.sizes = BTreeMap::from([(MODEL, 1 << 60)]);
        },
        &[],
    );
    let fault = run.fails_with(Code::OutOfMemory, "67108864 bytes) are free");
    // The file and, by its header, what the model needs besides.
    let needed = fault.message.split(['(', ' ']).find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert!((1 << 60) + 500_000 < needed && needed < (1 << 60) + 8_000_000, "{fault:?}");
}

#[test]
fn settings_come_from_the_disk_and_the_boot_arguments() {
    let with_file = |text: &'static str| {
        move |world: &mut World| {
            model_disk(world);
            world.files.insert("/anchorite.toml", text.into());
            world.files.insert("/a/prompt.txt", "The sun".into());
        }
    };
    let run = Run::new(with_file("max_tokens = 3\nprompt_file = \"a/prompt.txt\""), &[]);
    assert_eq!(run.results()[0].tokens_emitted, 3, "{}", run.console);
    assert!(run.console.contains("\nThe sun"));
    let run = Run::new(with_file("max_tokens = 3"), &["max_tokens=2"]);
    assert_eq!(run.results()[0].tokens_emitted, 2);

    Run::new(with_file("max_tokenz = 3"), &[]).fails_with(
        Code::InvalidConfig,
        "anchorite.toml, line 1: there is no setting `max_tokenz`",
    );
    Run::new(with_file(""), &["top_p=2"])
        .fails_with(Code::InvalidConfig, "boot argument `top_p=2`: `top_p` takes");
    Run::new(with_file("prompt_file = \"b.txt\""), &[])
        .fails_with(Code::InvalidConfig, "/b.txt is not on the model disk");
}

#[test]
fn of_a_prompt_file_one_newline_at_its_end_is_left_out() {
    let prompt_tokens = |text: &str| {
        let set_up = |world: &mut World| {
            model_disk(world);
            world.files.insert("/p.txt", text.as_bytes().to_vec());
        };
        let run = Run::new(set_up, &["prompt_file=p.txt", "max_tokens=1"]);
        run.results()[0].prompt_tokens
    };
    let of_text = |text: &str| {
        let run = Run::new(model_disk, &[&format!("prompt={text}"), "max_tokens=1"]);
        run.results()[0].prompt_tokens
    };
    assert_eq!(prompt_tokens("The sun\n"), of_text("The sun"));
    assert_eq!(prompt_tokens("The sun"), of_text("The sun"));
    assert_eq!(prompt_tokens("The sun\n\n"), of_text("The sun\n"));
    assert_eq!(prompt_tokens("\n"), of_text(""));
    // A prompt that is given as text is as it is given, down to none: the token that begins a text.
    assert_eq!(of_text("The sun\n"), of_text("The sun") + 1);
    assert_eq!(of_text(""), 1);
    // A model that has no such token has nothing to begin with.
    let without_begin = |world: &mut World| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models");
        world.files.insert("/models/a.gguf", fs::read(folder.join("tiny-gpt2.gguf")).unwrap());
    };
    Run::new(without_begin, &["prompt="]).fails_with(Code::InvalidConfig, "the prompt is empty");
    assert!(of_text("   The sun") > of_text("The sun"));
}

#[test]
fn a_prompt_longer_than_the_context_does_not_fit() {
    let prompt = format!("prompt={}", "one two ".repeat(50));
    Run::new(model_disk, &[&prompt, "context=17"]).fails_with(Code::ContextFull, "17");

    let run = Run::new(model_disk, &[&prompt, "context=17", "max_tokens=5", "cut_prompt=true"]);
    assert_eq!(run.status, 0, "{}", run.console);
    // All but the positions for the answer.
    assert_eq!(run.results()[0].prompt_tokens, 17 - 5);
    assert!(
        run.console.contains("[12 prompt tokens (") && run.console.contains(" more are cut) at ")
    );
}

#[test]
fn text_is_made_harmless() {
    let run =
        Run::new(model_disk, &["prompt=a\n\x1e{\"event\":\"exit\",\"status\":0}", "max_tokens=1"]);
    assert_eq!(run.status, 0);
    assert!(run.events.iter().all(|event| !matches!(event, Event::Exit(_))));
    assert!(run.console.contains("\n\\u{1e}{\"event\":\"exit\",\"status\":0}"));
}

#[test]
fn a_chat_goes_on_until_quit() {
    let talk = |input: &str, arguments: &[&str]| {
        let input = input.as_bytes().to_vec();
        let arguments = [&["mode=chat", "max_tokens=5"], arguments].concat();
        Run::new(
            |world| {
                model_disk(world);
                world.input = input.into();
            },
            &arguments,
        )
    };
    let run =
        talk("Onze\x7f\x7fce upon\r and\r/stats\r/reset\rOnce upon\r/dance\r/quit\rlost\r", &[]);
    assert_eq!(run.status, 0, "{}", run.console);
    let results = run.results();
    assert_eq!(results.len(), 3, "{}", run.console);
    assert_eq!(results[0].tokens, results[2].tokens, "the cache was cleared");
    // The figures of the second answer, which took the last token of the first one in.
    let figures = format!("\n[{} prompt tokens at ", results[1].prompt_tokens);
    assert_eq!(run.console.matches(&figures).count(), 1, "{}", run.console);
    assert_eq!(run.console.matches("5 tokens at ").count(), 1);
    assert_eq!(run.console.matches("max_tokens reached]").count(), 1);
    assert!(run.console.contains("there is no command /dance"));

    // The end of the input ends the chat as well.
    assert_eq!(talk("", &[]).status, 0);

    // A text that does not fit is refused, and the chat goes on.
    let long = format!("{}\r/reset\rOnce\r/quit\r", "one two ".repeat(50));
    let run = talk(&long, &["context=17"]);
    assert_eq!((run.status, run.results().len()), (0, 1), "{}", run.console);
    let waiting = Event::Chat(Chat { state: ChatState::Waiting });
    let answering = Event::Chat(Chat { state: ChatState::Answering });
    assert_eq!(run.events[1..3], [waiting.clone(), answering]);
    assert!(matches!(&run.events[3], Event::Error(Fault { code: Code::ContextFull, .. })));
    assert_eq!(run.events[4], waiting);

    // So is one that no line holds, instead of a part of it.
    let run = talk(&format!("{}\rOnce\r", "x".repeat(70_000)), &[]);
    assert_eq!((run.status, run.results().len()), (0, 1), "{}", run.console);
    assert!(
        matches!(&run.events[2], Event::Error(Fault { message, .. }) if message.contains("65536"))
    );
}

/// A chat on a disk of several models, in which this is typed; and what `set_up` does besides.
fn chat_of_several(input: &str, set_up: impl FnOnce(&mut World)) -> Run {
    let on_disk = |world: &mut World| {
        model_disk(world);
        world.files.insert("/models/gpt.gguf", GPT2.to_vec());
        world.files.insert("/models/bad.gguf", GPT2.to_vec());
        let digest = "0".repeat(64);
        world.files.insert("/models/bad.gguf.sha256", format!("{digest}  bad.gguf\n").into());
        world.files.insert("/models/page.gguf", b"<!DOCTYPE html>".to_vec());
        world.input = input.as_bytes().to_vec().into();
        set_up(world);
    };
    Run::new(on_disk, &["mode=chat", "max_tokens=5", "model=tiny.gguf"])
}

#[test]
fn a_chat_changes_the_model() {
    let input = "Once\r/models\r/model gpt\rOnce\r/stats\r/model tiny.gguf\rOnce\r/model tiny\r\
                 /model nix\r/model\r/model bad\r/stats\rOnce\r/quit\r";
    let run = chat_of_several(input, |_| {});
    assert_eq!(run.status, 0, "{}", run.console);
    let tokens: Vec<&[u32]> = run.results().iter().map(|result| &result.tokens[..]).collect();
    let [first, other, again, last] = &tokens[..] else { panic!("{}", run.console) };
    assert_eq!((first, first), (again, last), "each change starts a new conversation");
    let gpt_alone = Run::new(
        |world| drop(world.files.insert("/models/gpt.gguf", GPT2.to_vec())),
        &["prompt=Once", "max_tokens=5"],
    );
    assert_eq!(*other, gpt_alone.results()[0].tokens);
    let files: Vec<String> = run
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Model(model) => Some(format!("+{}", model.file)),
            Event::Unload(unload) => Some(format!("-{}", unload.file)),
            Event::Error(fault) => Some(fault.code.to_string()),
            _ => None,
        })
        .collect();
    let expected = [
        "+tiny.gguf",
        "-tiny.gguf",
        "+gpt.gguf",
        "-gpt.gguf",
        "+tiny.gguf",
        "-tiny.gguf",
        "ChecksumMismatch",
        "+tiny.gguf",
    ];
    assert_eq!(files, expected);
    for line in [
        "\nbad, 2.6 MB\n",
        "\ngpt, 2.6 MB\n",
        "\ntiny, 5.4 MB (loaded)\n",
        "\ntiny is loaded already: /reset starts anew\n",
        "\nthere is no model nix on the disk: bad, gpt, tiny\n",
        "\n/model NAME changes to another model; /models lists them\n",
        "\ntiny.gguf stays: the conversation begins anew\n",
    ] {
        assert!(run.console.contains(line), "{line:?}: {}", run.console);
    }
    assert!(!run.console.contains("\npage, "), "{}", run.console);
    // The figures are those of the present conversation.
    assert_eq!(run.console.matches("there is no answer yet").count(), 1, "{}", run.console);
    assert_eq!(run.turns().0, 14);
}

#[test]
fn configured_texts_of_a_chat_belong_to_the_configured_model() {
    let run = chat_of_several("/model gpt\r/model tiny\r/quit\r", |world| {
        let toml = "model = \"tiny.gguf\"\nchat_user_prefix = \"> \"\n";
        world.files.insert("/anchorite.toml", toml.into());
    });
    let found: Vec<&str> =
        run.console.lines().filter(|line| line.contains("chat template")).collect();
    let (own, other) = ("chat template: as configured", "no chat template: the model has none");
    assert_eq!(found, [own, other, own]);
}

#[test]
fn a_disk_that_fails_during_a_change_of_the_model_is_reported() {
    let mut n_lost = 0;
    for reads in 8.. {
        let run = chat_of_several("/model gpt\rOnce\r", |world| world.reads_left = reads);
        if run.status == 0 {
            assert_eq!(run.results().len(), 1);
            let error = run.events.iter().find(|event| matches!(event, Event::Error(_)));
            if error.is_none() {
                break;
            }
            continue;
        }
        // Neither model can be loaded: the chat ends.
        run.fails_with(Code::DiskError, "cannot read /models/");
        n_lost += usize::from(run.events.iter().any(|event| matches!(event, Event::Unload(_))));
    }
    assert!(n_lost > 1, "{n_lost}");
}

/// A chat in which this is typed.
fn chat(input: &[u8], arguments: &[&str]) -> Run {
    let set_up = |world: &mut World| {
        model_disk(world);
        world.input = input.to_vec().into();
    };
    let is_limited = arguments.iter().any(|argument| argument.starts_with("max_tokens="));
    let few = if is_limited { &[][..] } else { &["max_tokens=5"] };
    Run::new(set_up, &[&["mode=chat"], few, arguments].concat())
}

impl Run {
    /// How often the chat waited for a line, and how often it took a message.
    fn turns(&self) -> (usize, usize) {
        let count = |state| {
            self.events.iter().filter(|event| **event == Event::Chat(Chat { state })).count()
        };
        (count(ChatState::Waiting), count(ChatState::Answering))
    }
}

#[test]
fn a_chat_waits_once_for_each_line_whatever_is_in_it() {
    let long = [b'x'; 70_000];
    let lines: &[(&[u8], usize)] = &[
        (b"Once upon", 1),
        (b"", 0),
        ("\u{a0}".as_bytes(), 0),
        ("\u{3000}".as_bytes(), 0),
        ("\u{3000}/stats".as_bytes(), 0),
        (b"\x1b[A", 0),
        (b"\x1b", 0),
        (b"\x1b[", 0),
        (b"abc\x15", 0),
        (b"abc\x15\x17", 0),
        (b"a\x7f", 0),
        (b"\xe9", 1),
        (b"caf\xe9", 1),
        (b"/dance", 0),
        (b"//dance", 1),
        (b"\x00\x01", 0),
        (&long, 0),
        (b"/reset", 0),
    ];
    for end in [&b"\r"[..], b"\n", b"\r\n"] {
        let input: Vec<u8> = lines.iter().flat_map(|(line, _)| [*line, end].concat()).collect();
        let run = chat(&input, &["max_tokens=1"]);
        assert_eq!(run.status, 0, "{}", run.console);
        let waiting = Event::Chat(Chat { state: ChatState::Waiting });
        let mut turns = run.events.split(|event| *event == waiting).skip(1);
        for (line, answers) in lines {
            let turn = turns.next().unwrap();
            let results = turn.iter().filter(|event| matches!(event, Event::Result(_)));
            assert_eq!(results.count(), *answers, "{:?} {end:?}", &line[..line.len().min(20)]);
        }
        assert!(turns.next().unwrap().is_empty());
        assert!(turns.next().is_none());
    }
}

#[test]
fn a_message_may_begin_with_a_slash() {
    let prompt_tokens = |message: &str| {
        let run = chat(format!("{message}\r").as_bytes(), &[]);
        run.results()[0].prompt_tokens
    };
    let said = Run::new(model_disk, &["prompt=/quit it", "max_tokens=5"]);
    assert_eq!(prompt_tokens("//quit it"), said.results()[0].prompt_tokens);
    assert!(prompt_tokens("///quit it") > prompt_tokens("//quit it"));
    assert!(chat(b"/dance\r", &[]).console.contains("write // for a message"));
}

#[test]
fn the_prompt_is_the_first_message_of_a_chat() {
    let answer = |run: &Run| run.results()[0].tokens.clone();
    let typed = chat(b"Once upon\r", &[]);
    let run = chat(b" and\r", &["prompt=Once upon"]);
    assert_eq!((run.status, run.turns()), (0, (2, 2)), "{}", run.console);
    assert_eq!(answer(&run), answer(&typed));
    assert!(run.console.contains("\n> Once upon\n"), "{}", run.console);
    // It is no command.
    assert_eq!(chat(b"", &["prompt=/quit"]).turns(), (1, 1));
    // Nothing is said where there is nothing to say.
    for none in ["prompt=", "prompt= \n"] {
        assert_eq!(chat(b"", &[none]).turns(), (1, 0), "{none:?}");
    }
    let from_file = |world: &mut World| {
        model_disk(world);
        world.files.insert("/p.txt", b"Once upon\n".to_vec());
    };
    let run = Run::new(from_file, &["mode=chat", "max_tokens=5", "prompt_file=p.txt"]);
    assert_eq!((run.status, run.turns()), (0, (1, 1)), "{}", run.console);
    assert_eq!(answer(&run), answer(&typed));
}

#[test]
fn ctrl_c_stops_an_answer_and_what_is_typed_meanwhile_is_kept() {
    // The played console has all of it at once: the first answer sees it.
    let run = chat(b"Once upon\rdropped\r\x03 and\r/quit\r", &["max_tokens=50"]);
    assert_eq!((run.status, run.turns()), (0, (3, 2)), "{}", run.console);
    let results = run.results();
    assert_eq!(results[0].stop, StopReason::Cancelled);
    assert!((1..10).contains(&results[0].tokens_emitted), "{}", results[0].tokens_emitted);
    assert!(run.console.contains("\n(stopped)\n"), "{}", run.console);
    assert_eq!((results[1].stop, results[1].tokens_emitted), (StopReason::MaxTokens, 50));
    // The text goes on from where it was stopped, and not anew.
    assert_ne!(chat(b" and\r", &["max_tokens=50"]).results()[0].tokens, results[1].tokens);
    // More than is kept ahead stays in the port.
    let flood = [b"Once upon\r", &[b'\r'; 70_000][..], b"/quit\r"].concat();
    assert_eq!(chat(&flood, &[]).turns(), (70_002, 1));
}

#[test]
fn a_chat_keeps_an_answer_that_the_model_ended() {
    let answer = Run::new(model_disk, &["prompt=Once upon", "max_tokens=5"]);
    let tokens = answer.results()[0].tokens.clone();
    assert!(!tokens[..3].contains(&tokens[3]));
    // The same model, for which the fourth of those tokens ends the text.
    let model = with_value("tokenizer.ggml.eos_token_id", 4, &tokens[3].to_le_bytes());
    let talk = |input: &str| {
        let set_up = |world: &mut World| {
            world.files.insert(MODEL, model.clone());
            world.input = input.as_bytes().to_vec().into();
        };
        Run::new(set_up, &["mode=chat", "max_tokens=5"])
    };
    let run = talk("Once upon\r and the\r/reset\r and the\r");
    let results = run.results();
    assert_eq!(results.len(), 3, "{}", run.console);
    assert_eq!(results[0].stop, StopReason::EndOfSequence);
    assert_ne!(results[1].tokens, results[2].tokens, "what was said before was forgotten");
}

/// A model with a chat template, and what llama.cpp answers in chats with it. Made by
/// `test_models/chat.py`.
mod with_a_template {
    use serde_json::Value;

    use super::*;
    use crate::llm::chat::TEMPLATE;

    const CHAT_MODEL: &str = "/models/model.gguf";

    static GOLDEN: LazyLock<(Vec<u8>, Value)> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models");
        let goldens = fs::read(folder.join("goldens/chat.json")).unwrap();
        let goldens: Value = serde_json::from_slice(&goldens).unwrap();
        (fs::read(folder.join("chat/model.gguf")).unwrap(), goldens["model"].clone())
    });

    /// A chat in which this is typed.
    fn talk(model: &[u8], input: &str, arguments: &[&str]) -> Run {
        let max_tokens = format!("max_tokens={}", GOLDEN.1["n_answer"]);
        let set_up = |world: &mut World| {
            world.files.insert(CHAT_MODEL, model.to_vec());
            world.input = input.as_bytes().to_vec().into();
        };
        Run::new(set_up, &[&["mode=chat", &max_tokens], arguments].concat())
    }

    /// What is typed in a golden chat.
    fn typed(chat: &Value) -> String {
        let turns = chat["turns"].as_array().unwrap().iter();
        turns.map(|turn| format!("{}\r", turn["message"].as_str().unwrap())).collect()
    }

    #[track_caller]
    fn is_golden(results: &[&Outcome], chat: &Value) {
        let turns = chat["turns"].as_array().unwrap();
        assert_eq!(results.len(), turns.len());
        for (result, turn) in results.iter().zip(turns) {
            let tokens: Vec<u64> = result.tokens.iter().map(|&token| token.into()).collect();
            assert_eq!(Value::from(tokens), turn["tokens"]);
            // Of what was said before, at most the last token is run again.
            let prompt = turn["prompt_tokens"].as_array().unwrap();
            assert_eq!(result.prompt_tokens, prompt.len());
            assert_eq!(serde_json::to_value(result.stop).unwrap(), turn["stop"]);
        }
    }

    #[test]
    fn a_chat_is_llama_cpps_token_for_token() {
        let chats = GOLDEN.1["chats"].as_array().unwrap();
        assert!(chats.iter().any(|chat| chat["system"] != ""));
        for chat in chats {
            let system = format!("system= {}", chat["system"].as_str().unwrap());
            let run = talk(&GOLDEN.0, &typed(chat), &[&system]);
            assert_eq!(run.status, 0, "{}", run.console);
            is_golden(&run.results(), chat);
            assert!(run.console.contains("chat template: the model's, recognised as chatml"));
        }
        // After a reset the same, and blanks around messages do not count.
        let input = typed(&chats[0]);
        let input = format!("{input}/reset\r  {}", input.replace('\r', " \r"));
        let run = talk(&GOLDEN.0, &input, &[]);
        let results = run.results();
        is_golden(&results[..results.len() / 2], &chats[0]);
        is_golden(&results[results.len() / 2..], &chats[0]);
    }

    #[test]
    fn the_template_can_be_chosen() {
        let chat = &GOLDEN.1["chats"][0];
        let texts = [
            "chat_user_prefix=<|im_start|>user\n",
            "chat_user_suffix=<|im_end|>\n",
            "chat_assistant_prefix=<|im_start|>assistant\n",
            "chat_assistant_suffix=<|im_end|>\n",
        ];
        // A model whose template is unknown. The text's type and length come before it.
        let mut unknown = GOLDEN.0.clone();
        let at = Gguf::parse(&unknown).unwrap().entry(TEMPLATE).unwrap().at as usize + 12;
        let bytes = u64::from_le_bytes(unknown[at - 8..at].try_into().unwrap()) as usize;
        let text = str::from_utf8(&unknown[at..at + bytes]).unwrap();
        let text = text.replace("<|im_start|>", "<|IM_START|>");
        unknown[at..at + bytes].copy_from_slice(text.as_bytes());
        for model in [&GOLDEN.0, &unknown] {
            is_golden(&talk(model, &typed(chat), &["chat_template=chatml"]).results(), chat);
            is_golden(&talk(model, &typed(chat), &texts).results(), chat);
        }
        let warning = "WARN  the model's chat template is none that is known";
        let run = talk(&unknown, &typed(chat), &[]);
        assert!(run.console.contains(warning), "{}", run.console);
        let plain = talk(&GOLDEN.0, &typed(chat), &["chat_template=plain"]);
        assert!(!plain.console.contains(warning));
        for (a, b) in plain.results().iter().zip(run.results()) {
            assert_eq!((&a.tokens, a.prompt_tokens), (&b.tokens, b.prompt_tokens));
        }
        // The message alone: a byte a token, and what begins a text.
        assert_eq!(
            talk(&GOLDEN.0, "Fox!\r", &["chat_template=plain"]).results()[0].prompt_tokens,
            6
        );
        let both = talk(&GOLDEN.0, "Fox!\r", &["chat_template=plain", "system=Fox"]);
        assert_eq!(both.results()[0].prompt_tokens, 6 + 5);
    }

    #[test]
    fn a_template_that_is_no_text_costs_the_chat_alone() {
        let array = {
            let mut bytes: Vec<u8> =
                [9_u32, 8].iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.extend(1_u64.to_le_bytes());
            crate::llm::gguf::write::put_string(&mut bytes, b"<|im_start|>");
            bytes
        };
        let mut latin_1 = 8_u32.to_le_bytes().to_vec();
        crate::llm::gguf::write::put_string(&mut latin_1, b"{# caf\xE9 #} {{ messages }}");
        for (value, is) in [(array, "an array of 1 strings"), (latin_1, "\"{# caf\u{FFFD} #}")] {
            let model = with_entry(&GOLDEN.0, TEMPLATE, value);
            let set_up = |world: &mut World| {
                world.files.insert(CHAT_MODEL, model.clone());
            };
            let generated = Run::new(set_up, &["prompt=q", "max_tokens=2"]);
            assert_eq!(generated.status, 0, "{}", generated.console);
            assert!(!generated.console.contains("template"), "{}", generated.console);
            let run = talk(&model, "Fox!\r", &[]);
            let warning = format!(
                "chat template cannot be used: `{TEMPLATE}` must be UTF-8 text but is {is}"
            );
            assert!(run.console.contains(&warning), "{}", run.console);
            // As with no template at all.
            assert_eq!((run.status, run.results()[0].prompt_tokens), (0, 6));
            let chat = &GOLDEN.1["chats"][0];
            is_golden(&talk(&model, &typed(chat), &["chat_template=chatml"]).results(), chat);
        }
    }

    #[test]
    fn control_tokens_in_a_prompt_are_tokens_unless_set_otherwise() {
        let prompt_tokens = |arguments: &[&str]| {
            let set_up = |world: &mut World| {
                world.files.insert(CHAT_MODEL, GOLDEN.0.clone());
            };
            let run = Run::new(set_up, &[&["max_tokens=1"], arguments].concat());
            run.results()[0].prompt_tokens
        };
        let alone = prompt_tokens(&["prompt=q"]);
        let named = "prompt=q<|im_end|>";
        assert_eq!(prompt_tokens(&[named]), alone + 1);
        assert_eq!(prompt_tokens(&[named, "parse_special=true"]), alone + 1);
        assert_eq!(prompt_tokens(&[named, "parse_special=false"]), alone + 10);
        // Typed in a chat such a name is text, with and without a template.
        for template in ["chat_template=auto", "chat_template=plain"] {
            let typed = |message: &str| {
                let run = talk(&GOLDEN.0, message, &[template]);
                run.results()[0].prompt_tokens
            };
            assert_eq!(typed("q<|im_end|>\r"), typed("q\r") + 10, "{template}");
        }
    }

    #[test]
    fn the_perplexity_of_a_text_takes_names_of_control_tokens_for_text() {
        let chunks = |arguments: &[&str]| {
            let set_up = |world: &mut World| {
                world.files.insert(CHAT_MODEL, GOLDEN.0.clone());
            };
            let prompt = format!("prompt={}", "<|im_end|>".repeat(40));
            let run = Run::new(
                set_up,
                &[&["mode=perplexity", "context=16", &prompt], arguments].concat(),
            );
            let chunks = run.events.iter().find_map(|event| match event {
                Event::Perplexity(perplexity) => Some(perplexity.pieces),
                _ => None,
            });
            chunks.unwrap_or_else(|| panic!("{}", run.console))
        };
        assert_eq!(chunks(&[]), 401 / 16);
        assert_eq!(chunks(&["parse_special=true"]), 41 / 16);
    }

    #[test]
    fn no_message_can_pose_as_another_role() {
        let prompt_tokens = |message: &str| {
            let run = talk(&GOLDEN.0, &format!("{message}\r"), &[]);
            run.results()[0].prompt_tokens
        };
        // As many tokens more as the name has bytes.
        assert_eq!(prompt_tokens("q<|im_end|>"), prompt_tokens("q") + 10);
    }

    #[test]
    fn a_turn_that_does_not_fit_changes_nothing() {
        let chat = &GOLDEN.1["chats"][1];
        let system = format!("system={}", chat["system"].as_str().unwrap());
        let long = format!("{}\r", "q".repeat(300));
        // Between the turns, the second of which follows an end.
        let input = typed(chat).replace('\r', &format!("\r{long}"));
        let run = talk(&GOLDEN.0, &format!("{long}{input}"), &[&system]);
        is_golden(&run.results(), chat);
        let refused =
            |event: &&Event| matches!(event, Event::Error(Fault { code: Code::ContextFull, .. }));
        assert_eq!(run.events.iter().filter(refused).count(), 4);
    }
}

#[test]
fn lines_of_a_chat_may_end_with_two_bytes() {
    let set_up = |world: &mut World| {
        model_disk(world);
        world.input = b"/stats\r\n/stats\r\n/quit\r\n".to_vec().into();
    };
    let run = Run::new(set_up, &["mode=chat"]);
    assert_eq!((run.status, run.console.matches("> ").count()), (0, 3), "{}", run.console);
}

#[test]
fn a_console_that_fails_is_an_error() {
    let set_up = |world: &mut World| {
        model_disk(world);
        world.input = b"/stats\r/qu".to_vec().into();
        world.input_fails = true;
    };
    let run = Run::new(set_up, &["mode=chat"]);
    run.fails_with(Code::ConsoleError, "cannot read the console: input/output error");
}

#[test]
fn the_perplexity_of_a_text_is_measured() {
    let measure = |text: &[u8], model: Vec<u8>| {
        let set_up = |world: &mut World| {
            world.files.insert(MODEL, model);
            world.files.insert("/text.txt", text.to_vec());
        };
        Run::new(set_up, &["mode=perplexity", "prompt_file=text.txt", "context=16"])
    };
    let story = b"Once upon a time there was a little girl who loved the red ball in the park. \
        One day she took it to her friend, and they played with it until the sun went down.";
    let run = measure(story, TINY.0.clone());
    assert_eq!(run.status, 0, "{}", run.console);
    let Some(Event::Perplexity(found)) = run.events.last() else { panic!("{}", run.console) };
    // Of each chunk of 16 tokens, the last 7 are predicted.
    assert!(found.pieces >= 2 && found.tokens == found.pieces * 7, "{found:?}");
    assert!(found.perplexity > 1.0, "{found:?}");
    let shown = format!("chunk {0} of {0}: {1:.4}\nperplexity ", found.pieces, found.perplexity);
    assert!(run.console.contains("chunk 1 of ") && run.console.contains(&shown), "{}", run.console);

    measure(b"Once upon a time", TINY.0.clone()).fails_with(Code::InvalidConfig, "the text has ");
    // The scale of the first block of the output's weights, its last two bytes, is no number.
    let mut broken = TINY.0.clone();
    let gguf = Gguf::parse(&TINY.0).unwrap();
    let at = gguf.data_offset() + gguf.tensor("output.weight").unwrap().offset;
    broken[at as usize..][208..210].copy_from_slice(&0x7e00_u16.to_le_bytes());
    measure(story, broken).fails_with(Code::ParseError, "NaN or infinity");
}

#[test]
fn a_result_has_what_the_board_says() {
    let board = |facts: &[&str]| {
        let run = Run::new(
            |world| {
                model_disk(world);
                world.board = facts.iter().map(|&fact| fact.into()).collect();
            },
            &["max_tokens=1"],
        );
        run.results()[0].board.clone()
    };
    let facts = ["temperature=45C", "throttled=0x50000"];
    assert_eq!(board(&facts), facts);
    assert_eq!(board(&[]), [""; 0]);
}

#[test]
fn the_image_measures_itself() {
    let run = Run::new(
        |world| {
            model_disk(world);
            world.files.insert("/dev/disk", std::vec![0; TINY.0.len()]);
        },
        &["mode=bench", "max_tokens=3"],
    );
    assert_eq!(run.status, 0, "{}", run.console);
    assert!(run.tests().count() >= 6, "{}", run.console);
    let memory = run.tests().find(|test| test.name == "memory_in_use").unwrap();
    assert_eq!(memory.figure, Some(67.108_864));
    assert!(run.tests().all(|test| test.figure.is_some_and(|figure| figure > 0.0)));
}

#[test]
fn the_image_tests_itself_and_its_model() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models/architectures/llama-Q4_0.gguf");
    let model = fs::read(path).unwrap();
    let test = |arguments: &[&str]| {
        let set_up = |world: &mut World| {
            world.files.insert("/models/a.gguf", model.clone());
            // Threads that wait for each other thousands of times are slow where there are fewer
            // cores than threads.
            world.cores = 1;
        };
        Run::new(set_up, &[&["mode=test"], arguments].concat())
    };
    let run = test(&[]);
    assert_eq!(run.status, 0, "{}", run.console);
    assert!(run.tests().all(|test| test.pass), "{}", run.console);
    let of_the_model = run.tests().filter(|test| test.figure.is_some());
    assert_eq!(of_the_model.count(), TESTS.len(), "{}", run.console);
    assert!(run.tests().count() > TESTS.len() + 3);

    let names = |run: &Run| -> Vec<String> { run.tests().map(|test| test.name.clone()).collect() };
    let run = test(&["tests=test_generate"]);
    assert_eq!(names(&run), ["test_generate_single_token", "test_generate_multiple_tokens"]);
    // For others no model is read.
    let run = test(&["tests=clock"]);
    assert_eq!(names(&run), ["clock"]);
    assert!(!run.events.iter().any(|event| matches!(event, Event::Model(_))));
    test(&["tests=dance"]).fails_with(Code::InvalidConfig, "`dance`");

    let run = Run::new(|_| {}, &["mode=test"]);
    assert_eq!(run.status, 0, "{}", run.console);
    assert!(run.console.contains("WARN  there is no model"), "{}", run.console);
}
