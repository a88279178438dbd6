//! The third step of the chain: a fixed share of the probability.

use gpt2_kernels::math::exp;

use super::{Context, Processor, Scores};

/// Most tokens that are sorted, if all others go anyway.
const SORTED: usize = 1024;

/// Keeps the smallest set of most probable tokens whose probabilities reach p.
///
/// Equals transformers' `TopPLogitsWarper`, boundary and ties included: the probabilities are
/// summed from the least upwards, in `f64` and rounded to `f32` at every step as torch's `cumsum`
/// does; a token goes while that sum is at most `1 - p`; of equal scores the lower id goes first.
/// The most probable token always stays.
#[derive(Clone, Debug)]
pub struct TopP {
    /// `1 - p`, subtracted in `f64` and compared in `f32`, as Python and torch do.
    rest: f32,
    least: usize,
    /// The tokens not yet ruled out: score, id and exponential of the score, ascending.
    ascending: Vec<(f32, u32, f32)>,
}

impl TopP {
    /// Takes p.
    ///
    /// # Panics
    /// Panics if it is not within 0 to 1.
    #[must_use]
    pub fn new(p: f64) -> Self {
        assert!((0.0..=1.0).contains(&p), "top_p {p}");
        Self { rest: (1.0 - p) as f32, least: 1, ascending: Vec::new() }
    }

    /// Always keeps this many of the most probable tokens, 1 if not called.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn keeping(self, least: usize) -> Self {
        assert!(least > 0, "top_p that keeps nothing");
        Self { least, ..self }
    }
}

impl Processor for TopP {
    fn name(&self) -> &'static str {
        "top_p"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        let ascending = &mut self.ascending;
        ascending.clear();
        let Some((_, max)) = scores.best() else { return };
        // Adding zero makes -0 equal to 0, in the order too.
        scores.candidates(|id, score| ascending.push((score + 0.0, id, exp(score - max))));
        let total: f64 = ascending.iter().map(|&(_, _, exp)| f64::from(exp)).sum();
        let probability = |exp: f32| f64::from((f64::from(exp) / total) as f32);
        let order = |a: &(f32, u32, f32), b: &(f32, u32, f32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        // Only the likeliest need an order, if all others go whatever theirs is.
        let mut first = ascending.len().saturating_sub(SORTED.max(self.least));
        let mut sum = 0.0f64;
        if first > 0 {
            ascending.select_nth_unstable_by(first, order);
            // Summed up in the order of ids, which is the same everywhere.
            ascending[..first].sort_unstable_by_key(|&(_, id, _)| id);
            sum = ascending[..first].iter().map(|&(_, _, exp)| probability(exp)).sum();
            if sum as f32 > self.rest {
                (first, sum) = (0, 0.0);
            }
        }
        ascending[first..].sort_unstable_by(order);
        let below = ascending.len().saturating_sub(self.least);
        let mut lowest = first;
        for &(_, _, exp) in &ascending[first..below] {
            sum += probability(exp);
            if sum as f32 > self.rest {
                break;
            }
            lowest += 1;
        }
        ascending[..lowest].iter().for_each(|&(_, id, _)| scores.put(id, f32::NEG_INFINITY));
    }
}
