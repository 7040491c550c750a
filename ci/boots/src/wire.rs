//! A wire between the guest's network card and QEMU's network, through this process.
//!
//! QEMU sends each frame of Ethernet as one datagram of a Unix socket. The frames of both ways pass
//! through a [`Weather`], which may lose them or let others overtake them. [`Wire::send`] adds
//! frames that nobody in QEMU's network has sent.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use tempfile::TempDir;

/// The longest frame, in bytes.
const LONGEST: usize = 64 << 10;
/// The time after which an overtaken frame is sent although no other frame has come.
const OVERTAKEN: Duration = Duration::from_millis(20);

/// Judges a frame: whether it is taken off the wire.
pub type Rule = fn(&[u8]) -> bool;

/// What becomes of the frames on a wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Frames of a thousand that are lost.
    pub lost: u64,
    /// Frames of a thousand that the next one overtakes.
    pub overtaken: u64,
    /// Frames that are taken off, and counted.
    pub blocked: Option<Rule>,
}

/// What the threads of a wire share.
#[derive(Default)]
struct Shared {
    state: Mutex<(Weather, Counts)>,
    is_over: AtomicBool,
}

/// Numbers of frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Frames that came through.
    pub passed: u64,
    /// Those that were lost.
    pub lost: u64,
    /// Those that were overtaken.
    pub overtaken: u64,
    /// Those that were taken off.
    pub blocked: u64,
}

/// A wire, until it is dropped.
pub struct Wire {
    _folder: TempDir,
    shared: Arc<Shared>,
    card: End,
    threads: Vec<JoinHandle<()>>,
}

/// One of the two sockets: QEMU's address, and this process's own.
struct End {
    socket: UnixDatagram,
    qemu: PathBuf,
}

impl End {
    fn new(folder: &TempDir, name: &str) -> Result<End> {
        let socket = UnixDatagram::bind(folder.path().join(name)).context("no Unix socket")?;
        socket.set_read_timeout(Some(OVERTAKEN))?;
        Ok(End { socket, qemu: folder.path().join(format!("{name}-qemu")) })
    }

    fn clone(&self) -> Result<End> {
        Ok(End { socket: self.socket.try_clone()?, qemu: self.qemu.clone() })
    }

    /// QEMU's options for its side of this end.
    fn netdev(&self, folder: &TempDir, name: &str) -> String {
        let (qemu, own) = (self.qemu.display(), folder.path().join(name));
        format!(
            "dgram,id={name},local.type=unix,local.path={qemu},remote.type=unix,remote.path={}",
            own.display()
        )
    }
}

impl Wire {
    /// A wire, and QEMU's arguments for it: a network of its own, and a card named `net`.
    ///
    /// The address of this host leads to the guest's `port`. `user` are further options of QEMU's
    /// network, with a comma before each.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn new(to_guest: SocketAddr, port: u16, user: &str) -> Result<(Wire, Vec<String>)> {
        let folder = tempfile::Builder::new().prefix("wire").tempdir()?;
        let (card, lan) = (End::new(&folder, "card")?, End::new(&folder, "lan")?);
        let user = format!("user,id=user,hostfwd=tcp:{to_guest}-10.0.2.15:{port}{user}");
        let netdevs = [
            user,
            lan.netdev(&folder, "lan"),
            "hubport,id=hub0,hubid=0,netdev=user".into(),
            "hubport,id=hub1,hubid=0,netdev=lan".into(),
            card.netdev(&folder, "card"),
        ];
        let mut arguments: Vec<String> =
            netdevs.into_iter().flat_map(|netdev| ["-netdev".into(), netdev]).collect();
        arguments.extend(["-device".into(), "virtio-net-device,id=net,netdev=card".into()]);
        let shared = Arc::new(Shared::default());
        let mut wire = Wire { _folder: folder, shared, card: card.clone()?, threads: Vec::new() };
        wire.carry(card.clone()?, lan.clone()?, 1);
        wire.carry(lan, card, 2);
        Ok((wire, arguments))
    }

    /// Starts the thread that carries the frames of one way.
    fn carry(&mut self, from: End, to: End, seed: u64) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || shared.carry(&from, &to, Rng::with_seed(seed))));
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.shared.state().0 = weather;
    }

    /// Sends a frame to the guest's card, and waits until there is room for it.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.card.socket.send_to(frame, &self.card.qemu).context("the card takes no frame")?;
        Ok(())
    }

    /// The frames so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().1
    }
}

/// What becomes of a frame.
enum Fate {
    Goes,
    Waits,
    IsGone,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, (Weather, Counts)> {
        self.state.lock().expect("no thread panics")
    }

    /// Decides about a frame, and counts it.
    fn judge(&self, frame: &[u8], rng: &mut Rng, may_wait: bool) -> Fate {
        let (weather, counts) = &mut *self.state();
        if weather.blocked.is_some_and(|is_blocked| is_blocked(frame)) {
            counts.blocked += 1;
            return Fate::IsGone;
        }
        if rng.u64(..1000) < weather.lost {
            counts.lost += 1;
            return Fate::IsGone;
        }
        counts.passed += 1;
        if may_wait && rng.u64(..1000) < weather.overtaken {
            counts.overtaken += 1;
            return Fate::Waits;
        }
        Fate::Goes
    }

    /// Carries frames until the wire is dropped.
    fn carry(&self, from: &End, to: &End, mut rng: Rng) {
        let mut frame = vec![0; LONGEST];
        let mut waiting: Option<Vec<u8>> = None;
        // A frame that QEMU does not take is lost, as QEMU starts or ends.
        let send = |frame: &[u8]| drop(to.socket.send_to(frame, &to.qemu));
        while !self.is_over.load(Ordering::Relaxed) {
            match from.socket.recv(&mut frame) {
                Ok(n) => match self.judge(&frame[..n], &mut rng, waiting.is_none()) {
                    Fate::Goes => send(&frame[..n]),
                    Fate::Waits => {
                        waiting = Some(frame[..n].to_vec());
                        continue;
                    }
                    Fate::IsGone => continue,
                },
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
            if let Some(frame) = waiting.take() {
                send(&frame);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
