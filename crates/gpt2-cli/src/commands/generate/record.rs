//! A sequence as JSON: what was generated, and all that it takes to generate it again.

use std::time::Duration;

use gpt2::generate::{
    Alternative, Completion, Details, FinishReason, GenerationConfig, RemovedToken, Repetition,
    SpeculationReport, TextGeneration, Trace, TraceStep,
};
use gpt2::predict::Candidate;
use gpt2::sample::{Draw, Drawn};
use gpt2::score::TokenDetails;
use gpt2::tokenizer::{SpecialTokens, Tokenizer};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Arguments, summary};
use crate::commands::token::{Named, Origin};
use crate::model::Loaded;

/// One sequence.
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
    prompt_details: Option<Vec<PromptToken<'a>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Named<'a, TokenRecord<'a>>>,
    /// Where tokens were guessed: what came of it, for all sequences together.
    #[serde(skip_serializing_if = "Option::is_none")]
    speculation: Option<&'a SpeculationReport>,
    seed: u64,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    timing: Option<Times>,
    /// In the format of `generation_config.json`.
    settings: Map<String, Value>,
    #[serde(flatten)]
    inputs: Inputs<'a>,
    #[serde(flatten)]
    origin: Origin<'a>,
}

/// What a text depends on beside its prompt and settings.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Inputs<'a> {
    /// The prompt as it was given, where healing has made another one of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) given_prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) negative_prompt: Option<&'a str>,
    /// How special tokens in the prompt are meant, where they are not parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) special_tokens: Option<&'static str>,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(arguments: &'a Arguments) -> Self {
        let as_text = arguments.prompt.special() == SpecialTokens::AsText;
        Self {
            given_prompt: None,
            negative_prompt: arguments.settings.negative_prompt(),
            special_tokens: as_text.then_some("text"),
        }
    }
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

/// A token of the prompt, with its text and those of the tokens in its place.
type PromptToken<'a> = Named<'a, PromptRecord<'a>>;

#[derive(Serialize)]
struct PromptRecord<'a> {
    id: u32,
    logprob: Option<f32>,
    rank: Option<usize>,
    entropy: Option<f32>,
    alternatives: Vec<Named<'a, &'a Candidate>>,
}

/// What there is to say of a generated token.
#[derive(Serialize)]
struct TokenRecord<'a> {
    id: u32,
    logprob: f32,
    probability: f32,
    rank: usize,
    entropy: f32,
    alternatives: Vec<Named<'a, &'a Alternative>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<TraceRecord<'a>>,
}

#[derive(Serialize)]
struct TraceRecord<'a> {
    steps: Vec<StepRecord<'a>>,
    draw: Option<DrawRecord<'a>>,
}

#[derive(Serialize)]
struct StepRecord<'a> {
    name: &'static str,
    removed: usize,
    removed_mass: f32,
    removed_share: f32,
    likeliest_removed: Vec<Named<'a, &'a RemovedToken>>,
    restored: usize,
    changed: usize,
    score_before: Option<f32>,
    score_after: Option<f32>,
    left: usize,
    left_share: f32,
}

#[derive(Serialize)]
struct DrawRecord<'a> {
    sampler: &'static str,
    chosen: Named<'a, &'a Drawn>,
    runner_up: Option<Named<'a, &'a Drawn>>,
}

impl<'a> Record<'a> {
    /// What is known of any sequence.
    pub(super) fn new(
        loaded: &'a Loaded,
        prompt: &'a str,
        prompt_tokens: &'a [u32],
        completion: &'a Completion,
        config: &GenerationConfig,
        inputs: Inputs<'a>,
    ) -> Self {
        let completion_tokens = completion.tokens.len();
        let details = completion.tokens.iter().zip(&completion.details);
        Self {
            model: &loaded.name,
            prompt,
            text: &completion.text,
            prompt_tokens,
            tokens: &completion.tokens,
            logprobs: &completion.logprobs,
            finish_reason: summary::finish(completion, config.beams()),
            complete: completion.complete,
            repetition: completion.repetition,
            sequence_score: None,
            transition_scores: Some(&completion.scores),
            prompt_details: None,
            details: details.map(|(&id, details)| token(id, details, &loaded.tokenizer)).collect(),
            speculation: None,
            seed: config.seed.unwrap_or(0),
            usage: Usage { prompt_tokens: prompt_tokens.len(), completion_tokens },
            timing: None,
            settings: summary::fields(config),
            inputs,
            origin: Origin::of(loaded),
        }
    }

