//! `gpt2 generate`: continue a text.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::time::Duration;

use gpt2::generate::{Completion, FinishReason, GenerateError, GenerationConfig, TextGeneration};
use serde::Serialize;

use super::Format;
use crate::arguments::{Options, at_most, count, not_negative, positive, seed, share, token_id};
use crate::failure::Failure;
use crate::model::{Loaded, ModelFiles};
use crate::prompt::TextArguments;
use crate::terminal::{DIM, Terminal};

/// Continue a text.
///
/// The prompt and its continuation appear on standard output as the model writes them. Several
/// continuations come one after the other with an empty line between them. An empty prompt starts
/// from the model's beginning-of-text token.
///
/// Flags have the names of transformers' `GenerationConfig`. What no flag sets is as the model's
/// `generation_config.json` has it, else at the default shown.
#[derive(clap::Args, Debug)]
#[command(mut_arg("text", |text| text.value_name("PROMPT|-")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    prompt: TextArguments,
    #[command(flatten)]
    length: Length,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    end: End,
    /// Leave the prompt out of the output
    #[arg(long, help_heading = "Output")]
    no_prompt: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Length")]
struct Length {
    /// Tokens to generate at most [default: 50]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    max_new_tokens: Option<usize>,
    /// Tokens of prompt and continuation together at most, instead
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    max_length: Option<usize>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Choice of tokens")]
struct Choice {
    /// Draw tokens at random, the default; so does any of the next three
    #[arg(long, overrides_with = "greedy")]
    do_sample: bool,
    /// Take the likeliest token every time
    #[arg(long, overrides_with = "do_sample")]
    greedy: bool,
    /// Below 1 likely tokens get likelier, above 1 less so; 0 is greedy [default: 0.7]
    #[arg(long, value_name = "T", value_parser = not_negative, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw from the K likeliest tokens only; 0 is off [default: 50]
    #[arg(long, value_name = "K", value_parser = count, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have the probability P; 1 is off [default: 0.95]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// The same seed gives the same text, on any machine [default: another one every time]
    #[arg(long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Continuations to generate
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    #[arg(value_parser = at_most(GenerationConfig::MOST_SEQUENCES))]
    num_return_sequences: usize,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "End")]
struct End {
    /// End before this text; `\n` is a new line, `\t` a tab, `\\` a backslash; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = stop_string, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Tokens that end a continuation, with commas between [default: the model's]
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    #[arg(allow_negative_numbers = true, conflicts_with = "ignore_eos")]
    eos_token_id: Option<Vec<u32>>,
    /// Go on past end-of-text tokens
    #[arg(long)]
    ignore_eos: bool,
}

/// Generates and shows the continuations.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let prompt = arguments.prompt.read()?;
    let files = ModelFiles::find(options, terminal)?;
    let config = arguments.config(files.generation_config()?);
    config.check().map_err(|error| match error {
        // What flags say was checked when they were parsed.
        GenerateError::Setting { .. } => Failure::new(error)
            .hint("it comes from the model's `generation_config.json`; the flag of this name goes before it"),
        _ => error.into(),
    })?;
    let Choice { temperature, top_k, top_p, .. } = arguments.choice;
    let sampling_set = temperature.is_some_and(|t| t > 0.0) || top_k.is_some() || top_p.is_some();
    if sampling_set && !config.samples() {
        terminal.note("`--temperature`, `--top-k` and `--top-p` have no effect on greedy generation");
    }

    let loaded = files.load(options, terminal)?;
    let ids = loaded.tokenizer.encode(&prompt, arguments.prompt.special())?;
    let mut texts = loaded.model.generate(&ids).tokenizer(&loaded.tokenizer).config(config).text()?;
    if arguments.format.json {
        // A line as soon as its sequence is done, in the order of the sequences.
        let mut shown = 0;
        while let Some(delta) = texts.next() {
            delta?;
            while let Some(completion) = texts.completions().get(shown).filter(|c| c.finish.is_some()) {
                terminal.output.json(&record(&loaded, &prompt, &texts, completion))?;
                shown += 1;
            }
        }
    } else {
        let prompt = if arguments.no_prompt { "" } else { &prompt };
        stream(&mut texts, prompt, terminal)?;
        terminal.remark(&summary(&texts));
    }
    Ok(())
}

