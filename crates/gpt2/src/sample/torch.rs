//! The draws of torch on the CPU: the text that transformers gives for a seed.
//!
//! `torch.multinomial` draws an exponential for every probability of a tensor, zeros included, and takes the largest
//! quotient of a probability and its exponential (`Distributions.cpp` and `DistributionTemplates.h` of torch 2.7 to
//! 2.15; earlier versions draw the exponentials otherwise). The exponentials come from one stream, row after row, so
//! that a draw depends on the rows before it.

use gpt2_kernels::math::{exp_not_positive, ln};

use crate::mt19937::Mt19937;
use crate::process::Scores;

/// torch's generator after `torch.manual_seed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchGenerator(Mt19937);

impl TorchGenerator {
    /// Seeds it; torch uses the lower 32 bits alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mt19937::new(seed as u32))
    }

    /// Draws one token from the softmax of a row of scores: `torch.multinomial(probs, 1)`. None if no token is left.
    ///
    /// The scores must be numbers.
    pub(crate) fn multinomial(&mut self, scores: &Scores) -> Option<u32> {
        let mut best: Option<(f32, u32)> = None;
        self.race(scores, |token, probability, u| {
            let highest = best.map_or(f32::NEG_INFINITY, |(highest, _)| highest);
            // An exponential is at least its u: most tokens have lost before any logarithm is taken. The factor is
            // more than rounding can do.
            if probability < highest * u as f32 * 0.999_999 {
                return;
            }
            let quotient = probability / exponential(u);
            if quotient > highest {
                best = Some((quotient, token));
            }
        });
        best.map(|(_, token)| token)
    }

    /// Draws the u of a whole row, and calls `f` with every token that is left, its probability and its u.
    pub(super) fn race(&mut self, scores: &Scores, mut f: impl FnMut(u32, f32, f64)) {
        let Some((_, max)) = scores.best() else { return self.pass(scores.vocabulary()) };
        let mut sum = 0.0;
        in_groups(scores, max, |_, weights| {
            weights.iter().for_each(|&weight| sum += f64::from(weight));
        });
        let sum = sum as f32;
        let mut position = 0;
        in_groups(scores, max, |tokens, weights| {
            for (&token, weight) in tokens.iter().zip(weights) {
                self.pass(token as usize - position);
                position = token as usize + 1;
                f(token, weight / sum, self.uniform());
            }
        });
        self.pass(scores.vocabulary() - position);
    }

    /// Draws `count` different entries of a tensor of probabilities, in the order of the draws:
    /// `torch.multinomial(probs, count)`.
    pub(crate) fn multinomial_without_replacement(
        &mut self,
        probabilities: &[f32],
        count: usize,
    ) -> Vec<usize> {
        let quotient = |&probability: &f32| {
            let u = self.uniform();
            if probability > 0.0 { probability / exponential(u) } else { 0.0 }
        };
        let quotients: Vec<f32> = probabilities.iter().map(quotient).collect();
        let mut order: Vec<usize> = (0..quotients.len()).collect();
        let by_quotient = |a: &usize, b: &usize| quotients[*b].total_cmp(&quotients[*a]).then(a.cmp(b));
        if count < order.len() {
            order.select_nth_unstable_by(count, by_quotient);
            order.truncate(count);
        }
        order.sort_unstable_by(by_quotient);
        order
    }

    /// Goes on as if a row of exponentials had been drawn.
    pub(crate) fn pass(&mut self, row: usize) {
        self.0.skip(2 * row);
    }

    /// A number from 0, below 1, in steps of 2^-53.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

/// The exponential that torch makes of a u: `-log1p(-u)`, rounded to f32.
pub(super) fn exponential(u: f64) -> f32 {
    // In steps of 2^-53, what is left of one is exact, so that this logarithm is that of `log1p`. The largest u gives
    // 36.7, and 0 gives 0, not -0.
    ln(1.0 - u).abs() as f32
}

