//! One run: starts QEMU, moves bytes and watches the timeouts.
//!
//! Threads read streams and signals and send messages to one loop, which alone holds the state.
//! QEMU's output is read against credits: a guest that floods the line is slowed down to the
//! terminal's speed, and never fills the memory.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use host_io::console;
use kernel::report::{Chat, ChatState, Event, Printable};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::child::{Pipes, Qemu};
use crate::cli::Limits;
use crate::input::{self, Conversation, Input};
use crate::judge::{End, Garbled, Timeout};
use crate::serial::{Decoder, Item};
use crate::terminal::{CTRL_C, KeyByKey};

/// Timeout of QEMU's end after the guest's `exit`.
const POWER_OFF_PATIENCE: Duration = Duration::from_secs(5);

/// Timeout of a waiting guest's echo of a line.
const INPUT_PATIENCE: Duration = Duration::from_secs(30);

/// Limit of the events of one run.
const MAX_EVENTS: usize = 100_000;

/// Number of chunks of the serial line that may wait for the loop, and size of a chunk in bytes.
const CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 16 << 10;

/// Length of the kept end of QEMU's standard error, in bytes.
const STDERR_BYTES: usize = 16 << 10;

/// Options of a run.
pub struct Options<'a> {
    /// QEMU.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// Who the guest talks to.
    pub talk: Talk,
    /// Timeouts.
    pub limits: Limits,
    /// Whether the serial line is shown as it is.
    pub raw: bool,
    /// File for every byte of the serial line.
    pub log: Option<File>,
}

/// Who the guest talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Nobody.
    Nobody,
    /// Whoever has standard input.
    Input,
    /// Clients over the network. The first SIGINT or SIGTERM asks the guest to end.
    Clients {
        /// The addresses of this host that lead to the guest, as URLs.
        urls: Vec<String>,
    },
}

/// An event with its time.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Time since QEMU's start.
    pub at: Duration,
    /// The event.
    pub event: Event,
}

/// Record of a run.
#[derive(Debug)]
pub struct Record {
    /// The events in order.
    pub events: Vec<Seen>,
    /// The first event that could not be read.
    pub garbled: Option<Garbled>,
    /// End of the run.
    pub end: End,
    /// Time from QEMU's start to the first text after the `model` event.
    pub first_text: Option<Duration>,
    /// Time from QEMU's start to QEMU's end.
    pub total: Duration,
    /// Bytes that came over the serial line.
    pub serial_bytes: u64,
    /// The end of QEMU's standard error.
    pub stderr: String,
}

impl Record {
    fn not_started(reason: String) -> Record {
        Record {
            events: Vec::new(),
            garbled: None,
            end: End::NotStarted(reason),
            first_text: None,
            total: Duration::ZERO,
            serial_bytes: 0,
            stderr: String::new(),
        }
    }
}

/// Messages of the threads to the loop.
enum Message {
    /// Bytes of the serial line.
    Serial(Instant, Vec<u8>),
    /// The serial line went dead.
    SerialEnd,
    /// Standard input.
    Input(Input),
    /// A signal that asks the harness to stop.
    Signal(i32),
}

