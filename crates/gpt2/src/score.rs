//! The log-probability of a text, token by token.

use gpt2_kernels::math::exp_f64;
use serde::Serialize;

use crate::cache::KvCache;
use crate::model::{Model, Step, StepError, Want};
use crate::predict::{Candidate, entropy, normaliser, rank};
use crate::workspace::Workspace;

/// Positions whose logits are held at once: bounds the memory, changes no bit.
const CHUNK: usize = 64;

/// What the model thinks of one token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TokenScore {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability given all before it; `None` for a first token.
    pub logprob: Option<f32>,
    /// One more than the number of tokens that are likelier: 1 is the model's own choice.
    pub rank: Option<usize>,
}

/// What the model thinks of one token of a text, and of others in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenDetails {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability given all before it; `None` for a first token.
    pub logprob: Option<f32>,
    /// One more than the number of tokens that are likelier: 1 is the model's own choice.
    pub rank: Option<usize>,
    /// The entropy of the distribution that it comes from, in nats.
    pub entropy: Option<f32>,
    /// The likeliest tokens in its place, in order; none for a first token.
    pub alternatives: Vec<Candidate>,
}

/// A scored text.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Every token of the text.
    pub tokens: Vec<TokenScore>,
}

impl Score {
    /// Number of tokens that have a log-probability.
    #[must_use]
    pub fn tokens_scored(&self) -> usize {
        self.logprobs().count()
    }

    /// The log-probability of the text: the sum over its tokens.
    #[must_use]
    pub fn total_logprob(&self) -> f64 {
        // Not `sum`, which makes nothing -0.
        self.logprobs().fold(0.0, |sum, logprob| sum + logprob)
    }

    /// `exp(-total / tokens_scored)`; `None` if no token was scored.
    #[must_use]
    pub fn perplexity(&self) -> Option<f64> {
        let count = self.tokens_scored();
        (count > 0).then(|| exp_f64(-self.total_logprob() / count as f64))
    }

    fn logprobs(&self) -> impl Iterator<Item = f64> {
        self.tokens.iter().filter_map(|token| token.logprob).map(f64::from)
    }
}

/// Scores every token of a text that fits into the context.
///
/// # Errors
/// If there are no tokens, one is outside the vocabulary, they do not fit into the context, or the
/// model's weights are damaged.
pub fn score(model: &Model, tokens: &[u32]) -> Result<Score, StepError> {
    let context = model.config().n_positions;
    if tokens.len() > context {
        return Err(StepError::Context { past: 0, new: tokens.len(), context });
    }
    score_strided(model, tokens, context, &mut |_| ())
}

/// Scores a text of any length in windows of the model's context that begin every `stride` tokens.
///
/// A token is scored in the first window that holds it, with all of that window before it as its context.
/// This is transformers' recipe for the perplexity of fixed-length models; a smaller stride gives every
/// token more context and takes longer. With a stride as long as the context the windows do not
/// overlap, and the first token of each has no score. `progress` is told the tokens done so far.
///
/// # Errors
/// If there are no tokens, one is outside the vocabulary, or the model's weights are damaged.
///
/// # Panics
/// Panics if `stride` is zero or larger than the context.
pub fn score_strided(
    model: &Model,
    tokens: &[u32],
    stride: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Score, StepError> {
    let judge = |id, before: Option<(&[f32], f32)>| TokenScore {
        id,
        logprob: before.map(|(logits, normaliser)| logits[id as usize] - normaliser),
        rank: before.map(|(logits, _)| rank_of(id, logits)),
    };
    Ok(Score { tokens: judge_strided(model, tokens, stride, progress, judge)? })
}

/// Looks at every token of a text, with so many of the tokens that are likeliest in its place. A text longer than the
/// context is read in windows that overlap by half.
///
/// # Errors
/// If there are no tokens, one is outside the vocabulary, or the model's weights are damaged.
pub fn token_details(
    model: &Model,
    tokens: &[u32],
    alternatives: usize,
) -> Result<Vec<TokenDetails>, StepError> {
    let stride = (model.config().n_positions / 2).max(1);
    judge_strided(model, tokens, stride, &mut |_| (), |id, before| TokenDetails {
        id,
        logprob: before.map(|(logits, normaliser)| logits[id as usize] - normaliser),
        rank: before.map(|(logits, _)| rank_of(id, logits)),
        entropy: before.map(|(logits, _)| entropy(logits)),
        alternatives: before
            .map(|(logits, normaliser)| rank(logits, normaliser, alternatives))
            .unwrap_or_default(),
    })
}

/// One more than the number of tokens that are likelier.
fn rank_of(id: u32, logits: &[f32]) -> usize {
    logits.iter().filter(|&&other| other > logits[id as usize]).count() + 1
}

/// Calls `judge` with every token, the logits behind those before it, and their `ln Σ exp`.
fn judge_strided<T>(
    model: &Model,
    tokens: &[u32],
    stride: usize,
    progress: &mut dyn FnMut(usize),
    mut judge: impl FnMut(u32, Option<(&[f32], f32)>) -> T,
) -> Result<Vec<T>, StepError> {
    let context = model.config().n_positions;
    assert!((1..=context).contains(&stride), "stride {stride} of a context of {context}");
    if tokens.is_empty() {
        return Err(StepError::Empty);
    }
    model.check_tokens(tokens)?;
    let mut scores = Vec::with_capacity(tokens.len());
    let mut work = Workspace::new(model, CHUNK.min(tokens.len()), CHUNK.min(tokens.len()));
    for start in (0..tokens.len()).step_by(stride) {
        let window = &tokens[start..tokens.len().min(start + context)];
        judge_window(model, window, start, &mut scores, &mut work, &mut judge)?;
        progress(scores.len());
        if start + window.len() == tokens.len() {
            break;
        }
    }
    Ok(scores)
}

/// Appends what is to be said of the window's tokens that have not been judged yet.
fn judge_window<T>(
    model: &Model,
    window: &[u32],
    start: usize,
    scores: &mut Vec<T>,
    work: &mut Workspace,
    judge: &mut impl FnMut(u32, Option<(&[f32], f32)>) -> T,
) -> Result<(), StepError> {
    if start == scores.len() {
        scores.push(judge(window[0], None));
    }
    let mut cache = KvCache::new(model);
    for (chunk_index, chunk) in window.chunks(CHUNK).enumerate() {
        let first = chunk_index * CHUNK;
        let step = Step::new(model, chunk, &mut cache, Want::All)?;
        let logits = model.forward(&mut [step], work);
        for row in 0..chunk.len() {
            let next = first + row + 1;
            // Row r predicts token r + 1 of the window; the windows before this one scored the rest.
            if next < window.len() && start + next >= scores.len() {
                let logits = logits.row(row);
                let normaliser = normaliser(model, logits, start + first + row)?;
                scores.push(judge(window[next], Some((logits, normaliser))));
            }
        }
    }
    Ok(())
}