impl Arguments {
    /// Joins arguments, the model's own settings, and the defaults, in this order of precedence.
    fn config(&self, model: GenerationConfig) -> GenerationConfig {
        let Self { length, choice, end, .. } = self;
        let asks_for_sampling =
            choice.temperature.is_some() || choice.top_k.is_some() || choice.top_p.is_some();
        let do_sample = match (choice.greedy, choice.do_sample || asks_for_sampling) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        };
        let given = GenerationConfig {
            max_new_tokens: length.max_new_tokens,
            max_length: length.max_length,
            do_sample,
            temperature: choice.temperature,
            top_k: choice.top_k,
            top_p: choice.top_p,
            num_return_sequences: Some(choice.num_return_sequences),
            seed: choice.seed,
            eos_token_id: if end.ignore_eos { Some(Vec::new()) } else { end.eos_token_id.clone() },
            stop_strings: (!end.stop.is_empty()).then(|| end.stop.clone()),
            ..GenerationConfig::default()
        };
        let mut config = given.or(model).or(GenerationConfig::notebook());
        config.seed.get_or_insert_with(any_seed);
        config
    }
}

/// A seed that is another one every time, short enough to be typed again.
fn any_seed() -> u64 {
    // The standard library keys its hash maps at random; this is where that randomness can be had.
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

/// Replaces the escapes that shells make hard to type.
fn stop_string(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("expected at least one character".to_owned());
    }
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, characters.as_str().chars().next()) {
            ('\\', Some(escape @ ('n' | 't' | '\\'))) => {
                characters.next();
                result.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    _ => '\\',
                });
            }
            _ => result.push(c),
        }
    }
    Ok(result)
}

/// Shows the first continuation as it comes, and the others when it is done.
fn stream(texts: &mut TextGeneration<'_>, prompt: &str, terminal: &mut Terminal) -> Result<(), Failure> {
    let plain = anstyle::Style::new();
    let count = texts.completions().len();
    let heading = |terminal: &Terminal, index: usize| {
        if count > 1 {
            terminal.remark(&format!("{} of {count}", index + 1));
        }
    };
    heading(terminal, 0);
    terminal.output.text(prompt, DIM)?;
    terminal.output.flush()?;
    for delta in texts.by_ref() {
        let delta = delta?;
        if delta.token.sequence == 0 && !delta.text.is_empty() {
            terminal.output.text(&delta.text, plain)?;
            terminal.output.flush()?;
        }
    }
    writeln!(terminal.output)?;
    for (index, completion) in texts.completions().iter().enumerate().skip(1) {
        writeln!(terminal.output)?;
        terminal.output.flush()?;
        heading(terminal, index);
        terminal.output.text(prompt, DIM)?;
        terminal.output.text(&completion.text, plain)?;
        writeln!(terminal.output)?;
    }
    Ok(terminal.output.flush()?)
}

/// One line on what happened, with all it takes to have it again.
fn summary(texts: &TextGeneration<'_>) -> String {
    let completions = texts.completions();
    let tokens: usize = completions.iter().map(|completion| completion.tokens.len()).sum();
    let speed = speed(tokens, completions.len(), texts.generation().timing().decode)
        .map_or_else(String::new, |speed| format!(" · {speed:.1} tokens/s"));
    let mut reasons: Vec<&str> = Vec::new();
    for reason in completions.iter().map(|completion| reason(completion.finish)) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let config = texts.generation().config();
    let seed =
        if config.samples() { format!("seed {}", config.seed.unwrap_or(0)) } else { "greedy".to_owned() };
    let plural = if tokens == 1 { "" } else { "s" };
    format!("{tokens} token{plural}{speed} · {} · {seed}", reasons.join(", "))
}

/// Tokens per second of decoding: the first token of a sequence comes with the prompt.
fn speed(tokens: usize, sequences: usize, decode: Duration) -> Option<f64> {
    let decoded = tokens.saturating_sub(sequences);
    (decoded > 0 && !decode.is_zero()).then(|| decoded as f64 / decode.as_secs_f64())
}

