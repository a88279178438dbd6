//! How sharp the distribution is.

use gpt2_kernels::math::{exp_f64, ln};

use super::distribution::Distribution;
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
        scores.divide(self.0);
    }
}

/// Divides every score by a temperature that is higher where the distribution is flatter.
///
/// llama.cpp's `temp_ext`: `low + (high - low) * (H / ln n)^exponent`, where H is the entropy, n the number of tokens that
/// are left, and low and high the temperature less and more the range. A low end below zero counts as zero, and a
/// temperature of zero leaves the likeliest token.
#[derive(Clone, Copy, Debug)]
pub struct DynamicTemperature {
    low: f64,
    high: f64,
    exponent: f64,
}

impl DynamicTemperature {
    /// Takes the temperature in the middle, how far from it the ends are, and the exponent.
    ///
    /// # Panics
    /// Panics if one is not a finite number from zero.
    #[must_use]
    pub fn new(temperature: f64, range: f64, exponent: f64) -> Self {
        let valid = |x: f64| x.is_finite() && x >= 0.0;
        assert!(valid(temperature) && valid(range) && valid(exponent), "{temperature}, {range}, {exponent}");
        Self { low: (temperature - range).max(0.0), high: temperature + range, exponent }
    }

    fn temperature(&self, scores: &Scores) -> Option<f64> {
        let distribution = Distribution::of(scores)?;
        let mut count = 0.0;
        scores.candidates(|_, _| count += 1.0);
        if count < 2.0 {
            return None;
        }
        let flatness = f64::from(distribution.entropy(scores)) / ln(count);
        let power = exp_f64(self.exponent * ln(flatness.clamp(f64::MIN_POSITIVE, 1.0)));
        Some(self.low + (self.high - self.low) * power)
    }
}

impl Processor for DynamicTemperature {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let Some(temperature) = self.temperature(scores) else { return };
        let Some((likeliest, highest)) = scores.best() else { return };
        // So cold that the highest score is no number any more, as if at zero.
        if temperature as f32 >= f32::MIN_POSITIVE && (highest / temperature as f32).is_finite() {
            Temperature::new(temperature).process(context, scores);
        } else {
            scores.keep(|id, _| id == likeliest);
        }
    }
}
