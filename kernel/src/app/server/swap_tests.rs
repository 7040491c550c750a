//! Several models on the disk of a server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::app::fake_abi::{in_world, reads_so_far};
use crate::app::sha256::Sha256;

const GPT2: &[u8] = include_bytes!("../../../../test_models/tiny-gpt2.gguf");
const QWEN: &[u8] = include_bytes!("../../../../test_models/architectures/qwen2-F16.gguf");

/// Memory in which a server keeps what it does not need for models.
const RESERVE: u64 = 32 << 20;

/// The checksum file of a model.
fn sum_of(name: &str, model: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(model);
    format!("{}  {name}\n", hash.finish()).into_bytes()
}

/// The three models, with the memory for all of them, or for one large one alone.
fn three_models(world: &mut World) {
    for (path, sum, model) in [
        ("/models/tiny.gguf", "/models/tiny.gguf.sha256", TINY),
        ("/models/gpt.gguf", "/models/gpt.gguf.sha256", GPT2),
        ("/models/qwen.gguf", "/models/qwen.gguf.sha256", QWEN),
    ] {
        let name = path.rsplit('/').next().unwrap();
        world.files.insert(sum, sum_of(name, model));
        world.files.insert(path, model.to_vec());
    }
    // What is hidden, or no GGUF file, is no model.
    world.files.insert("/models/._tiny.gguf", TINY.to_vec());
    world.files.insert("/models/page.gguf", b"<!DOCTYPE html>".to_vec());
    world.files.insert("/models/notes.txt", GPT2.to_vec());
}

/// The three models, with memory for `n` bytes of models.
fn with_memory(n: usize) -> impl Fn(&mut World) {
    move |world: &mut World| {
        three_models(world);
        world.counts_mapped = true;
        world.memory.free_bytes = RESERVE + n as u64;
    }
}

/// Memory for the largest of the three models alone.
const FOR_ONE: usize = TINY.len() + (1 << 20);

fn ask(model: &str, prompt: &str, n: usize) -> Value {
    let mut body = completion(prompt, n);
    body["model"] = model.into();
    body["ignore_eos"] = true.into();
    body
}

fn text(response: &Response) -> String {
    let answer = response.json();
    answer["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_string()
}

impl Address {
    fn completes(self, model: &str, prompt: &str, n: usize) -> String {
        text(&self.post("/completion", &ask(model, prompt, n)))
    }

    /// The connection of a streamed answer that has begun.
    fn streams(self, model: &str, prompt: &str, n: usize) -> TcpStream {
        let mut body = ask(model, prompt, n);
        body["stream"] = true.into();
        let stream = self.send("POST /completion", &body.to_string());
        stream.peek(&mut [0]).unwrap();
        stream
    }

    /// The states of all models, by their names.
    fn states(self) -> BTreeMap<String, String> {
        let models = self.ask("GET /v1/models", "").json();
        let state = |model: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_string();
            (text(&model["id"]), text(&model["status"]["value"]))
        };
        models["data"].as_array().unwrap().iter().map(state).collect()
    }

    fn waits_for(self, model: &str, state: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.states()[model] != state {
            assert!(Instant::now() < until, "{model} is not {state}: {:?}", self.states());
        }
    }
}

/// What each model answers on a server of its own.
fn alone(prompt: &str, n: usize) -> BTreeMap<&'static str, String> {
    let mut answers = BTreeMap::new();
    for (name, path, model) in [
        ("tiny", "/models/tiny.gguf", TINY),
        ("gpt", "/models/gpt.gguf", GPT2),
        ("qwen", "/models/qwen.gguf", QWEN),
    ] {
        let mut answer = String::new();
        with_world(
            &[],
            |world| drop(world.files.insert(path, model.to_vec())),
            |server| {
                server.wait_for_the_model();
                // A server of one model takes any name.
                answer = server.completes("gpt-3.5-turbo", prompt, n);
            },
        );
        answers.insert(name, answer);
    }
    answers
}