    /// What is known of a sequence of a prompt that was continued by itself.
    pub(super) fn of_texts(
        loaded: &'a Loaded,
        prompt: &'a str,
        details: Option<&'a [TokenDetails]>,
        texts: &'a TextGeneration<'_>,
        index: usize,
        inputs: Inputs<'a>,
    ) -> Self {
        let (generation, completion) = (texts.generation(), &texts.completions()[index]);
        let timing = generation.timing();
        let record = Self::new(loaded, prompt, generation.prompt(), completion, generation.config(), inputs);
        let tokenizer = &loaded.tokenizer;
        Self {
            prompt_details: details
                .map(|details| details.iter().map(|token| prompt_token(token, tokenizer)).collect()),
            speculation: generation.speculation(),
            timing: Some(Times {
                load_s: loaded.load_time.as_secs_f64(),
                prefill_s: timing.prefill.as_secs_f64(),
                decode_s: timing.decode.as_secs_f64(),
                tokens_per_second: decoding_speed(completion.tokens.len(), timing.decode),
            }),
            ..record.with_score(generation.sequences_scores().get(index).copied())
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

fn token<'a>(id: u32, details: &'a Details, tokenizer: &'a Tokenizer) -> Named<'a, TokenRecord<'a>> {
    let Details { logprob, probability, rank, entropy, ref alternatives, ref trace } = *details;
    let alternatives = alternatives.iter().map(|other| Named::new(other.id, other, tokenizer)).collect();
    let trace = trace.as_ref().map(|trace| traced(trace, tokenizer));
    Named::new(id, TokenRecord { id, logprob, probability, rank, entropy, alternatives, trace }, tokenizer)
}

fn traced<'a>(Trace { steps, draw }: &'a Trace, tokenizer: &'a Tokenizer) -> TraceRecord<'a> {
    let step = |step: &'a TraceStep| {
        let removed = step.likeliest_removed.iter();
        StepRecord {
            name: step.name,
            removed: step.removed,
            removed_mass: step.removed_mass,
            removed_share: step.removed_share,
            likeliest_removed: removed.map(|token| Named::new(token.id, token, tokenizer)).collect(),
            restored: step.restored,
            changed: step.changed,
            score_before: step.score_before,
            score_after: step.score_after,
            left: step.left,
            left_share: step.left_share,
        }
    };
    let drawn = |drawn: &'a Drawn| Named::new(drawn.id, drawn, tokenizer);
    let draw = draw.as_ref().map(|Draw { sampler, chosen, runner_up }| DrawRecord {
        sampler,
        chosen: drawn(chosen),
        runner_up: runner_up.as_ref().map(drawn),
    });
    TraceRecord { steps: steps.iter().map(step).collect(), draw }
}

fn prompt_token<'a>(details: &'a TokenDetails, tokenizer: &'a Tokenizer) -> PromptToken<'a> {
    let TokenDetails { id, logprob, rank, entropy, ref alternatives } = *details;
    let alternatives = alternatives.iter().map(|other| Named::new(other.id, other, tokenizer)).collect();
    Named::new(id, PromptRecord { id, logprob, rank, entropy, alternatives }, tokenizer)
}

/// Tokens per second of decoding: the first token comes with the prompt.
fn decoding_speed(tokens: usize, decode: Duration) -> Option<f64> {
    let decoded = tokens.saturating_sub(1);
    (decoded > 0 && !decode.is_zero()).then(|| decoded as f64 / decode.as_secs_f64())
}
