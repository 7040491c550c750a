//! The machines of the two servers.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::command::{Accelerator, Board, Bus, Device, Forward, Machine};
use host_io::http::Server;

use super::client::Client;
use crate::disks;
use crate::guest::{Build, end_of};
use crate::peer;
use crate::shape::{Cpu, ShapeName};

/// The servers' port in the guest.
const PORT: u16 = 8080;
/// Positions of a slot's context.
const CONTEXT: usize = 1024;
/// Time between two attempts to reach a server that starts.
const PAUSE: Duration = Duration::from_millis(20);
/// Time after which an attempt is given up.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Anchorite.
    Ours,
    /// llama-server on Linux.
    Peer,
}

impl Side {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Peer => "llama-server",
        }
    }
}

/// Both servers' files, for one model on one processor.
#[derive(Debug)]
pub struct Files {
    cpu: Cpu,
    /// The disk of both.
    disk: PathBuf,
    /// The model's path on the disk.
    model: String,
    /// The unikernel.
    image: PathBuf,
    /// The peer's kernel.
    linux: PathBuf,
    /// The peer's initial files.
    initramfs: PathBuf,
    /// Folder of the serial logs.
    logs: PathBuf,
}

/// The size of a machine and of its server.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Cores.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Requests that run at once.
    pub slots: usize,
    /// Whether the guest's clock counts instructions.
    pub counted: bool,
}

impl Files {
    /// Makes what is missing.
    ///
    /// # Errors
    /// The disk cannot be made, or the peer cannot be built.
    pub fn new(build: &Build, shape: ShapeName, cpu: Cpu) -> Result<Files> {
        let disk = disks::disk(build, shape)?;
        let model = disks::model(build, shape)?;
        let name = model.file_name().context("a model without a name")?.to_string_lossy();
        let folder = peer::build(build, "server", cpu)?;
        let initramfs = folder.join("initramfs-serve");
        let mut files = vec![
            ("init".to_owned(), folder.join("serve")),
            ("llama-server".into(), folder.join(format!("server-{}", cpu.name()))),
        ];
        for entry in fs::read_dir(folder.join("modules")).context("cannot list the drivers")? {
            let path = entry?.path();
            let name = path.file_name().context("a driver without a name")?.to_string_lossy();
            files.push((name.into_owned(), path));
        }
        peer::write_initramfs(&initramfs, &files)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        Ok(Files {
            cpu,
            disk,
            model: format!("models/{name}"),
            image: build.image(),
            linux: folder.join("Image"),
            initramfs,
            logs: build.bench(),
        })
    }

    fn machine(&self, side: Side, size: Size, host: SocketAddrV4) -> Machine {
        let slots = size.slots;
        let (kernel, boot_arguments, mut extra) = match side {
            Side::Ours => {
                let context = CONTEXT.to_string();
                let settings = [
                    ("mode", "serve".into()),
                    ("parallel", slots.to_string()),
                    ("context", context),
                ];
                (&self.image, settings.to_vec(), vec![])
            }
            Side::Peer => {
                let cores = size.cores;
                let n_ctx = CONTEXT * slots;
                // No empty run after loading, and no search for what fits: both delay the start.
                let server = format!(
                    "-m /disk/{} --host 0.0.0.0 --port {PORT} -t {cores} -tb {cores} -c {n_ctx} \
                     -np {slots} --no-warmup -fit off -lv 1",
                    self.model
                );
                let arguments = [
                    ("console", "ttyAMA0".into()),
                    ("loglevel", "3".into()),
                    ("panic", "-1".into()),
                    ("server", server),
                ];
                let initrd = ["-initrd".into(), self.initramfs.clone().into()];
                (&self.linux, arguments.to_vec(), initrd.to_vec())
            }
        };
        if size.counted {
            // While the guest waits for a client, its clock goes on as the host's. The harness lets
            // the clock jump to the next interrupt, and connections would time out.
            extra.extend(["-icount".into(), "sleep=on".into()]);
        }
        let cpu = self.cpu.qemu().into();
        Machine {
            accelerator: Accelerator::Tcg,
            board: Board::Virt { cpu, memory_mib: size.memory_mib, gic: None, el2: false },
            cores: size.cores,
            icount: size.counted,
            kernel: kernel.clone(),
            boot_arguments: boot_arguments.into_iter().map(|(k, v)| (k.into(), v)).collect(),
            devices: vec![
                Device::Disk { file: self.disk.clone(), bus: Bus::Mmio },
                Device::Network { bus: Bus::Mmio, forwards: vec![Forward { host, guest: PORT }] },
            ],
            extra,
        }
    }

    /// Starts a machine.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(&self, side: Side, size: Size) -> Result<Running> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free.local_addr()?.port());
        drop(free);
        let log = self.logs.join(format!("serve-{}.log", side.name()));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = Command::new("qemu-system-aarch64");
        command.args(self.machine(side, size, host).arguments());
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let started = Instant::now();
        let child = command.spawn().context("cannot start qemu-system-aarch64")?;
        Ok(Running { child, server: Server::at(host.into()), started, log })
    }
}

/// A server in its machine. The machine ends with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The server.
    pub server: Server,
    /// The time of QEMU's start.
    pub started: Instant,
    log: PathBuf,
}

impl Running {
    /// Waits until the server is healthy.
    ///
    /// # Errors
    /// The machine ends before, or the server is not healthy after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let (sender, receiver) = mpsc::channel();
        while self.started.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                bail!("the machine ended, {status}:\n{}", end_of(&mut File::open(&self.log)?));
            }
            // QEMU takes connections from the start, and those from before the guest has an address
            // are lost. So attempts overlap.
            let (sender, server) = (sender.clone(), self.server);
            thread::spawn(move || {
                Client::try_open(server, ATTEMPT).is_ok() && sender.send(()).is_ok()
            });
            if receiver.recv_timeout(PAUSE).is_ok() {
                return Ok(());
            }
        }
        bail!("no answer after {limit:?}:\n{}", end_of(&mut File::open(&self.log)?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The machine has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_servers_get_the_same_machine_disk_and_context() {
        let files = Files {
            cpu: Cpu::NeoverseN1,
            disk: "a.img".into(),
            model: "models/a.gguf".into(),
            image: "anchorite.img".into(),
            linux: "Image".into(),
            initramfs: "initramfs".into(),
            logs: "logs".into(),
        };
        let size = Size { cores: 2, memory_mib: 640, slots: 4, counted: false };
        let line = |side, size| {
            let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000);
            let arguments = files.machine(side, size, host).arguments();
            let words = arguments.iter().map(|word| word.to_string_lossy().into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        let (ours, peer) = (line(Side::Ours, size), line(Side::Peer, size));
        for same in [
            "-machine virt -accel tcg,thread=multi -cpu neoverse-n1 -smp 2 -m 640M -nodefaults",
            "file.filename=a.img -device virtio-blk-device",
            "hostfwd=tcp:127.0.0.1:5000-:8080 -device virtio-net-device",
        ] {
            assert!(ours.contains(same) && peer.contains(same), "{same} in\n{ours}\n{peer}");
        }
        assert!(ours.contains("-append mode=serve parallel=4 context=1024 "), "{ours}");
        let server =
            "server=\"-m /disk/models/a.gguf --host 0.0.0.0 --port 8080 -t 2 -tb 2 -c 4096 -np 4 ";
        let counted = Size { cores: 1, counted: true, ..size };
        assert!(line(Side::Ours, counted).ends_with(" -icount sleep=on"));
        assert!(peer.contains(server) && peer.ends_with("-initrd initramfs"), "{peer}");
    }
}