/// Calls `f` with the tokens that are left and `exp(score - max)`, many at a time, so that the exponentials run across
/// vector lanes.
fn in_groups(scores: &Scores, max: f32, mut f: impl FnMut(&[u32], &[f32])) {
    const GROUP: usize = 64;
    let (mut tokens, mut values, mut count) = ([0; GROUP], [0.0; GROUP], 0);
    let mut flush = |tokens: &[u32], values: &mut [f32]| {
        for value in &mut *values {
            *value = exp_not_positive(f64::from(*value)) as f32;
        }
        f(tokens, values);
    };
    scores.candidates(|token, score| {
        (tokens[count], values[count]) = (token, score - max);
        count += 1;
        if count == GROUP {
            flush(&tokens, &mut values);
            count = 0;
        }
    });
    flush(&tokens[..count], &mut values[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws of torch itself.
    #[derive(serde::Deserialize)]
    struct Exponentials {
        seed: u64,
        indices: Vec<usize>,
        bits: Vec<u32>,
    }

    #[test]
    fn exponentials_are_those_of_torch() {
        #[derive(serde::Deserialize)]
        struct Expected {
            exponentials: Vec<Exponentials>,
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/seeds/expected.json");
        let expected: Expected = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert!(expected.exponentials.len() >= 3);
        for Exponentials { seed, indices, bits } in expected.exponentials {
            for (index, bits) in indices.into_iter().zip(bits) {
                let mut generator = TorchGenerator::new(seed);
                generator.pass(index);
                let found = exponential(generator.uniform());
                assert_eq!(found.to_bits(), bits, "seed {seed}, number {index}");
            }
        }
    }

    #[test]
    fn exponentials_are_those_of_log1p() {
        let mut generator = TorchGenerator::new(11);
        let mut differ = 0;
        for _ in 0..200_000 {
            let u = generator.uniform();
            let (found, expected) = (exponential(u), -(-u).ln_1p() as f32);
            assert!(found.to_bits().abs_diff(expected.to_bits()) <= 1, "{u}: {found} and {expected}");
            differ += u32::from(found != expected);
        }
        // The logarithm's error of 1e-13 meets a boundary of rounding, 6e-8 apart, once in 600,000 times.
        assert!(differ <= 5, "{differ} of 200,000 are rounded otherwise");
        let step = 1.0 / (1u64 << 53) as f64;
        for u in [0.0, step, 1e9 * step, 0.5, 1.0 - 1e9 * step, 1.0 - step] {
            assert_eq!(exponential(u), (-u).ln_1p().abs() as f32, "{u}");
        }
        assert!(exponential(0.0).is_sign_positive());
    }

    #[test]
    fn the_draw_is_the_largest_quotient_of_the_row() {
        let row: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 1009) as f32 * 0.012 - 90.0).collect();
        let mut scores = Scores::default();
        for kept in [1, 3, 64, 65, 1000, 5000] {
            scores.set(&row);
            scores.keep(|token, _| token % (5000 / kept) == 0);
            let (mut generator, mut slow) =
                (TorchGenerator::new(kept.into()), TorchGenerator::new(kept.into()));
            for draw in 0..20 {
                let max = scores.best().expect("a token").1;
                let quotients: Vec<f64> = (0..5000)
                    .map(|token| {
                        let u = slow.uniform();
                        f64::from(scores.score(token) - max).exp() / -(-u).ln_1p()
                    })
                    .collect();
                let best = (0..5000).max_by(|&a, &b| quotients[a].total_cmp(&quotients[b])).expect("a token");
                assert_eq!(generator.multinomial(&scores), Some(best as u32), "{kept} kept, draw {draw}");
            }
        }
    }

    #[test]
    fn a_row_passed_is_a_row_drawn() {
        let mut scores = Scores::default();
        scores.set(&[0.5; 100]);
        let (mut drawn, mut passed) = (TorchGenerator::new(3), TorchGenerator::new(3));
        drawn.multinomial(&scores).expect("a token");
        passed.pass(100);
        assert_eq!(drawn, passed);
        scores.keep(|token, _| token % 7 == 3);
        drawn.multinomial(&scores).expect("a token");
        passed.pass(100);
        assert_eq!(drawn, passed, "tokens that are ruled out take part in the stream");
        drawn.multinomial_without_replacement(&[0.01; 100], 5);
        passed.pass(100);
        assert_eq!(drawn, passed);
    }
}
