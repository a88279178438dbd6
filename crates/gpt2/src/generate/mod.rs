//! Generation: a prompt in, tokens out, one at a time.
//!
//! ```text
//! Settings ─ check ─► Generation (Iterator of GeneratedToken) ─► TextGeneration (Iterator of TextDelta)
//! ```
//! The prompt goes through the model once for all return sequences; then every sequence that is not
//! finished takes part in every forward pass. A sequence's tokens are a function of prompt, settings,
//! seed and its own index: not of what else is generated beside it.

mod settings;
mod text;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use settings::{GenerateError, Settings};
pub use text::{Completion, TextDelta, TextGeneration};

use crate::cache::KvCache;
use crate::model::{Model, Step, StepError, Want};
use crate::predict::{PREFILL_CHUNK, normaliser, prefill};
use crate::process::Processor;
use crate::sample::Sampler;
use crate::workspace::Workspace;

/// A token, as soon as it is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneratedToken {
    /// Which return sequence it belongs to.
    pub sequence: usize,
    /// The token.
    pub id: u32,
    /// Its log-probability by the model, before any processor.
    pub logprob: f32,
    /// Why the sequence ends with this token, if it does.
    pub finish: Option<FinishReason>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model chose an end-of-text token, which is the sequence's last.
    Eos,
    /// `max_new_tokens` or `max_length` is reached.
    Length,
    /// A stop string came up.
    Stop,
    /// The model's context is full.
    Context,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the start to the logits behind the prompt.
    pub prefill: Duration,
    /// Decoding and choosing tokens since then, without what the caller does between two of them.
    pub decode: Duration,
}

/// A generation under way.
///
/// Yields the tokens of all sequences, those of one position in the order of the sequences.
pub struct Generation<'m> {
    model: &'m Model,
    settings: Settings,
    sampler: Sampler,
    processors: Vec<Box<dyn Processor>>,
    /// How many of the processors are the caller's own: these come first.
    own_processors: usize,
    eos_token_ids: Vec<u32>,
    prompt_tokens: usize,
    limit: Limit,
    sequences: Vec<Sequence>,
    work: Workspace,
    /// The scores that the processors change: the model's own stay in `work`. (V)
    scores: Vec<f32>,
    /// Empty but during a forward pass; kept for its allocation.
    steps: Vec<Step<'m>>,
    ready: VecDeque<GeneratedToken>,
    started: bool,
    failed: bool,
    timing: Timing,
}

/// The most tokens a sequence may have, its prompt included, and what reaching that means.
#[derive(Clone, Copy)]
struct Limit {
    tokens: usize,
    reason: FinishReason,
}

/// One return sequence.
struct Sequence {
    cache: KvCache,
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    finish: Option<FinishReason>,
}

impl<'m> Generation<'m> {
    /// Checks the settings and runs the prompt through the model.
    ///
    /// An empty prompt stands for the beginning-of-text token, as in transformers.
    ///
    /// # Errors
    /// If a setting is out of its range or contradicts another, or the prompt is empty and the model
    /// has no beginning-of-text token, is longer than the context or `max_length`, or has a token
    /// that is not in the vocabulary. Nothing has been computed then.
    pub fn new(model: &'m Model, prompt: &[u32], settings: Settings) -> Result<Self, GenerateError> {
        let begin = Instant::now();
        settings.check()?;
        let config = model.config();
        let bos = config.bos_token_id.map_or_else(Vec::new, |id| vec![id]);
        let prompt = if prompt.is_empty() { &bos[..] } else { prompt };
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let wanted = settings.total_tokens(prompt.len())?;
        // The token behind a full context can still be chosen; it cannot be continued.
        let most = config.n_positions + 1;
        let limit = if wanted <= most {
            Limit { tokens: wanted, reason: FinishReason::Length }
        } else {
            Limit { tokens: most, reason: FinishReason::Context }
        };
        let count = settings.num_return_sequences;
        let mut work = Workspace::new(model, prompt.len().min(PREFILL_CHUNK).max(count), count);
        let mut cache = KvCache::new(model);
        prefill(model, prompt, &mut cache, &mut work)?;
        let sequence = || {
            let mut tokens = Vec::with_capacity(limit.tokens);
            tokens.extend_from_slice(prompt);
            Sequence { cache: cache.fork(), tokens, finish: None }
        };
        Ok(Self {
            model,
            sampler: settings.sampler(),
            processors: settings.processors(),
            own_processors: 0,
            eos_token_ids: settings.eos_token_ids.clone().unwrap_or_else(|| config.eos_token_ids.clone()),
            prompt_tokens: prompt.len(),
            limit,
            sequences: (0..count).map(|_| sequence()).collect(),
            work,
            scores: vec![0.0; config.vocab_size],
            steps: Vec::with_capacity(count),
            ready: VecDeque::with_capacity(count),
            started: false,
            failed: false,
            timing: Timing { prefill: begin.elapsed(), decode: Duration::ZERO },
            settings,
        })
    }