#[test]
fn a_request_chooses_its_model_of_several() {
    let alone = alone("Once upon a time", 9);
    let console = with_world(&[], three_models, |server| {
        let states = |values: [&str; 3]| {
            let names = ["gpt", "qwen", "tiny"].map(String::from);
            names.into_iter().zip(values.map(String::from)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(server.states(), states(["unloaded"; 3]));
        // A look at the server loads nothing.
        let props = server.ask("GET /props", "").json();
        assert_eq!((&props["role"], &props["max_instances"]), (&json!("router"), &json!(3)));
        assert_eq!(server.ask("GET /slots", "").json(), json!([]));
        assert_eq!(server.ask("GET /props?model=tiny&autoload=false", "").status, 400);
        assert_eq!(server.states(), states(["unloaded"; 3]));

        for name in ["tiny", "qwen.gguf", "qwen"] {
            let model = name.strip_suffix(".gguf").unwrap_or(name);
            assert_eq!(server.completes(name, "Once upon a time", 9), alone[model], "{name}");
        }
        assert_eq!(server.states(), states(["unloaded", "loaded", "loaded"]));
        // Without a name, the model that was used last answers.
        let answer = server.post("/completion", &completion("Once upon a time", 9)).json();
        assert_eq!(answer["model"], "qwen");
        let props = server.ask("GET /props?model=tiny", "").json();
        assert_eq!(props["model_alias"], "tiny");
        assert_eq!(server.ask("GET /slots?model=tiny", "").json().as_array().unwrap().len(), 4);
        let tokens = json!({"content": "Once", "model": "gpt"});
        assert_eq!(server.post("/tokenize", &tokens).status, 200);
        assert_eq!(server.states(), states(["loaded"; 3]));

        for name in ["gpt-3.5-turbo", "page", "._tiny", "notes.txt", "gpt.gguf.sha256"] {
            let answer = server.post("/completion", &ask(name, "Once", 1));
            assert_eq!(answer.status, 404, "{answer:?}");
            let error = &answer.json()["error"];
            assert_eq!(error["type"], "not_found_error");
            let expected = format!("model `{name}` not found; the models are: gpt, qwen, tiny");
            assert_eq!(error["message"], *expected);
        }
        for body in ["{", "{\"model\": 7}"] {
            assert_eq!(server.ask("POST /completion", body).status, 400, "{body}");
        }
        let metrics = server.ask("GET /metrics", "").body;
        assert!(metrics.contains("\nllamacpp:tokens_predicted_total 36\n"), "{metrics}");
    });
    assert!(console.contains("3 models are on the disk"), "{console}");
    let serve = "\"model\":\"\",\"models\":[\"gpt\",\"qwen\",\"tiny\"],\"parallel\":4,\"n_ctx\":0";
    assert!(console.contains(serve), "{console}");
}

#[test]
fn the_configured_model_is_there_from_the_start_and_answers_by_default() {
    with_world(&["model=gpt.gguf"], three_models, |server| {
        server.wait_for_the_model();
        assert_eq!(server.states()["gpt"], "loaded");
        server.completes("tiny", "Once", 2);
        let answer = server.post("/completion", &completion("Once", 2)).json();
        assert_eq!(answer["model"], "gpt");
    });
}

#[test]
fn models_that_do_not_fit_together_take_turns() {
    let alone = alone("Once upon a time", 5);
    let console = with_world(&[], with_memory(FOR_ONE), |server| {
        let names = ["tiny", "gpt", "qwen"];
        thread::scope(|scope| {
            for client in 0..6 {
                let alone = &alone;
                scope.spawn(move || {
                    for i in 0..5 {
                        let name = names[(client + i) % 3];
                        let answer = server.completes(name, "Once upon a time", 5);
                        assert_eq!(answer, alone[name], "{name}");
                    }
                });
            }
        });
        // The sums are those of all models, the unloaded ones too.
        let metrics = server.ask("GET /metrics", "").body;
        assert!(metrics.contains("\nllamacpp:tokens_predicted_total 150\n"), "{metrics}");
    });
    let (loads, unloads) = ("\"event\":\"model\"", "\"event\":\"unload\"");
    assert!(console.matches(unloads).count() >= 3, "{console}");
    assert!(console.matches(loads).count() > console.matches(unloads).count(), "{console}");
}

#[test]
fn swaps_give_all_memory_back() {
    with_world(&[], with_memory(FOR_ONE), |server| {
        let mut sizes = BTreeMap::new();
        for i in 0..9 {
            let name = ["tiny", "gpt"][i % 2];
            server.completes(name, "Once", 1);
            let mapped = in_world(|world| world.mapped);
            assert_eq!(*sizes.entry(name).or_insert(mapped), mapped, "{name}, {i}");
        }
        assert!(sizes["gpt"] < sizes["tiny"], "{sizes:?}");
    });
}

#[test]
fn streams_go_on_while_another_model_loads() {
    let slow = |world: &mut World| {
        three_models(world);
        world.read_takes = Duration::from_millis(50);
    };
    with_world(&["model=qwen.gguf"], slow, |server| {
        server.wait_for_the_model();
        let alone = server.completes("qwen", "Once upon a time", 3);
        let is_loaded = AtomicBool::new(false);
        let n_answers = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_loaded.load(Ordering::SeqCst) {
                        assert_eq!(server.completes("qwen", "Once upon a time", 3), alone);
                        n_answers.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while n_answers.load(Ordering::SeqCst) < 4 {
                thread::yield_now();
            }
            in_world(|world| world.reads.clear());
            server.completes("tiny", "Once", 1);
            is_loaded.store(true, Ordering::SeqCst);
        });
        // A slice reads small chunks while others want the engine. A load at once reads six chunks.
        let reads = reads_so_far();
        assert!(reads.len() > 12, "{reads:?}");
        assert!(n_answers.into_inner() > 8);
    });
}

#[test]
fn a_model_that_cannot_be_loaded_is_an_error_of_its_requests_alone() {
    let set_up = |world: &mut World| {
        with_memory(FOR_ONE)(world);
        let mut damaged = GPT2.to_vec();
        damaged[GPT2.len() / 2] ^= 1;
        world.files.insert("/models/damaged.gguf", damaged);
        world.files.insert("/models/damaged.gguf.sha256", sum_of("damaged.gguf", GPT2));
        world.files.insert("/models/malformed.gguf", TINY[..100_000].to_vec());
        world.files.insert("/models/large.gguf", TINY.to_vec());
        world.sizes.insert("/models/large.gguf", 1 << 40);
    };
    let console = with_world(&[], set_up, |server| {
        let alone = server.completes("tiny", "Once", 5);
        let fails = |name: &str, code: &str| {
            let answer = server.post("/completion", &ask(name, "Once", 1));
            let status = if code == "ModelNotFound" { 404 } else { 500 };
            assert_eq!(answer.status, status, "{answer:?}");
            let message = answer.json()["error"]["message"].as_str().unwrap().to_string();
            assert!(message.contains(&format!("model `{name}` failed to load")), "{message}");
            assert!(message.contains(code), "{message}");
        };
        // What is too large for the whole machine pushes no other model out.
        fails("large", "OutOfMemory");
        assert_eq!(server.states()["tiny"], "loaded");
        fails("damaged", "ChecksumMismatch");
        fails("malformed", "ParseError");
        let models = server.ask("GET /models", "").json();
        let damaged =
            models["data"].as_array().unwrap().iter().find(|model| model["id"] == "damaged");
        let status = &damaged.unwrap()["status"];
        assert_eq!((&status["value"], &status["failed"]), (&json!("unloaded"), &json!(true)));

        // A disk that fails for a while, and all that wait for the model.
        in_world(|world| {
            (world.reads_left, world.read_takes) = (4, Duration::from_millis(300));
        });
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| fails("gpt", "DiskError"));
            }
        });
        in_world(|world| (world.reads_left, world.read_takes) = (usize::MAX, Duration::ZERO));
        assert!(!server.completes("gpt", "Once", 2).is_empty());
        assert_eq!(server.states()["gpt"], "loaded");
        // The file is gone.
        let file = in_world(|world| world.files.remove("/models/qwen.gguf")).unwrap();
        fails("qwen", "ModelNotFound");
        in_world(|world| drop(world.files.insert("/models/qwen.gguf", file)));
        server.completes("qwen", "Once", 2);
        assert_eq!(server.completes("tiny", "Once", 5), alone);
    });
    assert!(console.contains("WARN  model `damaged` failed to load"), "{console}");
    let failed = console.matches("WARN  model `gpt` failed to load").count();
    assert!(failed < 3, "one load is for all who wait: {console}");
}

