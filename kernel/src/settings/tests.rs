use super::*;
use crate::llm::chat::by_name;
use crate::llm::sampling::{DEFAULT_BREAKERS, LogitBias};
use alloc::format;

#[test]
fn every_key_can_be_set_in_the_file() {
    let config = Config::from_toml(
        r#"
        mode = "chat"
        model = "a b.gguf"
        prompt = "It was a \"dark\" night,\nand"
        max_tokens = 7
        context = 1_024
        kv_cache = "q8_0"
        cut_prompt = true
        parse_special = false
        context_shift = true
        keep = 13
        seed = 0xff
        temperature = 1
        top_k = 0
        top_p = 0.5
        min_p = 0.25
        typical_p = 0.75
        repeat_penalty = 1.5
        frequency_penalty = -1
        presence_penalty = 0.125
        penalty_last_n = 17
        dry_multiplier = 0.5
        dry_base = 2
        dry_allowed_length = 3
        dry_penalty_last_n = 19
        dry_sequence_breakers = ["\n", "<|im_end|>"]
        top_n_sigma = 1.5
        xtc_probability = 0.375
        xtc_threshold = 0.0625
        mirostat = 2
        mirostat_tau = 3
        mirostat_eta = 0.5
        logit_bias = "13:-inf,7:2.5"
        grammar = "root ::= [a-z]+"
        system = "Be brief."
        chat_template = "llama2-sys"
        port = 81
        parallel = 7
        api_key = "one, two"
        cors = "*"
        shutdown_timeout = 0
        ip = "10.0.2.15/24,fd00::15/64"
        gateway = "10.0.2.2"
        threads = 3
        log = "debug"
        verify = false
        at_exit = "reboot"
        tests = "clock"
        "#,
    )
    .unwrap();
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(13, f32::NEG_INFINITY).unwrap();
    logit_bias.push(7, 2.5).unwrap();
    let sampling = SamplingConfig {
        logit_bias,
        penalty_last_n: 17,
        repeat_penalty: 1.5,
        frequency_penalty: -1.0,
        presence_penalty: 0.125,
        dry_multiplier: 0.5,
        dry_base: 2.0,
        dry_allowed_length: 3,
        dry_penalty_last_n: 19,
        top_n_sigma: 1.5,
        top_k: 0,
        typical_p: 0.75,
        top_p: 0.5,
        min_p: 0.25,
        xtc_probability: 0.375,
        xtc_threshold: 0.0625,
        temperature: 1.0,
        mirostat: Some(Mirostat::DEFAULT),
        seed: 0,
    };
    let expected = Config {
        mode: Mode::Chat,
        model: Some("a b.gguf".into()),
        prompt: Prompt::Text("It was a \"dark\" night,\nand".into()),
        max_tokens: 7,
        context: Some(1024),
        kv_cache: CacheType::Q8_0,
        cut_prompt: true,
        parse_special: Some(false),
        context_shift: true,
        keep: 13,
        sampling,
        dry_breakers: alloc::vec!["\n".into(), "<|im_end|>".into()],
        mirostat: Mirostat { tau: 3.0, eta: 0.5 },
        grammar: Grammar::Gbnf("root ::= [a-z]+".into()),
        chat_template: ChatTemplate::Known(by_name("llama2-sys").unwrap()),
        chat_texts: Template::default(),
        system: "Be brief.".into(),
        seed: Some(255),
        port: 81,
        parallel: 7,
        api_keys: alloc::vec!["one".into(), "two".into()],
        cors: Cors::All,
        shutdown_timeout: 0,
        ip: alloc::vec![("10.0.2.15".parse().unwrap(), 24), ("fd00::15".parse().unwrap(), 64)],
        gateway: alloc::vec!["10.0.2.2".parse().unwrap()],
        threads: Some(3),
        log: LevelFilter::Debug,
        verify: false,
        at_exit: AtExit::Reboot,
        tests: "clock".into(),
    };
    assert_eq!(config, expected);
    let context = ContextOptions {
        n_ctx: Some(1024),
        kv_cache: CacheType::Q8_0,
        context_shift: true,
        keep: 13,
    };
    assert_eq!(config.context_options(), context);
    assert_eq!(Config::from_toml("keep = -1").unwrap().keep, usize::MAX);
    let mirostat = Some(Mirostat { tau: 3.0, eta: 0.5 });
    assert_eq!(config.sampling(|| 7), SamplingConfig { mirostat, seed: 255, ..sampling });
    let unset = Config { seed: None, ..Config::default() }.sampling(|| 7);
    assert_eq!((unset.seed, unset.mirostat), (7, None));
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(Config::from_toml("# nothing\n").unwrap(), Config::default());
    // Editors of Windows put this before a text in UTF-8.
    assert_eq!(Config::from_toml("\u{FEFF}seed = 7\r\n").unwrap().seed, Some(7));
}

