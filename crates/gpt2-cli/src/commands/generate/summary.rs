//! The closing line: how much was generated, how fast, with which settings, why it ended, and the seed.
//!
//! ```text
//! 56 tokens in 1.2 s · 47/s · temperature 0.7, top-k 50, top-p 0.95 · length reached · seed 7
//! ```

use std::time::Duration;

use gpt2::generate::{
    BatchStats, Completion, FinishReason, GenerationConfig, Rng, SpeculationReport, TextGeneration,
};
use serde_json::{Map, Value};

use super::structure;
use crate::interrupt::Interrupts;
use crate::terminal::{NO_BREAK, counted, thousands};

/// Settings that have a say in which tokens are chosen, in the order of the guide, and the values that change nothing.
const SETTINGS: [(&str, f64); 37] = [
    ("temperature", 1.0),
    ("dynatemp_range", 0.0),
    ("penalty_alpha", 0.0),
    ("top_k", 0.0),
    ("top_p", 1.0),
    ("min_p", 0.0),
    ("top_h", 1.0),
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("top_n_sigma", 0.0),
    ("xtc_probability", 0.0),
    ("mirostat", 0.0),
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("diversity_penalty", 0.0),
    ("length_penalty", 1.0),
    ("dola_layers", f64::NAN),
    ("guidance_scale", 1.0),
    ("repetition_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("frequency_penalty", 0.0),
    ("presence_penalty", 0.0),
    ("dry_multiplier", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("force_words_ids", f64::NAN),
    ("bad_words", f64::NAN),
    ("bad_words_ids", f64::NAN),
    ("sequence_bias", f64::NAN),
    ("suppress_tokens", f64::NAN),
    ("begin_suppress_tokens", f64::NAN),
    ("exponential_decay_length_penalty", f64::NAN),
    ("structured_outputs", f64::NAN),
    ("watermarking_config", f64::NAN),
];

/// The closing line of one prompt's texts.
pub(super) fn of_texts(texts: &TextGeneration<'_>, interrupted: bool) -> String {
    let generation = texts.generation();
    let (config, completions) = (generation.config(), texts.completions());
    let tokens = completions.iter().map(|completion| completion.tokens.len()).sum();
    let timing = generation.timing();
    let mut parts = speed(tokens, timing.prefill + timing.decode);
    parts.extend(generation.speculation().map(guesses));
    parts.push(settings(config));
    parts.push(reasons(completions, config.beams(), interrupted));
    parts.extend(seed(config, 1));
    joined(&parts)
}

/// What a run of many prompts came to.
pub(super) struct Run<'a> {
    /// The settings of all prompts.
    pub(super) config: &'a GenerationConfig,
    /// Prompts that were done before the run began.
    pub(super) before: usize,
    /// Prompts that the run has done.
    pub(super) done: usize,
    /// All prompts, if their number is known.
    pub(super) total: Option<usize>,
    pub(super) time: Duration,
    pub(super) stats: BatchStats,
    /// Tokens of prompts that did not have to be read again.
    pub(super) reused: usize,
    pub(super) interrupted: bool,
}

impl Run<'_> {
    /// The closing line.
    pub(super) fn line(&self) -> String {
        let Self { config, before, done, total, time, stats, reused, interrupted } = *self;
        let there = before + done;
        let prompts = match total {
            Some(total) if total > there => format!("{} of {}", thousands(there), counted(total, "prompt")),
            _ => counted(there, "prompt"),
        };
        let before =
            if before > 0 { format!(" ({} from earlier runs)", thousands(before)) } else { String::new() };
        let mut parts = vec![format!("{prompts}{before}")];
        parts.extend(speed(stats.tokens, time));
        if reused > 0 {
            parts.push(format!("{} reused", counted(reused, "prompt token")));
        }
        parts.push(settings(config));
        parts.extend(interrupted.then(|| "interrupted".to_owned()));
        parts.extend(seed(config, total.unwrap_or(there)));
        joined(&parts)
    }

    /// How fast prompts were read and tokens written.
    pub(super) fn speeds(&self) -> String {
        let BatchStats { prompt_tokens, tokens, timing, .. } = self.stats;
        let speed = |tokens: usize, time: Duration| {
            rate(tokens, time).map_or_else(String::new, |rate| format!(" at {rate}"))
        };
        format!(
            "{} read{}, {} written{}",
            counted(prompt_tokens, "prompt token"),
            speed(prompt_tokens, timing.prefill),
            counted(tokens, "token"),
            speed(tokens, timing.decode)
        )
    }
}

