//! Watermarks: a pattern in the choice of tokens by which a text can be recognised.
//!
//! Kirchenbauer et al., "A Watermark for Large Language Models" (2023), as transformers' `WatermarkLogitsProcessor` and
//! `WatermarkDetector`, their random numbers included: at every position a part of the vocabulary is green, which part
//! is decided by a key and the tokens before, and green tokens get a bonus. Who knows the key counts green tokens.
//!
//! ```
//! use gpt2::generate::Watermarking;
//! use gpt2::watermark::{Detect, detect};
//!
//! let text: Vec<u32> = (0..40).collect();
//! let found = detect(&text, 50257, &Watermarking::default(), &Detect::default())?;
//! assert_eq!(found.num_tokens_scored, 39);
//! assert!(!found.prediction, "nobody marked these");
//! # Ok::<(), gpt2::watermark::DetectError>(())
//! ```

use std::collections::HashMap;

use gpt2_kernels::math::exp_f64;
use serde::Serialize;
use thiserror::Error;

use crate::generate::{SeedingScheme, Watermarking};
use crate::mt19937::Mt19937;
use crate::process::{Context, Processor, Scores};

/// Size of the permutation that `selfhash` looks tokens up in.
const TABLE: u32 = 1_000_003;
/// The likeliest tokens among which `selfhash` looks for green ones.
const TRIED: usize = 40;

/// Which tokens are green where.
struct Greens {
    config: Watermarking,
    vocabulary: u32,
    /// Number of green tokens.
    size: usize,
    /// For `selfhash` only.
    table: Vec<u32>,
    permutation: Vec<u32>,
}

impl Greens {
    fn new(config: Watermarking, vocabulary: usize) -> Self {
        let mut table = Vec::new();
        if config.seeding_scheme == SeedingScheme::Selfhash {
            permute(config.hashing_key, TABLE, TABLE as usize, &mut table);
        }
        let size = (vocabulary as f64 * config.greenlist_ratio) as usize;
        Self { config, vocabulary: vocabulary as u32, size, table, permutation: Vec::new() }
    }

    /// The green tokens behind some tokens, of which there are at least `context_width`; for `selfhash` the last of them
    /// is the one that is asked for.
    fn behind(&mut self, tokens: impl DoubleEndedIterator<Item = u32> + Clone) -> &[u32] {
        let last = tokens.clone().next_back().unwrap_or(0);
        let key = self.config.hashing_key;
        let modulus = u128::from(u64::MAX);
        let seed = match self.config.seeding_scheme {
            SeedingScheme::Lefthash => (u128::from(key) * u128::from(last) % modulus) as u64,
            SeedingScheme::Selfhash => {
                let hash = |token: u32| i64::from(self.table[(token % TABLE) as usize]) + 1;
                // In torch's 64-bit numbers, which wrap; the remainder is Python's, which is not negative.
                let product = |token: u32| (key as i64).wrapping_mul(hash(token)).wrapping_mul(hash(last));
                let seeds = tokens.rev().take(self.config.context_width).map(product);
                i128::from(seeds.min().unwrap_or(0)).rem_euclid(u64::MAX.into()) as u64
            }
        };
        permute(seed, self.vocabulary, self.size, &mut self.permutation);
        &self.permutation[..self.size]
    }
}

/// The first `count` numbers of `torch.randperm(n, generator=generator.manual_seed(seed))`, at the front of `permutation`.
fn permute(seed: u64, n: u32, count: usize, permutation: &mut Vec<u32>) {
    // torch seeds the Mersenne Twister with the lower half.
    let mut generator = Mt19937::new(seed as u32);
    permutation.clear();
    permutation.extend(0..n);
    for index in 0..count.min((n as usize).saturating_sub(1)) {
        let offset = generator.next_u32() % (n - index as u32);
        permutation.swap(index, index + offset as usize);
    }
}

