//! The server, asked by clients of this host while the guest is up, and ended by Ctrl-C.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use harness::command::Bus;
use host_io::http::{Response, Server};
use kernel::report::{Code, Event};
use serde_json::{Value, json};

use super::endurance::END;
use super::make::Checkout;
use crate::boot::{Boot, boot};
use crate::check::{Check, Group, Passed, check};
use crate::disk::{Disk, TINY, tiny};
use crate::event;
use crate::expect::Expect;
use crate::lab::{Lab, Need, environment_python};
use crate::machine::MAX;
use crate::model::{with_and_without_tools, with_tools};
use crate::qemu::{Child, Output, command};
use crate::script::say;
use crate::seen::{Line, Seen};

/// The server's port in the guest.
pub const PORT: u16 = 8080;
/// The key of servers that have one.
const KEY: &str = "a-key_of.the/server";
/// QEMU's arguments for the memory and the model of most servers by QEMU alone.
pub const WITH_TINY: [&str; 4] = ["-m", "512M", "-initrd", TINY];
/// Clients that ask at once.
pub const CLIENTS: usize = 16;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![
        check("serve-client-leaves", client_leaves),
        check("serve-key", key),
        check("serve-static-address", static_address),
        Check::from(no_card()),
        check("serve-openai", |lab| package(lab, "openai", "clients", Some(KEY), with_tools()))
            .needs(Need::Clients),
        check("serve-ollama", |lab| {
            package(lab, "ollama", "clients", Some(KEY), with_and_without_tools())
        })
        .needs(Need::Clients),
        check("serve-schemas", |lab| schemas(lab, "schemas", 30)).needs(Need::Clients),
        check("serve-1000-schemas", |lab| schemas(lab, "1000-schemas", 1000))
            .only_in(&[Group::Long, Group::Torture])
            .needs(Need::Clients),
        check("serve-litellm", |lab| package(lab, "litellm", "litellm", None, tiny()))
            .only_in(&[Group::Long, Group::Torture])
            .needs(Need::LiteLlm),
        check("serve-page", page)
            .only_in(&[Group::Long, Group::Torture])
            .needs(Need::Browser)
            .alone(),
        check("serve-make", make).needs(Need::Proc),
        check("serve-idle", |lab| idle(lab, "serve-idle", Duration::from_secs(4)))
            .needs(Need::Proc),
        check("serve-idle-minute", |lab| idle(lab, "serve-idle-minute", Duration::from_secs(60)))
            .only_in(&[Group::Long, Group::Torture])
            .needs(Need::Proc),
    ];
    for (bus, bus_name, cpu) in [(Bus::Mmio, "mmio", MAX), (Bus::Pci, "pci", "cortex-a72")] {
        for cores in [1, 2] {
            let name = format!("serve-{bus_name}-{cores}");
            checks.push(check(name.clone(), move |lab| {
                let card = format!("virtio-net ({bus_name})");
                let boot = server(&name).disk_on(bus, tiny()).cores(cores).cpu(cpu);
                answers(lab, boot.event(event!(Serve { card == card, parallel == 4usize })))
            }));
        }
    }
    checks
}

/// A boot of the server, by the harness.
pub fn server(name: &str) -> Boot {
    boot(name).disk(tiny()).set("mode", "serve").forward(PORT).watched().exits(0)
}

fn is_serve(line: &Line) -> bool {
    matches!(line, Line::Event(Event::Serve(_)))
}

/// Boots, has the clients ask, ends the server by Ctrl-C, and checks the boot.
pub fn with_clients<T>(
    lab: &Lab,
    boot: &Boot,
    clients: impl FnOnce(Server) -> Result<T>,
) -> Result<(Seen, T)> {
    let mut child = boot.start(lab)?;
    wait_for_server(&mut child)?;
    let answer = clients(Server::at(boot.forwarded(lab)?));
    // The log of a server whose clients are not content is kept whole too.
    child.interrupt()?;
    let status = child.wait()?;
    let seen = boot.seen(lab, status)?;
    let answer =
        answer.with_context(|| format!("the clients are not content\n{}", seen.shown()))?;
    boot.check(&seen)?;
    Ok((seen, answer))
}