/// Starts QEMU and follows the run to its end.
///
/// # Errors
/// A file, the terminal or the operating system fails; QEMU is ended then.
pub fn run(options: Options<'_>) -> anyhow::Result<Record> {
    let (sender, messages) = channel();
    watch_signals(sender.clone())?;

    let start = Instant::now();
    let has_input = options.talk != Talk::Nobody;
    let started = Qemu::start(options.program, options.arguments, has_input);
    let (mut qemu, Pipes { input, serial, stderr }) = match started {
        Ok(started) => started,
        Err(e) => {
            let reason = format!("cannot start {}: {e}", options.program.display());
            return Ok(Record::not_started(reason));
        }
    };

    let credits = read_serial(serial, sender.clone());
    let stderr = Stderr::read(stderr);

    // Declared after `qemu`, so the terminal is given back before QEMU is ended.
    let mut terminal = None;
    let mut conversation = None;
    let mut server = None;
    match (input, options.talk) {
        (Some(input), Talk::Input) => {
            terminal = KeyByKey::enter().context("cannot switch the terminal")?;
            let scripted = terminal.is_none();
            let (talk, turns) = Conversation::new(scripted, write_to(input));
            input::read(scripted, turns, move |input| {
                let _ = sender.send(Message::Input(input));
            });
            conversation = Some(talk);
        }
        (Some(input), Talk::Clients { urls }) => {
            server = Some(Server { urls, to_guest: write_to(input), is_ending: false });
        }
        _ => {}
    }

    let mut watch = Watch {
        start,
        limits: options.limits,
        last_sign: start,
        exit_said: None,
        conversation,
        server,
        log: options.log,
        raw: options.raw,
        unshown: None,
        in_line: false,
        decoder: Decoder::default(),
        events: Vec::new(),
        garbled: None,
        ready: false,
        first_text: None,
        serial_bytes: 0,
        is_asked: false,
    };
    let end = watch.until_the_end(&messages, &credits)?;
    drop(terminal);
    let end = match end {
        Some(end) => end,
        // The line is dead, so QEMU should end at once.
        None => match qemu.wait(POWER_OFF_PATIENCE).context("cannot wait for QEMU")? {
            Some(status) => End::Qemu(status),
            None => End::StillOn(POWER_OFF_PATIENCE),
        },
    };
    if !matches!(end, End::Qemu(_)) {
        // QEMU's message about its own termination is not shown.
        stderr.hide();
        qemu.end();
    }
    let total = start.elapsed();
    watch.finish()?;

    Ok(Record {
        events: watch.events,
        garbled: watch.garbled,
        end,
        first_text: watch.first_text,
        total,
        serial_bytes: watch.serial_bytes,
        stderr: stderr.tail(),
    })
}

/// A guest that serves clients over the network.
struct Server {
    urls: Vec<String>,
    to_guest: Sender<Vec<u8>>,
    /// Whether the guest was asked to end.
    is_ending: bool,
}

/// The loop's state.
struct Watch {
    start: Instant,
    limits: Limits,
    /// Last time of traffic from or to the guest.
    last_sign: Instant,
    /// When the guest said `exit`.
    exit_said: Option<Instant>,
    conversation: Option<Conversation>,
    server: Option<Server>,
    log: Option<File>,
    raw: bool,
    /// Reason why the text could not be shown. A reader that has gone (`| head`) is no reason: the
    /// run goes on to its verdict.
    unshown: Option<io::Error>,
    /// Whether the screen's cursor stands inside a line.
    in_line: bool,
    decoder: Decoder,
    events: Vec<Seen>,
    garbled: Option<Garbled>,
    ready: bool,
    first_text: Option<Duration>,
    serial_bytes: u64,
    /// Whether the guest waits for a line that nobody can type.
    is_asked: bool,
}

impl Watch {
    /// Runs until the serial line is dead (`None`) or there is a reason to end QEMU.
    fn until_the_end(
        &mut self,
        messages: &Receiver<Message>,
        credits: &Sender<()>,
    ) -> anyhow::Result<Option<End>> {
        loop {
            let message = match self.deadline() {
                None => messages.recv().ok(),
                Some((deadline, end)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    // A guest that never stops sending must not delay the timeouts. Unread bytes
                    // count as a sign of life.
                    let silence = matches!(end, End::Timeout(Timeout::Idle | Timeout::Input, _));
                    if left.is_zero() && !silence {
                        return Ok(Some(end));
                    }
                    match messages.recv_timeout(left) {
                        Ok(message) => Some(message),
                        Err(RecvTimeoutError::Timeout) => return Ok(Some(end)),
                        Err(RecvTimeoutError::Disconnected) => None,
                    }
                }
            };
            match message {
                Some(Message::Serial(at, bytes)) => {
                    self.serial(at, &bytes)?;
                    if self.events.len() >= MAX_EVENTS {
                        return Ok(Some(End::Flood));
                    }
                    if self.is_asked {
                        return Ok(Some(End::NobodyTypes));
                    }
                    let _ = credits.send(());
                }
                Some(Message::SerialEnd) | None => return Ok(None),
                Some(Message::Signal(signal)) => match &mut self.server {
                    Some(server) if self.ready && !server.is_ending && signal != SIGHUP => {
                        server.is_ending = true;
                        let _ = server.to_guest.send(vec![CTRL_C]);
                    }
                    _ => return Ok(Some(End::Signal(signal))),
                },
                Some(Message::Input(input)) => {
                    self.last_sign = Instant::now();
                    let Some(conversation) = &mut self.conversation else { continue };
                    if let Input::Keys(keys) = &input
                        && conversation.ends_with(keys)
                    {
                        return Ok(Some(End::Left));
                    }
                    conversation.input(input);
                }
            }
        }
    }