/// Raises the scores of green tokens: transformers' `WatermarkLogitsProcessor`.
///
/// With `selfhash` a token is green or not by its own hash, and only the 40 likeliest are tried, of equals the lower id
/// first. As long as the text is shorter than `context_width` nothing happens.
pub struct Watermark {
    greens: Greens,
    /// The tokens to raise, or of `selfhash` all that are left with their scores.
    found: Vec<u32>,
    ranked: Vec<(f32, u32)>,
}

impl Watermark {
    /// Makes the processor for a vocabulary.
    #[must_use]
    pub fn new(config: Watermarking, vocabulary: usize) -> Self {
        Self { greens: Greens::new(config, vocabulary), found: Vec::new(), ranked: Vec::new() }
    }
}

impl Processor for Watermark {
    fn name(&self) -> &'static str {
        "watermarking_config"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let Self { greens, found, ranked } = self;
        let Watermarking { bias, seeding_scheme, context_width, .. } = greens.config;
        if context.tokens.len() < context_width {
            return;
        }
        let tokens = context.tokens.iter().copied();
        found.clear();
        if seeding_scheme == SeedingScheme::Lefthash {
            found.extend_from_slice(greens.behind(tokens));
        } else {
            ranked.clear();
            scores.candidates(|id, score| ranked.push((score + 0.0, id)));
            let higher = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            if TRIED < ranked.len() {
                ranked.select_nth_unstable_by(TRIED, higher);
                ranked.truncate(TRIED);
            }
            let green = |&(_, id): &(f32, u32)| {
                greens.behind(tokens.clone().chain(std::iter::once(id))).contains(&id).then_some(id)
            };
            found.extend(ranked.iter().filter_map(green));
        }
        for &id in &*found {
            let score = scores.score(id);
            if score > f32::NEG_INFINITY {
                scores.put(id, score + bias as f32);
            }
        }
    }
}

/// How a watermark is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detect {
    /// A token that does not count at the start of a text: the beginning-of-text token. Default: none.
    pub bos_token_id: Option<u32>,
    /// Whether phrases that occur again count once only. Default: no.
    pub ignore_repeated_ngrams: bool,
    /// The z-score above which a text counts as marked. Default: 3.
    pub z_threshold: f64,
}

impl Default for Detect {
    fn default() -> Self {
        Self { bos_token_id: None, ignore_repeated_ngrams: false, z_threshold: 3.0 }
    }
}

/// What was found in a text: transformers' `WatermarkDetectorOutput`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// Tokens that were looked at.
    pub num_tokens_scored: usize,
    /// Those of them that are green.
    pub num_green_tokens: usize,
    /// Their share.
    pub green_fraction: f64,
    /// By how many standard deviations they are more than in a text without the mark.
    pub z_score: f64,
    /// The probability of so many in a text without the mark.
    pub p_value: f64,
    /// Whether the text counts as marked.
    pub prediction: bool,
    /// `1 - p_value`.
    pub confidence: f64,
}

/// Why a watermark cannot be looked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetectError {
    /// No token can be looked at.
    #[error("{tokens} tokens are too few to look for a watermark: it takes at least {least}")]
    Short {
        /// Tokens of the text, without a beginning-of-text token.
        tokens: usize,
        /// The least number of them.
        least: usize,
    },
    /// A setting of the watermark is out of its range.
    #[error("`{setting}` must be {expected}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

