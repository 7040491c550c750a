//! The image as m1n1 starts it on an Apple M1, played by QEMU; and what is made for m1n1.
//!
//! A stub (`qemu/m1n1-stub`) plays m1n1: EL2 with the host extensions on, the MMU off, the other cores in a
//! spin table. [`tree`] makes the device tree: QEMU's without what an M1 lacks, and with a framebuffer, which
//! is memory that no display shows. The model is the initrd. Two of the cores are fast ones, whose clock's
//! registers are memory too. The screen is kept as text, `NAME.screen`, and as a picture, `NAME.png`.

mod initrds;
mod load;
mod payload;
mod tree;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kernel::report::{Checksum, Code, Event};
use kernel::trials::Trial;
use object::{Object, ObjectSymbol};

use crate::boot::{Boot, boot};
use crate::check::{Check, Passed, check};
use crate::disk::{Disk, tiny};
use crate::event;
use crate::expect::{Expect, GOOD_END, pattern};
use crate::goldens::{PROMPT, TOKENS, tokens};
use crate::lab::{IMAGE, Lab, M1N1_STUB, PROBE};
use crate::qemu::{Child, Monitor};
use crate::screen::Screen;
use crate::seen::{Line, Seen};
use tree::{CLOCK_COMMAND, CLOCK_STATUS, CORES, CPU, HEIGHT, INITRD_AT, MACHINE, SCREEN_AT};
use tree::{FORMAT, SCREEN_BYTES, STRIDE, WIDTH};

/// Nothing turns an M1 off, so that neither does this machine: the last line asks a person to.
const LAST_LINE: &str = "It is now safe to switch off.";
/// What the screen says before the last line at a bad end; at a good end it is [`GOOD_END`].
const BAD_END: &str = "Anchorite has failed, see above.";
const LIMIT: Duration = Duration::from_secs(180);

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![
        // Cores that wait for work only nap here, so that those of one boot take all of the host's.
        check("m1n1-model", model).alone(),
        check("m1n1-chat", chat).alone(),
        Mac::new("m1n1-chat-alone").words("mode=chat").without_port().check(|boot| {
            boot.expect(Expect::Screen(pattern(
                "^ConsoleError: cannot read the console: no such device$",
            )))
            .expect(ends_with(BAD_END))
        }),
        Mac::new("m1n1-no-memory").without_memory().check(|boot| {
            boot.event(event!(Error {
                code == Code::Unsupported,
                message ~ "^the device tree lists no memory",
            }))
            .ends_badly("^Unsupported: the device tree lists no memory$")
        }),
        // A panic on one core while the others print, and one without a serial port.
        Mac::new("m1n1-panic").probe(Trial::PanicInNoise.name()).check(|boot| {
            boot.event(event!(Error { code == Code::Panic }))
                .ends_badly("^Panic: in the middle of noise")
        }),
        Mac::new("m1n1-panic-alone")
            .probe(&format!("{}=2", Trial::PanicOn.name()))
            .without_port()
            .check(|boot| {
                // Number 2 of those beside the first thread's, which is on core 2.
                boot.expect(Expect::Screen(pattern("^Panic: as asked, by 2 .*, core 1$")))
                    .expect(ends_with(BAD_END))
            }),
    ];
    checks.extend(initrds::checks());
    checks.extend(load::checks());
    checks.extend(payload::checks());
    checks
}

impl Boot {
    /// It must give llama.cpp's tokens, and stay on.
    fn answers_and_stays_on(self) -> Boot {
        self.event(event!(Result { tokens == tokens() }))
            .expect(Expect::Exit(0, vec![LAST_LINE.into()]))
    }

    /// The same, of a model that was verified.
    fn answers_verified(self) -> Boot {
        self.event(event!(Model { checksum == Checksum::Verified })).answers_and_stays_on()
    }

