//! Why a token was chosen and not the next best.

use gpt2_kernels::math::{exp_not_positive, ln};
use serde::Serialize;

use super::torch::exponential;
use super::{Noise, Sampler};
use crate::process::Scores;

/// How a token was chosen: the token with the largest `value` wins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Draw {
    /// What chose it: `greedy`, `keyed` or `torch`.
    pub sampler: &'static str,
    /// The token that won.
    pub chosen: Drawn,
    /// The one that would have been chosen in its place; `None` if no other token was left.
    pub runner_up: Option<Drawn>,
}

/// A token that took part in a draw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// Its probability after the processors.
    pub probability: f32,
    /// Its random number: for `keyed` a u between 0 and 1, for `torch` the exponential; `None` for `greedy`.
    pub random: Option<f64>,
    /// What is compared: for `greedy` the probability, for `keyed` the probability by `-ln u`, for `torch` the
    /// probability by the exponential. (`-ln u` is an exponential too: both are races.)
    pub value: f64,
}

impl Sampler {
    /// How [`choose`](Self::choose) would choose now. None where that is an error.
    #[must_use]
    pub fn draw(&self, scores: &Scores, sequence: usize, position: usize) -> Option<Draw> {
        let (_, max) = scores.best()?;
        let mut total = 0.0;
        scores.candidates(|_, score| total += exp_not_positive(f64::from(score - max)));
        let mut race = Race::default();
        let sampler = match self {
            Self::Greedy => {
                scores.candidates(|id, score| race.enter(id, f64::from(score), None));
                "greedy"
            }
            Self::Keyed { seed } => {
                let noise = Noise::new(*seed, sequence, position);
                scores.candidates(|id, score| {
                    race.enter(id, f64::from(score) + noise.gumbel(id), Some(noise.uniform(id)));
                });
                "keyed"
            }
            Self::Torch(generator) => {
                generator.clone().race(scores, |id, probability, u| {
                    let exponential = exponential(u);
                    race.enter(id, f64::from(probability / exponential), Some(exponential.into()));
                });
                "torch"
            }
        };
        let drawn = |(id, random): (u32, Option<f64>)| {
            let probability = exp_not_positive(f64::from(scores.score(id) - max)) / total;
            let value = match (self, random) {
                (Self::Keyed { .. }, Some(u)) => probability / -ln(u),
                (_, Some(exponential)) => probability / exponential,
                (_, None) => probability,
            };
            Drawn { id, probability: probability as f32, random, value }
        };
        Some(Draw { sampler, chosen: drawn(race.first?.1), runner_up: race.second.map(|(_, id)| drawn(id)) })
    }
}

/// The best two, of equals the first: what decides, and the token with its random number.
#[derive(Default)]
struct Race {
    first: Option<(f64, (u32, Option<f64>))>,
    second: Option<(f64, (u32, Option<f64>))>,
}

impl Race {
    fn enter(&mut self, id: u32, value: f64, random: Option<f64>) {
        let entry = Some((value, (id, random)));
        if self.first.is_none_or(|(highest, _)| value > highest) {
            self.second = std::mem::replace(&mut self.first, entry);
        } else if self.second.is_none_or(|(highest, _)| value > highest) {
            self.second = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::TorchGenerator;

    #[test]
    fn a_draw_names_what_is_chosen_and_without_it_the_runner_up_is() {
        let row: Vec<f32> = (0..200).map(|i| ((i * 7919) % 101) as f32 * 0.05).collect();
        let mut scores = Scores::default();
        for seed in 0..50 {
            let torch = Sampler::Torch(TorchGenerator::new(seed));
            for mut sampler in [Sampler::Greedy, Sampler::Keyed { seed }, torch] {
                scores.set(&row);
                let draw = sampler.draw(&scores, 1, 7).expect("a draw");
                let runner_up = draw.runner_up.expect("two tokens");
                assert!(draw.chosen.value >= runner_up.value, "{draw:?}");
                assert_eq!(
                    sampler.clone().choose(&scores, 1, 7).expect("a token"),
                    draw.chosen.id,
                    "{draw:?}"
                );
                scores.put(draw.chosen.id, f32::NEG_INFINITY);
                assert_eq!(sampler.choose(&scores, 1, 7).expect("a token"), runner_up.id, "{draw:?}");
            }
        }
        scores.keep(|id, _| id == 3);
        let draw = Sampler::Keyed { seed: 1 }.draw(&scores, 0, 0).expect("a draw");
        assert_eq!((draw.chosen.id, draw.chosen.probability, draw.runner_up), (3, 1.0, None));
        scores.keep(|_, _| false);
        assert_eq!(Sampler::Greedy.draw(&scores, 0, 0), None);
    }
}
