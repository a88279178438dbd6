//! The draws of torch on the CPU: the text that transformers gives for a seed.
//!
//! `torch.multinomial` draws an exponential for every probability of a tensor, zeros included, and takes the largest
//! quotient of a probability and its exponential (`Distributions.cpp` and `DistributionTemplates.h` of torch 2.7 to
//! 2.15; earlier versions draw the exponentials otherwise). The exponentials come from one stream, row after row, so
//! that a draw depends on the rows before it.

use gpt2_kernels::math::{exp, ln};

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

    /// Draws one token from the softmax of a row of scores: `torch.multinomial(probs, 1)`.
    ///
    /// The scores must be numbers, and some token must be left.
    pub(crate) fn multinomial(&mut self, scores: &Scores) -> Option<u32> {
        let (_, max) = scores.best()?;
        let mut sum = 0.0;
        scores.candidates(|_, score| sum += f64::from(exp(score - max)));
        let sum = sum as f32;
        let mut best: Option<(f32, u32)> = None;
        let mut position = 0;
        scores.candidates(|token, score| {
            self.pass(token as usize - position);
            position = token as usize + 1;
            let quotient = exp(score - max) / sum / self.exponential();
            if best.is_none_or(|(highest, _)| quotient > highest) {
                best = Some((quotient, token));
            }
        });
        self.pass(scores.vocabulary() - position);
        best.map(|(_, token)| token)
    }

    /// Draws `count` different entries of a tensor of probabilities, in the order of the draws:
    /// `torch.multinomial(probs, count)`.
    pub(crate) fn multinomial_without_replacement(
        &mut self,
        probabilities: &[f32],
        count: usize,
    ) -> Vec<usize> {
        let quotients: Vec<f32> = probabilities.iter().map(|p| p / self.exponential()).collect();
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

    /// A draw from the exponential distribution: `-log1p(-u)` with u in steps of 2^-53, rounded to f32.
    fn exponential(&mut self) -> f32 {
        // What is left of one is as exact as u, so that this logarithm is that of `log1p`.
        let u = (self.0.next_u64() & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64;
        -ln(1.0 - u) as f32
    }
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
                assert_eq!(generator.exponential().to_bits(), bits, "seed {seed}, number {index}");
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
