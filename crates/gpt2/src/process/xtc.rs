//! Leaving out what everyone would say.

use super::distribution::{Distribution, collect_descending};
use super::{Context, Processor, Scores};
use crate::sample::noise;

/// Now and then leaves out the likeliest tokens: of those whose probability reaches a threshold, all but the last.
///
/// llama.cpp's `xtc` ("exclude top choices"); of equal scores the lower id counts as likelier. Whether it happens is a
/// function of seed, sequence and position, as everything that is drawn here, where llama.cpp asks a generator.
#[derive(Clone, Debug)]
pub struct Xtc {
    probability: f64,
    threshold: f32,
    seed: u64,
    /// The tokens that are left, the likeliest first.
    descending: Vec<(f32, u32)>,
}

impl Xtc {
    /// Keeps this noise apart from the one that draws tokens: "xtc" in ASCII.
    const DOMAIN: u64 = 0x78_7463;

    /// Takes the probability with which it happens, the threshold and the seed. A threshold above 0.5 does nothing, as
    /// no two tokens could reach it.
    ///
    /// # Panics
    /// Panics if one is not within 0 to 1.
    #[must_use]
    pub fn new(probability: f64, threshold: f64, seed: u64) -> Self {
        assert!((0.0..=1.0).contains(&probability), "xtc_probability {probability}");
        assert!((0.0..=1.0).contains(&threshold), "xtc_threshold {threshold}");
        Self { probability, threshold: threshold as f32, seed, descending: Vec::new() }
    }
}

impl Processor for Xtc {
    fn name(&self) -> &'static str {
        "xtc_probability"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let chance = noise(Self::DOMAIN, self.seed, context.sequence, context.tokens.len());
        if self.probability <= 0.0 || self.threshold > 0.5 || chance > self.probability {
            return;
        }
        let Some(distribution) = Distribution::of(scores) else { return };
        collect_descending(scores, usize::MAX, &mut self.descending);
        let likely = |&&(score, _): &&(f32, u32)| distribution.probability(score) >= self.threshold;
        let count = self.descending.iter().take_while(likely).count();
        for &(_, id) in &self.descending[..count.saturating_sub(1)] {
            scores.put(id, f32::NEG_INFINITY);
        }
    }
}
