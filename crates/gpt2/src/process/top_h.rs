//! Tokens that hold a share of the entropy.

use super::distribution::{Distribution, collect_descending};
use super::{Context, Processor, Scores};

/// Keeps the likeliest tokens while their part of the entropy is at most a share of the whole.
///
/// Equals transformers' `TopHLogitsWarper`: no more than the 100 likeliest tokens count, and the likeliest always stays;
/// of equal scores the lower id comes first. ("Top-H Decoding", 2025, arXiv 2509.02510)
#[derive(Clone, Debug)]
pub struct TopH {
    share: f32,
    /// The highest scores.
    highest: Vec<(f32, u32)>,
}

impl TopH {
    /// Number of tokens that are considered.
    pub const MOST: usize = 100;

    /// Takes the share.
    ///
    /// # Panics
    /// Panics if it is not above 0, at most 1.
    #[must_use]
    pub fn new(share: f64) -> Self {
        assert!(share > 0.0 && share <= 1.0, "top_h {share}");
        Self { share: share as f32, highest: Vec::new() }
    }
}

impl Processor for TopH {
    fn name(&self) -> &'static str {
        "top_h"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        collect_descending(scores, Self::MOST, &mut self.highest);
        let Some(distribution) = Distribution::of_descending(&self.highest) else { return };
        let entropy: f64 = self.highest.iter().map(|&(score, _)| distribution.information(score)).sum();
        let bound = entropy as f32 * self.share;
        let mut sum = 0.0f64;
        let (first, others) = self.highest.split_at(1);
        sum += distribution.information(first[0].0);
        let kept = others.iter().take_while(|&&(score, _)| {
            sum += distribution.information(score);
            sum as f32 <= bound && distribution.probability(score) > 0.0
        });
        let last = self.highest[kept.count()];
        scores.keep(|id, score| score > last.0 || score == last.0 && id <= last.1);
    }
}
