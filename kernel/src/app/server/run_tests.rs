//! The server over TCP on the host, by the fake ABI.

use std::boxed::Box;
use std::format;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::string::{String, ToString};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::Vec;

use serde_json::{Value, json};

use crate::app::fake_abi::{DATE, World, fail_next_send, press, run_in_world};
use crate::app::program;
use crate::system::Network;

#[path = "swap_tests.rs"]
mod swaps;

const TINY: &[u8] = include_bytes!("../../../../test_models/tiny.gguf");

/// A response.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The events of a stream.
    fn events(&self) -> Vec<&str> {
        let lines = self.body.lines().filter(|line| !line.is_empty() && !line.starts_with(':'));
        lines.map(|line| line.strip_prefix("data: ").unwrap()).collect()
    }
}

/// A server that is up.
#[derive(Clone, Copy)]
struct Address(u16);

impl Address {
    fn connect(self) -> TcpStream {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.0)) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn send(self, head: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let text = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    fn ask(self, head: &str, body: &str) -> Response {
        read(self.send(head, body))
    }

    fn wait_for_the_model(self) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.ask("GET /health", "").status == 503 {
            assert!(Instant::now() < until, "the model is still loading");
        }
    }

    fn post(self, path: &str, body: &Value) -> Response {
        self.ask(&format!("POST {path}"), &body.to_string())
    }
}

fn read(stream: TcpStream) -> Response {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = Vec::new();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            if reader.read_line(&mut size).unwrap() == 0 {
                panic!("a stream without its last chunk");
            }
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = std::vec![0; size + 2];
            reader.read_exact(&mut chunk).unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        reader.read_to_end(&mut body).unwrap();
    }
    Response { status, head, body: String::from_utf8(body).unwrap() }
}

/// Runs `clients` while a server runs, then ends the server by Ctrl-C.
///
/// Returns what the server wrote to the console.
fn with_server(settings: &[&str], clients: impl FnOnce(Address) + Send) -> String {
    with_slow_disk(settings, Duration::ZERO, |server| {
        server.wait_for_the_model();
        clients(server);
    })
}

/// The same from the start on, with a disk whose reads take some time.
fn with_slow_disk(
    settings: &[&str],
    read_takes: Duration,
    clients: impl FnOnce(Address) + Send,
) -> String {
    with_world(
        settings,
        |world| {
            world.files.insert("/models/tiny.gguf", TINY.to_vec());
            world.read_takes = read_takes;
        },
        clients,
    )
}

/// The same from the start on, in a world that `set_up` makes.
fn with_world(
    settings: &[&str],
    set_up: impl FnOnce(&mut World),
    clients: impl FnOnce(Address) + Send,
) -> String {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut arguments: Vec<String> = settings.iter().map(ToString::to_string).collect();
    arguments.extend(["mode=serve".into(), "threads=2".into(), format!("port={port}")]);
    let (status, console) = run_in_world(
        |world| {
            world.memory.free_bytes = 1 << 30;
            set_up(world);
            world.network = Some(Network {
                name: "virtio-net (fake)".into(),
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                addresses: [(Ipv4Addr::LOCALHOST.into(), 8)].into(),
                gateways: Vec::new(),
            });
        },
        || {
            thread::scope(|scope| {
                let clients = scope.spawn(move || {
                    // The server ends whatever becomes of the clients.
                    struct End;
                    impl Drop for End {
                        fn drop(&mut self) {
                            press(b"\x03");
                        }
                    }
                    let _end = End;
                    clients(Address(port));
                });
                let status = program::run(arguments.iter());
                if let Err(panic) = clients.join() {
                    std::panic::resume_unwind(Box::new(panic));
                }
                status
            })
        },
    );
    assert_eq!(status, 0, "{console}");
    console
}