    /// The next timeout, and its kind.
    fn deadline(&self) -> Option<(Instant, End)> {
        if let Some(exit_said) = self.exit_said {
            return Some((exit_said + POWER_OFF_PATIENCE, End::StillOn(POWER_OFF_PATIENCE)));
        }
        let waits = self.conversation.as_ref().is_some_and(Conversation::waits_for_input);
        let boot = if self.events.is_empty() { self.limits.boot } else { None };
        // A server without clients is silent.
        let serves = self.server.as_ref().is_some_and(|server| self.ready && !server.is_ending);
        let idle = if waits || serves { None } else { self.limits.idle };
        let unheard = self.conversation.as_ref().and_then(Conversation::unheard);
        let input = unheard.and(self.limits.idle).map(|idle| idle.min(INPUT_PATIENCE));
        [
            (self.start, boot, Timeout::Boot),
            (unheard.unwrap_or(self.start), input, Timeout::Input),
            (self.last_sign, idle, Timeout::Idle),
            (self.start, self.limits.total, Timeout::Total),
        ]
        .into_iter()
        .filter_map(|(since, limit, which)| {
            Some((since.checked_add(limit?)?, End::Timeout(which, limit?)))
        })
        .min_by_key(|(deadline, _)| *deadline)
    }

    fn serial(&mut self, at: Instant, bytes: &[u8]) -> anyhow::Result<()> {
        self.last_sign = at;
        if let Some(conversation) = &mut self.conversation {
            conversation.heard();
        }
        self.serial_bytes += bytes.len() as u64;
        if let Some(log) = &mut self.log {
            log.write_all(bytes).context("cannot write the serial log")?;
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.push(bytes, &mut |item| self.item(at, item));
        self.decoder = decoder;
        if self.raw {
            self.show(bytes);
        }
        self.all_shown()
    }

    fn item(&mut self, at: Instant, item: Item) {
        let at_host = at.duration_since(self.start);
        match item {
            Item::Text(text) => {
                if self.ready && !text.trim().is_empty() {
                    self.first_text.get_or_insert(at_host);
                }
                if !self.raw {
                    self.show(text.as_bytes());
                }
            }
            Item::Event(event) => {
                match *event {
                    Event::Model(_) => self.ready = true,
                    Event::Exit(_) => self.exit_said = self.exit_said.or(Some(at)),
                    _ => {}
                }
                match &mut self.conversation {
                    Some(conversation) => conversation.event(&event),
                    None => {
                        let waiting = Event::Chat(Chat { state: ChatState::Waiting });
                        self.is_asked |= *event == waiting;
                    }
                }
                if let Some(server) = &self.server
                    && let Some(line) = server_line(&event, &server.urls)
                    && !self.raw
                {
                    self.show(line.as_bytes());
                }
                // A server answers without an end: the first requests stand for all.
                let is_request = matches!(*event, Event::Request(_));
                if !is_request || self.events.len() < MAX_EVENTS / 2 {
                    self.events.push(Seen { at: at_host, event: *event });
                }
            }
            Item::Garbled { line, error } => {
                self.garbled.get_or_insert(Garbled { line, error });
            }
        }
    }

    /// Flushes the decoder, and leaves the screen at the start of a line.
    fn finish(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.finish(&mut |item| self.item(now, item));
        if self.in_line {
            self.show(b"\n");
        }
        self.all_shown()
    }

    fn show(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.in_line = *last != b'\n';
            self.unshown = self.unshown.take().or(console::print(bytes).err());
        }
    }

