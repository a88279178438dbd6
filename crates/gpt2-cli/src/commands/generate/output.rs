//! How continuations are shown: as text while they are written, or as JSON.

use std::io::Write;
use std::time::Duration;

use gpt2::generate::{
    Completion, Details, FinishReason, GenerationConfig, Repetition, SpeculationReport, TextDelta,
    TextGeneration,
};
use gpt2::score::TokenDetails;
use gpt2::tokenizer::Tokenizer;
use serde::Serialize;

use super::{structure, trace};
use crate::failure::Failure;
use crate::model::Loaded;
use crate::terminal::{DIM, Terminal};

/// Prints a line as soon as its sequence is done, in the order of the sequences; with `stream`, one for every token too.
pub(super) fn json(
    mut texts: TextGeneration<'_>,
    loaded: &Loaded,
    prompt: &str,
    details: Option<&[TokenDetails]>,
    stream: bool,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let mut shown = 0;
    while let Some(delta) = texts.next() {
        let delta = delta?;
        if stream {
            terminal.output.json(&Delta::new(&delta))?;
            terminal.output.flush()?;
        }
        while let Some(completion) = texts.completions().get(shown).filter(|c| c.finish.is_some()) {
            terminal.output.json(&record(loaded, prompt, details, &texts, shown, completion))?;
            shown += 1;
        }
    }
    terminal.output.flush()?;
    structure::check(texts.completions(), texts.generation().config().structured_outputs.as_ref())
}

/// What one token adds, as JSON.
#[derive(Serialize)]
struct Delta<'a> {
    sequence: usize,
    token: u32,
    text: &'a str,
    logprob: f32,
    finish_reason: Option<FinishReason>,
}

impl<'a> Delta<'a> {
    fn new(TextDelta { token, text }: &'a TextDelta) -> Self {
        Self {
            sequence: token.sequence,
            token: token.id,
            text,
            logprob: token.logprob,
            finish_reason: token.finish,
        }
    }
}

/// Shows the first continuation as it comes, and the others when it is done.
pub(super) fn text(
    mut texts: TextGeneration<'_>,
    prompt: &str,
    details: Option<&[TokenDetails]>,
    tokenizer: &Tokenizer,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
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
    let mut open = !prompt.is_empty();
    for delta in texts.by_ref() {
        let delta = match delta {
            Ok(delta) => delta,
            Err(error) => {
                // The line that was begun is not the error's.
                if open {
                    writeln!(terminal.output)?;
                    terminal.output.flush()?;
                }
                return Err(error.into());
            }
        };
        if delta.token.sequence == 0 && !delta.text.is_empty() {
            terminal.output.text(&delta.text, plain)?;
            terminal.output.flush()?;
            open = true;
        }
    }
    writeln!(terminal.output)?;
    terminal.output.flush()?;
    trace::prompt(details.unwrap_or_default(), tokenizer, terminal)?;
    trace::tokens(&texts.completions()[0], tokenizer, terminal)?;
    for (index, completion) in texts.completions().iter().enumerate().skip(1) {
        writeln!(terminal.output)?;
        terminal.output.flush()?;
        heading(terminal, index);
        terminal.output.text(prompt, DIM)?;
        terminal.output.text(&completion.text, plain)?;
        writeln!(terminal.output)?;
        terminal.output.flush()?;
        trace::tokens(completion, tokenizer, terminal)?;
    }
    terminal.remark(&summary(&texts));
    structure::check(texts.completions(), texts.generation().config().structured_outputs.as_ref())
}

/// One line on what happened, with all it takes to have it again.
fn summary(texts: &TextGeneration<'_>) -> String {
    let completions = texts.completions();
    let tokens: usize = completions.iter().map(|completion| completion.tokens.len()).sum();
    let speed = speed(tokens, completions.len(), texts.generation().timing().decode)
        .map_or_else(String::new, |speed| format!(" · {speed:.1} tokens/s"));
    let mut reasons: Vec<&str> = Vec::new();
    for reason in completions.iter().map(reason) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if completions.iter().any(|completion| completion.repetition.is_some()) {
        reasons.push("repeats itself");
    }
    let config = texts.generation().config();
    let seed =
        if config.samples() { format!("seed {}", config.seed.unwrap_or(0)) } else { "greedy".to_owned() };
    let guesses = texts.generation().speculation().map_or_else(String::new, guesses);
    let plural = if tokens == 1 { "" } else { "s" };
    format!("{tokens} token{plural}{speed}{guesses} · {} · {seed}", reasons.join(", "))
}

