//! The first step of the chain: how sharp the distribution is.

use super::{Context, Processor, Scores};

/// Divides every score: below 1 sharpens the distribution, above 1 flattens it.
///
/// Equals transformers' `TemperatureLogitsWarper`.
#[derive(Clone, Copy, Debug)]
pub struct Temperature(f32);

impl Temperature {
    /// Takes the temperature, which torch too turns into an `f32` before it divides.
    ///
    /// # Panics
    /// Panics if it is not a finite number above zero.
    #[must_use]
    pub fn new(temperature: f64) -> Self {
        assert!(temperature.is_finite() && temperature > 0.0, "temperature {temperature}");
        // A temperature that is zero in f32 would turn a score of zero into NaN.
        Self((temperature as f32).max(f32::MIN_POSITIVE))
    }
}

impl Processor for Temperature {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
        scores.map(|_, score| score / self.0);
    }
}
