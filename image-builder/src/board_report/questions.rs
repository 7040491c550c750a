//! Questions that only a real board answers, and the place of each answer.
//!
//! docs/boards.md has the same points, with the state of each.

use kernel::report::Event;

use super::log::Log;

/// The kinds of boards with questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// A Raspberry Pi 4, 400 or Compute Module 4.
    Pi4,
    /// A Mac with an M1.
    M1,
}

/// A question about a board.
pub struct Question {
    /// The board that can answer.
    pub board: Board,
    /// The point in docs/boards.md.
    pub point: &'static str,
    /// The question itself.
    pub asks: &'static str,
    /// The place of the answer in a log.
    answer: Answer,
}

/// The place of an answer in a log.
enum Answer {
    /// The fact of this name.
    Fact(&'static str),
    /// Something else in the log.
    Log(fn(&Log) -> Option<String>),
}

use Answer::{Fact, Log as InLog};
use Board::{M1, Pi4};

/// All questions.
pub const QUESTIONS: &[Question] = &[
    ask(Pi4, "Pi 1", "which serial port do the pins carry?", Fact("gpio14")),
    ask(Pi4, "Pi 1", "which consoles were taken?", InLog(consoles)),
    ask(Pi4, "Pi 2", "does the card answer at 400 kHz, and how does it run?", Fact("sd")),
    ask(Pi4, "Pi 3", "which firmware started it?", Fact("firmware")),
    ask(Pi4, "Pi 3", "which revision is the board?", Fact("revision")),
    ask(Pi4, "Pi 5", "is the card controller's base clock 100 MHz?", Fact("emmc2div")),
    ask(Pi4, "Pi 6", "how fast is the card read?", InLog(load_rate)),
    ask(Pi4, "Pi 8", "which memory does the device tree give DMA?", Fact("dma-ranges")),
    ask(Pi4, "Pi 8", "does DMA reach memory, as `dma-ranges` has it?", Fact("sd")),
    ask(Pi4, "Pi 10", "what does the stub leave of the prefetchers?", Fact("cpuectlr")),
    ask(Pi4, "Pi 11", "does the processor have its full clock?", Fact("arm-clock")),
    ask(Pi4, "Pi 13", "how warm is it at the start?", Fact("temperature")),
    ask(Pi4, "Pi 13", "was it throttled, is the supply too weak?", Fact("throttled")),
    ask(Pi4, "Pi point 3", "do all four cores come from the spin table?", InLog(cores)),
    ask(M1, "M1 2", "what is in `HCR_EL2`, after m1n1 and `boot.s`?", Fact("hcr")),
    ask(M1, "M1 3", "which memory was left out, below m1n1?", Fact("left-out")),
    ask(M1, "M1 5", "do all cores come from m1n1's spin table?", InLog(cores)),
    ask(M1, "M1 13", "do the fast cores take the higher clock?", Fact("pcpu")),
    ask(M1, "M1 13", "which kinds of cores are there?", Fact("midr")),
];

const fn ask(board: Board, point: &'static str, asks: &'static str, answer: Answer) -> Question {
    Question { board, point, asks, answer }
}

/// The questions for the log's board: those with an answer, and the open ones.
pub fn answers(log: &Log) -> (Vec<(&'static Question, String)>, Vec<&'static Question>) {
    let (mut settled, mut open) = (Vec::new(), Vec::new());
    for question in QUESTIONS.iter().filter(|question| Some(question.board) == board(log)) {
        let answer = match question.answer {
            Fact(name) => log.fact(name).map(|value| format!("`{name}={value}`")),
            InLog(of) => of(log),
        };
        match answer {
            Some(answer) => settled.push((question, answer)),
            None => open.push(question),
        }
    }
    (settled, open)
}

/// The board of the log, by its name in the device tree.
///
/// Names are "Raspberry Pi 4 Model B Rev 1.4" or "Apple Mac mini (M1, 2020)", for example.
fn board(log: &Log) -> Option<Board> {
    let name = log.hello().map(|hello| hello.machine.as_str()).or(log.banner)?;
    if name.contains("Raspberry Pi") {
        Some(Pi4)
    } else if name.contains("M1") && name.contains("Apple") {
        Some(M1)
    } else {
        None
    }
}

/// The rate of the model's load. DMA gives some 22 MB/s at 50 MHz, PIO 5 to 12.
fn load_rate(log: &Log) -> Option<String> {
    log.events.iter().find_map(|event| match event {
        Event::Model(model) => Some(format!("{:.1} MB/s", model.load_mb_per_s)),
        _ => None,
    })
}

fn consoles(log: &Log) -> Option<String> {
    log.hello().map(|hello| hello.consoles.join("; "))
}

fn cores(log: &Log) -> Option<String> {
    log.hello().map(|hello| format!("{} cores", hello.cores))
}

/// The names of all facts that answer a question.
#[cfg(test)]
pub fn facts() -> impl Iterator<Item = &'static str> {
    QUESTIONS.iter().filter_map(|question| match question.answer {
        Fact(name) => Some(name),
        InLog(_) => None,
    })
}