    /// It must end with an error, which the screen shows so.
    fn ends_badly(self, on_screen: &str) -> Boot {
        self.expect(Expect::Exit(1, vec![LAST_LINE.into()]))
            .expect(Expect::Screen(pattern(on_screen)))
            .expect(ends_with(BAD_END))
    }
}

/// The last lines on the screen must be these words and that it is safe to switch off.
fn ends_with(words: &'static str) -> Expect {
    let expected = [words, LAST_LINE];
    Expect::that(format!("the screen ends with {expected:?}"), move |seen| {
        let lines: Vec<&str> =
            seen.screen.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        match lines.ends_with(&expected) {
            true => Ok(()),
            false => Err(format!("it ends with {:?}", &lines[lines.len().saturating_sub(2)..])),
        }
    })
}

/// A boot of such a machine.
#[derive(Clone)]
struct Mac {
    name: String,
    image: &'static str,
    /// The boot arguments.
    words: String,
    initrd: Disk,
    has_port: bool,
    lists_memory: bool,
    /// What is typed on the serial line once the model is loaded.
    typed: Option<String>,
}

impl Mac {
    /// One that answers the prompt of [`tokens`].
    fn new(name: impl Into<String>) -> Mac {
        Mac {
            name: name.into(),
            image: IMAGE,
            words: format!("max_tokens={TOKENS}"),
            initrd: tiny(),
            has_port: true,
            lists_memory: true,
            typed: None,
        }
    }

    /// With further boot arguments.
    fn words(mut self, words: &str) -> Mac {
        self.words += &format!(" {words}");
        self
    }

    /// The probe with these boot arguments.
    fn probe(mut self, words: &str) -> Mac {
        self.image = PROBE;
        self.words = words.into();
        self
    }

    /// With this as its initrd.
    fn initrd(mut self, initrd: Disk) -> Mac {
        self.initrd = initrd;
        self
    }

    /// Without a serial port.
    fn without_port(mut self) -> Mac {
        self.has_port = false;
        self
    }

    /// With a tree that lists no memory.
    fn without_memory(mut self) -> Mac {
        self.lists_memory = false;
        self
    }

    /// A check of one boot, of which this is expected.
    fn check(self, expect: impl Fn(Boot) -> Boot + Send + Sync + 'static) -> Check {
        check(self.name.clone(), move |lab| {
            self.run(lab, &expect)?;
            Ok(Passed::default())
        })
    }

    /// Boots until the last line is there, and checks.
    fn run(&self, lab: &Lab, expect: impl Fn(Boot) -> Boot) -> Result<Seen> {
        let file = |ending: &str| lab.file(&format!("{}.{ending}", self.name));
        let initrd = lab.disk(&self.initrd)?;
        let places = Places::of_stub()?;
        let bytes = fs::metadata(&initrd)?.len();
        tree::of(self, &places, bytes, &file("virt.dtb"))?.write(&file("dtb"))?;
        // What a display may show at the start.
        let logo = lab.made("m1n1-logo.img", |out| Ok(fs::write(out, vec![90; SCREEN_BYTES])?))?;
        let loaded = |file: &Path, at: u64| {
            ["-device".into(), format!("loader,file={},addr={at:#x},force-raw=on", file.display())]
        };
        let value = |value: u64, at: u64| {
            ["-device".into(), format!("loader,addr={at:#x},data={value:#x},data-len=8")]
        };
        let socket = file("qmp");
        let arguments: Vec<String> = [
            ["-M".into(), MACHINE.into()],
            ["-cpu".into(), CPU.into()],
            ["-smp".into(), CORES.to_string()],
            ["-m".into(), "512M".into()],
            loaded(Path::new(self.image), places.image),
            loaded(&file("dtb"), places.tree),
            loaded(&logo, SCREEN_AT),
            loaded(&initrd, INITRD_AT),
            value(0x7007, CLOCK_COMMAND),
            value(0xc0, CLOCK_STATUS),
            Monitor::arguments(&socket),
        ]
        .concat();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let boot = boot(self.name.clone())
            .by_qemu("", &arguments)
            .image(M1N1_STUB)
            .limit_s(LIMIT.as_secs())
            .open_input();
        let boot = expect(boot.expect(cores_at_el2()));

        let mut child = boot.start(lab)?;
        let mut monitor = Monitor::connect(&socket, LIMIT)?;
        let screen = self.until_the_end(&mut child, &mut monitor, &file("raw"));
        let screen = screen.map_err(|e| match Seen::read(&file("log")) {
            Ok(seen) => anyhow!("{e:#}\n{}", seen.shown()),
            Err(_) => e,
        })?;
        let clock = monitor.order(&format!("xp /1gx {CLOCK_COMMAND:#x}"))?;
        let registers = monitor.order("info registers -a")?;
        fs::write(file("monitor"), clock + &registers)?;
        monitor.quit()?;
        let status = child.wait()?;
        let seen = boot.seen_with(lab, status, &screen)?;
        boot.check(&seen)?;
        Ok(seen)
    }

