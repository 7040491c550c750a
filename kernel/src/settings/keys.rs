//! The table of settings.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::chat::{TEMPLATES, put, put_some, texts, tool_texts};
use super::key::{Group, Initial, Key, MANY, Takes, Variable, chat_text, docs, sampler, tool_text};
use super::mode::{ALL, CHATS, GENERATE, NETWORK, READ_PROMPT, SAMPLE};
use super::network;
use super::{AtExit, ChatTemplate, Cors, Grammar, Mode, Prompt};
use crate::llm::chat::by_name;
use crate::llm::chat::tools::{ToolForm, ToolPlace};
use crate::llm::kernels::BATCH;
use crate::llm::sampling::{LogitBias, MAX_BREAKER_BYTES, MAX_LAST_N, Mirostat};

use Initial::{Value, Words};
use Takes::{Boolean, Choice, Form, Number, OneOf, Text, Texts, Whole};
use Variable::{Disk, Guest};

/// The largest count of last tokens.
const LAST_N: u64 = MAX_LAST_N as u64;

/// Every setting.
pub const KEYS: &[Key] = &[
    Key {
        name: "mode",
        group: Group::Task,
        modes: ALL,
        variable: Guest("MODE"),
        takes: Choice(Mode::NAMES, |config, name| {
            Mode::by_name(name).map(|mode| config.mode = mode)
        }),
        default: Value("generate"),
        help: docs("What to do with the model. `make chat` sets the mode `chat`."),
    },
    Key {
        name: "model",
        group: Group::Task,
        modes: ALL,
        variable: Disk("MODEL"),
        takes: Form("the name of a file in models/", |config, name| {
            let is_name = !name.is_empty() && !name.contains(['/', '\\', '\0']);
            is_name.then(|| config.model = Some(name.to_owned()))
        }),
        default: Words("the only model on the disk"),
        help: docs(
            "The model to load. Hidden files do not count as models; files that are not GGUF do \
             not count beside a model. Without this setting, a server of several models loads each \
             when it is asked for.",
        ),
    },
    Key {
        name: "prompt",
        group: Group::Task,
        modes: READ_PROMPT,
        variable: Guest("PROMPT"),
        takes: Text(|config, text| config.prompt = Prompt::Text(text.to_owned())),
        default: Words("Once upon a time; in a chat none"),
        help: docs("Text to continue; in a chat, the first message. The text may be empty."),
    },
    Key {
        name: "prompt_file",
        group: Group::Task,
        modes: READ_PROMPT,
        variable: Disk("PROMPT_FILE"),
        takes: Form("the path of a file on the model disk", |config, path| {
            let is_path = !path.is_empty() && !path.contains('\0');
            is_path.then(|| config.prompt = Prompt::File(path.to_owned()))
        }),
        default: Words("none"),
        help: docs(
            "A file that holds the prompt. A newline at the end of the file is not part of the \
             prompt, as with llama.cpp's `-f`.",
        ),
    },
    Key {
        name: "max_tokens",
        group: Group::Context,
        modes: GENERATE,
        variable: Guest("TOKENS"),
        takes: Whole(1, MANY, |config, n| config.max_tokens = n as usize),
        default: Value("128"),
        help: docs("Number of tokens to generate at most."),
    },
    Key {
        name: "context",
        group: Group::Context,
        modes: ALL,
        variable: Guest("CTX"),
        takes: Whole(1, MANY, |config, n| config.context = Some(n as usize)),
        default: Words("256, or the model's own if less"),
        help: docs("Positions of the KV cache. The model's own context is the most."),
    },
    Key {
        name: "kv_cache",
        group: Group::Context,
        modes: ALL,
        variable: Guest("KV_CACHE"),
        takes: Choice(&["f16", "f32", "q8_0"], |config, name| {
            name.parse().ok().map(|format| config.kv_cache = format)
        }),
        default: Value("f16"),
        help: docs(
            "Format of the KV cache. `q8_0` takes about half the memory of `f16`, and needs a head \
             size that 32 divides.",
        ),
    },
    Key {
        name: "cut_prompt",
        group: Group::Context,
        modes: &[Mode::Generate],
        variable: Variable::None,
        takes: Boolean(|config, on| config.cut_prompt = on),
        default: Value("false"),
        help: docs(
            "Cut a prompt that does not fit into the context, instead of refusing the prompt. The \
             last tokens of the prompt stay, with room for an answer. Chats do not cut.",
        ),
    },
    Key {
        name: "parse_special",
        group: Group::Context,
        modes: &[Mode::Generate, Mode::Perplexity, Mode::Bench],
        variable: Variable::None,
        takes: Boolean(|config, on| config.parse_special = Some(on)),
        default: Words("true; in mode perplexity false"),
        help: docs(
            "Names of control tokens in a prompt (`</s>`, `<|im_end|>`) are those tokens, as in \
             llama.cpp. In chats such names are text.",
        ),
    },
    Key {
        name: "context_shift",
        group: Group::Context,
        modes: SAMPLE,
        variable: Guest("CONTEXT_SHIFT"),
        takes: Boolean(|config, on| config.context_shift = on),
        default: Value("false"),
        help: docs(
            "Drop half of the text and go on when the context is full, instead of stopping.",
        ),
    },
    Key {
        name: "keep",
        group: Group::Context,
        modes: SAMPLE,
        variable: Guest("KEEP"),
        takes: Whole(-1, i64::MAX as u64, |config, n| {
            config.keep = usize::try_from(n).unwrap_or(usize::MAX);
        }),
        default: Value("0"),
        help: docs(
            "Tokens at the start of the first prompt that are never cut or dropped; -1: all.",
        ),
    },
    Key {
        default: Words("another one at each start"),
        ..sampler(
            "seed",
            "",
            Whole(0, u64::MAX, |config, n| config.seed = Some(n as u64)),
            "Seed of the sampler.",
        )
        .make("SEED")
    },
    Key {
        name: "grammar",
        group: Group::Sampler,
        modes: GENERATE,
        variable: Guest("GRAMMAR"),
        takes: Text(|config, text| config.grammar = Grammar::Gbnf(text.to_owned())),
        default: Words("none"),
        help: docs(
            "A grammar in llama.cpp's GBNF, such as `root ::= \"yes\" | \"no\"`. Each answer is a \
             text of the grammar. The server ignores it: each request has its own.",
        ),
    },
    Key {
        name: "json_schema",
        group: Group::Sampler,
        modes: GENERATE,
        variable: Guest("JSON_SCHEMA"),
        takes: Text(|config, text| config.grammar = Grammar::JsonSchema(text.to_owned())),
        default: Words("none"),
        help: docs("A JSON schema. Each answer is JSON of that schema; `{}` is any object."),
    },
    sampler(
        "temperature",
        "0",
        Number(0.0, 100.0, |config, x| config.sampling.temperature = x),
        "Temperature of the sampler; 0 always takes the most likely token.",
    )
    .make("TEMPERATURE"),
    sampler(
        "top_k",
        "40",
        Whole(0, MANY, |config, n| config.sampling.top_k = n as usize),
        "Sample from this many of the most likely tokens; 0: from all.",
    )
    .make("TOP_K"),
    sampler(
        "top_p",
        "0.95",
        Number(0.0, 1.0, |config, x| config.sampling.top_p = x),
        "Sample from the most likely tokens that reach this probability together.",
    )
    .make("TOP_P"),
    sampler(
        "min_p",
        "0.05",
        Number(0.0, 1.0, |config, x| config.sampling.min_p = x),
        "Sample from tokens with at least this share of the largest probability.",
    )
    .make("MIN_P"),
    sampler(
        "typical_p",
        "1",
        Number(0.0, 1.0, |config, x| config.sampling.typical_p = x),
        "Locally typical sampling: sample from the tokens whose surprise is nearest to the expected \
         one, up to this probability; 1: off.",
    ),
    sampler(
        "repeat_penalty",
        "1",
        Number(0.01, 100.0, |config, x| config.sampling.repeat_penalty = x),
        "Above 1, the last tokens become less likely; 1: off.",
    )
    .make("REPEAT_PENALTY"),
    sampler(
        "frequency_penalty",
        "0",
        Number(-100.0, 100.0, |config, x| config.sampling.frequency_penalty = x),
        "Subtracted from a token's logit for each time that the token is among the last ones.",
    ),
    sampler(
        "presence_penalty",
        "0",
        Number(-100.0, 100.0, |config, x| config.sampling.presence_penalty = x),
        "Subtracted from a token's logit if the token is among the last ones.",
    ),
    sampler(
        "penalty_last_n",
        "64",
        Whole(0, LAST_N, |config, n| config.sampling.penalty_last_n = n as usize),
        "Number of last tokens that the penalties count.",
    ),
    sampler(
        "dry_multiplier",
        "0",
        Number(0.0, 1000.0, |config, x| config.sampling.dry_multiplier = x),
        "DRY: strength of the penalty on tokens that continue a repetition; 0: off.",
    ),
    sampler(
        "dry_base",
        "1.75",
        Number(1.0, 1000.0, |config, x| config.sampling.dry_base = x),
        "DRY: base of the penalty, which grows with each repeated token.",
    ),
    sampler(
        "dry_allowed_length",
        "2",
        Whole(0, LAST_N, |config, n| config.sampling.dry_allowed_length = n as usize),
        "DRY: number of tokens that may be repeated.",
    ),
    sampler(
        "dry_penalty_last_n",
        "64",
        Whole(0, LAST_N, |config, n| config.sampling.dry_penalty_last_n = n as usize),
        "DRY: number of last tokens that are searched for repetitions.",
    ),
    sampler(
        "dry_sequence_breakers",
        "[\"\\n\", \":\", \"\\\"\", \"*\"]",
        Texts(1, MAX_BREAKER_BYTES, |config, texts| config.dry_breakers = texts),
        "DRY: texts that end a repetition.",
    ),
    sampler(
        "top_n_sigma",
        "0",
        Number(0.0, 100.0, |config, x| config.sampling.top_n_sigma = x),
        "Sample from tokens whose logit is at most this many standard deviations below the largest; \
         0: from all.",
    ),
    sampler(
        "xtc_probability",
        "0",
        Number(0.0, 1.0, |config, x| config.sampling.xtc_probability = x),
        "XTC: probability of removing all tokens above the threshold except the least likely one.",
    ),
    sampler(
        "xtc_threshold",
        "0.1",
        Number(0.0, 1.0, |config, x| config.sampling.xtc_threshold = x),
        "XTC: probability from which tokens are removed.",
    ),
    sampler(
        "mirostat",
        "0",
        OneOf(&[0, 2], |config, n| {
            config.sampling.mirostat = (n == 2).then_some(Mirostat::DEFAULT)
        }),
        "2: Mirostat 2, in place of all sampler settings but `temperature` and `logit_bias`; 0: off.",
    ),
    sampler(
        "mirostat_tau",
        "5",
        Number(0.0, 100.0, |config, x| config.mirostat.tau = x),
        "Mirostat: target surprise in bits.",
    ),
    sampler(
        "mirostat_eta",
        "0.1",
        Number(0.0, 1.0, |config, x| config.mirostat.eta = x),
        "Mirostat: learning rate.",
    ),
    Key {
        default: Words("none"),
        ..sampler(
            "logit_bias",
            "",
            Form(
                "up to 16 of TOKEN:BIAS with commas between, a bias from -1000 to 1000 or -inf",
                |config, text| logit_bias(text).map(|biases| config.sampling.logit_bias = biases),
            ),
            "Added to the logits of tokens, by token number; `-inf` bans a token.",
        )
    },
    Key {
        name: "system",
        group: Group::Chat,
        modes: &[Mode::Chat],
        variable: Guest("SYSTEM"),
        takes: Text(|config, text| config.system = text.to_owned()),
        default: Words("none"),
        help: docs("System message of a chat."),
    },
    Key {
        name: "chat_template",
        group: Group::Chat,
        modes: CHATS,
        variable: Variable::None,
        takes: Choice(TEMPLATES, |config, name| {
            config.chat_template = match name {
                "auto" => ChatTemplate::Auto,
                "plain" => ChatTemplate::Plain,
                name => ChatTemplate::Known(by_name(name)?),
            };
            Some(())
        }),
        default: Value("auto"),
        help: docs(
            "Text around the messages of a chat. `auto` recognises the model's own template, \
             `plain` is no text, and the other names are templates in common use.",
        ),
    },
    chat_text(
        "chat_system_prefix",
        |config, text| texts(config).system.prefix = text.to_owned(),
        "none",
        "Text before the system message of a chat.",
    ),
    chat_text(
        "chat_system_suffix",
        |config, text| texts(config).system.suffix = text.to_owned(),
        "none",
        "Text after the system message of a chat.",
    ),
    chat_text(
        "chat_user_prefix",
        |config, text| texts(config).user.prefix = text.to_owned(),
        "none",
        "Text before each message of a chat.",
    ),
    chat_text(
        "chat_user_suffix",
        |config, text| texts(config).user.suffix = text.to_owned(),
        "none",
        "Text after each message of a chat.",
    ),
    chat_text(
        "chat_assistant_prefix",
        |config, text| texts(config).assistant.prefix = text.to_owned(),
        "none",
        "Text before each answer of a chat.",
    ),
    chat_text(
        "chat_assistant_suffix",
        |config, text| texts(config).assistant.suffix = text.to_owned(),
        "none",
        "Text after each answer of a chat.",
    ),
    chat_text(
        "chat_first_user_prefix",
        |config, text| texts(config).first_user_prefix = Some(text.to_owned()),
        "chat_user_prefix",
        "Text before the first message of a chat without a system message.",
    ),
    chat_text(
        "chat_after_system_prefix",
        |config, text| texts(config).after_system_prefix = Some(text.to_owned()),
        "chat_user_prefix",
        "Text before the first message of a chat with a system message.",
    ),
    Key {
        name: "chat_tools_place",
        group: Group::Chat,
        modes: NETWORK,
        variable: Variable::None,
        takes: Choice(&ToolPlace::NAMES, |config, name| {
            ToolPlace::by_name(name).map(|place| tool_texts(config).place = place)
        }),
        default: Words("after-system"),
        help: docs("Where the tools of a request stand: beside the system message, or later."),
    },
    Key {
        name: "chat_tools_form",
        group: Group::Chat,
        modes: NETWORK,
        variable: Variable::None,
        takes: Choice(&ToolForm::NAMES, |config, name| {
            ToolForm::by_name(name).map(|form| tool_texts(config).form = form)
        }),
        default: Words("tool"),
        help: docs("How the JSON of a tool is written."),
    },
    tool_text(
        "chat_tools_prefix",
        |config, text| put(&mut tool_texts(config).tools.prefix, text),
        "none",
        "Text before the tools of a request.",
    ),
    tool_text(
        "chat_tools_suffix",
        |config, text| put(&mut tool_texts(config).tools.suffix, text),
        "none",
        "Text after the tools of a request.",
    ),
    tool_text(
        "chat_tools_separator",
        |config, text| put(&mut tool_texts(config).separator, text),
        "none",
        "Text between two tools.",
    ),
    tool_text(
        "chat_tools_system_prefix",
        |config, text| put(&mut tool_texts(config).system.prefix, text),
        "none",
        "Text before a system message that stands beside tools.",
    ),
    tool_text(
        "chat_tools_system_suffix",
        |config, text| put(&mut tool_texts(config).system.suffix, text),
        "none",
        "Text after a system message that stands beside tools.",
    ),
    tool_text(
        "chat_tools_user_prefix",
        |config, text| put_some(&mut tool_texts(config).user_prefix, text),
        "chat_user_prefix",
        "Text before the first message of the user that stands behind tools.",
    ),
    tool_text(
        "chat_calls_prefix",
        |config, text| put(&mut tool_texts(config).call.prefix, text),
        "none",
        "Text before the name in the first call of an answer.",
    ),
    tool_text(
        "chat_calls_arguments_prefix",
        |config, text| put(&mut tool_texts(config).arguments_prefix, text),
        "none",
        "Text between the name and the arguments of a call.",
    ),
    tool_text(
        "chat_calls_id_prefix",
        |config, text| put_some(&mut tool_texts(config).id_prefix, text),
        "no ID",
        "Text between the arguments and the ID of a call.",
    ),
    tool_text(
        "chat_calls_separator",
        |config, text| put_some(&mut tool_texts(config).call_separator, text),
        "one call an answer",
        "Text from the end of a call to the name of the next one.",
    ),
    tool_text(
        "chat_calls_suffix",
        |config, text| put(&mut tool_texts(config).call.suffix, text),
        "none",
        "Text after the last call of an answer.",
    ),
    tool_text(
        "chat_calls_text_suffix",
        |config, text| put_some(&mut tool_texts(config).text_suffix, text),
        "the text is left out",
        "Text between the text and the calls of an answer.",
    ),
    tool_text(
        "chat_results_prefix",
        |config, text| put(&mut tool_texts(config).results.prefix, text),
        "none",
        "Text before the results of calls.",
    ),
    tool_text(
        "chat_results_id_prefix",
        |config, text| put_some(&mut tool_texts(config).result_id_prefix, text),
        "no ID",
        "Text between a result and the ID of its call.",
    ),
    tool_text(
        "chat_results_separator",
        |config, text| put(&mut tool_texts(config).result_separator, text),
        "none",
        "Text between two results.",
    ),
    tool_text(
        "chat_results_suffix",
        |config, text| put(&mut tool_texts(config).results.suffix, text),
        "none",
        "Text after the results of calls.",
    ),
    tool_text(
        "chat_results_last_suffix",
        |config, text| put_some(&mut tool_texts(config).last_result_suffix, text),
        "chat_results_suffix",
        "Text after the results of calls that an answer follows.",
    ),
    Key {
        name: "chat_results_form",
        group: Group::Chat,
        modes: NETWORK,
        variable: Variable::None,
        takes: Choice(&["plain", "quoted"], |config, form| {
            tool_texts(config).quotes_results = form == "quoted";
            Some(())
        }),
        default: Words("plain"),
        help: docs("Whether the result of a call is written as it is, or as a JSON string."),
    },
    Key {
        name: "port",
        group: Group::Network,
        modes: NETWORK,
        variable: Variable::None,
        takes: Whole(1, 65535, |config, n| config.port = n as u16),
        default: Value("8080"),
        help: docs("TCP port of the server."),
    },
    Key {
        name: "parallel",
        group: Group::Network,
        modes: NETWORK,
        variable: Guest("PARALLEL"),
        takes: Whole(1, BATCH as u64, |config, n| config.parallel = n as usize),
        default: Value("4"),
        help: docs(
            "Requests that run at once, each with a context of its own. Further requests wait.",
        ),
    },
    Key {
        name: "api_key",
        group: Group::Network,
        modes: NETWORK,
        variable: Guest("API_KEY"),
        takes: Form("keys with commas between", |config, text| {
            let keys: Vec<String> = text.split(',').map(|key| key.trim().to_owned()).collect();
            let are_keys = keys.iter().all(|key| !key.is_empty());
            are_keys.then(|| config.api_keys = keys)
        }),
        default: Words("none: everyone may ask"),
        help: docs(
            "Keys, one of which each request must have: `Authorization: Bearer KEY` or `X-Api-Key: \
             KEY`. `/health` and the page need none.",
        ),
    },
    Key {
        name: "cors",
        group: Group::Network,
        modes: NETWORK,
        variable: Variable::None,
        takes: Form("off, localhost, *, or origins with commas between", |config, text| {
            Cors::read(text).map(|cors| config.cors = cors)
        }),
        default: Value("localhost"),
        help: docs(
            "Pages of other sites that may use the server from a browser. `localhost` are pages of \
             the browser's own machine, `*` all.",
        ),
    },
    Key {
        name: "shutdown_timeout",
        group: Group::Network,
        modes: NETWORK,
        variable: Variable::None,
        takes: Whole(0, 86400, |config, n| config.shutdown_timeout = n as u64),
        default: Value("10"),
        help: docs("Seconds that running requests have after Ctrl-C on the console."),
    },
    Key {
        name: "ip",
        group: Group::Network,
        modes: NETWORK,
        variable: Variable::None,
        takes: Form(
            "dhcp, or up to 7 of ADDRESS/PREFIX with commas between: 10.0.2.15/24,fd00::15/64",
            |config, text| network::addresses(text).map(|addresses| config.ip = addresses),
        ),
        default: Value("dhcp"),
        help: docs(
            "Addresses of the machine. `dhcp` asks a DHCP server for an IPv4 address and takes \
             IPv6 addresses from router advertisements. An IPv4 prefix may be a netmask.",
        ),
    },
    Key {
        name: "gateway",
        group: Group::Network,
        modes: NETWORK,
        variable: Variable::None,
        takes: Form(
            "an address of IPv4 or IPv6, or one of each with a comma between",
            |config, text| network::gateways(text).map(|gateways| config.gateway = gateways),
        ),
        default: Words("none; with ip=dhcp what the network says"),
        help: docs("Routers that packets to other networks go to, where `ip` gives addresses."),
    },
    Key {
        name: "threads",
        group: Group::Machine,
        modes: ALL,
        variable: Variable::None,
        takes: Whole(1, MANY, |config, n| config.threads = Some(n as usize)),
        default: Words("all"),
        help: docs("Number of cores to use."),
    },
    Key {
        name: "log",
        group: Group::Machine,
        modes: ALL,
        variable: Variable::None,
        takes: Choice(&["off", "error", "warn", "info", "debug", "trace"], |config, name| {
            name.parse().ok().map(|level| config.log = level)
        }),
        default: Value("warn"),
        help: docs("Least level of the log messages that are shown."),
    },
    Key {
        name: "verify",
        group: Group::Machine,
        modes: ALL,
        variable: Guest("VERIFY"),
        takes: Boolean(|config, on| config.verify = on),
        default: Value("true"),
        help: docs("Compare the model's SHA-256 with the `.sha256` file beside the model."),
    },
    Key {
        name: "at_exit",
        group: Group::Machine,
        modes: ALL,
        variable: Variable::None,
        takes: Choice(&["power-off", "reboot"], |config, name| {
            config.at_exit = match name {
                "power-off" => AtExit::PowerOff,
                "reboot" => AtExit::Reboot,
                _ => return None,
            };
            Some(())
        }),
        default: Value("power-off"),
        help: docs(
            "What the machine does after the `exit` event of a run that ends by itself. A fault \
             turns the machine off in any case. A machine that no one can turn off stays on.",
        ),
    },
    Key {
        name: "tests",
        group: Group::Machine,
        modes: &[Mode::Test],
        variable: Variable::None,
        takes: Form("a part of a test's name", |config, text| {
            config.tests = text.to_owned();
            Some(())
        }),
        default: Words("all"),
        help: docs("Self-tests that mode `test` runs."),
    },
];

/// Reads biases of tokens, as in "13:-inf,29871:2.5".
fn logit_bias(text: &str) -> Option<LogitBias> {
    let mut biases = LogitBias::NONE;
    for entry in text.split(',').filter(|_| !text.is_empty()) {
        let (token, bias) = entry.split_once(':')?;
        let bias: f32 = bias.parse().ok()?;
        let is_bias = bias == f32::NEG_INFINITY || (-1000.0..=1000.0).contains(&bias);
        biases.push(token.parse().ok().filter(|_| is_bias)?, bias).ok()?;
    }
    Some(biases)
}
