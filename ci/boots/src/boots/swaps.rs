//! A server with several models on its disk, which take turns in a small memory.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host_io::http::{Response, Server};
use image_builder::contents::ContentOptions;
use kernel::report::Event;
use serde_json::{Value, json};

use super::good_client::memory_at_rest;
use super::serve::{completion, server, with_clients};
use crate::check::{Check, Group, Passed, check};
use crate::disk::{Disk, TINY};
use crate::event;
use crate::expect::Expect;
use crate::lab::Lab;

/// The models by their names for clients, and their files.
pub const MODELS: [(&str, &str); 3] = [
    ("tiny", TINY),
    ("tiny-gpt2", "test_models/tiny-gpt2.gguf"),
    ("qwen2-Q4_K_M", "test_models/architectures/qwen2-Q4_K_M.gguf"),
];
/// A machine in which the two larger models do not fit together, as a load leaves 32 MiB.
const SMALL_MIB: u32 = 54;
/// Size of the model that fits into no small machine.
const LARGE: usize = 64 << 20;
/// Clients that ask at once.
const CLIENTS: usize = 8;
/// Tokens of an answer.
const TOKENS: usize = 6;
/// The prompts of the clients.
const PROMPTS: [&str; 4] = ["Once upon a time", "The cat", "In the", "A"];
/// The longest time until a model is unloaded.
const LIMIT: Duration = Duration::from_secs(30);

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let long = [Group::Long, Group::Torture];
    vec![
        check("serve-swaps", |lab| swaps(lab, "serve-swaps", SMALL_MIB, 1, 2)),
        check("serve-100-swaps", |lab| swaps(lab, "serve-100-swaps", SMALL_MIB, 10, 30))
            .only_in(&long),
        // The heap of a larger machine is mapped in blocks, which the loads split.
        check("serve-100-swaps-in-blocks", |lab| {
            swaps(lab, "serve-100-swaps-in-blocks", 512, 1, 34)
        })
        .only_in(&long),
    ]
}

/// The models, a damaged one and one that is too large.
pub fn several() -> Disk {
    let whole = Disk::of("several", |_| {
        Ok(ContentOptions::new(MODELS.map(|(_, file)| file.into()).into()))
    });
    whole.with_files("several-and-bad", |files| {
        let found = |path: &str| {
            let file = files.iter().find(|(other, _)| other == path);
            file.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
        };
        let (good, sum) = (found("models/tiny-gpt2.gguf"), found("models/tiny-gpt2.gguf.sha256"));
        let sum = String::from_utf8_lossy(&sum).replace("tiny-gpt2.gguf", "damaged.gguf");
        let mut large = good.clone();
        large.resize(LARGE, 0);
        let mut damaged = good;
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        // The configuration of the image builder names the first model.
        files.retain(|(path, _)| path != "anchorite.toml");
        files.push(("models/damaged.gguf".into(), damaged));
        files.push(("models/damaged.gguf.sha256".into(), sum.into_bytes()));
        files.push(("models/large.gguf".into(), large));
        files.push(("models/._tiny.gguf".into(), b"hidden".to_vec()));
    })
}

/// A request to a model, and the text of the answer.
fn ask(server: Server, model: &str, prompt: &str) -> Result<String> {
    let response = post(server, model, prompt)?;
    let answer = response.json()?;
    let text = answer["content"].as_str().with_context(|| format!("there is no text: {answer}"))?;
    ensure!(answer["model"] == model, "{model} was asked: {answer}");
    Ok(text.to_owned())
}

fn post(server: Server, model: &str, prompt: &str) -> Result<Response> {
    let mut body = completion(prompt, TOKENS);
    body["model"] = model.into();
    server.post("/completion", &body)
}

/// Models take turns: for clients at once, and in `cycles` cycles after which memory is compared.
fn swaps(lab: &Lab, name: &str, memory_mib: u32, requests: usize, cycles: usize) -> Result<Passed> {
    let is_small = memory_mib == SMALL_MIB;
    let boot = server(name)
        .disk(several())
        .memory_mib(memory_mib)
        .limit_s(600)
        .event(event!(Serve { model == "", parallel == 4usize }))
        .event(event!(Unload { file == "tiny.gguf" }))
        .expect(Expect::NoEvent(event!(Error {})));
    let (seen, memory) = with_clients(lab, &boot, |server| {
        let alone: Vec<Vec<String>> = MODELS
            .iter()
            .map(|(model, _)| PROMPTS.iter().map(|prompt| ask(server, model, prompt)).collect())
            .collect::<Result<_>>()?;
        crowd(server, &alone, requests, is_small)?;
        let memory = in_cycles(server, &alone, cycles)?;
        Ok(memory)
    })?;
    let loads = seen.events().filter(|event| matches!(event, Event::Model(_))).count();
    ensure!(loads >= MODELS.len() * cycles, "{loads} loads");
    Ok(Passed::with(format!(
        "{loads} loads, {CLIENTS} clients, {memory} bytes in use after each cycle"
    )))
}

/// Clients at once, each of which asks all models, and one that asks for models that do not load.
fn crowd(server: Server, alone: &[Vec<String>], requests: usize, is_small: bool) -> Result<()> {
    thread::scope(|scope| {
        let client = |client: usize| {
            move || -> Result<()> {
                for i in 0..requests * MODELS.len() {
                    let (model, prompt) = ((client + i) % MODELS.len(), (client + i / 2) % 4);
                    let answer = ask(server, MODELS[model].0, PROMPTS[prompt])?;
                    let expected = &alone[model][prompt];
                    ensure!(answer == *expected, "alone: {expected:?}\namong others: {answer:?}");
                }
                Ok(())
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        for _ in 0..requests {
            let mut bad = vec![("damaged", 500, "ChecksumMismatch"), ("nix", 404, "not found")];
            if is_small {
                bad.push(("large", 500, "OutOfMemory"));
            }
            for (model, status, word) in bad {
                let answer = post(server, model, "A")?;
                ensure!(answer.status == status && answer.body.contains(word), "{answer:?}");
            }
        }
        clients.into_iter().try_for_each(|client| client.join().expect("no client panics"))
    })
}

/// Loads and unloads all models again and again; gives the memory in use after each time.
fn in_cycles(server: Server, alone: &[Vec<String>], cycles: usize) -> Result<u64> {
    let mut before = None;
    // The first cycle ends what the crowd has begun.
    for cycle in 0..=cycles {
        for (number, (model, _)) in MODELS.iter().enumerate() {
            let answer = ask(server, model, PROMPTS[0])?;
            ensure!(answer == alone[number][0], "{model} answers {answer:?}");
        }
        for (model, _) in MODELS {
            // In a small machine most of them are unloaded already.
            server.post("/models/unload", &json!({ "model": model }))?;
        }
        wait_for_unloads(server)?;
        if cycle > 0 {
            let memory = memory_at_rest(server, before);
            before = Some(memory.with_context(|| format!("cycle {cycle}"))?);
        }
    }
    before.context("no cycle")
}

/// Waits until no model is loaded.
fn wait_for_unloads(server: Server) -> Result<()> {
    let started = Instant::now();
    loop {
        let models = server.get("/v1/models")?.json()?;
        let models = models["data"].as_array().context("models are a list")?;
        let is_unloaded = |model: &Value| model["status"]["value"] == "unloaded";
        if models.iter().all(is_unloaded) {
            return Ok(());
        }
        ensure!(started.elapsed() < LIMIT, "{models:?}");
    }
}
