//! A server under attack, and with a network and a disk that fail: it goes on.
//!
//! A good client streams beside each attack. Its answers stay the same to the byte, and so does the
//! memory in use afterwards. Slow, malformed and vanishing clients of HTTP are in
//! [`bad_clients`](super::bad_clients).

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host_io::http::Server;
use serde_json::json;

use super::good_client::{Undisturbed, beside};
use super::serve::{self, PORT, WITH_TINY, by_qemu, completion, free_port, wait_for_server};
use super::swaps::{MODELS, several};
use crate::boot::Boot;
use crate::check::{Check, Group, Passed, check};
use crate::event;
use crate::expect::Expect;
use crate::frames::{Damaged, attacker, is_dhcp, is_for_attackers, syn, udp};
use crate::lab::Lab;
use crate::machine::{Board, Failing, failing};
use crate::qemu::{Child, Monitor};
use crate::seen::Line;
use crate::wire::{Rule, Weather, Wire};

/// Half-open connections, none of which is ever acknowledged.
const HALF_OPEN: u32 = 10_000;
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(15);
/// Damaged frames.
const DAMAGED: u32 = 1_000_000;
/// How long the guest's card has no cable, in seconds.
const UNPLUGGED_S: [u64; 6] = [1, 2, 3, 4, 6, 12];
/// How long the machine stands still, longer than any timeout of the server.
const STILL: Duration = Duration::from_secs(130);
/// Frames of a thousand that a bad link loses, and that overtake each other.
const BAD: u64 = 50;
/// The shortest time on a bad link.
const BAD_LINK: Duration = Duration::from_secs(30);
/// Requests for models of a disk that fails.
const FAILED_LOADS: usize = 10;
/// Time until DHCP is said not to answer, and some more.
const NO_ADDRESS: Duration = Duration::from_secs(20);

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let checks = [
        check("attack-half-open", half_open),
        check("attack-syn-flood", |lab| flood(lab, "attack-syn-flood", |i| syn(attacker(i), PORT))),
        check("attack-udp-flood", |lab| {
            let payload = [0x5a; 1200];
            flood(lab, "attack-udp-flood", move |i| udp(attacker(i), i as u16, &payload))
        }),
        check("attack-damaged-frames", damaged_frames),
        check("attack-bad-link", bad_link),
        check("attack-no-link", no_link),
        check("attack-no-card", no_card),
        check("attack-no-dhcp", no_dhcp),
        check("attack-clock-jumps", clock_jumps),
        check("attack-no-disk", no_disk),
    ];
    checks.into_iter().map(|check| check.only_in(&[Group::Torture])).collect()
}

/// A server on a wire of this process.
struct Scene {
    boot: Boot,
    child: Child,
    wire: Wire,
    monitor: Monitor,
    server: Server,
}

impl Scene {
    /// Starts the machine, with these arguments of QEMU for memory, disk and network.
    fn start(lab: &Lab, name: &str, own: &[&str], user: &str, weather: Weather) -> Result<Scene> {
        let address = free_port()?;
        let (wire, network) = Wire::new(address, PORT, user)?;
        wire.set(weather);
        let socket = lab.file(&format!("{name}.qmp"));
        let arguments = [network, Monitor::arguments(&socket).into()].concat();
        let own = own.iter().copied().chain(arguments.iter().map(String::as_str));
        let boot = by_qemu(name, "", &own.collect::<Vec<_>>())
            .limit_s(900)
            .expect(Expect::NoEvent(event!(Error {})));
        let child = boot.start(lab)?;
        let monitor = Monitor::connect(&socket, Duration::from_secs(60))?;
        Ok(Scene { boot, child, wire, monitor, server: Server::at(address) })
    }

    /// Starts the machine with one model, and waits for the server.
    fn new(lab: &Lab, name: &str) -> Result<Scene> {
        let mut scene = Scene::start(lab, name, &WITH_TINY, "", Weather::default())?;
        wait_for_server(&mut scene.child)?;
        Ok(scene)
    }

    /// Disturbs the server beside a good client, ends the server, and checks the boot.
    fn disturb(
        mut self,
        lab: &Lab,
        disturb: impl FnOnce(&mut Scene) -> Result<String>,
    ) -> Result<Passed> {
        let result = beside(self.server, "tiny", || disturb(&mut self));
        self.passed(lab, result)
    }

