//! Tokens that are not too improbable.

use super::distribution::Distribution;
use super::{Context, Processor, Scores, TopK};

/// Keeps the tokens whose probability is at least a share of the likeliest token's.
///
/// Equals transformers' `MinPLogitsWarper`.
#[derive(Clone, Debug)]
pub struct MinP {
    share: f32,
    least: TopK,
}

impl MinP {
    /// Takes the share.
    ///
    /// # Panics
    /// Panics if it is not within 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "min_p {share}");
        Self { share: share as f32, least: TopK::new(1) }
    }

    /// Always keeps this many of the likeliest tokens, 1 if not called; of equals the lower ids.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn keeping(self, least: usize) -> Self {
        Self { least: TopK::new(least), ..self }
    }
}

impl Processor for MinP {
    fn name(&self) -> &'static str {
        "min_p"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        let Some(distribution) = Distribution::of(scores) else { return };
        let bound = self.share * distribution.highest_probability();
        let last = self.least.threshold(scores);
        // How many that equal the last of those always kept are among them.
        let mut room = self.least.k();
        scores.candidates(|_, score| room -= usize::from(score > last));
        scores.keep(|_, score| {
            let equal = score == last && room > 0;
            room -= usize::from(equal);
            score > last || equal || distribution.probability(score) >= bound
        });
    }
}