#[test]
fn control_tokens_in_prompts_are_parsed_as_by_llama_cpp_and_never_in_chats() {
    let parses = |words: &[&str]| {
        let mut config = Config::default();
        config.apply_arguments(words.iter().copied()).unwrap();
        config.parses_special()
    };
    for (mode, by_default, set) in [
        ("generate", true, [false, true]),
        ("bench", true, [false, true]),
        ("perplexity", false, [false, true]),
        ("chat", false, [false, false]),
        ("serve", false, [false, false]),
        ("test", false, [false, false]),
    ] {
        let mode = format!("mode={mode}");
        assert_eq!(parses(&[&mode]), by_default, "{mode}");
        assert_eq!(
            ["parse_special=false", "parse_special=true"].map(|word| parses(&[&mode, word])),
            set
        );
    }
}

#[test]
fn arguments_override_the_file() {
    let mut config =
        Config::from_toml("mode = \"chat\"\nprompt_file = \"a.txt\"\nseed = 3\n").unwrap();
    config
        .apply_arguments(["mode=generate", "prompt=a = b", "temperature=0.25", "verify=false"])
        .unwrap();
    assert_eq!(config.mode, Mode::Generate);
    assert_eq!(config.prompt, Prompt::Text("a = b".into()));
    assert_eq!(config.sampling.temperature, 0.25);
    assert_eq!(config.seed, Some(3));
    assert!(!config.verify);
}