    /// Ends the server, whose log is kept whole if its clients are not content too.
    fn passed(self, lab: &Lab, result: Result<Undisturbed<String>>) -> Result<Passed> {
        let Scene { boot, child, .. } = self;
        let ended = serve::end(lab, &boot, child);
        let Undisturbed { result, streams, memory } = result?;
        ended?;
        Ok(Passed::with(format!("{result}, {streams} streams, {memory} bytes in use")))
    }
}

/// The weather in which such frames are taken off the wire.
fn without(blocked: Rule) -> Weather {
    Weather { blocked: Some(blocked), ..Weather::default() }
}

/// Gives the monitor a command that says nothing if it works.
fn order(monitor: &mut Monitor, line: &str) -> Result<()> {
    let said = monitor.order(line)?;
    ensure!(said.is_empty(), "QEMU's monitor says {said:?} to {line}");
    Ok(())
}

/// Half-open connections from as many addresses.
fn half_open(lab: &Lab) -> Result<Passed> {
    Scene::new(lab, "attack-half-open")?.disturb(lab, |Scene { wire, .. }| {
        wire.set(without(is_for_attackers));
        // As slowly as the stack forgets them, each is half-open for some time.
        for number in 0..HALF_OPEN {
            wire.send(&syn(attacker(number), PORT))?;
            thread::sleep(Duration::from_millis(2));
        }
        let answered = wire.counts().blocked;
        ensure!(answered >= u64::from(HALF_OPEN) / 10, "{answered} answers to {HALF_OPEN} SYNs");
        Ok(format!("{HALF_OPEN} half-open connections, {answered} answers"))
    })
}

/// As many frames as the card takes.
fn flood(lab: &Lab, name: &str, frame: impl Fn(u32) -> Vec<u8>) -> Result<Passed> {
    Scene::new(lab, name)?.disturb(lab, |Scene { wire, .. }| {
        wire.set(without(is_for_attackers));
        let (started, mut number) = (Instant::now(), 0);
        while started.elapsed() < FLOOD {
            wire.send(&frame(number))?;
            number += 1;
        }
        ensure!(number > 10_000, "{number} frames are no flood");
        Ok(format!("{number} frames in {FLOOD:?}, {} answers", wire.counts().blocked))
    })
}

/// Frames that are malformed in all ways.
fn damaged_frames(lab: &Lab) -> Result<Passed> {
    Scene::new(lab, "attack-damaged-frames")?.disturb(lab, |Scene { wire, .. }| {
        wire.set(without(is_for_attackers));
        let mut damaged = Damaged::new(PORT, 20);
        for _ in 0..DAMAGED {
            wire.send(&damaged.next())?;
        }
        Ok(format!("{DAMAGED} damaged frames, {} answers", wire.counts().blocked))
    })
}

/// A link that loses frames, and lets others overtake them.
fn bad_link(lab: &Lab) -> Result<Passed> {
    Scene::new(lab, "attack-bad-link")?.disturb(lab, |Scene { wire, .. }| {
        wire.set(Weather { lost: BAD, overtaken: BAD, blocked: None });
        thread::sleep(BAD_LINK);
        wire.set(Weather::default());
        let counts = wire.counts();
        ensure!(counts.lost >= 20 && counts.overtaken >= 20, "{counts:?}");
        Ok(format!("{counts:?}"))
    })
}

/// The cable is pulled out of the card and put back, for longer each time.
fn no_link(lab: &Lab) -> Result<Passed> {
    Scene::new(lab, "attack-no-link")?.disturb(lab, |Scene { monitor, .. }| {
        for seconds in UNPLUGGED_S {
            // Most times come within a stream.
            thread::sleep(Duration::from_millis(800));
            order(monitor, "set_link net off")?;
            thread::sleep(Duration::from_secs(seconds));
            order(monitor, "set_link net on")?;
        }
        Ok(format!("no link for {UNPLUGGED_S:?} s"))
    })
}