/// Joins the parts of a line, which a narrow terminal breaks between them, or else between settings.
fn joined(parts: &[String]) -> String {
    let parts = parts.iter().map(|part| {
        let settings: Vec<String> =
            part.split(", ").map(|part| part.replace(' ', NO_BREAK.encode_utf8(&mut [0; 4]))).collect();
        settings.join(", ")
    });
    parts.collect::<Vec<_>>().join(&format!("{NO_BREAK}· "))
}

/// The settings that acted, under the names of their flags.
fn settings(config: &GenerationConfig) -> String {
    let mode = match config {
        _ if config.samples() && config.beams() == 1 => None,
        _ if config.beams() > 1 && config.samples() => Some("beam sampling"),
        _ if config.beams() > 1 => Some("beam search"),
        _ if acting(config).any(|(name, _)| name == "penalty_alpha") => Some("contrastive search"),
        _ => Some("greedy"),
    };
    let settings = acting(config).map(|(name, value)| {
        let flag = name.replace('_', "-");
        match value {
            Value::Number(_) => format!("{flag} {value}"),
            _ => match &config.structured_outputs {
                Some(outputs) if name == "structured_outputs" => {
                    structure::flag(outputs.name())[2..].to_owned()
                }
                _ => flag,
            },
        }
    });
    let all: Vec<String> = mode.map(str::to_owned).into_iter().chain(settings).collect();
    if all.is_empty() { "plain sampling".to_owned() } else { all.join(", ") }
}