/// How many guesses were right.
fn guesses(report: &SpeculationReport) -> String {
    match report.drafted {
        0 => " · nothing guessed".to_owned(),
        drafted => format!(" · {} of {drafted} guesses right", report.accepted),
    }
}

/// Tokens per second of decoding: the first token of a sequence comes with the prompt.
fn speed(tokens: usize, sequences: usize, decode: Duration) -> Option<f64> {
    let decoded = tokens.saturating_sub(sequences);
    (decoded > 0 && !decode.is_zero()).then(|| decoded as f64 / decode.as_secs_f64())
}

fn reason(completion: &Completion) -> &'static str {
    match completion.finish {
        Some(FinishReason::Stop) if completion.complete == Some(true) => "complete",
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
pub(super) struct Record<'a> {
    model: &'a str,
    prompt: &'a str,
    text: &'a str,
    prompt_tokens: &'a [u32],
    tokens: &'a [u32],
    logprobs: &'a [f32],
    finish_reason: Option<FinishReason>,
    /// Whether the text matches the structure that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    /// The loop that the text ends in.
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition: Option<Repetition>,
    /// With beams: the score of the text, and what its tokens added to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transition_scores: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_details: Option<&'a [TokenDetails]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [Details],
    /// Where tokens were guessed: what came of it, for all sequences together.
    #[serde(skip_serializing_if = "Option::is_none")]
    speculation: Option<&'a SpeculationReport>,
    seed: u64,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    timing: Option<Times>,
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

impl<'a> Record<'a> {
    /// What is known of any sequence.
    pub(super) fn new(
        model: &'a str,
        prompt: &'a str,
        prompt_tokens: &'a [u32],
        completion: &'a Completion,
        config: &GenerationConfig,
    ) -> Self {
        let completion_tokens = completion.tokens.len();
        Self {
            model,
            prompt,
            text: &completion.text,
            prompt_tokens,
            tokens: &completion.tokens,
            logprobs: &completion.logprobs,
            finish_reason: completion.finish,
            complete: completion.complete,
            repetition: completion.repetition,
            sequence_score: None,
            transition_scores: Some(&completion.scores),
            prompt_details: None,
            details: &completion.details,
            speculation: None,
            seed: config.seed.unwrap_or(0),
            usage: Usage { prompt_tokens: prompt_tokens.len(), completion_tokens },
            timing: None,
        }
    }

    /// Adds a beam's score; without one, there is nothing that its tokens added to it.
    pub(super) fn with_score(self, score: Option<f32>) -> Self {
        Self {
            sequence_score: score,
            transition_scores: self.transition_scores.filter(|_| score.is_some()),
            ..self
        }
    }
}

fn record<'a>(
    loaded: &'a Loaded,
    prompt: &'a str,
    details: Option<&'a [TokenDetails]>,
    texts: &'a TextGeneration<'_>,
    index: usize,
    completion: &'a Completion,
) -> Record<'a> {
    let generation = texts.generation();
    let timing = generation.timing();
    let record = Record::new(&loaded.name, prompt, generation.prompt(), completion, generation.config());
    Record {
        prompt_details: details,
        speculation: generation.speculation(),
        timing: Some(Times {
            load_s: loaded.load_time.as_secs_f64(),
            prefill_s: timing.prefill.as_secs_f64(),
            decode_s: timing.decode.as_secs_f64(),
            tokens_per_second: speed(completion.tokens.len(), 1, timing.decode),
        }),
        ..record.with_score(generation.sequences_scores().get(index).copied())
    }
}
