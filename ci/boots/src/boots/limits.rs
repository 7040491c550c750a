//! Limits of contexts, prompts and lines; texts that imitate events or drive the terminal.

use anyhow::Result;
use image_builder::contents::ContentOptions;
use kernel::report::{Code, Event, StopReason};

use crate::boot::{Boot, Verdict, boot};
use crate::check::{Check, Group};
use crate::disk::{Disk, tiny};
use crate::event;
use crate::expect::{Expect, literal, pattern};
use crate::goldens::PROMPT;
use crate::model;

/// Text that imitates an event and drives the terminal.
const HOSTILE: &[u8] =
    b"\x1e{\"event\":\"exit\",\"status\":1}\n\x1b[2J\x01\x07\x7f\x00\xc2\x9b <s></s>";

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let on_tiny = |name| boot(name).disk(tiny());
    let mut boots: Vec<Boot> = vec![
        // The least and the most positions, and one more. A prompt of one token takes two
        // positions, as a BOS token precedes it.
        on_tiny("context-1")
            .set("context", 1)
            .set("prompt", "a")
            .fails(Code::ContextFull, "needs at least 2 positions, the context has 1$"),
        on_tiny("context-2")
            .set("context", 2)
            .set("prompt", "a")
            .set("max_tokens", 9)
            .verdict(Verdict::Tokens(1))
            .event(event!(Result { prompt_tokens == 2usize, stop == StopReason::ContextFull }))
            .exits(0),
        on_tiny("context-256")
            .set("context", 256)
            .set("prompt", format!("{PROMPT} ").repeat(62))
            .set("max_tokens", 99)
            .event(event!(Result { stop == StopReason::ContextFull }))
            .exits(0)
            // The last token takes no position.
            .expect(Expect::that("257 tokens fit in 256 positions", |seen| {
                let tokens = seen.events().find_map(|event| match event {
                    Event::Result(it) => Some(it.prompt_tokens + it.tokens_emitted),
                    _ => None,
                });
                if tokens == Some(257) { Ok(()) } else { Err(format!("{tokens:?} tokens")) }
            })),
        on_tiny("context-257")
            .set("context", 257)
            .fails(Code::InvalidConfig, "context` is 257, not between 1 and the model"),
        // A chat refuses a line that is too long as a whole.
        on_tiny("line-too-long")
            .typed(megabyte(200_000) + "\n/quit\n")
            .event(event!(Error {
                code == Code::ContextFull,
                message ~ "the line is longer than the 65536 bytes that a chat takes$",
            }))
            .exits(0),
        on_tiny("typed-hostile")
            .set("max_tokens", 3)
            .typed(
                [HOSTILE, b"\xff\xfe\xc2 \x1e{\"event\":\"exit\",\"status\":1}\n/quit\n"].concat(),
            )
            .event(event!(Result { prompt_tokens >= 0usize }))
            .exits(0)
            // The line editor erases with ESC [ K; no other escape sequence may come.
            .expect(Expect::NoLine(pattern("\x1b(?:[^\\[]|\\[[^K]|\\[?$)"))),
        boot("prompt-hostile")
            .disk(Disk::of_prompt("hostile", HOSTILE))
            .set("max_tokens", 3)
            .line(&format!("^{}$", literal(r#"\u{1e}{"event":"exit","status":1}"#)))
            .line(&format!("^{}", literal(r"\u{1b}[2J\u{1}\u{7}\u{7f}\u{0}\u{9b} <s></s>")))
            .exits(0),
        boot("prompt-no-text")
            .disk(tiny().with_files("no-text", |files| {
                files.push(("prompt.txt".into(), b"caf\xe9".to_vec()));
            }))
            .set("prompt_file", "prompt.txt")
            .fails(
                Code::InvalidConfig,
                "prompt.txt is not UTF-8: line 1 has the byte 0xE9 in column 4",
            ),
    ];
    boots.extend(long_prompts());
    let mut checks: Vec<Check> = boots.into_iter().map(Check::from).collect();
    // This boot takes minutes, 6 GiB in the guest and 4 GiB of the host's memory.
    let largest =
        boot("largest-file").disk(model::largest()).memory_mib(6 << 10).limit_s(600).answers();
    checks.push(Check::from(largest).only_in(&[Group::Long, Group::Torture]).alone());
    checks
}

/// Prompts of a megabyte.
///
/// The length alone refuses the first one. The tokenizer refuses the second one, in time that does
/// not grow with the square of its length. The third boot cuts the first prompt.
fn long_prompts() -> [Boot; 3] {
    let long = || Disk::of_prompt("megabyte", megabyte(1_000_000));
    let encoded = Disk::of("encoded", |lab| -> Result<ContentOptions> {
        let text = lab.file("encoded.txt");
        std::fs::write(&text, megabyte(900_000))?;
        let model = model::long_file(lab)?;
        Ok(ContentOptions { prompt_file: Some(text), ..ContentOptions::new(vec![model]) })
    });
    [
        boot("prompt-of-a-megabyte")
            .disk(long())
            .fails(Code::ContextFull, "needs at least [0-9]{5} positions, the context has 256$"),
        boot("prompt-encoded")
            .disk(encoded)
            .set("context", model::LONG)
            .fails(Code::ContextFull, "needs at least [0-9]{6} positions, the context has 65536$"),
        // 192 tokens stay, and an answer follows.
        boot("prompt-cut")
            .disk(long())
            .set("max_tokens", 64)
            .set("cut_prompt", true)
            .line(r"^\[192 prompt tokens \([0-9]+ more are cut\) at ")
            .event(event!(Result { prompt_tokens == 192usize, tokens_emitted >= 1usize }))
            .exits(0),
    ]
}

/// The first `bytes` bytes of a long text on one line.
fn megabyte(bytes: usize) -> String {
    let sentence = format!("{PROMPT} there was a girl. ");
    sentence.chars().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_text_is_as_long_as_it_says() {
        assert_eq!(megabyte(1000).len(), 1000);
        assert!(megabyte(100).starts_with("Once upon a time there was a girl. Once"));
    }
}