/// Runs `n` clients at once, each with its number.
pub fn at_once<T: Send>(n: usize, client: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let client = &client;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..n).map(|i| scope.spawn(move || client(i))).collect();
        clients.into_iter().map(|client| client.join().expect("no client panics")).collect()
    })
}

/// A completion by the greedy sampler, of exactly so many tokens.
pub fn completion(prompt: &str, n: usize) -> Value {
    json!({ "prompt": prompt, "n_predict": n, "temperature": 0, "ignore_eos": true })
}

/// The generated text of a response.
pub fn text(response: &Response) -> Result<String> {
    let answer = response.json()?;
    let choice = &answer["choices"][0];
    let text = [&answer["content"], &choice["message"]["content"], &choice["text"]];
    let text = text.into_iter().find_map(Value::as_str);
    Ok(text.with_context(|| format!("there is no text: {answer}"))?.to_owned())
}

/// A server answers single clients and many at once.
fn answers(lab: &Lab, boot: Boot) -> Result<Passed> {
    let boot = boot
        .expect(Expect::NoEvent(event!(Request { path == "/health" })))
        .event(event!(Request { method == "GET", path == "/v1/models", status == 200u16 }))
        .event(event!(Request { path == "/v1/chat/completions", tokens_emitted == 12usize }))
        .event(event!(Request { path == "/nothing", status == 404u16 }));
    let started = Instant::now();
    let (_, (first, together)) = with_clients(lab, &boot, |server| {
        let first = first_token(server, started)?;
        single(server)?;
        Ok((first, many(server)?))
    })?;
    Ok(Passed::with(format!(
        "first token over HTTP after {:.2} s, {CLIENTS} clients in {:.2} s",
        first.as_secs_f64(),
        together.as_secs_f64()
    )))
}

/// The time from the start of the machine to the first token over HTTP.
fn first_token(server: Server, started: Instant) -> Result<Duration> {
    let mut body = completion("Once upon a time", 1);
    body["stream"] = true.into();
    let stream = server.send("POST /completion", &body.to_string())?;
    for line in BufReader::new(stream).lines() {
        let Some(event) = line?.strip_prefix("data: ").map(str::to_owned) else { continue };
        let event: Value = serde_json::from_str(&event)?;
        if event["content"].as_str().is_some_and(|text| !text.is_empty()) {
            return Ok(started.elapsed());
        }
    }
    anyhow::bail!("the stream has no token")
}

/// One client, one request after the other.
fn single(server: Server) -> Result<()> {
    ensure!(server.get("/health")?.json()? == json!({ "status": "ok" }), "/health");
    let model = server.get("/v1/models")?.json()?["data"][0].take();
    ensure!(model["id"] == "tiny", "/v1/models: {model}");
    // QEMU's clock has the host's date.
    let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let created = model["created"].as_u64().context("no date")?;
    ensure!((date - 600..=date).contains(&created), "created at {created}, not {date}");
    ensure!(server.get("/nothing")?.status == 404, "/nothing");
    let answer = server.get("/")?;
    ensure!(answer.body == "Ollama is running", "/: {answer:?}");
    let page = server.get("/index.html")?;
    ensure!(page.head.contains("\r\nContent-Security-Policy: default-src 'none'"), "{}", page.head);

    let mut body = json!({
        "messages": [{ "role": "user", "content": "Tell me a story." }],
        "max_tokens": 12, "temperature": 0, "ignore_eos": true,
        "stream_options": { "include_usage": true },
    });
    let whole = server.post("/v1/chat/completions", &body)?;
    let wanted = text(&whole)?;
    ensure!(wanted.len() >= 12, "twelve tokens have a text: {whole:?}");
    body["stream"] = true.into();
    let streamed = server.post("/v1/chat/completions", &body)?;
    let events = streamed.events();
    let (last, chunks) = events.split_last().context("the stream has no event")?;
    ensure!(*last == "[DONE]", "the stream ends with {last}");
    let chunks = chunks.iter().map(|chunk| serde_json::from_str(chunk));
    let chunks: Vec<Value> = chunks.collect::<Result<_, _>>()?;
    let parts = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["content"]);
    let parts: Vec<&str> = parts.filter_map(Value::as_str).collect();
    ensure!(parts.concat() == wanted, "expected: {wanted:?}\nseen: {parts:?}");
    ensure!(parts.len() > 6, "the text comes in parts: {parts:?}");
    let usage = chunks.last().map(|chunk| &chunk["usage"]["completion_tokens"]);
    ensure!(usage == Some(&json!(12)), "usage: {streamed:?}");
    Ok(())
}

