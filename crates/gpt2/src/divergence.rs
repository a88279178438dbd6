//! How far a model is from another one: what a format of weights costs, measured.
//!
//! Both models read the same text and predict every next token of it. With p the reference's probabilities at a
//! position, q the model's, and i every token of the vocabulary, the position's divergence is
//! `KL(p || q) = Σ p[i] · ln(p[i] / q[i])`, in nats: what it costs to take q for p. From logits x and y this is
//! `Σ p[i] · (x[i] - y[i]) - ln Σ exp(x) + ln Σ exp(y)`, all of it in `f64`.
//!
//! The text is cut into windows that do not overlap. Each begins with an empty cache, and each of its positions
//! counts but the last, which has no next token to be judged by.

use std::sync::OnceLock;

use gpt2_kernels::math::{exp_f64, exp_not_positive, ln};
use serde::Serialize;
use thiserror::Error;

use crate::cache::KvCache;
use crate::logits::argmax;
use crate::model::{Model, Step, StepError, Want};
use crate::workspace::Workspace;

/// Positions whose logits are held at once, of both models: bounds the memory, changes no bit.
const CHUNK: usize = 64;

/// Partial sums over the vocabulary, so that they run across vector lanes.
const LANES: usize = 8;

/// How far a model's predictions are from those of a reference, over the positions of a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Positions that were compared.
    pub positions: usize,
    /// Mean over the positions of KL(reference || model), in nats.
    pub mean: f64,
    /// Standard error of the mean, the positions taken as independent: `sqrt(Σ (KL - mean)²) / positions`.
    pub standard_error: f64,
    /// The largest of a position.
    pub largest: f64,
    /// Positions whose most likely token is the same.
    pub same_top_token: usize,
    /// The model's perplexity: `exp` of the mean negative log-probability of the next token.
    pub perplexity: f64,
    /// The reference's perplexity.
    pub reference_perplexity: f64,
}

impl Divergence {
    /// Share of positions whose most likely token is the same.
    #[must_use]
    pub fn same_top_token_share(&self) -> f64 {
        self.same_top_token as f64 / self.positions as f64
    }
}

/// Why two models cannot be compared.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DivergenceError {
    /// There is no position with a next token.
    #[error("nothing to compare: expected at least 2 tokens, found {tokens}")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
    },
    /// The models predict different things.
    #[error("the reference has a vocabulary of {reference} tokens, the model one of {model}")]
    Vocabulary {
        /// The reference's size.
        reference: usize,
        /// The model's size.
        model: usize,
    },
    /// One of the models cannot read the text, or its weights are damaged.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Compares a model's predictions with a reference's, on a text in windows of `window` tokens.