    /// Adds a processor of the caller's own: it comes before temperature, `top_k` and `top_p`, as in
    /// transformers, and behind those added before it.
    #[must_use]
    pub fn with_processor(mut self, processor: Box<dyn Processor>) -> Self {
        self.processors.insert(self.own_processors, processor);
        self.own_processors += 1;
        self
    }

    /// The settings, the seed among them.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The prompt's tokens: what was given, or the beginning-of-text token for an empty prompt.
    #[must_use]
    pub fn prompt(&self) -> &[u32] {
        &self.sequences[0].tokens[..self.prompt_tokens]
    }

    /// Where the time went so far.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Ends a sequence: it yields no further token.
    ///
    /// # Panics
    /// Panics if there is no such sequence.
    pub fn stop(&mut self, sequence: usize, reason: FinishReason) {
        self.sequences[sequence].finish.get_or_insert(reason);
        self.ready.retain(|token| token.sequence != sequence);
    }

    /// Chooses the next token of every unfinished sequence.
    fn advance(&mut self) -> Result<(), StepError> {
        let begin = Instant::now();
        let Self { model, sequences, work, steps, .. } = self;
        if self.started {
            let mut batch = recycled(std::mem::take(steps));
            batch.extend(sequences.iter_mut().filter(|sequence| sequence.finish.is_none()).map(
                |Sequence { cache, tokens, .. }| {
                    Step::new(model, &tokens[tokens.len() - 1..], cache, Want::Last)
                        .expect("a sequence at its limit is finished, and tokens come from the vocabulary")
                },
            ));
            model.forward(&mut batch, work);
            *steps = recycled(batch);
        }
        let mut row = 0;
        for index in 0..self.sequences.len() {
            if self.sequences[index].finish.is_none() {
                let token = self.choose(index, row)?;
                self.ready.push_back(token);
                // Behind the prompt there is one row for all.
                row += usize::from(self.started);
            }
        }
        self.started = true;
        self.timing.decode += begin.elapsed();
        Ok(())
    }

    /// Chooses a sequence's next token from a row of logits.
    fn choose(&mut self, index: usize, row: usize) -> Result<GeneratedToken, StepError> {
        let logits = self.work.logits(row + 1).row(row);
        let sequence = &mut self.sequences[index];
        let normaliser = normaliser(self.model, logits, sequence.tokens.len() - 1)?;
        self.scores.copy_from_slice(logits);
        for processor in &mut self.processors {
            processor.process(&sequence.tokens, &mut self.scores);
        }
        let id = self.sampler.choose(&self.scores, index, sequence.tokens.len());
        sequence.tokens.push(id);
        sequence.finish = if self.eos_token_ids.contains(&id) {
            Some(FinishReason::Eos)
        } else {
            (sequence.tokens.len() >= self.limit.tokens).then_some(self.limit.reason)
        };
        let logprob = logits[id as usize] - normaliser;
        Ok(GeneratedToken { sequence: index, id, logprob, finish: sequence.finish })
    }
}

/// The same allocation, emptied: collecting what is left of a `Vec`, here nothing, reuses it.
fn recycled<'a>(mut steps: Vec<Step<'_>>) -> Vec<Step<'a>> {
    steps.clear();
    steps.into_iter().map(|_| unreachable!("the steps were cleared")).collect()
}

impl Iterator for Generation<'_> {
    /// An error ends the generation: the model gives no probabilities, because its weights are damaged.
    type Item = Result<GeneratedToken, StepError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(token) = self.ready.pop_front() {
                return Some(Ok(token));
            }
            if self.failed || self.sequences.iter().all(|sequence| sequence.finish.is_some()) {
                return None;
            }
            if let Err(error) = self.advance() {
                self.failed = true;
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }
}