#[test]
fn a_load_that_needs_room_waits_for_running_requests_and_goes_before_later_ones() {
    with_world(&[], with_memory(FOR_ONE), |server| {
        let stream = server.streams("tiny", "Once upon a time", 60);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| server.completes("gpt", "Once", 1));
            server.waits_for("gpt", "loading");
            // Clients without a pause between their requests.
            for _ in 0..8 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        server.completes("tiny", "The cat", 20);
                    }
                });
            }
            waits.join().unwrap();
            is_over.store(true, Ordering::SeqCst);
            // The stream was not cut.
            let answer = read(stream);
            let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
            assert_eq!(last["tokens_predicted"], 60);
        });
    });
}

#[test]
fn a_load_that_nobody_waits_for_pushes_no_model_out() {
    with_world(&[], with_memory(FOR_ONE), |server| {
        let stream = server.streams("tiny", "Once upon a time", 100);
        let gone = server.send("POST /completion", &ask("gpt", "Once", 1).to_string());
        server.waits_for("gpt", "loading");
        drop(gone);
        server.waits_for("gpt", "unloaded");
        assert_eq!(read(stream).status, 200);
        assert_eq!(server.states()["tiny"], "loaded");
    });
}

#[test]
fn models_are_loaded_and_unloaded_as_by_llama_servers_router() {
    with_world(&[], three_models, |server| {
        let change = |what: &str, name: &str| {
            let answer = server.post(&format!("/models/{what}"), &json!({"model": name}));
            (answer.status, answer.json())
        };
        let error = |code: u16, message: &str, kind: &str| {
            (code, json!({"error": {"code": code, "message": message, "type": kind}}))
        };
        let refused = |message| error(400, message, "invalid_request_error");
        let success = (200, json!({"success": true}));
        assert_eq!(change("unload", "tiny"), refused("model is not running"));
        assert_eq!(change("load", "tiny"), success);
        assert_eq!(change("load", "tiny"), refused("model is already running"));
        server.waits_for("tiny", "loaded");
        assert_eq!(change("load", "tiny.gguf"), refused("model is already running"));
        for (what, code) in [("load", 404), ("unload", 400)] {
            let message = "model `nix` not found; the models are: gpt, qwen, tiny";
            assert_eq!(change(what, "nix"), error(code, message, "not_found_error"));
        }
        // A model with a running request ends behind it.
        let stream = server.streams("tiny", "Once upon a time", 60);
        assert_eq!(change("unload", "tiny"), success);
        // A later request is for the next load.
        assert!(!server.completes("tiny", "Once", 1).is_empty());
        let answer = read(stream);
        let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
        assert_eq!(last["tokens_predicted"], 60);
        assert_eq!(change("unload", "tiny"), success);
        server.waits_for("tiny", "unloaded");
        assert_eq!(server.ask("GET /models/load", "").status, 405);
    });
}

