//! The third step of the chain: a fixed share of the probability.

use gpt2_kernels::math::exp;

use super::{Context, Processor, Scores};

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
    /// The tokens not yet ruled out: score and id, ascending.
    ascending: Vec<(f32, u32)>,
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
        // Adding zero makes -0 equal to 0, in the order too.
        scores.candidates(|id, score| ascending.push((score + 0.0, id)));
        ascending.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let Some(&(max, _)) = ascending.last() else { return };
        let total: f64 = ascending.iter().map(|&(score, _)| f64::from(exp(score - max))).sum();
        let mut sum = 0.0f64;
        let below = ascending.len().saturating_sub(self.least);
        for &(score, id) in &ascending[..below] {
            sum += f64::from((f64::from(exp(score - max)) / total) as f32);
            if sum as f32 > self.rest {
                return;
            }
            scores.put(id, f32::NEG_INFINITY);
        }
    }
}
