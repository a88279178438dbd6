//! The probabilities of the tokens that are left.

use gpt2_kernels::math::{exp_alone, ln};

use super::Scores;

/// The softmax of the scores that are left, as torch computes it in `f32`; only sums are kept in `f64` on their way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Distribution {
    max: f32,
    /// `Σ exp(score - max)`.
    total: f64,
}

impl Distribution {
    /// None if no token is left, or if a score is infinite: that is no distribution, and choosing a token will say so.
    pub(super) fn of(scores: &Scores) -> Option<Self> {
        let mut max = f32::NEG_INFINITY;
        scores.candidates(|_, score| max = max.max(score));
        let mut total = 0.0;
        scores.candidates(|_, score| total += f64::from(exp_alone(score - max)));
        max.is_finite().then_some(Self { max, total })
    }

    /// The same of scores in a list, the highest first.
    pub(super) fn of_descending(scores: &[(f32, u32)]) -> Option<Self> {
        let &(max, _) = scores.first()?;
        let total = scores.iter().map(|&(score, _)| f64::from(exp_alone(score - max))).sum();
        max.is_finite().then_some(Self { max, total })
    }

    pub(super) fn probability(&self, score: f32) -> f32 {
        exp_alone(score - self.max) / self.total as f32
    }

    pub(super) fn highest_probability(&self) -> f32 {
        self.probability(self.max)
    }

    pub(super) fn logprob(&self, score: f32) -> f32 {
        score - self.max - ln(self.total) as f32
    }

    /// `-Σ p ln p`, in nats.
    pub(super) fn entropy(&self, scores: &Scores) -> f32 {
        let mut sum = 0.0;
        scores.candidates(|_, score| sum += self.information(score));
        sum as f32
    }

    /// What a token adds to the entropy: `-p ln p`.
    pub(super) fn information(&self, score: f32) -> f64 {
        let logprob = self.logprob(score);
        let probability = exp_alone(logprob);
        // So far below the highest score, the logarithm may be infinite.
        if probability > 0.0 { -f64::from(probability * logprob) } else { 0.0 }
    }
}

/// Collects the tokens that are left, the highest score first, of equals the lower id first; at most `most` of them.
pub(super) fn collect_descending(scores: &Scores, most: usize, into: &mut Vec<(f32, u32)>) {
    into.clear();
    // Adding zero makes -0 equal to 0, in the order too.
    scores.candidates(|id, score| into.push((score + 0.0, id)));
    let by_score = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if most < into.len() {
        into.select_nth_unstable_by(most, by_score);
        into.truncate(most);
    }
    into.sort_unstable_by(by_score);
}