    fn all_shown(&mut self) -> anyhow::Result<()> {
        self.unshown.take().map_or(Ok(()), |e| Err(e.into()))
    }
}

/// The line for people about an event of a server.
fn server_line(event: &Event, urls: &[String]) -> Option<String> {
    match event {
        Event::Serve(serve) => Some(format!(
            "{} ready at {}; Ctrl-C ends it\n",
            match (&serve.model[..], serve.models.len()) {
                ("", n) => format!("{n} models are"),
                (model, ..2) => format!("{model} is"),
                (model, n) => format!("{model}, one of {n} models, is"),
            },
            if urls.is_empty() { serve.urls.join(" and ") } else { urls.join(" and ") }
        )),
        Event::Request(request) => Some(format!(
            "{} {} {} {}: {} + {} tokens, {} cached, {:.2} s\n",
            Printable(&request.client),
            Printable(&request.method),
            Printable(&request.path),
            request.status,
            request.prompt_tokens,
            request.tokens_emitted,
            request.cached_tokens,
            request.latency_us as f64 / 1e6
        )),
        _ => None,
    }
}

/// Sends the signals that ask the harness to stop; a second signal ends the harness at once.
fn watch_signals(sender: Sender<Message>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch signals")?;
    thread::spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 || sender.send(Message::Signal(signal)).is_err() {
                std::process::exit(128 + signal);
            }
        }
    });
    Ok(())
}

/// Reads the serial line: one chunk for each unit that is sent to the returned sender.
fn read_serial(mut serial: impl Read + Send + 'static, sender: Sender<Message>) -> Sender<()> {
    let (credits, granted) = channel();
    for _ in 0..CHUNKS {
        let _ = credits.send(());
    }
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while granted.recv().is_ok() {
            match serial.read(&mut chunk) {
                Ok(n @ 1..) => {
                    let message = Message::Serial(Instant::now(), chunk[..n].to_vec());
                    if sender.send(message).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        let _ = sender.send(Message::SerialEnd);
    });
    credits
}

/// Writes to the guest in a thread of its own: a guest that does not read must not block the loop.
fn write_to(mut guest: impl Write + Send + 'static) -> Sender<Vec<u8>> {
    let (sender, bytes) = channel::<Vec<u8>>();
    thread::spawn(move || {
        for bytes in bytes {
            if guest.write_all(&bytes).and_then(|()| guest.flush()).is_err() {
                return;
            }
        }
    });
    sender
}

/// QEMU's standard error: shown at once, with its end kept.
struct Stderr {
    shown: Arc<AtomicBool>,
    kept: Arc<Mutex<Vec<u8>>>,
    done: Receiver<()>,
}

impl Stderr {
    fn read(mut stderr: impl Read + Send + 'static) -> Stderr {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::new(AtomicBool::new(true));
        let (done_sender, done) = channel();
        let (tail, show) = (Arc::clone(&kept), Arc::clone(&shown));
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                if show.load(Ordering::Relaxed) {
                    console::show(&chunk[..n]);
                }
                if let Ok(mut tail) = tail.lock() {
                    tail.extend_from_slice(&chunk[..n]);
                    let excess = tail.len().saturating_sub(STDERR_BYTES);
                    tail.drain(..excess);
                }
            }
            drop(done_sender);
        });
        Stderr { shown, kept, done }
    }

    fn hide(&self) {
        self.shown.store(false, Ordering::Relaxed);
    }

    /// The end of QEMU's standard error, after QEMU's end.
    fn tail(self) -> String {
        // A surviving child of QEMU could hold the stream open.
        let _ = self.done.recv_timeout(Duration::from_millis(500));
        self.kept
            .lock()
            .map_or_else(|_| String::new(), |kept| String::from_utf8_lossy(&kept).into_owned())
    }
}