/// The network behind the card vanishes for good. The server ends at Ctrl-C as ever.
fn no_card(lab: &Lab) -> Result<Passed> {
    let Scene { boot, mut child, wire, mut monitor, server } = Scene::new(lab, "attack-no-card")?;
    let mut body = completion("The cat", 200);
    // More than the buffers take.
    body["n_probs"] = 20.into();
    body["stream"] = true.into();
    let stream = server.send("POST /completion", &body.to_string())?;
    thread::sleep(Duration::from_secs(1));
    order(&mut monitor, "netdev_del card")?;
    // The server hears nothing from its client for so long that the client is gone.
    let is_gone = |line: &Line| matches!(line, Line::Event(kernel::report::Event::Request(_)));
    child.wait_for("the end of the request", |lines| lines.iter().any(is_gone))?;
    drop((stream, wire));
    serve::end(lab, &boot, child)?;
    Ok(Passed::default())
}

/// DHCP does not answer for a while. The server says so, and serves once it has an address.
fn no_dhcp(lab: &Lab) -> Result<Passed> {
    let mut scene = Scene::start(lab, "attack-no-dhcp", &WITH_TINY, ",ipv6=off", without(is_dhcp))?;
    let says_so = |line: &Line| matches!(line, Line::Text(text) if text.contains("no address"));
    let started = Instant::now();
    scene.child.wait_for("a warning", |lines| lines.iter().any(says_so))?;
    ensure!(started.elapsed() < NO_ADDRESS, "a warning after {:?}", started.elapsed());
    let asked = scene.wire.counts().blocked;
    ensure!(asked >= 2, "DHCP was asked {asked} times");
    scene.wire.set(Weather::default());
    wait_for_server(&mut scene.child)?;
    let waited = started.elapsed();
    scene.disturb(lab, |_| Ok(format!("DHCP asked {asked} times, an address after {waited:?}")))
}

/// The machine stands still, and all of its timers have run out when it goes on.
fn clock_jumps(lab: &Lab) -> Result<Passed> {
    Scene::new(lab, "attack-clock-jumps")?.disturb(lab, |Scene { child, .. }| {
        for pause in [Duration::from_secs(1), Duration::from_secs(25), STILL] {
            thread::sleep(Duration::from_millis(700));
            child.pause(pause)?;
        }
        Ok(format!("the clock jumps by up to {STILL:?}"))
    })
}

/// A disk with a sector that cannot be read, which then vanishes.
fn no_disk(lab: &Lab) -> Result<Passed> {
    let disk = lab.disk(&several())?;
    let volume = crate::volume::Volume::read(&disk)?;
    let [_, (bad, _), (good, _)] = MODELS;
    let place = volume.start_of(&format!("models/{bad}.gguf"))? + (100 << 10);
    let sector = Failing::Sector(place as u64 / 512);
    let drive = failing(Board::Virt, &disk.display().to_string(), sector);
    let mut own = vec!["-m", "512M"];
    own.extend(drive.iter().map(String::as_str));
    let mut scene = Scene::start(lab, "attack-no-disk", &own, "", Weather::default())?;
    wait_for_server(&mut scene.child)?;
    let Scene { server, monitor, .. } = &mut scene;
    let server = *server;
    let ask = |model: &str| {
        let mut body = completion("A", 4);
        body["model"] = model.into();
        server.post("/completion", &body)
    };
    let fails = |model: &str| -> Result<()> {
        for _ in 0..FAILED_LOADS {
            let answer = ask(model)?;
            ensure!(answer.status == 500 && answer.body.contains("DiskError"), "{answer:?}");
        }
        Ok(())
    };
    // The machine keeps the message of the last failure, which takes some memory.
    fails(bad)?;
    beside(server, "tiny", || {
        fails(bad)?;
        ensure!(ask(good)?.status == 200, "{good} cannot be loaded");
        ensure!(server.post("/models/unload", &json!({ "model": good }))?.status == 200);
        Ok(())
    })?;
    order(monitor, "drive_del d")?;
    fails(good).context("without a disk")?;
    let result = beside(server, "tiny", || {
        fails(good).and_then(|()| fails(bad)).context("without a disk")?;
        Ok(format!("{} loads fail", 5 * FAILED_LOADS))
    });
    scene.passed(lab, result)
}
