//! A feedback loop that holds the surprise of a text at a level.

use gpt2_kernels::math::{exp_f64, ln};

use super::distribution::{Distribution, collect_descending};
use super::{Context, Processor, Scores};

/// Keeps as many of the likeliest tokens as it takes for their surprise to come out at a target, in the mean.
///
/// llama.cpp's `mirostat` and `mirostat_v2`, computed in `f64` where llama.cpp has `f32`. (Basu et al., "Mirostat", 2021)
/// Each sequence has a state of its own: a bound that every chosen token moves.
#[derive(Clone, Debug)]
pub struct Mirostat {
    version: Version,
    tau: f64,
    eta: f64,
    /// The bound of each sequence, in bits; twice the target at first.
    mu: Vec<f64>,
    /// The tokens that are left, the likeliest first.
    descending: Vec<(f32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Mirostat {
    /// Takes the target in bits and the rate of learning, for the first version: it estimates the distribution's
    /// exponent (Zipf's law) from the likeliest 100 tokens, and the number of tokens to keep from that.
    ///
    /// # Panics
    /// Panics if one is not a finite number, here and in [`v2`](Self::v2).
    #[must_use]
    pub fn v1(tau: f64, eta: f64) -> Self {
        assert!(tau.is_finite() && eta.is_finite(), "mirostat_tau {tau}, mirostat_eta {eta}");
        Self { version: Version::One, tau, eta, mu: Vec::new(), descending: Vec::new() }
    }

    /// Takes the same for the second version: it keeps the tokens whose surprise is within the bound.
    #[must_use]
    pub fn v2(tau: f64, eta: f64) -> Self {
        Self { version: Version::Two, ..Self::v1(tau, eta) }
    }

    /// Number of tokens to keep of a vocabulary, by the first version.
    fn estimate(&self, distribution: &Distribution, mu: f64, vocabulary: usize) -> usize {
        const TOKENS: usize = 100;
        let logprob = |&(score, _): &(f32, u32)| f64::from(distribution.logprob(score));
        let (mut products, mut squares) = (0.0, 0.0);
        for (i, pair) in self.descending[..TOKENS.min(self.descending.len())].windows(2).enumerate() {
            let t = ln((i + 2) as f64 / (i + 1) as f64);
            products += t * (logprob(&pair[0]) - logprob(&pair[1]));
            squares += t * t;
        }
        let exponent = products / squares;
        let epsilon = exponent - 1.0;
        let power = |base: f64, exponent: f64| exp_f64(exponent * ln(base));
        let base = epsilon * power(2.0, mu) / (1.0 - power(vocabulary as f64, -epsilon));
        if base.is_finite() && exponent > 0.0 {
            (power(base.max(f64::MIN_POSITIVE), 1.0 / exponent) as usize).max(1)
        } else {
            // A flat distribution has no exponent: nothing tells its tokens apart.
            usize::MAX
        }
    }
}

impl Processor for Mirostat {
    fn name(&self) -> &'static str {
        "mirostat"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let Some(distribution) = Distribution::of(scores) else { return };
        if self.mu.len() <= context.sequence {
            self.mu.resize(context.sequence + 1, 2.0 * self.tau);
        }
        let mu = self.mu[context.sequence];
        collect_descending(scores, usize::MAX, &mut self.descending);
        let count = match self.version {
            Version::One => self.estimate(&distribution, mu, scores.vocabulary()),
            Version::Two => {
                let within = |&&(score, _): &&(f32, u32)| surprise(&distribution, score) <= mu;
                self.descending.iter().take_while(within).count().max(1)
            }
        };
        if let Some(&last) = self.descending[..count.min(self.descending.len())].last() {
            scores.keep(|id, score| score > last.0 || score == last.0 && id <= last.1);
        }
    }

    fn chosen(&mut self, context: &Context<'_>, scores: &Scores, token: u32) {
        if let (Some(distribution), Some(mu)) = (Distribution::of(scores), self.mu.get_mut(context.sequence))
        {
            *mu -= self.eta * (surprise(&distribution, scores.score(token)) - self.tau);
        }
    }
}

/// `-log2 p`.
fn surprise(distribution: &Distribution, score: f32) -> f64 {
    -f64::from(distribution.logprob(score)) / std::f64::consts::LN_2
}
