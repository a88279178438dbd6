//! The choice of a token from processed scores.

mod draw;
mod torch;

use gpt2_kernels::math::ln;

pub use draw::{Draw, Drawn};
pub use torch::TorchGenerator;

use crate::generate::{GenerateError, GenerationConfig, Rng};
use crate::process::Scores;

/// How a token is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampler {
    /// The highest score, the first of several.
    Greedy,
    /// A draw from the softmax of the scores, decided by keyed noise.
    ///
    /// The draw is the Gumbel-max trick: `argmax(score - ln(-ln u))`, where u is a hash of seed, sequence,
    /// position and token. It is a function of these and the scores alone: neither the batch nor
    /// what was drawn before has a say (Maddison, Tarlow, Minka 2014).
    Keyed {
        /// The key of the noise.
        seed: u64,
    },
    /// A draw from the softmax of the scores with torch's generator: what it was used for before has a say.
    Torch(TorchGenerator),
}

impl Sampler {
    /// The sampler that a configuration asks for.
    #[must_use]
    pub fn new(config: &GenerationConfig) -> Self {
        let seed = config.seed.unwrap_or(0);
        match config.rng.unwrap_or_default() {
            _ if !config.samples() => Self::Greedy,
            Rng::Keyed => Self::Keyed { seed },
            Rng::Torch => Self::Torch(TorchGenerator::new(seed)),
        }
    }

    /// Chooses the token at `position` (counted from the start of the prompt) of a return sequence.
    ///
    /// # Errors
    /// If no token is left, or the scores are no numbers.
    pub fn choose(
        &mut self,
        scores: &Scores,
        sequence: usize,
        position: usize,
    ) -> Result<u32, GenerateError> {
        if !scores.are_numbers() {
            return Err(GenerateError::Scores { position });
        }
        let (best, _) = scores.best().ok_or(GenerateError::NoTokenLeft { position })?;
        match self {
            Self::Greedy => Ok(best),
            Self::Keyed { seed } => {
                let noise = Noise::new(*seed, sequence, position);
                // Most tokens cannot come as far as the likeliest one, and two logarithms each are saved.
                let least = f64::from(scores.score(best)) + noise.gumbel(best);
                let mut chosen = (f64::NEG_INFINITY, best);
                scores.candidates(|token, score| {
                    let score = f64::from(score);
                    if score + noise.at_most(token) >= least {
                        let noisy = score + noise.gumbel(token);
                        if noisy > chosen.0 {
                            chosen = (noisy, token);
                        }
                    }
                });
                Ok(chosen.1)
            }
            Self::Torch(generator) => Ok(generator.multinomial(scores).unwrap_or(best)),
        }
    }

    /// Goes on as if a token of a finished sequence had been chosen.
    pub(crate) fn pass(&mut self, vocabulary: usize) {
        if let Self::Torch(generator) = self {
            generator.pass(vocabulary);
        }
    }
}

/// The noise at a position of a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64, sequence: usize, position: usize) -> Self {
        Self(key(mix(seed), sequence, position))
    }

    /// A token's draw from the standard Gumbel distribution.
    pub(crate) fn gumbel(self, token: u32) -> f64 {
        -ln(-ln(self.uniform(token)))
    }

    /// What that draw does not exceed: with `z` leading ones u is at most `1 - 2^-(z+1)`, and `-ln(-ln u)` is less than
    /// `-ln(1 - u)`.
    fn at_most(self, token: u32) -> f64 {
        let ones = (bits(self.0, token.into()) >> 12 << 12).leading_ones();
        // The last term is more than the logarithms are off.
        f64::from(ones + 1) * std::f64::consts::LN_2 + 1e-9
    }

    /// What that is made of: a number strictly between 0 and 1.
    fn uniform(self, token: u32) -> f64 {
        uniform(self.0, token.into())
    }
}

/// A number strictly between 0 and 1 for a position of a sequence, that has nothing to do with those that draw its
/// token, nor with those of another domain.
pub(crate) fn noise(domain: u64, seed: u64, sequence: usize, position: usize) -> f64 {
    uniform(key(mix(mix(seed) ^ domain), sequence, position), 0)
}