/// The settings as the notebook's function prints them: `max_length=60, temperature=0.7`.
pub(super) fn parameters(config: &GenerationConfig) -> String {
    let mut fields = fields(config);
    fields.entry("num_return_sequences").or_insert(config.sequences().into());
    let others = ["max_length", "max_new_tokens"].map(|name| (name, fields.get(name).cloned()));
    let last = ["num_return_sequences", "do_sample", "seed"].map(|name| (name, fields.get(name).cloned()));
    let all = others
        .into_iter()
        .chain(acting(config).map(|(name, value)| (name, Some(value))))
        .chain(last.into_iter().filter(|&(name, _)| name != "seed" || config.samples()));
    let named = all.filter_map(|(name, value)| {
        Some(match value? {
            Value::Bool(true) => format!("{name}=True"),
            Value::Bool(false) => format!("{name}=False"),
            value => format!("{name}={value}"),
        })
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The settings that have a say in which tokens are chosen, and whose values change something.
fn acting(config: &GenerationConfig) -> impl Iterator<Item = (&'static str, Value)> {
    let mut fields = fields(config);
    // A `top_k` of 50 is what transformers has everywhere, and is not told to be idle where it is.
    let other =
        GenerationConfig { top_k: config.top_k.map(|k| if k == 50 { 49 } else { k }), ..config.clone() };
    let idle: Vec<&str> = other.without_effect().into_iter().map(|idle| idle.setting).collect();
    SETTINGS.into_iter().filter_map(move |(name, neutral)| {
        let value = fields.remove(name)?;
        // A temperature of 0 is another word for greedy.
        let off = name == "temperature" && value.as_f64() == Some(0.0);
        let changes = !off && value.as_f64().is_none_or(|number| number != neutral);
        (changes && !idle.contains(&name)).then_some((name, plain(value)))
    })
}

/// A whole number as one: `2`, not `2.0`.
fn plain(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => Value::from(number as i64),
        _ => value,
    }
}

/// The settings that are set, without what a file has of its own.
pub(super) fn fields(config: &GenerationConfig) -> Map<String, Value> {
    let known = GenerationConfig { other: Map::new(), ..config.clone() };
    serde_json::from_str(&known.to_json()).unwrap_or_default()
}

/// Why the texts ended.
fn reasons(completions: &[Completion], beams: usize, interrupted: bool) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for completion in completions {
        let reason = match finish(completion, beams) {
            None if interrupted => "interrupted",
            _ => reason(completion),
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if completions.iter().any(|completion| completion.repetition.is_some()) {
        reasons.push("repeats itself");
    }
    reasons.join(", ")
}

/// Why a sequence ended; `None` if it was interrupted, which ends all beams as a stop string does.
pub(super) fn finish(completion: &Completion, beams: usize) -> Option<FinishReason> {
    completion.finish.filter(|&reason| reason != FinishReason::Stop || beams == 1 || !Interrupts::requested())
}

fn reason(completion: &Completion) -> &'static str {
    match completion.finish {
        Some(FinishReason::Stop) if completion.complete == Some(true) => "complete",
        Some(FinishReason::Eos) => "end of text",
        Some(FinishReason::Length) => "length reached",
        Some(FinishReason::Stop) => "stop string",
        Some(FinishReason::Context) => "context full",
        Some(FinishReason::Time) => "time limit reached",
        _ => "unfinished",
    }
}

/// The seed, if anything is drawn; of several prompts the first one's.
fn seed(config: &GenerationConfig, prompts: usize) -> Option<String> {
    let seed = config.seed.unwrap_or(0);
    let torch = if config.rng == Some(Rng::Torch) { " (torch)" } else { "" };
    config.samples().then(|| match prompts {
        0 | 1 => format!("seed {seed}{torch}"),
        _ => format!("first seed {seed}{torch}"),
    })
}

/// How many guesses were right.
fn guesses(report: &SpeculationReport) -> String {
    match report.drafted {
        0 => "no draft tokens".to_owned(),
        drafted => format!("{} of {} draft tokens accepted", thousands(report.accepted), thousands(drafted)),
    }
}

/// Tokens, seconds, and tokens per second.
fn speed(tokens: usize, time: Duration) -> Vec<String> {
    let mut parts = vec![format!("{} in {}", counted(tokens, "token"), seconds(time))];
    parts.extend(rate(tokens, time));
    parts
}

fn rate(tokens: usize, time: Duration) -> Option<String> {
    let rate = tokens as f64 / time.as_secs_f64();
    (tokens > 0 && rate.is_finite()).then(|| match rate {
        ..9.95 => format!("{rate:.1}/s"),
        _ => format!("{}/s", thousands(format!("{rate:.0}"))),
    })
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..0.995 => format!("{seconds:.2} s"),
        ..99.95 => format!("{seconds:.1} s"),
        _ => format!("{} s", thousands(format!("{seconds:.0}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> GenerationConfig {
        GenerationConfig::from_json(json.as_bytes()).unwrap().or(GenerationConfig::notebook())
    }

    #[test]
    fn every_setting_is_named_where_it_acts_or_says_something_else_than_which_tokens_are_chosen() {
        // Lengths, ends, seeds, what others are a part of, and what is not named: it acts on odd scores or a single token.
        const OTHERS: &str = "max_length max_new_tokens max_time stop_strings include_stop_str_in_output \
            skip_special_tokens overflow do_sample early_stopping token_healing num_return_sequences \
            prompt_lookup_num_tokens max_matching_ngram_size num_assistant_tokens forced_bos_token_id \
            forced_eos_token_id remove_invalid_values renormalize_logits dry_base dry_allowed_length \
            dry_penalty_last_n dry_sequence_breakers xtc_threshold mirostat_tau mirostat_eta dynatemp_exponent \
            samplers seed rng bos_token_id eos_token_id pad_token_id";
        let others: Vec<&str> = OTHERS.split_whitespace().collect();
        let all = serde_json::to_value(GenerationConfig::default()).unwrap();
        for name in all.as_object().unwrap().keys() {
            let named = SETTINGS.iter().any(|(setting, _)| setting == name);
            assert!(named != others.contains(&name.as_str()), "{name}");
        }
        for (name, _) in SETTINGS {
            assert!(all.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn settings_that_acted_are_named_and_others_are_not() {
        for (json, expected) in [
            ("{}", "temperature 0.7, top-k 50, top-p 0.95"),
            (r#"{"temperature": 1, "top_k": 0, "top_p": 1}"#, "plain sampling"),
            (r#"{"temperature": 2, "repetition_penalty": 1.0}"#, "temperature 2, top-k 50, top-p 0.95"),
            // Nothing is drawn, so nothing says from what.
            (r#"{"do_sample": false}"#, "greedy"),
            (r#"{"temperature": 0}"#, "greedy"),
            (
                r#"{"do_sample": false, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3}"#,
                "greedy, repetition-penalty 1.2, no-repeat-ngram-size 3",
            ),
            (r#"{"do_sample": false, "num_beams": 4, "top_k": 7}"#, "beam search, num-beams 4"),
            (
                r#"{"num_beams": 4, "length_penalty": 2}"#,
                "beam sampling, temperature 0.7, top-k 50, top-p 0.95, num-beams 4, length-penalty 2",
            ),
            (
                r#"{"do_sample": false, "penalty_alpha": 0.6, "top_k": 4}"#,
                "contrastive search, penalty-alpha 0.6, top-k 4",
            ),
            (
                r#"{"do_sample": false, "penalty_alpha": 0.6, "top_k": 50}"#,
                "contrastive search, penalty-alpha 0.6, top-k 50",
            ),
            // What mirostat and the list of samplers leave out.
            (r#"{"mirostat": 2}"#, "temperature 0.7, mirostat 2"),
            (r#"{"samplers": ["temperature"]}"#, "temperature 0.7"),
            (
                r#"{"do_sample": false, "suppress_tokens": [1, 2], "stop_strings": ["x"], "max_time": 3}"#,
                "greedy, suppress-tokens",
            ),
            (r#"{"do_sample": false, "structured_outputs": {"json_object": true}}"#, "greedy, json-object"),
        ] {
            assert_eq!(settings(&config(json)), expected, "{json}");
        }
    }

    #[test]
    fn parameters_are_written_as_in_the_notebook() {
        let config = config(r#"{"max_length": 60, "seed": 7}"#);
        assert_eq!(
            parameters(&config),
            "max_length=60, temperature=0.7, top_k=50, top_p=0.95, num_return_sequences=1, do_sample=True, seed=7"
        );
    }

    #[test]
    fn numbers_are_as_long_as_they_are_worth() {
        for (tokens, milliseconds, expected) in [
            (56, 1200, "56 tokens in 1.2 s · 47/s"),
            (1, 4, "1 token in 0.00 s · 250/s"),
            (5, 996, "5 tokens in 1.0 s · 5.0/s"),
            (0, 10, "0 tokens in 0.01 s"),
            (2000, 1_000_000, "2,000 tokens in 1,000 s · 2.0/s"),
            (9000, 1000, "9,000 tokens in 1.0 s · 9,000/s"),
        ] {
            assert_eq!(speed(tokens, Duration::from_millis(milliseconds)).join(" · "), expected);
        }
    }

    #[test]
    fn the_line_of_many_prompts_says_how_many_are_done() {
        let config = config(r#"{"seed": 7}"#);
        let mut stats = BatchStats::default();
        stats.tokens = 600;
        let run = Run {
            config: &config,
            before: 0,
            done: 3,
            total: Some(3),
            time: Duration::from_secs(2),
            stats,
            reused: 0,
            interrupted: false,
        };
        let line = |run: &Run<'_>| run.line().replace(NO_BREAK, " ");
        assert_eq!(
            line(&run),
            "3 prompts · 600 tokens in 2.0 s · 300/s · temperature 0.7, top-k 50, top-p 0.95 · first seed 7"
        );
        let run = Run { before: 4, total: Some(40), interrupted: true, ..run };
        assert_eq!(
            line(&run),
            "7 of 40 prompts (4 from earlier runs) · 600 tokens in 2.0 s · 300/s · temperature 0.7, top-k 50, top-p 0.95 \
             · interrupted · first seed 7"
        );
        // Where they come one by one, nobody knows how many there are.
        let run = Run { before: 0, done: 1, total: None, interrupted: false, ..run };
        assert!(line(&run).starts_with("1 prompt · 600 tokens in") && line(&run).ends_with("· seed 7"));
    }
}
