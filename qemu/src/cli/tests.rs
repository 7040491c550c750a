use super::*;

const HOST: Host = Host { aarch64: false, kvm: false, macos: false };

fn environment() -> Environment {
    Environment { prompt: None, qemu: None, cores: 3 }
}

/// The plan for these words, with a kernel image that is there.
fn plan_in(environment: &Environment, words: &str) -> Result<Plan, String> {
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), "image").unwrap();
    let words = words.split_whitespace();
    let line = ["anchorite-qemu", "--kernel", image.path().to_str().unwrap()].into_iter();
    let cli = Cli::try_parse_from(line.chain(words)).map_err(|e| e.to_string())?;
    cli.plan(environment, HOST)
}

fn plan(words: &str) -> Result<Plan, String> {
    plan_in(&environment(), words)
}

fn boot_arguments(plan: &Plan) -> Vec<(&str, &str)> {
    let arguments = plan.machine.boot_arguments.iter();
    arguments.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Processor, memory in MiB and version of the interrupt controller of a `virt` machine.
fn virt(plan: &Plan) -> (&str, u64, Option<u8>) {
    match &plan.machine.board {
        Board::Virt { cpu, memory_mib, gic, .. } => (cpu, *memory_mib, *gic),
        Board::RaspberryPi4 { .. } => panic!("a Raspberry Pi"),
    }
}

#[test]
fn a_raspberry_pi_is_as_it_is() {
    let pi = |words: &str| plan(&format!("--board raspi4b --dtb /etc/passwd {words}"));
    let machine = pi("--disk /etc/passwd").unwrap().machine;
    let device_tree = "/etc/passwd".into();
    assert_eq!(machine.board, Board::RaspberryPi4 { device_tree });
    assert_eq!(machine.cores, 4);
    assert_eq!(machine.devices, [Device::Disk { file: "/etc/passwd".into(), bus: Bus::Sd }]);
    for flag in ["--cpu max", "--mem 4G", "--gic 2", "--el2", "--smp 2", "--icount"] {
        let error = pi(flag).unwrap_err();
        assert!(error.contains(flag.split(' ').next().unwrap()), "{flag}: {error}");
    }
    assert!(pi("--disk /etc/passwd --bus pci").unwrap_err().contains("--bus"));
    assert!(pi("--disk /etc/passwd --bus initrd").is_ok());
    assert!(plan("--board raspi4b").unwrap_err().contains("--dtb"));
    assert!(plan("--board raspi4b --dtb /none").unwrap_err().contains("/none"));
    assert!(plan("--dtb /etc/passwd").unwrap_err().contains("leave --dtb out"));
    assert!(plan("--disk /etc/passwd --bus sd").unwrap_err().contains("--bus"));
}

#[test]
fn clap_finds_no_fault_with_the_definition() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn without_options_the_disk_decides() {
    let plan = plan("").unwrap();
    assert_eq!(boot_arguments(&plan), []);
    assert_eq!(plan.expected, Expectations::default());
    assert_eq!(plan.qemu, PathBuf::from("qemu-system-aarch64"));
    assert_eq!(plan.machine.cores, 3);
    let cpu = "max,sve=off,pauth-impdef=on".into();
    assert_eq!(plan.machine.board, Board::Virt { cpu, memory_mib: 1024, gic: None, el2: false });
    assert_eq!(plan.limits.total, Some(Duration::from_secs(3600)));
}

#[test]
fn options_become_boot_arguments_under_the_kernels_names() {
    let plan = plan(
        "--mode bench --model m.gguf --prompt Once --tokens 5 --ctx 7 --kv-cache q8_0 \
         --context-shift --keep -1 --seed 11 \
         --temperature 0.7 --top-k 13 --top-p 0.9 --min-p 0.1 --repeat-penalty 1.5 \
         --threads 2 --log debug --no-verify --set a=b=c",
    );
    let plan = plan.unwrap();
    let given = boot_arguments(&plan);
    assert_eq!(
        given,
        [
            ("mode", "bench"),
            ("model", "m.gguf"),
            ("prompt", "Once"),
            ("max_tokens", "5"),
            ("context", "7"),
            ("kv_cache", "q8_0"),
            ("context_shift", "true"),
            ("keep", "-1"),
            ("seed", "11"),
            ("temperature", "0.7"),
            ("top_k", "13"),
            ("top_p", "0.9"),
            ("min_p", "0.1"),
            ("repeat_penalty", "1.5"),
            ("threads", "2"),
            ("log", "debug"),
            ("verify", "false"),
            ("a", "b=c"),
        ]
    );
}

#[test]
fn each_setting_has_a_flag_and_is_a_word() {
    use kernel::settings::{Initial, KEYS, Takes};

    for key in KEYS {
        let value = match (&key.takes, key.default) {
            (_, Initial::Value(value)) if !value.contains(' ') => value,
            (Takes::Whole(..), _) => "3",
            (Takes::Boolean(_), _) => "true",
            (Takes::Texts(..), _) => "[]",
            (Takes::Choice(names, _), _) => names[0],
            (Takes::Form(..), _) if key.name == "logit_bias" => "7:1",
            (Takes::Form(..), _) if key.name == "gateway" => "10.0.2.2",
            _ => "a",
        };
        let (name, flag) = (key.name, key.flag());
        for words in [format!("--{flag}={value}"), format!("run {name}={value}")] {
            let plan = plan(&words).unwrap_or_else(|error| panic!("{words}: {error}"));
            assert_eq!(boot_arguments(&plan), [(name, value)]);
        }
    }
}

#[test]
fn a_setting_can_be_given_by_the_name_that_make_has_for_it() {
    let given = |words: &str| {
        let plan = plan(words)?;
        let given = boot_arguments(&plan).into_iter();
        Ok(given.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
    };
    let words = "run TOKENS=8 VERIFY=0 CONTEXT_SHIFT=1 CTX= SYSTEM= top_k=40";
    let expected = "max_tokens=8 verify=false context_shift=true system= top_k=40";
    assert_eq!(given(words), Ok::<_, String>(expected.into()));
    assert_eq!(given("--top-k 3 run TOKENS=8"), Ok("top_k=3 max_tokens=8".into()));
    for (words, named) in [
        ("run TOKENS=8 max_tokens=8", "`max_tokens` is given twice"),
        ("run --tokens 8 TOKENS=8", "`max_tokens` is given twice"),
        ("run top_k=many", "`top_k` takes a whole number"),
        ("run VERIFY=2", "`verify` takes true or false"),
        ("run top_kk=1", "there is no setting `top_kk`; the settings are mode, model"),
        ("run top_k", "expected KEY=VALUE"),
        ("chat MODE=test", "exclude each other"),
        ("run PROMPT=a prompt_file=b", "exclude each other"),
        ("run MODE=test TOKENS=3", "`max_tokens` does nothing in mode test"),
    ] {
        let message = given(words).unwrap_err();
        assert!(message.contains(named), "{words}: {message}");
    }
}

#[test]
fn values_that_the_guest_would_refuse_are_refused_before_it_starts() {
    for (words, named) in [
        ("--tokens 0", "max_tokens"),
        ("--ctx 0", "context"),
        ("--kv-cache q4_0", "kv_cache"),
        ("--keep -2", "keep"),
        ("--temperature=-1", "temperature"),
        ("--temperature nan", "temperature"),
        ("--top-p 2", "top_p"),
        ("--min-p 2", "min_p"),
        ("--repeat-penalty 0", "repeat_penalty"),
        ("--threads 0", "threads"),
        ("--log loud", "log"),
        ("--model a/b.gguf", "model"),
    ] {
        let message = plan(words).unwrap_err();
        assert!(message.contains(&format!("`{named}` takes")), "{words}: {message}");
    }
    assert_eq!(boot_arguments(&plan("--set colour=red").unwrap()), [("colour", "red")]);
}

#[test]
fn a_setting_given_twice_is_refused() {
    assert!(plan("--tokens 5 --set max_tokens=7").unwrap_err().contains("max_tokens"));
    assert!(plan("--set a=1 --set a=2").unwrap_err().contains("`a`"));
}

#[test]
fn the_prompt_of_the_environment_stands_in() {
    use std::os::unix::ffi::OsStringExt;

    let environment = Environment { prompt: Some("Hello, you".into()), ..environment() };
    let prompt = |words| {
        let plan = plan_in(&environment, words).unwrap();
        let arguments = plan.machine.boot_arguments.into_iter();
        arguments.filter(|(key, _)| key.starts_with("prompt")).collect::<Vec<_>>()
    };
    assert_eq!(prompt(""), [("prompt".into(), "Hello, you".into())]);
    assert_eq!(prompt("--prompt a"), [("prompt".into(), "a".into())]);
    assert_eq!(prompt("--prompt="), [("prompt".into(), String::new())]);
    assert_eq!(prompt("--prompt-file p.txt"), [("prompt_file".into(), "p.txt".into())]);
    assert_eq!(prompt("--set prompt=b"), [("prompt".into(), "b".into())]);
    assert_eq!(prompt("chat"), [("prompt".into(), "Hello, you".into())]);
    // One that is empty or blank is given as well; one that is no text is not left out in silence.
    for given in ["", "  ", "\n\tlead"] {
        let environment = Environment { prompt: Some(given.into()), ..environment.clone() };
        let plan = plan_in(&environment, "").unwrap();
        assert_eq!(boot_arguments(&plan), [("prompt", given)]);
    }
    let latin_1 = OsString::from_vec(b"caf\xe9".to_vec());
    let environment = Environment { prompt: Some(latin_1), ..environment };
    assert!(plan_in(&environment, "").unwrap_err().contains("PROMPT"));
    assert!(plan_in(&environment, "--prompt a").is_ok());
}

#[test]
fn what_does_nothing_in_the_mode_is_refused() {
    for (words, named) in [
        ("--mode test --prompt a", "`prompt`"),
        ("--mode test --tokens 3", "`max_tokens`"),
        ("--mode perplexity --temperature 1", "`temperature`"),
    ] {
        let message = plan(words).unwrap_err();
        assert!(message.contains(named) && message.contains("does nothing"), "{words}: {message}");
    }
    assert!(plan("--mode bench --prompt a --tokens 3").is_ok());
    let environment = Environment { prompt: Some("a".into()), ..environment() };
    assert!(plan_in(&environment, "--mode test").unwrap_err().contains("`prompt`"));
    assert!(plan("--bus pci").unwrap_err().contains("--bus"));
}

#[test]
fn a_processor_of_32_bits_is_refused() {
    for cpu in [
        "arm926",
        "arm1176",
        "arm11mpcore",
        "cortex-a7",
        "cortex-a8",
        "cortex-a9",
        "cortex-a15",
        "Cortex-A15,pmu=off",
        "cortex-m4",
        "cortex-r5f",
        "cortex-r52",
        "pxa270-c5",
        "sa1110",
        "ti925t",
    ] {
        let message = plan(&format!("--cpu {cpu}")).unwrap_err();
        assert!(message.contains(cpu) && message.contains("32 bits"), "{cpu}: {message}");
        for own in ["-cpu", "--cpu"] {
            assert!(plan(&format!("--cpu max -- {own} {cpu}")).is_err(), "{own} {cpu}");
        }
    }
    for cpu in [
        "max",
        "host",
        "a64fx",
        "cortex-a35",
        "cortex-a53",
        "cortex-a55",
        "cortex-a57",
        "cortex-a72",
        "cortex-a76",
        "cortex-a710",
        "cortex-a78ae",
        "cortex-r82",
        "neoverse-n1",
        "max,sve=off",
    ] {
        assert!(plan(&format!("--cpu {cpu}")).is_ok(), "{cpu}");
        assert!(plan(&format!("--cpu cortex-a15 -- -cpu cortex-a7 -cpu {cpu}")).is_ok(), "{cpu}");
    }
}

#[test]
fn a_chat_connects_the_input_and_has_no_end_of_time() {
    for words in ["chat", "--mode chat", "chat --mode chat"] {
        let plan = plan(words).unwrap();
        assert_eq!(plan.talk, Talk::Input, "{words}");
        assert_eq!(boot_arguments(&plan), [("mode", "chat")]);
        assert_eq!(plan.limits.total, None);
    }
    assert_eq!(plan("run").unwrap().talk, Talk::Nobody);
    assert!(plan("chat --mode test").unwrap_err().contains("exclude"));
}

#[test]
fn a_server_is_reached_by_its_port_and_has_no_end_of_time() {
    for (words, guest) in [
        ("serve --forward 0:8080", 8080),
        ("--mode serve --forward 0:8080 --forward 0:81", 8080),
        ("serve port=8081 --forward 0:8081", 8081),
    ] {
        let plan = plan(words).unwrap();
        assert_eq!(plan.limits.total, None);
        let Talk::Clients { urls } = plan.talk else { panic!("{words}") };
        assert_eq!(urls.len(), 1, "{words}");
        let forward = plan.machine.devices.iter().find_map(|device| match device {
            Device::Network { forwards, .. } => forwards.first().copied(),
            _ => None,
        });
        let forward = forward.unwrap();
        assert_eq!(forward.guest, guest);
        assert_eq!(urls[0], format!("http://127.0.0.1:{}", forward.host.port()));
    }
    assert!(plan("serve --mode test").unwrap_err().contains("exclude"));
    // Without a port to forward, it is the guest's own.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let plan = plan(&format!("serve port={free}")).unwrap();
    assert_eq!(plan.talk, Talk::Clients { urls: vec![format!("http://127.0.0.1:{free}")] });
}

#[test]
fn instructions_are_counted_on_one_core_by_tcg() {
    let counted = plan("--icount").unwrap().machine;
    assert!(counted.icount);
    assert_eq!((counted.cores, counted.accelerator), (1, Accelerator::Tcg));
    assert!(!plan("").unwrap().machine.icount);
    assert!(plan("--icount --smp 1 --accel tcg").is_ok());
    for (words, named) in [("--icount --smp 2", "--smp"), ("--icount --accel kvm", "--accel")] {
        let message = plan(words).unwrap_err();
        assert!(message.contains(named), "{words}: {message}");
    }
    // A host whose own cores would be taken for anything else counts all the same by TCG.
    let host = Host { aarch64: true, kvm: true, macos: false };
    let cli = |words: &[&str]| {
        let image = ["anchorite-qemu", "--kernel", "Cargo.toml"].iter();
        Cli::try_parse_from(image.chain(words)).unwrap().plan(&environment(), host).unwrap()
    };
    assert_eq!(cli(&[]).machine.accelerator, Accelerator::Kvm);
    assert_eq!(cli(&["--icount"]).machine.accelerator, Accelerator::Tcg);
    assert_ne!(virt(&cli(&["--icount"])).0, "host");
}

#[test]
fn a_forward_brings_a_card_on_the_disk_s_bus() {
    let network = |words: &str| {
        let plan = plan(words)?;
        let mut devices = plan.machine.devices.into_iter();
        Ok(devices.find_map(|device| match device {
            Device::Network { bus, forwards } => Some((bus, forwards)),
            _ => None,
        }))
    };
    assert_eq!(network("--disk /etc/passwd"), Ok::<_, String>(None));
    for (words, expected) in [
        ("", Bus::Mmio),
        ("--disk /etc/passwd", Bus::Mmio),
        ("--disk /etc/passwd --bus initrd", Bus::Mmio),
        ("--disk /etc/passwd --bus mmio-legacy", Bus::MmioLegacy),
        ("--disk /etc/passwd --bus pci", Bus::Pci),
    ] {
        let words = format!("{words} --forward 0:80 --forward 0.0.0.0:0:81");
        let (bus, forwards) = network(&words).unwrap().unwrap();
        assert_eq!(bus, expected, "{words}");
        let guests: Vec<u16> = forwards.iter().map(|forward| forward.guest).collect();
        assert_eq!(guests, [80, 81]);
        assert!(forwards.iter().all(|forward| forward.host.port() != 0));
        assert_eq!(forwards[1].host.ip().octets(), [0; 4]);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let words = format!("--forward {}:80", taken.local_addr().unwrap().port());
    assert!(network(&words).unwrap_err().contains("is taken"));
    assert!(network("--forward 80").unwrap_err().contains("PORT:GUEST_PORT"));
    let pi = network("--board raspi4b --dtb /etc/passwd --forward 0:80");
    assert!(pi.unwrap_err().contains("--forward"));
}

#[test]
fn limits_are_seconds_and_0_is_none() {
    let limits = plan("--boot-timeout 0.5 --idle-timeout 0 --timeout 7").unwrap().limits;
    let seconds = Duration::from_secs_f64;
    assert_eq!(limits, Limits { boot: Some(seconds(0.5)), idle: None, total: Some(seconds(7.0)) });
    assert!(plan("--timeout soon").is_err());
    assert!(plan("--timeout=-1").is_err());
    let debugged = plan("--gdb --timeout 7").unwrap();
    assert_eq!(debugged.limits, Limits { boot: None, idle: None, total: None });
    assert_eq!(debugged.machine.devices, [Device::Gdb { port: 1234 }]);
}

#[test]
fn sizes_are_mib_or_have_a_suffix() {
    let mem = |words: &str| plan(words).map(|plan| virt(&plan).1);
    assert_eq!(mem("--mem 64"), Ok(64));
    assert_eq!(mem("--mem 64M"), Ok(64));
    assert_eq!(mem("--mem 3g"), Ok(3072));
    for wrong in ["0", "G", "1.5G", "-1", "64K", "99999999999999999999G", "18446744073709551615G"] {
        assert!(mem(&format!("--mem={wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn many_cores_need_the_newer_interrupt_controller() {
    assert_eq!(virt(&plan("--smp 8").unwrap()).2, None);
    assert_eq!(virt(&plan("--smp 9").unwrap()).2, Some(3));
    assert!(plan("--smp 9 --gic 2").unwrap_err().contains("--gic 3"));
    assert!(plan("--gic 4").is_err());
    assert!(plan("--smp 0").is_err());
}

#[test]
fn what_is_expected_is_checked_where_it_is_given() {
    let expected = plan("--expect Paris --expect-tokens 5 --expect-error OutOfMemory").unwrap();
    assert_eq!(
        expected.expected,
        Expectations {
            mode: None,
            texts: vec!["Paris".into()],
            tokens: Some(5),
            error: Some(Code::OutOfMemory),
        }
    );
    let error = plan("--expect-error Nonsense").unwrap_err();
    assert!(error.contains("ChecksumMismatch"), "the codes there are: {error}");
}

#[test]
fn missing_files_are_reported_before_anything_starts() {
    let cli = |words: &[&str]| {
        let line = ["anchorite-qemu", "--kernel"].iter().chain(words);
        Cli::try_parse_from(line).unwrap().plan(&environment(), HOST).unwrap_err()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("image"), "image").unwrap();
    std::fs::write(path("empty"), "").unwrap();
    assert!(cli(&[&path("none")]).starts_with("there is no kernel image"));
    assert!(cli(&[&path("empty")]).contains("is empty"));
    assert!(cli(&[&path("")]).contains("is no file"));
    assert!(cli(&[&path("image"), "--disk", &path("none")]).starts_with("there is no model disk"));
}

#[test]
fn what_follows_the_dashes_is_qemus() {
    let plan = plan("--disk /etc/passwd --bus pci -- -icount shift=0").unwrap();
    assert_eq!(plan.machine.extra, ["-icount", "shift=0"]);
    assert_eq!(plan.machine.devices, [Device::Disk { file: "/etc/passwd".into(), bus: Bus::Pci }]);
}