/// The key of a position's noise.
fn key(seed: u64, sequence: usize, position: usize) -> u64 {
    mix(mix(seed ^ sequence as u64) ^ position as u64)
}

/// A number strictly between 0 and 1: the upper 52 [`bits`] and a half.
fn uniform(key: u64, counter: u64) -> f64 {
    ((bits(key, counter) >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// SplitMix64's output number `counter` for the state `key` (Steele, Lea, Flood 2014).
fn bits(key: u64, counter: u64) -> u64 {
    mix(key.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// SplitMix64's finaliser: a bijection in which every input bit reaches every output bit.
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32]) -> Scores {
        let mut scores = Scores::default();
        scores.set(values);
        scores
    }

    fn keyed(seed: u64, scores: &Scores, sequence: usize, position: usize) -> u32 {
        Sampler::Keyed { seed }.choose(scores, sequence, position).expect("a token")
    }

    #[test]
    fn draws_follow_the_softmax() {
        let probabilities = [0.5f32, 0.25, 0.125, 0.1, 0.025, 0.0];
        let scores = scores(&probabilities.map(f32::ln));
        let draws = 200_000u32;
        // Over positions, over sequences and over seeds: each must be noise of its own.
        for run in 0..3usize {
            let mut counts = [0u32; 6];
            for i in 0..draws as usize {
                let (seed, sequence, position) = [(7, 0, i), (7, i, 3), (i, 0, 0)][run];
                counts[keyed(seed as u64, &scores, sequence, position) as usize] += 1;
            }
            assert_eq!(counts[5], 0, "an excluded token was drawn");
            // Pearson's statistic with 4 degrees of freedom exceeds 23.5 once in ten thousand times.
            let statistic: f64 = (0..5)
                .map(|i| {
                    let expected = f64::from(draws) * f64::from(probabilities[i]);
                    (f64::from(counts[i]) - expected).powi(2) / expected
                })
                .sum();
            assert!(statistic < 23.5, "run {run}: {counts:?}, statistic {statistic}");
        }
    }

    #[test]
    fn what_is_passed_over_could_not_have_won() {
        for run in 0..300u32 {
            let noise = Noise::new(run.into(), 1, 2);
            let value = |token: u32| 0.01 * ((token * 7919 + run) % 1009) as f32 * (run % 10) as f32;
            let all: Vec<f32> = (0..1000).map(value).collect();
            let noisy = |&token: &u32| f64::from(all[token as usize]) + noise.gumbel(token);
            let expected = (0..1000).max_by(|a, b| noisy(a).total_cmp(&noisy(b))).expect("a token");
            assert_eq!(keyed(run.into(), &scores(&all), 1, 2), expected, "run {run}");
            assert!((0..1000).all(|token| noise.gumbel(token) <= noise.at_most(token)));
        }
        // The largest draw there is: 53 leading ones, of which the last is the half.
        let largest = -ln(-ln(1.0 - 0.5 / (1u64 << 52) as f64));
        assert!(largest <= 53.0 * std::f64::consts::LN_2 + 1e-9, "{largest}");
    }

    #[test]
    fn the_noise_is_fixed_for_ever() {
        // Published seeds must keep their texts: these values may not change.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        let scores = scores(&[0.0; 1000]);
        let drawn: Vec<u32> = (0..6).map(|i| keyed(42, &scores, i % 2, i / 2)).collect();
        assert_eq!(drawn, [231, 466, 223, 461, 548, 36]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(Sampler::Greedy.choose(&scores(&[0.0, 2.0, 2.0]), 5, 9).expect("a token"), 1);
    }

    #[test]
    fn scores_that_leave_no_choice_are_an_error() {
        let gone = f32::NEG_INFINITY;
        for (row, message) in [
            (
                &[gone, gone][..],
                "no token is left to choose from at position 9: the settings rule out all of them",
            ),
            (&[0.0, f32::NAN], "the processed scores at position 9 are no numbers"),
            (&[0.0, f32::INFINITY], "the processed scores at position 9 are no numbers"),
        ] {
            for mut sampler in [Sampler::Greedy, Sampler::Keyed { seed: 1 }] {
                let error = sampler.choose(&scores(row), 0, 9).expect_err("an error");
                assert_eq!(error.to_string(), message);
            }
        }
    }
}
