//! The most likely next tokens.

use gpt2_kernels::math::{exp_alone, exp_not_positive, ln};
use gpt2_kernels::ops::log_sum_exp;
use serde::Serialize;

use crate::cache::KvCache;
use crate::model::{Model, Step, StepError, Want};
use crate::probe::Probe;
use crate::workspace::Workspace;

/// A token that may come next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability.
    pub probability: f32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// Ranks the `k` most likely tokens after `tokens`, likeliest first; of equals the lower id first.
///
/// # Errors
/// If there are no tokens, one is outside the vocabulary, they do not fit into the context, or the
/// model's weights are damaged.
pub fn next_tokens(model: &Model, tokens: &[u32], k: usize) -> Result<Vec<Candidate>, StepError> {
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, tokens.len().min(PREFILL_CHUNK), 1);
    prefill(model, tokens, &mut cache, &mut work)?;
    let logits = work.logits(1).row(0);
    let normaliser = normaliser(model, logits, tokens.len() - 1)?;
    Ok(rank(logits, normaliser, k))
}

/// Tokens of a prompt that go through the model together: bounds the workspace, changes no bit.
pub(crate) const PREFILL_CHUNK: usize = 512;

/// Feeds a prompt in chunks as large as the workspace takes; the last position's logits are row 0.
pub(crate) fn prefill(
    model: &Model,
    tokens: &[u32],
    cache: &mut KvCache,
    work: &mut Workspace,
) -> Result<(), StepError> {
    prefill_probed(model, tokens, cache, work, &mut ())
}

/// [`prefill`], with an observer of every chunk.
pub(crate) fn prefill_probed(
    model: &Model,
    tokens: &[u32],
    cache: &mut KvCache,
    work: &mut Workspace,
    probe: &mut impl Probe,
) -> Result<(), StepError> {
    if tokens.is_empty() {
        return Err(StepError::Empty);
    }
    if tokens.len() > cache.room() {
        let context = model.config().n_positions;
        return Err(StepError::Context { past: cache.len(), new: tokens.len(), context });
    }
    model.check_tokens(tokens)?;
    let size = work.tokens();
    let chunks = tokens.len().div_ceil(size);
    for (index, chunk) in tokens.chunks(size).enumerate() {
        let want = if index + 1 == chunks { Want::Last } else { Want::Nothing };
        let step = Step::new(model, chunk, cache, want)?;
        model.forward_probed(&mut [step], work, probe);
    }
    Ok(())
}

/// `ln Σ exp` of the logits behind a position.
pub(crate) fn normaliser(model: &Model, logits: &[f32], position: usize) -> Result<f32, StepError> {
    let normaliser = log_sum_exp(model.cpu(), logits);
    if normaliser.is_nan() { Err(StepError::NotFinite { position }) } else { Ok(normaliser) }
}

/// The entropy of the softmax of a row of logits, in nats: `ln S - Σ w (x - max) / S`, with `w = exp(x - max)` and their
/// sum S.
pub(crate) fn entropy(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for logit in logits {
        let below = f64::from(logit - max);
        let weight = exp_not_positive(below);
        sum += weight;
        // Where the weight is zero, the logit may be infinite.
        weighted += if weight == 0.0 { 0.0 } else { weight * below };
    }
    (ln(sum) - weighted / sum) as f32
}

/// The k highest of a row of logits as candidates.
pub(crate) fn rank(logits: &[f32], normaliser: f32, k: usize) -> Vec<Candidate> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // Adding zero makes -0 equal to 0.
    let score = |id: u32| logits[id as usize] + 0.0;
    let by_score = |a: &u32, b: &u32| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
    let k = k.min(order.len());
    if k < order.len() {
        order.select_nth_unstable_by(k, by_score);
        order.truncate(k);
    }
    order.sort_unstable_by(by_score);
    let candidate = |id: u32| {
        let logprob = logits[id as usize] - normaliser;
        Candidate { id, probability: exp_alone(logprob), logprob }
    };
    order.into_iter().map(candidate).collect()
}