    /// Waits for the last line: on the serial line, where there is one, then on the screen, which shows
    /// it a little later.
    fn until_the_end(
        &self,
        child: &mut Child,
        monitor: &mut Monitor,
        raw: &Path,
    ) -> Result<Screen> {
        if let Some(typed) = &self.typed {
            child.wait_for("the `model` event", |lines| {
                lines.iter().any(|line| matches!(line, Line::Event(Event::Model(_))))
            })?;
            child.type_in(typed.as_bytes())?;
        }
        if self.has_port {
            child.wait_for("the last line", |lines| {
                lines.iter().any(|line| matches!(line, Line::Text(text) if text == LAST_LINE))
            })?;
        }
        // Nobody tells what is drawn.
        let deadline = Instant::now() + LIMIT;
        loop {
            let order = format!("pmemsave {SCREEN_AT:#x} {SCREEN_BYTES} \"{}\"", raw.display());
            monitor.order(&order)?;
            let memory = fs::read(raw).context("QEMU saves no memory")?;
            let screen = Screen::of_memory((WIDTH, HEIGHT, STRIDE), FORMAT, memory)?;
            let lines = screen.lines();
            if lines.iter().any(|line| line == LAST_LINE) {
                fs::remove_file(raw)?;
                return Ok(screen);
            }
            ensure!(
                Instant::now() < deadline,
                "the screen shows no last line:\n{}",
                lines.join("\n")
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// What QEMU's monitor has said at the end of a boot.
fn monitor(seen: &Seen) -> Result<String, String> {
    fs::read_to_string(seen.log.with_extension("monitor")).map_err(|e| e.to_string())
}

/// `hello` tells the level at entry; at the end, all cores must still be at EL2.
fn cores_at_el2() -> Expect {
    Expect::that(format!("{CORES} cores are at EL2 at the end"), |seen| {
        let said = monitor(seen)?;
        let at_el2 = |line: &&str| line.contains("PSTATE=") && line.contains(" EL2");
        match said.lines().filter(at_el2).count() as u32 {
            CORES => Ok(()),
            cores => Err(format!("{cores} cores are")),
        }
    })
}

/// Where the stub has the image, the tree and the spin table.
struct Places {
    image: u64,
    tree: u64,
    spin_table: u64,
}

impl Places {
    /// As the symbols of the stub say.
    fn of_stub() -> Result<Places> {
        let elf = fs::read(M1N1_STUB).with_context(|| format!("cannot read {M1N1_STUB}"))?;
        let elf = object::File::parse(&*elf)?;
        let place = |name: &str| -> Result<u64> {
            let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name));
            Ok(symbol.with_context(|| format!("the stub has no {name}"))?.address())
        };
        Ok(Places {
            image: place("IMAGE")?,
            tree: place("TREE")?,
            spin_table: place("SPIN_TABLE")?,
        })
    }
}

/// The model; and without a serial port the same on the screen.
fn model(lab: &Lab) -> Result<Passed> {
    let seen = Mac::new("m1n1-model").run(lab, |boot| {
        boot.names_the_image()
            .event(event!(Hello {
                machine == "m1n1 stub",
                cores == CORES as usize,
                exception_level == 2,
                consoles == ["pl011", "framebuffer 1280x800, text 128x40"],
                board ~ "^left-out=[0-9]* KiB, m1n1 to 0x48101000",
                board ~ "^pcpu=pstate 12, was 7$",
                // E2H and TGE are the stub's; API, APK and RW the image adds.
                board ~ "^hcr=0x30488000000$",
            }))
            .expect(clock_at_the_highest_point())
            .expect(stages())
            .event(event!(Disk { device == "initrd" }))
            .answers_verified()
            .expect(Expect::Screen(pattern("^Anchorite .* on m1n1 stub: 4 × ")))
            .expect(Expect::ScreenIsLog)
            .expect(ends_with(GOOD_END))
    })?;
    let expected = unmeasured(&seen);
    Mac::new("m1n1-screen-alone").without_port().run(lab, |boot| {
        let expected = expected.clone();
        boot.expect(Expect::Screen(pattern("prompt tokens at"))).expect(ends_with(GOOD_END)).expect(
            Expect::that("the screen is that beside a serial port", move |seen| {
                let lines = unmeasured(seen);
                let other = lines.iter().zip(&expected).find(|(one, other)| one != other);
                match (lines == expected, other) {
                    (true, _) => Ok(()),
                    (false, Some((one, other))) => Err(format!("{one:?}, not {other:?}")),
                    (false, None) => Err(format!("{} lines, not {}", lines.len(), expected.len())),
                }
            }),
        )
    })?;
    Ok(Passed::tries(2))
}

/// The screen less what is measured, a bar that only a load of some length draws, and empty lines.
fn unmeasured(seen: &Seen) -> Vec<String> {
    let bar = pattern(r"\[#*\] 100 % of ");
    let lines = seen
        .screen
        .iter()
        .filter(|line| !line.is_empty() && !line.starts_with('[') && !bar.is_in(line));
    // ", 9.3 MB in 12 ms"
    let rate = |line: &String| {
        let at = line.find(" MB in ").and_then(|at| line[..at].rfind(','));
        at.map_or(line.clone(), |at| line[..at].into())
    };
    lines.map(rate).collect()
}

fn clock_at_the_highest_point() -> Expect {
    Expect::that("the clock's command is that for the highest point", |seen| {
        let said = monitor(seen)?;
        match said.contains(": 0x000000000200c00c") {
            true => Ok(()),
            false => Err(said.lines().next().unwrap_or_default().into()),
        }
    })
}

/// The stages of the start, each overwritten by what comes next.
fn stages() -> Expect {
    Expect::that("all stages of the start are shown", |seen| {
        let log = fs::read(&seen.log).map_err(|e| e.to_string())?;
        let has =
            |start: &[u8]| log.split(|byte| *byte == b'\n').any(|line| line.starts_with(start));
        match has(b"1\r2\r") && has(b"3\rAnchorite ") {
            true => Ok(()),
            false => Err(format!("{:?}", String::from_utf8_lossy(&log[..log.len().min(80)]))),
        }
    })
}

/// A chat, with a serial port that no interrupt announces: what is typed gets the plain machine's answers.
fn chat(lab: &Lab) -> Result<Passed> {
    let questions = format!("{PROMPT}\nThe capital of France is\n/quit\n");
    let plain = boot("m1n1-chat-plain")
        .disk(tiny())
        .set("max_tokens", TOKENS)
        .typed(questions.clone())
        .expect(Expect::Events(2, event!(Result {})))
        .exits(0)
        .run(lab)?
        .answers();
    let mac = Mac { typed: Some(questions), ..Mac::new("m1n1-chat").words("mode=chat") };
    mac.run(lab, |boot| {
        boot.expect(Expect::Answers(plain.clone())).expect(Expect::Exit(0, vec![LAST_LINE.into()]))
    })?;
    Ok(Passed::tries(2))
}