/// The paths and bodies of mixed requests.
pub fn mixed() -> Vec<(&'static str, Value)> {
    let texts = ["Once upon a time", "The cat", "In the", "A"];
    let request = |i: usize| {
        let prompt = format!("{} and {i}", texts[i % texts.len()]);
        let (n, seed, cached) = (3 + 5 * (i % 5), i, i.is_multiple_of(3));
        let temperature = if i.is_multiple_of(2) { 0.0 } else { 0.9 };
        let stop = if i.is_multiple_of(7) { json!(["e "]) } else { json!([]) };
        let mut body = json!({
            "max_tokens": n, "temperature": temperature, "seed": seed, "cache_prompt": cached,
            "stop": stop, "ignore_eos": true,
        });
        let (path, key, value) = match i % 4 {
            0 => ("/completion", "prompt", json!(prompt)),
            1 => ("/v1/completions", "prompt", json!(prompt)),
            _ => {
                ("/v1/chat/completions", "messages", json!([{ "role": "user", "content": prompt }]))
            }
        };
        body[key] = value;
        (path, body)
    };
    (0..CLIENTS).map(request).collect()
}

/// Many clients at once get the answers that each gets alone; gives the time that they took.
///
/// The answers are the same on all machines of this run.
fn many(server: Server) -> Result<Duration> {
    static ON_ANY_MACHINE: OnceLock<Vec<String>> = OnceLock::new();
    let requests = mixed();
    let ask = |(path, body): &(&str, Value)| text(&server.post(path, body)?);
    let alone: Vec<String> = requests.iter().map(ask).collect::<Result<_>>()?;
    let other = ON_ANY_MACHINE.get_or_init(|| alone.clone());
    ensure!(*other == alone, "another machine answers {other:?}\nthis one answers {alone:?}");
    let started = Instant::now();
    let together = at_once(requests.len(), |i| {
        ask(&requests[i]).with_context(|| format!("client {i} of {CLIENTS} at once"))
    })?;
    let took = started.elapsed();
    for (i, (together, alone)) in together.into_iter().zip(&alone).enumerate() {
        ensure!(
            together == *alone,
            "client {i} is answered otherwise among others\nalone: {alone:?}\namong others: \
             {together:?}"
        );
    }
    Ok(took)
}

/// A client that goes away in the middle of a stream ends its request.
fn client_leaves(lab: &Lab) -> Result<Passed> {
    const TOKENS: usize = 240;
    let boot = server("serve-client-leaves").set("parallel", 1).event(event!(Request {
        path == "/completion",
        status == 499u16,
        tokens_emitted < TOKENS / 2,
    }));
    with_clients(lab, &boot, |server| {
        let mut body = completion("Once upon a time", TOKENS);
        body["stream"] = true.into();
        let mut stream = server.send("POST /completion", &body.to_string())?;
        stream.read_exact(&mut [0; 300])?;
        drop(stream);
        let answer = server.post("/completion", &completion("The cat", 2))?.json()?;
        ensure!(answer["tokens_predicted"] == 2, "{answer}");
        let slots = server.get("/slots")?.json()?;
        ensure!(slots[0]["is_processing"] == false, "{slots}");
        Ok(())
    })?;
    Ok(Passed::default())
}