///
/// A model is exactly 0 from itself. `progress` is told the tokens done so far.
///
/// # Errors
/// If the text has fewer than two tokens or one that is outside the vocabulary, the vocabularies differ in size, or
/// a model's weights are damaged.
///
/// # Panics
/// Panics if `window` is less than 2 or larger than the context of either model.
pub fn divergence(
    reference: &Model,
    model: &Model,
    tokens: &[u32],
    window: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Divergence, DivergenceError> {
    let context = reference.config().n_positions.min(model.config().n_positions);
    assert!((2..=context).contains(&window), "a window of {window} in a context of {context}");
    let sizes = [reference, model].map(|model| model.config().vocab_size);
    if sizes[0] != sizes[1] {
        return Err(DivergenceError::Vocabulary { reference: sizes[0], model: sizes[1] });
    }
    if tokens.len() < 2 {
        return Err(DivergenceError::TooShort { tokens: tokens.len() });
    }
    reference.check_tokens(tokens)?;
    let room = CHUNK.min(window).min(tokens.len());
    let mut works = [reference, model].map(|model| Workspace::new(model, room, room));
    let mut sums = Sums::default();
    let mut done = 0;
    for window in tokens.chunks(window) {
        let mut caches = [reference, model].map(KvCache::new);
        for (index, chunk) in window.chunks(CHUNK).enumerate() {
            for ((model, cache), work) in [reference, model].into_iter().zip(&mut caches).zip(&mut works) {
                let step = Step::new(model, chunk, cache, Want::All)?;
                model.forward(&mut [step], work);
            }
            let first = index * CHUNK;
            let targets = &window[first + 1..window.len().min(first + chunk.len() + 1)];
            let [x, y] = works.each_ref().map(|work| work.logits(chunk.len()));
            let compared: Vec<OnceLock<Option<Position>>> = targets.iter().map(|_| OnceLock::new()).collect();
            reference.cpu().pool.run(targets.len(), |row, _| {
                compared[row].get_or_init(|| compare(x.row(row), y.row(row), targets[row] as usize));
            });
            for (row, position) in compared.into_iter().enumerate() {
                let position = position.into_inner().flatten();
                sums.add(&position.ok_or(StepError::NotFinite { position: done + row })?);
            }
            done += chunk.len();
        }
        progress(done);
    }
    Ok(sums.divergence())
}

/// The two predictions at a position.
struct Position {
    kl: f64,
    same_top_token: bool,
    logprob: f64,
    reference_logprob: f64,
}

/// Compares the reference's logits `x` with the model's, `y`; `None` if either are no numbers. (V), (V)
fn compare(x: &[f32], y: &[f32], target: usize) -> Option<Position> {
    let (top_x, top_y) = (argmax(x), argmax(y));
    let (max_x, max_y) = (f64::from(x[top_x]), f64::from(y[top_y]));
    let (mut sums_x, mut sums_y, mut differences) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let mut add = |x: &[f32], y: &[f32]| {
        for lane in 0..x.len() {
            let (x, y) = (f64::from(x[lane]), f64::from(y[lane]));
            let power = exp_not_positive(x - max_x);
            sums_x[lane] += power;
            sums_y[lane] += exp_not_positive(y - max_y);
            // What cannot come next adds nothing, however unlikely the model finds it.
            differences[lane] += if power == 0.0 { 0.0 } else { power * (x - y) };
        }
    };
    let ((x_lanes, x_rest), (y_lanes, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x_lanes.iter().zip(y_lanes) {
        add(x, y);
    }
    add(x_rest, y_rest);
    let [sum_x, sum_y, difference] = [sums_x, sums_y, differences].map(|sums| sums.iter().sum::<f64>());
    if !(sum_x.is_finite() && sum_y.is_finite()) {
        return None;
    }
    let (ln_x, ln_y) = (ln(sum_x), ln(sum_y));
    // Not below zero but for the rounding.
    let kl = (difference / sum_x - (max_x - max_y) - (ln_x - ln_y)).max(0.0);
    Some(Position {
        kl,
        same_top_token: top_x == top_y,
        logprob: f64::from(y[target]) - max_y - ln_y,
        reference_logprob: f64::from(x[target]) - max_x - ln_x,
    })
}

/// What is known of the positions so far.
#[derive(Default)]
struct Sums {
    positions: usize,
    total: f64,
    /// The mean so far, and the sum of the squares of the distances from it (Welford's recurrence).
    mean: f64,
    squares: f64,
    largest: f64,
    same_top_token: usize,
    logprob: f64,
    reference_logprob: f64,
}

impl Sums {
    fn add(&mut self, position: &Position) {
        self.positions += 1;
        self.total += position.kl;
        let distance = position.kl - self.mean;
        self.mean += distance / self.positions as f64;
        self.squares += distance * (position.kl - self.mean);
        self.largest = self.largest.max(position.kl);
        self.same_top_token += usize::from(position.same_top_token);
        self.logprob += position.logprob;
        self.reference_logprob += position.reference_logprob;
    }

    fn divergence(&self) -> Divergence {
        let count = self.positions as f64;
        Divergence {
            positions: self.positions,
            mean: self.total / count,
            standard_error: self.squares.sqrt() / count,
            largest: self.largest,
            same_top_token: self.same_top_token,
            perplexity: exp_f64(-self.logprob / count),
            reference_perplexity: exp_f64(-self.reference_logprob / count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_not_compared_and_what_cannot_come_adds_nothing() {
        let none = f32::NEG_INFINITY;
        for (x, y, kl) in [
            (&[0.0, none][..], &[0.0, none][..], Some(0.0)),
            (&[0.0, none], &[0.0, 0.0], Some(std::f64::consts::LN_2)),
            (&[0.0, 0.0], &[0.0, none], Some(f64::INFINITY)),
            (&[0.0, f32::NAN], &[0.0, 0.0], None),
            (&[0.0, 0.0], &[0.0, f32::INFINITY], None),
            (&[none, none], &[0.0, 0.0], None),
        ] {
            let found = compare(x, y, 0).map(|position| position.kl);
            match (found, kl) {
                (Some(found), Some(kl)) => assert!(found == kl || (found - kl).abs() < 1e-12, "{x:?} {y:?}"),
                _ => assert_eq!(found, kl, "{x:?} {y:?}"),
            }
        }
    }
}