/// Looks for a watermark in a text, the prompt of which had better be left out: transformers' `WatermarkDetector`.
///
/// `vocabulary` is the model's `vocab_size`, and `config` what the text was generated with.
///
/// # Errors
/// If the text is not longer than `context_width`, or `config` could not have marked any text.
pub fn detect(
    tokens: &[u32],
    vocabulary: usize,
    config: &Watermarking,
    how: &Detect,
) -> Result<Detection, DetectError> {
    let ratio = config.greenlist_ratio;
    if !(ratio > 0.0 && ratio < 1.0) {
        let expected = "a number above 0 and below 1";
        return Err(DetectError::Setting { setting: "greenlist_ratio", expected });
    }
    if config.context_width == 0 {
        return Err(DetectError::Setting { setting: "context_width", expected: "at least 1" });
    }
    let tokens = match tokens {
        [first, rest @ ..] if Some(*first) == how.bos_token_id => rest,
        all => all,
    };
    if tokens.len() <= config.context_width {
        let least = config.context_width.saturating_add(1);
        return Err(DetectError::Short { tokens: tokens.len(), least });
    }
    let mut greens = Greens::new(*config, vocabulary);
    let selfhash = config.seeding_scheme == SeedingScheme::Selfhash;
    let width = config.context_width + usize::from(!selfhash);
    // Phrases, and whether their last tokens are green.
    let mut known: HashMap<&[u32], bool> = HashMap::new();
    let (mut scored, mut green) = (0, 0);
    for phrase in tokens.windows(width) {
        let seen = known.contains_key(phrase);
        let is_green = *known.entry(phrase).or_insert_with(|| {
            let target = phrase[width - 1];
            let before = if selfhash { phrase } else { &phrase[..width - 1] };
            greens.behind(before.iter().copied()).contains(&target)
        });
        if !(seen && how.ignore_repeated_ngrams) {
            scored += 1;
            green += usize::from(is_green);
        }
    }
    let (count, found) = (scored as f64, green as f64);
    let z_score = (found - ratio * count) / (count * ratio * (1.0 - ratio)).sqrt();
    let p_value = 0.5 * erfc(z_score / 2.0f64.sqrt());
    Ok(Detection {
        num_tokens_scored: scored,
        num_green_tokens: green,
        green_fraction: found / count,
        z_score,
        p_value,
        prediction: z_score > how.z_threshold,
        confidence: 1.0 - p_value,
    })
}

/// The complementary error function, relative error below 1e-12 where it is above 1e-280.
///
/// Up to 2 by the series of erf, beyond by the continued fraction of Laplace (Abramowitz, Stegun 7.1.6, 7.1.14).
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let root_of_pi = std::f64::consts::PI.sqrt();
    let bell = exp_f64(-x * x);
    if x < 2.0 {
        // erf(x) = 2/√π exp(-x²) Σ x (2x²)ⁿ / (1·3·5…(2n+1))
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - 2.0 / root_of_pi * bell * sum
    } else {
        // erfc(x) = exp(-x²)/√π · 1/(x + ½/(x + 1/(x + 3/2/(x + …))))
        let fraction = (1..=120).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
        bell / root_of_pi / fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_those_of_torch() {
        // torch.randperm(10, generator=torch.Generator().manual_seed(s)) of torch 2.15.0
        for (seed, expected) in PERMUTATIONS {
            let mut found = Vec::new();
            permute(seed, 10, 10, &mut found);
            assert_eq!(found, expected, "seed {seed}");
            permute(seed, 10, 4, &mut found);
            assert_eq!(found[..4], expected[..4], "the first of them, seed {seed}");
        }
    }

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        for (x, expected) in ERFC {
            assert!((erfc(x) / expected - 1.0).abs() < 1e-11, "{x}: {}, expected {expected}", erfc(x));
        }
        assert_eq!((erfc(0.0), erfc(40.0), erfc(f64::NEG_INFINITY)), (1.0, 0.0, 2.0));
    }

    const PERMUTATIONS: [(u64, [u32; 10]); 3] = [
        (0, [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]),
        (42, [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]),
        (0xffff_ffff, [1, 4, 6, 2, 0, 5, 8, 7, 9, 3]),
    ];

    const ERFC: [(f64, f64); 9] = [
        (-3.0, 1.9999779095030015),
        (-0.5, 1.5204998778130465),
        (0.1, 0.8875370839817152),
        (1.0, 0.15729920705028513),
        (1.99, 0.004888586800383003),
        (2.01, 0.004475150644751763),
        (3.5, 7.430983723414128e-07),
        (6.0, 2.1519736712498916e-17),
        (20.0, 5.3958656116079005e-176),
    ];
}