/// All but the page and `/health` need the key.
fn key(lab: &Lab) -> Result<Passed> {
    let boot = server("serve-key").set("api_key", KEY).event(event!(Request {
        path == "/v1/models",
        status == 401u16,
    }));
    with_clients(lab, &boot, |server| {
        let statuses = |server: Server| -> Result<[u16; 4]> {
            let chat = json!({ "messages": [{ "role": "user", "content": "a" }], "max_tokens": 1 });
            Ok([
                server.get("/health")?.status,
                server.get("/")?.status,
                server.get("/v1/models")?.status,
                server.post("/v1/chat/completions", &chat)?.status,
            ])
        };
        for (server, wanted) in [
            (server, [200, 200, 401, 401]),
            (server.with_key("a-key_of.the/serve"), [200, 200, 401, 401]),
            (server.with_key(KEY), [200; 4]),
        ] {
            let seen = statuses(server)?;
            ensure!(seen == wanted, "{:?}: expected {wanted:?}, seen {seen:?}", server.key);
        }
        Ok(())
    })?;
    Ok(Passed::default())
}

/// A free port of this host.
pub fn free_port() -> Result<SocketAddr> {
    // The port is free again when QEMU opens it.
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A boot of the server by QEMU alone, with these boot arguments and arguments of QEMU.
pub fn by_qemu(name: &str, words: &str, own: &[&str]) -> Boot {
    let machine = ["-M", "virt", "-cpu", MAX, "-smp", "2"];
    let boot = boot(name).by_qemu(&format!("mode=serve {words}"), &[&machine[..], own].concat());
    boot.open_input().limit_s(120).exits(0)
}

/// A boot by QEMU alone, whose guest has this address; and the address of this host that leads to it.
fn at_address(name: &str, words: &str, guest: &str) -> Result<(Boot, SocketAddr)> {
    let address = free_port()?;
    let network = format!("user,id=n,hostfwd=tcp:{address}-{guest}:{PORT}");
    let card = ["-netdev", &network, "-device", "virtio-net-device,netdev=n"];
    Ok((by_qemu(name, words, &[&WITH_TINY[..], &card].concat()), address))
}

/// Waits until the server has announced its address.
pub fn wait_for_server(child: &mut Child) -> Result<()> {
    child.wait_for("the `serve` event", |lines| lines.iter().any(is_serve))
}

/// Ends a server by Ctrl-C on its console, and checks the boot.
pub fn end(lab: &Lab, boot: &Boot, mut child: Child) -> Result<()> {
    child.type_in(b"\x03")?;
    let status = child.wait()?;
    Ok(boot.check(&boot.seen(lab, status)?)?)
}

/// A server at an address that DHCP does not give.
fn static_address(lab: &Lab) -> Result<Passed> {
    let words = "ip=10.0.2.77/24 gateway=10.0.2.2";
    let (boot, address) = at_address("serve-static-address", words, "10.0.2.77")?;
    let urls = vec![format!("http://10.0.2.77:{PORT}")];
    let boot = boot.event(event!(Serve { urls == urls }));
    let mut child = boot.start(lab)?;
    wait_for_server(&mut child)?;
    ensure!(Server::at(address).get("/health")?.status == 200, "/health");
    end(lab, &boot, child)?;
    Ok(Passed::default())
}

/// A server without clients leaves the host alone: less than a tenth of a core's time.
///
/// The processor's time is QEMU's own, so other work on this host does not count.
fn idle(lab: &Lab, name: &str, watched: Duration) -> Result<Passed> {
    const SETTLED: Duration = Duration::from_secs(1);
    let (boot, address) = at_address(name, "", "10.0.2.15")?;
    let mut child = boot.start(lab)?;
    wait_for_server(&mut child)?;
    let server = Server::at(address);
    ensure!(server.post("/completion", &completion("The cat", 2))?.status == 200, "/completion");
    // A connection without a request stays open.
    let _open = server.connect()?;
    thread::sleep(SETTLED);
    let before = child.processor_time()?;
    thread::sleep(watched);
    let used = child.processor_time()? - before;
    ensure!(
        used < watched / 10,
        "expected: less than a tenth of a core's time\nseen: {used:?} in {watched:?}"
    );
    end(lab, &boot, child)?;
    Ok(Passed::with(format!("{used:?} in {watched:?}, {before:?} before")))
}

/// A machine without a network card.
fn no_card() -> Boot {
    let machine = ["-M", "virt", "-cpu", MAX, "-m", "512M", "-initrd", TINY];
    boot("serve-no-card")
        .by_qemu("mode=serve", &machine)
        .event(event!(Error { code == Code::NetworkError, message ~ "network" }))
        .exits(1)
        .expect(Expect::NoEvent(event!(Serve {})))
}

/// A Python package of an environment holds its conversations with the server.
fn package(
    lab: &Lab,
    name: &str,
    environment: &str,
    key: Option<&str>,
    disk: Disk,
) -> Result<Passed> {
    let boot = server(&format!("serve-{name}")).disk(disk).limit_s(300);
    python(lab, name, environment, key, boot, &[&format!("ci/{name}_client.py")])
}

/// Answers to random schemas validate.
fn schemas(lab: &Lab, name: &str, n: usize) -> Result<Passed> {
    let boot = server(&format!("serve-{name}")).cores(2).limit_s(3600).idle_limit_s(300);
    python(lab, name, "clients", None, boot, &["ci/schemas_client.py", "-n", &n.to_string()])
}

/// A Python program of an environment is content with the server.
fn python(
    lab: &Lab,
    name: &str,
    environment: &str,
    key: Option<&str>,
    boot: Boot,
    program: &[&str],
) -> Result<Passed> {
    // The client repeats requests that QEMU loses, and none that the guest has taken.
    let lost = event!(Request { status == 499u16 });
    let boot = boot.expect(Expect::NoEvent(lost));
    let boot = if let Some(key) = key { boot.set("api_key", key) } else { boot };
    let (_, said) = with_clients(lab, &boot, |server| {
        let mut client = Command::new(environment_python(environment));
        client.args(program).arg(server.url());
        client.env("API_KEY", key.unwrap_or("none"));
        let said = say(&mut client, &lab.file(&format!("serve-{name}.client")))?;
        said.is_content()?;
        Ok(said)
    })?;
    Ok(Passed::with(said.text.lines().last().unwrap_or_default()))
}

/// The page in a browser holds chats with the server.
fn page(lab: &Lab) -> Result<Passed> {
    // The tiny model would end some answers without a text.
    let boot = server("serve-page").set("logit_bias", format!("{END}:-inf")).limit_s(900);
    let (_, said) = with_clients(lab, &boot, |server| {
        let mut browser = Command::new(environment_python("page"));
        browser.args(["ci/page.py", &server.url()]).arg(Path::new("target/page"));
        let said = say(&mut browser, &lab.file("serve-page.client"))?;
        said.is_content()?;
        Ok(said)
    })?;
    Ok(Passed::with(said.text.lines().last().unwrap_or_default()))
}

/// `make serve` on a free port, ended as by Ctrl-C.
fn make(lab: &Lab) -> Result<Passed> {
    let checkout = Checkout::new(lab, "serve-make")?;
    let (log, out) = (lab.file("serve-make.log"), lab.file("serve-make.out"));
    let folder = checkout.folder().display().to_string();
    let make = command("make", ["-C", &folder, "serve", "PORT=0", "ARGS=--raw"]);
    let mut child = Child::start(make, Output::Serial(log, out.clone()), Duration::from_secs(120))?;
    wait_for_server(&mut child)?;
    let said = std::fs::read_to_string(&out)?;
    let address =
        said.lines().find_map(|line| line.strip_suffix(" leads to the guest's port 8080"));
    let server = Server::at(address.context("make prints no address")?.parse()?);
    ensure!(server.get("/health")?.status == 200, "/health");
    child.interrupt_child()?;
    let status = child.wait()?;
    ensure!(status == 0, "make ends with status {status}: {}", out.display());
    Ok(Passed::default())
}