/// A disk so slow that the load of `tiny` takes some seconds.
fn very_slow(world: &mut World) {
    three_models(world);
    world.read_takes = Duration::from_millis(400);
}

#[test]
fn a_client_that_goes_away_during_a_load_ends_its_request_alone() {
    let console = with_world(&["model=qwen.gguf"], very_slow, |server| {
        server.wait_for_the_model();
        let gone = server.send("POST /completion", &ask("tiny", "Once", 50).to_string());
        server.waits_for("tiny", "loading");
        drop(gone);
        let answer = server.post("/completion", &ask("tiny", "Once", 2)).json();
        assert_eq!(answer["tokens_predicted"], 2, "{answer}");
    });
    let gone = "\"path\":\"/completion\",\"status\":499";
    assert_eq!(console.matches(gone).count(), 1, "{console}");
    assert_eq!(console.matches("\"file\":\"tiny.gguf\"").count(), 1, "{console}");
}

#[test]
fn ctrl_c_ends_a_load_in_time() {
    for (settings, status) in [(["shutdown_timeout=0"], 503), (["shutdown_timeout=60"], 200)] {
        let mut stopped = Instant::now();
        with_world(&settings, very_slow, |server| {
            let waits = server.send("POST /completion", &ask("tiny", "Once", 2).to_string());
            server.waits_for("tiny", "loading");
            press(b"\x03");
            stopped = Instant::now();
            assert_eq!(read(waits).status, status, "{settings:?}");
        });
        assert!(status == 200 || stopped.elapsed() < Duration::from_secs(3));
    }
    // Nobody waits for this load, which would take long.
    let mut stopped = Instant::now();
    with_world(&["shutdown_timeout=60"], very_slow, |server| {
        server.post("/models/load", &json!({"model": "tiny"}));
        server.waits_for("tiny", "loading");
        press(b"\x03");
        stopped = Instant::now();
    });
    assert!(stopped.elapsed() < Duration::from_secs(3), "{:?}", stopped.elapsed());
}
