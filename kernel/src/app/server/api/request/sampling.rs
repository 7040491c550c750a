//! Settings of sampling, under the names of llama-server and OpenAI.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::object::{Object, Texts, parse};
use crate::llm::sampling::{MAX_BREAKER_BYTES, MAX_LAST_N, Mirostat, SamplingConfig};
use crate::settings::Config;

/// The most sequence breakers of a request: each costs a search of the whole vocabulary.
const MAX_BREAKERS: usize = 8;

/// The order of the samplers by name, which is llama-server's default.
pub const SAMPLERS: [&str; 9] =
    ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"];

/// The same order in llama-server's letters.
const LETTERS: &str = "edskypmxt";

/// llama-server's seed for a random one, as -1 is.
const RANDOM: i128 = u32::MAX as i128;

type SetNumber = fn(&mut SamplingConfig, f32);
type SetWhole = fn(&mut SamplingConfig, usize);

/// The settings that are numbers. The engine checks their ranges.
const NUMBERS: [(&str, SetNumber); 12] = [
    ("temperature", |config, x| config.temperature = x),
    ("top_p", |config, x| config.top_p = x),
    ("min_p", |config, x| config.min_p = x),
    ("typical_p", |config, x| config.typical_p = x),
    // Below 0 is off, as in llama-server.
    ("top_n_sigma", |config, x| config.top_n_sigma = x.max(0.0)),
    ("xtc_probability", |config, x| config.xtc_probability = x),
    ("xtc_threshold", |config, x| config.xtc_threshold = x),
    ("repeat_penalty", |config, x| config.repeat_penalty = x),
    ("presence_penalty", |config, x| config.presence_penalty = x),
    ("frequency_penalty", |config, x| config.frequency_penalty = x),
    ("dry_multiplier", |config, x| config.dry_multiplier = x),
    ("dry_base", |config, x| config.dry_base = x),
];

/// The settings that are numbers of tokens, with the largest ones.
const WHOLES: [(&str, usize, SetWhole); 3] = [
    ("repeat_last_n", MAX_LAST_N, |config, n| config.penalty_last_n = n),
    ("dry_allowed_length", MAX_LAST_N, |config, n| config.dry_allowed_length = n),
    ("dry_penalty_last_n", MAX_LAST_N, |config, n| config.dry_penalty_last_n = n),
];

/// Settings of sampling of a request without a field for them: those of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// The settings. Their seed does not count.
    pub config: SamplingConfig,
    /// Mirostat's numbers, also where `config` does not choose Mirostat.
    pub mirostat: Mirostat,
    /// DRY's sequence breakers.
    pub breakers: Vec<String>,
    /// The seed; `None`: a random one for each request.
    pub seed: Option<u64>,
}

impl From<&Config> for SamplingDefaults {
    fn from(config: &Config) -> Self {
        let &Config { sampling, mirostat, seed, .. } = config;
        SamplingDefaults { config: sampling, mirostat, breakers: config.dry_breakers.clone(), seed }
    }
}

/// Reads the settings of sampling, without `logit_bias`. `random_seed` counts if no seed is given.
///
/// # Errors
/// A setting has a wrong type, or is out of range.
pub fn read(
    object: &Object<'_>,
    defaults: &SamplingDefaults,
    random_seed: u64,
) -> Result<SamplingConfig, ApiError> {
    let mut config = defaults.config;
    for (name, set) in NUMBERS {
        if let Some(x) = object.number(name)? {
            set(&mut config, x);
        }
    }
    for (name, most, set) in WHOLES {
        if let Some(n) = object.whole(name, 0..=most as i128)? {
            set(&mut config, n as usize);
        }
    }
    // Below 0 is off, as in llama-server.
    if let Some(k) = object.whole("top_k", i32::MIN.into()..=i32::MAX.into())? {
        config.top_k = usize::try_from(k).unwrap_or(0);
    }
    let is_mirostat = match object.whole("mirostat", 0..=2)? {
        None => config.mirostat.is_some(),
        Some(1) => return Err(object.error("mirostat", "1 is not supported, 0 and 2 are")),
        Some(version) => version == 2,
    };
    let mirostat = Mirostat {
        tau: object.number("mirostat_tau")?.unwrap_or(defaults.mirostat.tau),
        eta: object.number("mirostat_eta")?.unwrap_or(defaults.mirostat.eta),
    };
    // Mirostat's numbers are checked even if Mirostat is off.
    SamplingConfig { mirostat: Some(mirostat), ..config }.check()?;
    config.mirostat = is_mirostat.then_some(mirostat);
    config.seed = match object.whole("seed", i64::MIN.into()..=u64::MAX.into())? {
        None => defaults.seed.unwrap_or(random_seed),
        Some(-1 | RANDOM) => random_seed,
        // Other negative ones count as the same bits.
        Some(seed) => seed as u64,
    };
    if let Some(samplers) = object.get("samplers") {
        check_samplers(&object.name("samplers"), samplers)?;
    }
    Ok(config)
}

/// Accepts the engine's order of the samplers alone, by names or by letters.
fn check_samplers(name: &str, value: &RawValue) -> Result<(), ApiError> {
    let is_accepted = match value.get().starts_with('[') {
        true => parse::<Texts<16>>(name, value)?.0 == SAMPLERS,
        false => parse::<String>(name, value)? == LETTERS,
    };
    match is_accepted {
        true => Ok(()),
        false => Err(ApiError::field(name, format!("the order is always {SAMPLERS:?}"))),
    }
}

/// Reads DRY's sequence breakers.
///
/// # Errors
/// They are not one to [`MAX_BREAKERS`] texts, or one is too long.
pub fn breakers(object: &Object<'_>, defaults: &[String]) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "dry_sequence_breakers";
    let Some(Texts(texts)) = object.read::<Texts<MAX_BREAKERS>>(NAME)? else {
        return Ok(defaults.to_vec());
    };
    if texts.is_empty() {
        return Err(object.error(NAME, "at least one text is needed"));
    }
    if texts.iter().any(|text| text.len() > MAX_BREAKER_BYTES) {
        let problem = format!("a text has more than {MAX_BREAKER_BYTES} bytes");
        return Err(object.error(NAME, problem));
    }
    Ok(texts)
}
