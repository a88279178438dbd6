//! Tokens whose scores stand out.

use super::{Context, Processor, Scores};

/// Keeps the tokens whose score is at most n standard deviations of all scores below the highest.
///
/// llama.cpp's `top_n_sigma`. (Tang et al., "Top-nσ", 2024)
#[derive(Clone, Copy, Debug)]
pub struct TopNSigma(f32);

impl TopNSigma {
    /// Takes n.
    ///
    /// # Panics
    /// Panics if it is not a finite number above zero.
    #[must_use]
    pub fn new(n: f64) -> Self {
        assert!(n.is_finite() && n > 0.0, "top_n_sigma {n}");
        Self(n as f32)
    }
}

impl Processor for TopNSigma {
    fn name(&self) -> &'static str {
        "top_n_sigma"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        let Some((_, max)) = scores.best().filter(|&(_, max)| max.is_finite()) else { return };
        let (mut count, mut sum) = (0.0f64, 0.0f64);
        scores.candidates(|_, score| (count, sum) = (count + 1.0, sum + f64::from(score)));
        let mean = sum / count;
        let mut squares = 0.0f64;
        scores.candidates(|_, score| squares += (f64::from(score) - mean) * (f64::from(score) - mean));
        let bound = f64::from(max) - f64::from(self.0) * (squares / count).sqrt();
        scores.keep(|_, score| f64::from(score) >= bound);
    }
}