fn reason(finish: Option<FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::Eos) => "end of text",
        Some(FinishReason::Length) => "length reached",
        Some(FinishReason::Stop) => "stop string",
        Some(FinishReason::Context) => "context full",
        Some(FinishReason::Time) => "time up",
        _ => "unfinished",
    }
}

/// One sequence as JSON.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    prompt: &'a str,
    text: &'a str,
    prompt_tokens: &'a [u32],
    tokens: &'a [u32],
    logprobs: &'a [f32],
    finish_reason: Option<FinishReason>,
    seed: u64,
    usage: Usage,
    timing: Times,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
}

/// Seconds, and this sequence's share of the speed.
#[derive(Serialize)]
struct Times {
    load_s: f64,
    prefill_s: f64,
    decode_s: f64,
    tokens_per_second: Option<f64>,
}

fn record<'a>(
    loaded: &'a Loaded,
    prompt: &'a str,
    texts: &'a TextGeneration<'_>,
    completion: &'a Completion,
) -> Record<'a> {
    let generation = texts.generation();
    let timing = generation.timing();
    let completion_tokens = completion.tokens.len();
    Record {
        model: &loaded.name,
        prompt,
        text: &completion.text,
        prompt_tokens: generation.prompt(),
        tokens: &completion.tokens,
        logprobs: &completion.logprobs,
        finish_reason: completion.finish,
        seed: generation.config().seed.unwrap_or(0),
        usage: Usage { prompt_tokens: generation.prompt().len(), completion_tokens },
        timing: Times {
            load_s: loaded.load_time.as_secs_f64(),
            prefill_s: timing.prefill.as_secs_f64(),
            decode_s: timing.decode.as_secs_f64(),
            tokens_per_second: speed(completion_tokens, 1, timing.decode),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn config(line: &[&str], model: &str) -> GenerationConfig {
        let line = Line::try_parse_from([&["generate", "hi", "--seed", "1"], line].concat());
        let model = GenerationConfig::from_json(model.as_bytes()).unwrap();
        line.unwrap_or_else(|error| panic!("{error}")).arguments.config(model)
    }

    #[test]
    fn arguments_go_before_the_model_and_the_model_before_the_defaults() {
        let default =
            GenerationConfig { seed: Some(1), num_return_sequences: Some(1), ..GenerationConfig::notebook() };
        assert_eq!(config(&[], "{}"), default);
        let model = r#"{"temperature": 0.5, "top_k": 7, "max_length": 9, "eos_token_id": [3]}"#;
        let expected = GenerationConfig {
            temperature: Some(0.5),
            top_k: Some(7),
            max_length: Some(9),
            max_new_tokens: None,
            eos_token_id: Some(vec![3]),
            ..default.clone()
        };
        assert_eq!(config(&[], model), expected);
        let line = ["--temperature", "2", "--max-new-tokens", "4", "--eos-token-id", "5,6"];
        let expected = GenerationConfig {
            temperature: Some(2.0),
            top_k: Some(7),
            max_new_tokens: Some(4),
            eos_token_id: Some(vec![5, 6]),
            ..default
        };
        assert_eq!(config(&line, model), expected);
        assert!(config(&["--ignore-eos"], model).eos_token_id.is_some_and(|ids| ids.is_empty()));
    }

    #[test]
    fn a_sampling_flag_turns_sampling_on_and_greedy_turns_it_off() {
        let greedy = r#"{"do_sample": false}"#;
        assert!(!config(&[], greedy).samples());
        assert!(config(&["--top-k", "5"], greedy).samples());
        assert!(config(&["--do-sample"], greedy).samples());
        assert!(!config(&["--greedy", "--top-k", "5"], "{}").samples());
        assert!(!config(&["--temperature", "0"], "{}").samples());
    }

    #[test]
    fn stop_strings_have_escapes() {
        for (given, expected) in [(r"\n", "\n"), (r"a\tb\\n", "a\tb\\n"), (r"\x", r"\x"), ("\\", "\\")] {
            assert_eq!(stop_string(given).unwrap(), expected);
        }
        assert!(stop_string("").is_err());
    }
}
