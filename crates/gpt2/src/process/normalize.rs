//! Scores that are numbers, and scores that are log-probabilities.

use super::distribution::Distribution;
use super::{Context, Processor, Scores};

/// Makes numbers of scores that are none: 0 of NaN, the largest and the lowest number of the infinities.
///
/// Equals transformers' `InfNanRemoveLogitsProcessor`, which lets in again what was ruled out, if nothing else is left.
#[derive(Clone, Copy, Debug)]
pub struct RemoveInvalidValues;

impl Processor for RemoveInvalidValues {
    fn name(&self) -> &'static str {
        "remove_invalid_values"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        for score in scores.all() {
            *score = if score.is_nan() { 0.0 } else { score.clamp(f32::MIN, f32::MAX) };
        }
    }
}

/// Makes log-probabilities of the scores.
///
/// Equals transformers' `LogitNormalization`.
#[derive(Clone, Copy, Debug)]
pub struct RenormalizeLogits;

impl Processor for RenormalizeLogits {
    fn name(&self) -> &'static str {
        "renormalize_logits"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        if let Some(distribution) = Distribution::of(scores) {
            scores.map(|_, score| distribution.logprob(score));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_becomes_a_number() {
        let mut scores = Scores::default();
        scores.set(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0]);
        RemoveInvalidValues.process(&Context { tokens: &[], prompt: 0, ..Context::default() }, &mut scores);
        assert_eq!(scores.all(), [0.0, f32::MAX, f32::MIN, 1.0]);
    }
}
