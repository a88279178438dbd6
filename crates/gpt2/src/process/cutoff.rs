//! Tokens of a least probability.

use gpt2_kernels::math::exp_alone;

use super::distribution::Distribution;
use super::{Context, Processor, Scores, TopK};

/// Keeps the tokens whose probability is at least epsilon.
///
/// Equals transformers' `EpsilonLogitsWarper`. (Hewitt, Manning, Liang, "Truncation Sampling as Language Model
/// Desmoothing", 2022)
#[derive(Clone, Debug)]
pub struct EpsilonCutoff {
    epsilon: f32,
    least: TopK,
}

impl EpsilonCutoff {
    /// Takes epsilon.
    ///
    /// # Panics
    /// Panics if it is not from 0, below 1.
    #[must_use]
    pub fn new(epsilon: f64) -> Self {
        assert!((0.0..1.0).contains(&epsilon), "epsilon_cutoff {epsilon}");
        Self { epsilon: epsilon as f32, least: TopK::new(1) }
    }

    /// Always keeps this many of the likeliest tokens, and what equals the last of them; 1 if not called.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn keeping(self, least: usize) -> Self {
        Self { least: TopK::new(least), ..self }
    }
}

impl Processor for EpsilonCutoff {
    fn name(&self) -> &'static str {
        "epsilon_cutoff"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        if let Some(distribution) = Distribution::of(scores) {
            cut(&distribution, self.epsilon, &mut self.least, scores);
        }
    }
}

/// Keeps the tokens whose probability is at least `min(epsilon, sqrt(epsilon) * exp_alone(-H))`, where H is the entropy.
///
/// Equals transformers' `EtaLogitsWarper`; the same paper.
#[derive(Clone, Debug)]
pub struct EtaCutoff(EpsilonCutoff);

impl EtaCutoff {
    /// Takes epsilon.
    ///
    /// # Panics
    /// Panics if it is not from 0, below 1.
    #[must_use]
    pub fn new(epsilon: f64) -> Self {
        assert!((0.0..1.0).contains(&epsilon), "eta_cutoff {epsilon}");
        Self(EpsilonCutoff::new(epsilon))
    }

    /// Always keeps this many of the likeliest tokens, and what equals the last of them; 1 if not called.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn keeping(self, least: usize) -> Self {
        Self(self.0.keeping(least))
    }
}

impl Processor for EtaCutoff {
    fn name(&self) -> &'static str {
        "eta_cutoff"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        if let Some(distribution) = Distribution::of(scores) {
            let EpsilonCutoff { epsilon, least } = &mut self.0;
            let eta = epsilon.min(epsilon.sqrt() * exp_alone(-distribution.entropy(scores)));
            cut(&distribution, eta, least, scores);
        }
    }
}

fn cut(distribution: &Distribution, bound: f32, least: &mut TopK, scores: &mut Scores) {
    let kept = least.threshold(scores);
    scores.keep(|_, score| score >= kept || distribution.probability(score) >= bound);
}
