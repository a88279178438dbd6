//! The second step of the chain: a fixed number of tokens.

use super::{Context, Processor, Scores};

/// Keeps the k highest scores, and every score equal to the k-th.
///
/// Equals transformers' `TopKLogitsWarper`: ties at the boundary keep more than k tokens.
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    /// Room for the k highest scores.
    highest: Vec<f32>,
}

impl TopK {
    /// Takes the number of tokens to keep.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn new(k: usize) -> Self {
        assert!(k > 0, "top_k of zero keeps nothing");
        Self { k, highest: Vec::new() }
    }

    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// The k-th highest score of those left, or `-inf` if there are fewer than k.
    pub(super) fn threshold(&mut self, scores: &Scores) -> f32 {
        scores.highest(self.k, &mut self.highest)
    }
}

impl Processor for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        if self.k < scores.vocabulary() {
            let threshold = self.threshold(scores);
            scores.keep_from(threshold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_at_the_boundary_are_all_kept() {
        let mut scores = Scores::default();
        scores.set(&[1.0, 3.0, 2.0, 2.0, 0.0, 2.0]);
        TopK::new(2).process(&Context { tokens: &[], prompt: 0, ..Context::default() }, &mut scores);
        assert_eq!(scores.all(), [f32::NEG_INFINITY, 3.0, 2.0, 2.0, f32::NEG_INFINITY, 2.0]);
    }

    #[test]
    fn the_threshold_is_the_kth_score_of_the_sorted_row() {
        let scores: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1009) as f32).collect();
        let mut sorted = scores.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut row = Scores::default();
        row.set(&scores);
        for k in [1, 2, 3, 50, 999, 1000] {
            assert_eq!(TopK::new(k).threshold(&row), sorted[k - 1]);
        }
    }
}