#[test]
fn while_the_model_loads_the_page_alone_is_there() {
    with_slow_disk(&[], Duration::from_millis(300), |server| {
        let loading = json!({
            "error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        });
        for path in ["GET /health", "GET /v1/models", "POST /completion"] {
            let body = if path.starts_with("POST") { "{}" } else { "" };
            let answer = server.ask(path, body);
            assert_eq!((answer.status, answer.json()), (503, loading.clone()), "{path}");
            assert!(answer.head.contains("\r\nRetry-After: 1\r\n"), "{}", answer.head);
        }
        assert_eq!(server.ask("GET /", "").status, 200);
        server.wait_for_the_model();
        assert_eq!(server.ask("GET /health", "").json(), json!({"status": "ok"}));
        assert_eq!(server.post("/completion", &completion("The cat", 2)).status, 200);
    });
}

#[test]
fn while_the_model_loads_ollamas_version_is_there() {
    with_slow_disk(&[], Duration::from_millis(300), |server| {
        assert_eq!(server.ask("GET /api/version", "").json()["version"], "0.12.11");
        let answer = server.ask("GET /api/tags", "");
        assert_eq!((answer.status, answer.json()), (503, json!({"error": "Loading model"})));
    });
}

/// A body for a completion by the greedy sampler.
fn completion(prompt: &str, n: usize) -> Value {
    json!({"prompt": prompt, "n_predict": n, "temperature": 0})
}

#[test]
fn the_server_answers_each_endpoint() {
    let console = with_server(&[], |server| {
        assert_eq!(server.ask("GET /health", "").json(), json!({"status": "ok"}));
        let page = server.ask("GET /index.html", "");
        assert!(
            page.status == 200 && page.body.to_ascii_lowercase().starts_with("<!doctype html>"),
            "{}",
            page.head
        );
        assert!(page.head.contains("Content-Security-Policy: default-src 'none'"), "{}", page.head);
        let models = server.ask("GET /v1/models", "").json();
        assert_eq!(models["data"][0]["id"], "tiny");
        let created = models["data"][0]["created"].as_u64().unwrap();
        assert!((0..86400).contains(&(created - DATE.as_secs())), "{models}");
        let tokens = server.post("/tokenize", &json!({"content": "Once upon a time"})).json();
        let text = server.post("/detokenize", &tokens).json();
        assert_eq!(text["content"].as_str().unwrap().trim_start(), "Once upon a time");
        assert_eq!(server.ask("GET /props", "").json()["total_slots"], 4);
        assert_eq!(server.ask("GET /slots", "").json().as_array().unwrap().len(), 4);
        let answer = server.post("/completion", &completion("Once upon a time", 7)).json();
        assert_eq!(answer["tokens_predicted"], 7, "{answer}");
        let metrics = server.ask("GET /metrics", "").body;
        assert!(metrics.contains("\nllamacpp:tokens_predicted_total 7\n"), "{metrics}");
        assert!(metrics.ends_with("\nprocess_resident_memory_bytes 0\n"), "{metrics}");
        assert_eq!(server.ask("GET /nothing", "").json()["error"]["type"], "not_found_error");
        assert_eq!(server.ask("POST /v1/chat/completions", "{").status, 400);
    });
    for part in ["\"event\":\"serve\"", "\"path\":\"/completion\",\"status\":200", "\"status\":404"]
    {
        assert!(console.contains(part), "{part}: {console}");
    }
    let check = "\"path\":\"/health\",\"status\":200";
    assert!(!console.contains(check), "health checks would fill a slow console: {console}");
    assert!(!console.contains("Once upon"), "the text of a prompt is nobody's business: {console}");
}

#[test]
fn a_stream_gives_the_text_of_the_whole_answer() {
    with_server(&[], |server| {
        let mut body = json!({
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": 12, "temperature": 0, "stream_options": {"include_usage": true},
            "ignore_eos": true,
        });
        let whole = server.post("/v1/chat/completions", &body).json();
        assert_eq!(whole["object"], "chat.completion", "{whole}");
        body["stream"] = true.into();
        let streamed = server.post("/v1/chat/completions", &body);
        assert!(streamed.head.contains("text/event-stream"), "{}", streamed.head);
        let events = streamed.events();
        assert_eq!(events.last(), Some(&"[DONE]"));
        let chunks: Vec<Value> = events[..events.len() - 1]
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert!(!text.is_empty());
        assert_eq!(whole["choices"][0]["message"]["content"].as_str().unwrap(), text);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(
            chunks.last().unwrap()["usage"]["completion_tokens"],
            whole["usage"]["completion_tokens"]
        );
    });
}

#[test]
fn the_page_is_for_those_that_ask_for_html() {
    with_server(&[], |server| {
        let ask = |method: &str, accept: &str| {
            let answer = server.ask(&format!("{method} HTTP/1.1\r\nAccept: {accept}\r\nX: "), "");
            assert!(answer.head.contains("\r\nVary: Accept\r\n"), "{}", answer.head);
            answer
        };
        for accept in ["text/html,application/xml;q=0.9,*/*;q=0.8", "*/*, Text/HTML;q=0.5"] {
            let page = ask("GET /", accept);
            assert!(page.body.to_ascii_lowercase().starts_with("<!doctype html>"), "{accept}");
        }
        for accept in ["*/*", "application/json", "text/plain, text/htm"] {
            let answer = ask("GET /", accept);
            assert!(answer.head.contains("\r\nContent-Type: text/plain"), "{}", answer.head);
            assert_eq!((answer.status, &*answer.body), (200, "Ollama is running"), "{accept}");
        }
        let head = ask("HEAD /", "*/*");
        assert!(head.head.contains("\r\nContent-Length: 17\r\n") && head.body.is_empty());
        assert_eq!(server.ask("GET /", "").body, "Ollama is running");
    });
}

#[test]
fn clients_of_ollama_are_answered_line_by_line() {
    let console = with_server(&[], |server| {
        let options = json!({"temperature": 0, "num_predict": 12, "ignore_eos": true});
        let story = json!([{"role": "user", "content": "Tell me a story."}]);
        let mut chat = json!({"model": "tiny:latest", "messages": story, "options": options});
        let streamed = server.post("/api/chat", &chat);
        assert!(streamed.head.contains("\r\nContent-Type: application/x-ndjson\r\n"));
        let lines: Vec<Value> =
            streamed.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, parts) = lines.split_last().unwrap();
        assert!(parts.len() > 6 && parts.iter().all(|line| line["done"] == false), "{lines:?}");
        assert_eq!((&last["done_reason"], &last["eval_count"]), (&json!("length"), &json!(12)));
        let date = last["created_at"].as_str().unwrap();
        assert!(date.starts_with("2027-01-15T") && date.ends_with('Z'), "{date}");
        let load = last["load_duration"].as_u64().unwrap();
        let times = ["prompt_eval_duration", "eval_duration"].map(|name| last[name].as_u64());
        let sum = load + times.iter().flatten().sum::<u64>();
        assert!(times[1] > Some(0) && last["total_duration"].as_u64() >= Some(sum), "{last}");
        let text: String =
            parts.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
        chat["stream"] = false.into();
        let whole = server.post("/api/chat", &chat).json();
        assert_eq!(whole["message"]["content"], text, "{whole}");
        let prompt = json!({"model": "tiny", "prompt": "The cat", "raw": true, "stream": false,
            "options": options});
        let ours =
            json!({"prompt": "The cat", "n_predict": 12, "temperature": 0, "ignore_eos": true});
        let ours = server.post("/completion", &ours).json();
        assert_eq!(server.post("/api/generate", &prompt).json()["response"], ours["content"]);
        let loaded = server.post("/api/generate", &json!({"model": "tiny"})).json();
        assert_eq!(loaded["done_reason"], "load");
        let models = server.ask("GET /api/tags", "").json();
        assert_eq!(models["models"][0]["name"], "tiny:latest");
        assert_eq!(server.ask("GET /api/ps", "").json()["models"][0]["context_length"], 256);
        let long = json!({"model": "tiny", "prompt": "The cat ".repeat(400)});
        let answer = server.post("/api/generate", &long);
        let error = answer.json();
        assert_eq!(answer.status, 400);
        assert!(error["error"].as_str().unwrap().contains("context size"), "{error}");
        assert_eq!(server.post("/api/embed", &json!({"model": "tiny"})).status, 501);
        let none = server.post("/api/none", &json!({}));
        assert_eq!((none.status, none.json()), (404, json!({"error": "File Not Found"})));
    });
    assert!(console.contains("\"path\":\"/api/chat\",\"status\":200"), "{console}");
}

#[test]
fn a_line_is_the_last_word_of_an_answer_to_ollama_that_is_cut() {
    with_server(&["shutdown_timeout=0"], |server| {
        let body = json!({"model": "tiny", "prompt": "Once upon a time", "raw": true,
            "options": {"num_predict": 240, "ignore_eos": true}});
        let stream = server.send("POST /api/generate", &body.to_string());
        stream.peek(&mut [0]).unwrap();
        press(b"\x03");
        let answer = read(stream);
        assert_eq!(answer.body.lines().last(), Some(r#"{"error":"the server is shutting down"}"#));
    });
}

#[test]
fn answers_do_not_depend_on_what_else_runs() {
    with_server(&["parallel=4"], |server| {
        let bodies: Vec<Value> = (0..16)
            .map(|i| {
                json!({
                    "prompt": format!("{} and {}", ["Once upon a time", "The cat", "In the", "A"][i % 4], i),
                    "n_predict": 3 + 5 * (i % 5), "temperature": if i % 2 == 0 { 0.0 } else { 0.9 },
                    "seed": i, "cache_prompt": i % 3 == 0, "stop": if i % 7 == 0 { json!(["e "]) } else { json!([]) },
                })
            })
            .collect();
        let text = |response: Response| {
            let answer = response.json();
            answer["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_string()
        };
        let alone: Vec<String> =
            bodies.iter().map(|body| text(server.post("/completion", body))).collect();
        for _ in 0..2 {
            let together: Vec<String> = thread::scope(|scope| {
                let clients: Vec<_> = bodies
                    .iter()
                    .map(|body| scope.spawn(move || text(server.post("/completion", body))))
                    .collect();
                clients.into_iter().map(|client| client.join().unwrap()).collect()
            });
            assert_eq!(together, alone);
        }
    });
}

#[test]
fn a_common_prefix_is_computed_once_whichever_slot_it_is_for() {
    with_server(&["parallel=2"], |server| {
        let system = "You tell stories to children. ".repeat(16);
        let ask = |question: &str, cache: bool| {
            let answer = server.post(
                "/completion",
                &json!({"prompt": format!("{system}{question}"), "n_predict": 5, "temperature": 0,
                    "cache_prompt": cache}),
            );
            let answer = answer.json();
            (answer["content"].as_str().unwrap().to_string(), answer["timings"]["cache_n"].as_u64())
        };
        let (first, cached) = ask("Once upon a time", true);
        assert_eq!(cached, Some(0));
        // The first slot runs on, so the next prompts are for the other one.
        let mut body = json!({"prompt": format!("{system}A"), "n_predict": 100, "stream": true});
        body["ignore_eos"] = true.into();
        let stream = server.send("POST /completion", &body.to_string());
        stream.peek(&mut [0]).unwrap();
        let (again, cached) = ask("Once upon a time", true);
        assert!(cached.unwrap() >= 64, "{cached:?}");
        let (alone, cached) = ask("Once upon a time", false);
        assert_eq!(cached, Some(0));
        assert!(first == alone && again == alone, "{first:?}, {again:?}, {alone:?}");
        drop(stream);
    });
}

#[test]
fn bodies_are_bounded_by_the_memory() {
    assert_eq!(super::body_bytes(0), 256 << 10);
    assert_eq!(super::body_bytes(128 << 20), 1 << 20);
    assert_eq!(super::body_bytes(1 << 40), 8 << 20);
}

#[test]
fn a_client_that_goes_away_ends_its_request() {
    let console = with_server(&["parallel=1"], |server| {
        let mut body = completion("Once upon a time", 1000);
        body["stream"] = true.into();
        body["ignore_eos"] = true.into();
        let mut stream = server.send("POST /completion", &body.to_string());
        let mut first = [0; 64];
        stream.read_exact(&mut first).unwrap();
        drop(stream);
        // The only slot is free again long before a thousand tokens.
        let answer = server.post("/completion", &completion("The cat", 2)).json();
        assert_eq!(answer["tokens_predicted"], 2, "{answer}");
        assert_eq!(server.ask("GET /slots", "").json()[0]["is_processing"], false);
    });
    assert!(console.contains("\"status\":499"), "{console}");
}

#[test]
fn a_connection_that_fails_while_it_is_written_to_ends_its_request() {
    let console = with_server(&["parallel=1"], |server| {
        let mut body = completion("Once upon a time", 1000);
        body["stream"] = true.into();
        body["ignore_eos"] = true.into();
        let mut stream = server.send("POST /completion", &body.to_string());
        stream.read_exact(&mut [0; 64]).unwrap();
        fail_next_send();
        // No poll tells of the failure: the client stays, and hears that the server has ended.
        stream.read_to_end(&mut Vec::new()).unwrap();
        let answer = server.post("/completion", &completion("The cat", 2)).json();
        assert_eq!(answer["tokens_predicted"], 2, "{answer}");
    });
    assert!(console.contains("\"status\":499"), "{console}");
}

#[test]
fn health_is_answered_between_the_stages_of_a_pass() {
    with_server(&[], |server| {
        let mut body = completion("Once upon a time", 150);
        body["ignore_eos"] = true.into();
        thread::scope(|scope| {
            let answer = scope.spawn(|| server.post("/completion", &body));
            while !answer.is_finished() {
                assert_eq!(server.ask("GET /health", "").status, 200);
            }
            assert_eq!(answer.join().unwrap().status, 200);
        });
    });
}

#[test]
fn an_answer_that_runs_is_finished_after_ctrl_c() {
    let console = with_server(&["shutdown_timeout=60"], |server| {
        let mut body = completion("Once upon a time", 60);
        body["stream"] = true.into();
        body["ignore_eos"] = true.into();
        let stream = server.send("POST /completion", &body.to_string());
        stream.peek(&mut [0]).unwrap();
        press(b"\x03");
        let answer = read(stream);
        let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
        assert_eq!((&last["stop"], &last["tokens_predicted"]), (&json!(true), &json!(60)));
    });
    assert!(console.contains("Ctrl-C"), "{console}");
}

#[test]
fn answers_that_take_too_long_are_cut_after_ctrl_c() {
    let console = with_server(&["shutdown_timeout=0"], |server| {
        let mut body = completion("Once upon a time", 250);
        body["stream"] = true.into();
        body["ignore_eos"] = true.into();
        let stream = server.send("POST /completion", &body.to_string());
        stream.peek(&mut [0]).unwrap();
        press(b"\x03");
        let answer = read(stream);
        assert!(answer.events().last().unwrap().contains("shutting down"), "{}", answer.body);
    });
    assert!(console.contains("\"status\":503"), "{console}");
}