#[test]
fn lists_of_texts_have_the_same_form_in_the_file_and_in_arguments() {
    for (list, texts) in [
        (r#"["\n", "a b", '"']"#, &["\n", "a b", "\""][..]),
        ("[]", &[]),
        (
            r#"["0123456789012345678901234567890123456789"]"#,
            &["0123456789012345678901234567890123456789"],
        ),
    ] {
        let setting = format!("dry_sequence_breakers={list}");
        let mut config = Config::default();
        config.apply_arguments([&setting[..]]).unwrap();
        assert_eq!(config.dry_breakers, texts);
        assert_eq!(Config::from_toml(&setting).unwrap(), config);
    }
    for bad in ["x", "\"x\"", "[x]", "[1]", "[\"\"]", "[['x']]", &format!("['{}']", "x".repeat(41))]
    {
        let setting = format!("dry_sequence_breakers={bad}");
        let error = Config::default().apply_arguments([&setting[..]]).unwrap_err();
        let key = "dry_sequence_breakers";
        assert!(matches!(error.problem, Problem::BadValue { key: k, .. } if k == key), "{bad}");
    }
}

#[test]
fn numbers_have_the_same_forms_in_the_file_and_in_arguments() {
    for (text, seed) in [
        ("7", Some(7)),
        ("1_024", Some(1024)),
        ("0xff", Some(255)),
        ("0b11", Some(3)),
        ("18446744073709551615", Some(u64::MAX)),
        ("+7", Some(7)),
        ("007", None),
        ("1__0", None),
        ("7.0", None),
        ("-7", None),
        ("18446744073709551616", None),
        ("", None),
    ] {
        let mut config = Config::default();
        let argument = format!("seed={text}");
        let by_argument = config.apply_arguments([argument.as_str()]);
        assert_eq!(by_argument.ok().and(config.seed), seed, "{argument}");
        let by_file = Config::from_toml(&format!("seed = {text}"));
        assert_eq!(by_file.ok().and_then(|config| config.seed), seed, "{text}");
    }
    for (text, temperature) in [("0.25", 0.25), ("2", 2.0), ("0x1", 1.0), ("1e-3", 1e-3)] {
        let mut config = Config::default();
        let argument = format!("temperature={text}");
        config.apply_arguments([argument.as_str()]).unwrap();
        assert_eq!(config.sampling.temperature, temperature);
        let by_file = Config::from_toml(&format!("temperature = {text}")).unwrap();
        assert_eq!(by_file.sampling.temperature, temperature);
    }
}

#[track_caller]
pub fn check_toml_error(text: &str, expected: &str) {
    assert_eq!(Config::from_toml(text).unwrap_err().to_string(), expected);
}

#[test]
fn an_error_names_the_key_and_the_line() {
    check_toml_error(
        "seed = 1\ntemprature = 1\n",
        "anchorite.toml, line 2: there is no setting `temprature`",
    );
    check_toml_error(
        "\n\n[sampler]\nseed = 1\n",
        "anchorite.toml, line 3: there is no setting `sampler`",
    );
    check_toml_error(
        "mode = \"dance\"",
        "anchorite.toml, line 1: `mode` takes generate, chat, perplexity, serve, bench or test",
    );
    check_toml_error("verify = \"true\"", "anchorite.toml, line 1: `verify` takes true or false");
    check_toml_error(
        "max_tokens = 0",
        "anchorite.toml, line 1: `max_tokens` takes a whole number from 1 on",
    );
    check_toml_error("seed = -1", "anchorite.toml, line 1: `seed` takes a whole number from 0 on");
    check_toml_error("top_p = 1.5", "anchorite.toml, line 1: `top_p` takes a number from 0 to 1");
    check_toml_error("top_p = 2", "anchorite.toml, line 1: `top_p` takes a number from 0 to 1");
    check_toml_error(
        "temperature = nan",
        "anchorite.toml, line 1: `temperature` takes a number from 0 to 100",
    );
    check_toml_error(
        "model = \"../x\"",
        "anchorite.toml, line 1: `model` takes the name of a file in models/",
    );
    check_toml_error(
        "prompt = \"a\"\nprompt_file = \"b\"\n",
        "anchorite.toml, line 2: `prompt` and `prompt_file` exclude each other",
    );
    check_toml_error(
        "grammar = \"b\"\njson_schema = \"{}\"\n",
        "anchorite.toml, line 2: `grammar` and `json_schema` exclude each other",
    );
    let error = Config::from_toml("seed = 1\nmode = \n").unwrap_err();
    assert_eq!(error.place, Place::Line(2));
    assert!(matches!(error.problem, Problem::Syntax(_)));
    assert!(matches!(Config::from_toml("seed = 1\nseed = 2").unwrap_err().place, Place::Line(2)));
}

#[track_caller]
pub fn check_argument_error(arguments: &[&str], expected: &str) {
    let error = Config::default().apply_arguments(arguments.iter().copied()).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn an_error_names_the_argument() {
    check_argument_error(
        &["seed=1", "quiet"],
        "boot argument `quiet`: a boot argument has the form key=value",
    );
    check_argument_error(&["sede=1"], "boot argument `sede=1`: there is no setting `sede`");
    check_argument_error(
        &["top_k=many"],
        "boot argument `top_k=many`: `top_k` takes a whole number from 0 on",
    );
    for bad in ["3", "3:", "3:nan", "3:inf", "-1:2", "3:1,", "3:1001"] {
        let argument = format!("logit_bias={bad}");
        let error = Config::default().apply_arguments([argument.as_str()]).unwrap_err();
        assert!(matches!(error.problem, Problem::BadValue { key: "logit_bias", .. }), "{bad}");
    }
    check_argument_error(
        &["kv_cache=q4_0"],
        "boot argument `kv_cache=q4_0`: `kv_cache` takes f16, f32 or q8_0",
    );
    check_argument_error(
        &["keep=-2"],
        "boot argument `keep=-2`: `keep` takes a whole number from -1 on",
    );
    check_argument_error(
        &["context_shift=1"],
        "boot argument `context_shift=1`: `context_shift` takes true or false",
    );
    check_argument_error(
        &["parse_special=1"],
        "boot argument `parse_special=1`: `parse_special` takes true or false",
    );
    check_argument_error(&["mirostat=1"], "boot argument `mirostat=1`: `mirostat` takes 0 or 2");
    check_argument_error(
        &["at_exit=halt"],
        "boot argument `at_exit=halt`: `at_exit` takes power-off or reboot",
    );
    check_argument_error(&["verify=no"], "boot argument `verify=no`: `verify` takes true or false");
    check_argument_error(
        &["temperature=inf"],
        "boot argument `temperature=inf`: `temperature` takes a number from 0 to 100",
    );
    check_argument_error(&["seed=1", "seed=2"], "boot argument `seed=2`: `seed` is given twice");
}

#[test]
fn a_byte_that_is_no_utf8_costs_no_other_argument_and_is_named() {
    let refused = |words: &[&[u8]]| Config::default().apply_arguments(words.iter().copied());
    let error = refused(&[b"seed=1", b"prompt=a\nb caf\xE9 au lait"]).unwrap_err();
    assert_eq!(error.place, Place::BootArgument("prompt=a\nb caf\u{FFFD} au lait".into()));
    let at = NotText { byte: 0xE9, line: 2, column: 6 };
    assert_eq!(error.problem, Problem::NotText(at));
    assert!(error.to_string().contains("line 2 has the byte 0xE9 in column 6"), "{error}");
    assert!(error.hint().contains("UTF-8") && error.hint().contains("cmdline.txt"));
    // A name, a word that is cut short, and one that is someone else's.
    assert!(refused(&[b"s\xE9ed=1"]).is_err());
    assert!(refused(&["prompt=café".as_bytes().split_last().unwrap().1]).is_err());
    let mut config = Config::default();
    config.apply_arguments([&b"splash=caf\xE9"[..], b"--", b"seed=7"]).unwrap();
    assert_eq!(config.seed, Some(7));
}

#[test]
fn a_boot_argument_that_does_nothing_in_the_mode_is_refused() {
    let refused = |file: &str, arguments: &[&str]| {
        let mut config = Config::from_toml(file).unwrap();
        config.apply_arguments(arguments.iter().copied()).unwrap();
        config.refuse_unused(arguments.iter().copied()).err()
    };
    let error = refused("", &["seed=1", "system=Be brief."]).unwrap();
    assert_eq!(
        error.to_string(),
        "boot argument `system=Be brief.`: `system` does nothing in mode generate, only in chat"
    );
    assert!(error.hint().contains("`mode`"), "{}", error.hint());
    let error = refused("mode = \"perplexity\"", &["top_k=3"]).unwrap().to_string();
    let end = "`top_k` does nothing in mode perplexity, only in generate, chat, serve and bench";
    assert!(error.ends_with(end), "{error}");
    for (mode, used, unused) in [
        (
            "generate",
            &["prompt=a", "cut_prompt=true", "keep=1"][..],
            &["tests=a", "chat_template=auto"][..],
        ),
        (
            "chat",
            &["system=a", "chat_user_prefix=a", "prompt_file=a"],
            &["cut_prompt=true", "tests=a"],
        ),
        ("perplexity", &["prompt_file=a", "context=9"], &["max_tokens=1", "seed=1", "system=a"]),
        ("bench", &["prompt=a", "max_tokens=1"], &["system=a"]),
        (
            "serve",
            &["ip=10.0.2.15/24", "gateway=10.0.2.2", "context=9"],
            &["prompt=a", "system=a", "tests=a"],
        ),
        ("chat", &[], &["ip=dhcp", "gateway=10.0.2.2"]),
        ("test", &["tests=a", "threads=1"], &["prompt=a", "max_tokens=1", "logit_bias="]),
    ] {
        let mode = format!("mode={mode}");
        for setting in used {
            assert_eq!(refused("", &[&mode, setting]), None, "{mode} {setting}");
            assert_eq!(refused("", &[setting, &mode]), None, "{mode} {setting}");
        }
        for setting in unused {
            assert!(refused("", &[&mode, setting]).is_some(), "{mode} {setting}");
            // What stands before the mark is no setting.
            assert_eq!(refused("", &[setting, "--", &mode]), None, "{mode} {setting}");
        }
    }
    // A file serves several modes.
    assert_eq!(refused("system = \"a\"\nmax_tokens = 3\n", &["mode=test"]), None);
}

#[test]
fn the_hint_for_an_unknown_key_lists_the_keys() {
    let hint = Config::from_toml("sede = 1").unwrap_err().hint();
    assert!(KEYS.iter().all(|key| hint.contains(key.name)));
}

/// What urunc writes for a unikernel of type `hermit`, and what Linux's own `ip` looks like.
#[test]
fn addresses_of_a_container_runtime_count_before_the_mark() {
    let addresses = |words: &str| {
        let mut config = Config::from_toml("ip = \"dhcp\"").unwrap();
        config.apply_arguments(words.split(' ')).unwrap();
        config.refuse_unused(words.split(' ')).unwrap();
        (config.ip, config.gateway)
    };
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let urunc = (vec![(ip("10.4.0.7"), 24)], vec![ip("10.4.0.1")]);
    let none = (vec![], vec![]);
    for (words, expected) in [
        ("ip=10.4.0.7/24 gateway=10.4.0.1 -- mode=serve parallel=2", &urunc),
        ("ip=10.4.0.7/24 gateway=10.4.0.1 mode=serve", &urunc),
        ("quiet ip=10.4.0.7/24 gateway=10.4.0.1 -- mode=chat", &urunc),
        ("ip=10.9.0.9/8 gateway=10.9.0.1 -- mode=serve ip=10.4.0.7/24 gateway=10.4.0.1", &urunc),
        ("ip=10.4.0.7::10.4.0.1:255.255.255.0::eth0:off gateway=10.4.0.1 -- mode=serve", &none),
        ("ip=10.9.0.9/8 -- mode=serve ip=dhcp", &none),
        ("gateway=10.4.0.1 -- mode=serve", &none),
        ("ip=dhcp -- mode=serve", &none),
    ] {
        assert_eq!(addresses(words), *expected, "{words}");
    }
    let alone = addresses("ip=10.4.0.7/24 gateway=none -- mode=serve");
    assert_eq!(alone, (urunc.0.clone(), vec![]));
}

/// What `/chosen/bootargs` holds on a Raspberry Pi 4: the words of its device tree, of the
/// firmware, and of the `cmdline.txt` that `image-builder sd` writes.
#[test]
fn what_a_firmware_says_to_linux_is_not_ours() {
    let firmware = "coherent_pool=1M 8250.nr_uarts=1 snd_bcm2835.enable_headphones=0 \
        cgroup_disable=memory numa_policy=interleave numa=fake=2 system_heap.max_order=0 \
        video=HDMI-A-1:1920x1080M@60 bcm2708_fb.fbwidth=1920 smsc95xx.macaddr=DC:A6:32:00:00:07 \
        vc_mem.mem_base=0x3ec00000 vc_mem.mem_size=0x40000000  console=tty1 rootwait quiet";
    let words = |ours| firmware.split_whitespace().chain(ours);
    let mut config = Config::default();
    config.apply_arguments(words(vec!["--", "seed=7", "prompt=a -- b"])).unwrap();
    let expected =
        Config { seed: Some(7), prompt: Prompt::Text("a -- b".into()), ..Config::default() };
    assert_eq!(config, expected);
    config.apply_arguments(words(vec!["--"])).unwrap();
    assert_eq!(config, expected);

    // Behind the mark nothing is ignored, and without it nothing at all.
    let error = config.apply_arguments(words(vec!["--", "quiet"])).unwrap_err();
    assert_eq!(error.place, Place::BootArgument("quiet".into()));
    let error = config.apply_arguments(words(vec!["--", "--"])).unwrap_err();
    assert_eq!(error.place, Place::BootArgument("--".into()));
    let error = config.apply_arguments(words(vec!["seed=7"])).unwrap_err();
    assert_eq!(error.place, Place::BootArgument("coherent_pool=1M".into()));
    assert!(error.hint().contains("cmdline.txt"), "{}", error.hint());
}

#[test]
fn the_defaults_are_those_of_the_engine() {
    let expected = Config {
        mode: Mode::Generate,
        model: None,
        prompt: Prompt::Unset,
        max_tokens: 128,
        context: None,
        kv_cache: CacheType::F16,
        cut_prompt: false,
        parse_special: None,
        context_shift: false,
        keep: 0,
        sampling: SamplingConfig { temperature: 0.0, ..SamplingConfig::creative() },
        dry_breakers: DEFAULT_BREAKERS.map(String::from).into(),
        mirostat: Mirostat::DEFAULT,
        grammar: Grammar::None,
        chat_template: ChatTemplate::Auto,
        chat_texts: Template::default(),
        system: String::new(),
        seed: None,
        port: 8080,
        parallel: 4,
        api_keys: alloc::vec![],
        cors: Cors::Localhost,
        shutdown_timeout: 10,
        ip: alloc::vec![],
        gateway: alloc::vec![],
        threads: None,
        log: LevelFilter::Warn,
        verify: true,
        at_exit: AtExit::PowerOff,
        tests: String::new(),
    };
    assert_eq!(Config::default(), expected);
    assert_eq!(Config::default().context_options(), ContextOptions::default());
    let prompt = KEYS.iter().find(|key| key.name == "prompt").unwrap().default;
    assert!(matches!(prompt, Initial::Words(words) if words.starts_with(DEFAULT_PROMPT)));
}

#[test]
fn each_key_has_a_name_and_a_variable_of_its_own_and_help() {
    for (i, key) in KEYS.iter().enumerate() {
        assert!(key.help.ends_with('.') && !key.modes.is_empty(), "{}", key.name);
        assert!(!matches!(key.default, Initial::Value("") | Initial::Words("")), "{}", key.name);
        for other in &KEYS[..i] {
            assert_ne!(key.name, other.name);
            let is_other = key.variable == Variable::None || key.variable != other.variable;
            assert!(is_other, "{} and {}", key.name, other.name);
        }
    }
}
