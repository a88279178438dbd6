//! The third step of the chain: a fixed share of the probability.

use gpt2_kernels::math::exp_alone;

use super::{Context, Processor, Scores};

/// Stretches of scores, each [`STRETCH`] wide and the last without end, the highest first.
const STRETCHES: usize = 1024;
/// Width of a stretch: all together are 16 nats, and what lies below is one in nine million of the most probable.
const STRETCH: f32 = 1.0 / 64.0;

/// Keeps the smallest set of most probable tokens whose probabilities reach p.
///
/// Equals transformers' `TopPLogitsWarper`, boundary and ties included: the probabilities are
/// summed from the least upwards, in `f64` and rounded to `f32` at every step as torch's `cumsum`
/// does; a token goes while that sum is at most `1 - p`; of equal scores the lower id goes first.
/// The most probable token always stays.
///
/// Only the tokens around the boundary are sorted: scores are dealt out to stretches first, and a stretch whose tokens
/// all go is summed up as it comes, which in `f64` makes no difference that a rounding to `f32` shows.
#[derive(Clone, Debug)]
pub struct TopP {
    /// `1 - p`, subtracted in `f64` and compared in `f32`, as Python and torch do.
    rest: f32,
    least: usize,
    /// Score, id and exponential of the score of the tokens that are left; later those of one stretch, ascending.
    tokens: Vec<(f32, u32, f32)>,
    /// For each stretch its probability and its number of tokens.
    stretches: Vec<(f64, usize)>,
}

impl TopP {
    /// Takes p.
    ///
    /// # Panics
    /// Panics if it is not within 0 to 1.
    #[must_use]
    pub fn new(p: f64) -> Self {
        assert!((0.0..=1.0).contains(&p), "top_p {p}");
        Self { rest: (1.0 - p) as f32, least: 1, tokens: Vec::new(), stretches: Vec::new() }
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
        let Self { rest, least, tokens, stretches } = self;
        let Some((_, max)) = scores.best() else { return };
        tokens.clear();
        // Adding zero makes -0 equal to 0, in the order too.
        scores.candidates(|id, score| tokens.push((score + 0.0, id, exp_alone(score - max))));
        let total: f64 = tokens.iter().map(|&(_, _, exp)| f64::from(exp)).sum();
        let probability = |exp: f32| f64::from((f64::from(exp) / total) as f32);
        let stretch = |score: f32| (((max - score) / STRETCH) as usize).min(STRETCHES - 1);
        stretches.clear();
        stretches.resize(STRETCHES, (0.0, 0));
        for &(score, _, exp) in &*tokens {
            let (mass, count) = &mut stretches[stretch(score)];
            *mass += probability(exp);
            *count += 1;
        }
        // How many go, and what all of them come to, up to the stretch that has the first that stays.
        let most = tokens.len().saturating_sub(*least);
        let (mut gone, mut sum) = (0, 0.0f64);
        let goes = |&(mass, count): &(f64, usize)| {
            let all = gone + count <= most && (sum + mass) as f32 <= *rest;
            if all {
                gone += count;
                sum += mass;
            }
            !all
        };
        let Some(boundary) = stretches.iter().rposition(goes) else { return };
        tokens.retain(|&(score, ..)| stretch(score) == boundary);
        tokens.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut stays = |&(_, _, exp): &(f32, u32, f32)| {
            sum += probability(exp);
            gone += 1;
            gone > most || sum as f32 > *rest
        };
        match tokens.iter().find(|token| stays(token)) {
            Some(&(lowest, first, _)) => {
                scores.keep(|id, score| score > lowest || score == lowest && id >= first)
            }
            // One by one they came to a little less than together.
            None => scores.keep(|_, score| stretch(score) < boundary),
        }
    }
}
