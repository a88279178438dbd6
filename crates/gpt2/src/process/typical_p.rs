//! Tokens that are about as surprising as is to be expected.

use super::distribution::Distribution;
use super::{Context, Processor, Scores};

/// Keeps the smallest set of tokens whose probabilities reach a mass, those whose information is nearest to the
/// entropy first.
///
/// Equals transformers' `TypicalLogitsWarper`: what is as near as the last of the set stays too. (Meister et al.,
/// "Locally Typical Sampling", 2022)
#[derive(Clone, Debug)]
pub struct TypicalP {
    mass: f32,
    least: usize,
    /// How far each token's information is from the entropy, its id, and its probability; the nearest first.
    nearest: Vec<(f32, u32, f32)>,
}

impl TypicalP {
    /// Takes the mass.
    ///
    /// # Panics
    /// Panics if it is not above 0, at most 1.
    #[must_use]
    pub fn new(mass: f64) -> Self {
        assert!(mass > 0.0 && mass <= 1.0, "typical_p {mass}");
        Self { mass: mass as f32, least: 1, nearest: Vec::new() }
    }

    /// Always keeps this many tokens, 1 if not called: the nearest ones, of equals the lower ids.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn keeping(self, least: usize) -> Self {
        assert!(least > 0, "typical_p that keeps nothing");
        Self { least, ..self }
    }
}

impl Processor for TypicalP {
    fn name(&self) -> &'static str {
        "typical_p"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        let Some(distribution) = Distribution::of(scores) else { return };
        let entropy = distribution.entropy(scores);
        let nearest = &mut self.nearest;
        nearest.clear();
        scores.candidates(|id, score| {
            let distance = (-distribution.logprob(score) - entropy).abs();
            nearest.push((distance, id, distribution.probability(score)));
        });
        nearest.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut sum = 0.0f64;
        let reached = nearest.iter().position(|&(.., probability)| {
            sum += f64::from(probability);
            sum as f32 >= self.mass
        });
        // Rounding may leave the mass unreached; then all stay.
        let Some(last) = reached else { return };
        let farthest = nearest[last].0;
        for (rank, &(distance, id, _)) in nearest.iter().enumerate().skip(self.least) {
            if rank > last && distance > farthest {
                scores.put(id, f32::NEG_INFINITY);
            }
        }
    }
}
