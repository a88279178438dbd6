//! Decoding by contrasting layers: what the last layer has learnt beyond an earlier one.
//!
//! Chuang et al., "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models" (2023), as
//! transformers' `_dola_decoding` (up to 4.53): the head is applied to the residual stream behind earlier layers, without
//! `ln_f`; the layer whose distribution is farthest from the last one's, by Jensen-Shannon divergence, is held against
//! it. The processors see the difference of log-probabilities, for the tokens that have at least a tenth of the
//! likeliest one's probability; all others are ruled out. `repetition_penalty` of 1.2 is recommended with it, and the
//! upper layers for short answers, the lower for long ones.

use gpt2_kernels::math::{exp_alone, ln};
use gpt2_kernels::ops::{self, Epilogue};
use gpt2_kernels::{RowBuffer, Rows, Scratch};

use super::GenerateError;
use super::config::{DolaHalf, DolaLayers, GenerationConfig};
use crate::config::Config;
use crate::model::Model;
use crate::predict::normaliser;
use crate::probe::{Probe, Site};
use crate::process::Scores;

/// The least share of the likeliest token's probability: transformers' `relative_top`.
const RELATIVE_TOP: f64 = 0.1;

/// The predictions of earlier layers.
pub(super) struct Dola {
    /// Outputs of layers, 0 being the embeddings.
    layers: Vec<usize>,
    /// For every row of a batch of single tokens, its residual stream behind each of the layers. (M layers, C)
    hidden: RowBuffer,
    /// What the head makes of it. (M layers, V)
    logits: RowBuffer,
    scratch: Scratch,
    /// The layers as predictors of one row.
    premature: Vec<Premature>,
}

/// A layer's prediction.
struct Premature {
    /// Its row of the logits.
    row: usize,
    /// `ln Σ exp` of that row.
    normaliser: f32,
    /// How far it is from the last layer's.
    divergence: f64,
}

/// The earlier layers that a configuration names.
///
/// # Errors
/// If none of them is one of the model's.
pub(super) fn layers(config: &Config, setting: &DolaLayers) -> Result<Vec<usize>, GenerateError> {
    let last = config.n_layer;
    // With a tied head the embeddings would predict the token itself.
    let first = match last {
        _ if !config.tie_word_embeddings => 0,
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    };
    let layers: Vec<usize> = match setting {
        DolaLayers::Half(DolaHalf::Low) if first == last / 2 => vec![first],
        DolaLayers::Half(DolaHalf::Low) => {
            (first..if last <= 40 { last / 2 } else { 20 }).step_by(2).collect()
        }
        DolaLayers::Half(DolaHalf::High) => {
            (if last <= 40 { last / 2 } else { last - 20 }..last).step_by(2).collect()
        }
        DolaLayers::Layers(layers) => layers.iter().copied().filter(|&layer| layer < last).collect(),
    };
    if layers.is_empty() {
        let expected = "`low`, `high` or a list, and name at least one layer before the model's last";
        let found = serde_json::to_string(setting).unwrap_or_default();
        return Err(GenerateError::setting("dola_layers", expected, found));
    }
    Ok(layers)
}

impl Dola {
    /// Makes room for batches of as many single tokens as there are sequences, if a configuration asks for it.
    pub(super) fn new(model: &Model, config: &GenerationConfig) -> Result<Option<Self>, GenerateError> {
        let Some(setting) = &config.dola_layers else { return Ok(None) };
        let layers = layers(model.config(), setting)?;
        let rows = layers.len() * config.sequences();
        let Config { n_embd, vocab_size, .. } = *model.config();
        Ok(Some(Self {
            hidden: RowBuffer::new(rows, n_embd),
            logits: RowBuffer::new(rows, vocab_size),
            scratch: Scratch::new(model.cpu(), model.weights().format(), rows, n_embd, 0),
            premature: Vec::with_capacity(layers.len()),
            layers,
        }))
    }

    /// Applies the head to what was seen of a batch of so many tokens.
    pub(super) fn predict(&mut self, model: &Model, tokens: usize) {
        let Self { layers, hidden, logits, scratch, .. } = self;
        let rows = tokens * layers.len();
        let head = model.weights().head();
        let (hidden, logits) = (hidden.rows(rows), logits.rows_mut(rows));
        ops::matmul(model.cpu(), hidden, head, Epilogue::default(), logits, scratch);
    }

    /// Makes the scores of a row from its logits, whose `ln Σ exp` is `last`.
    pub(super) fn apply(&mut self, model: &Model, row: usize, last: f32, scores: &mut Scores) {
        let Self { layers, logits, premature, .. } = self;
        let logits = logits.rows(logits.capacity());
        premature.clear();
        premature.extend((0..layers.len()).map(|layer| {
            let row = row * layers.len() + layer;
            // Logits that are no numbers make scores that are none, which are refused when a token is chosen.
            let normaliser = normaliser(model, logits.row(row), 0).unwrap_or(f32::NAN);
            Premature { row, normaliser, divergence: 0.0 }
        }));
        if premature.len() > 1 {
            let scores = &*scores.all();
            ops::for_each_mut(model.cpu(), premature, |layer| {
                layer.divergence = divergence(scores, last, logits.row(layer.row), layer.normaliser);
            });
        }
        let farther = |best: usize, layer: usize| {
            if premature[layer].divergence > premature[best].divergence { layer } else { best }
        };
        let base = &premature[(1..premature.len()).fold(0, farther)];
        let base_logits = logits.row(base.row);
        let highest = scores.best().map_or(f32::NAN, |(_, score)| score - last);
        let least = highest + ln(RELATIVE_TOP) as f32;
        scores.map(|id, score| {
            let score = score - last;
            if score < least {
                f32::NEG_INFINITY
            } else {
                score - (base_logits[id as usize] - base.normaliser)
            }
        });
    }
}

impl Probe for Dola {
    fn observe(&mut self, site: Site, rows: Rows<'_>) {
        let output = match site {
            Site::Embeddings => 0,
            Site::Residual(layer) => layer + 1,
            _ => return,
        };
        for (index, _) in self.layers.iter().enumerate().filter(|&(_, &layer)| layer == output) {
            for row in 0..rows.count() {
                self.hidden.row_mut(row * self.layers.len() + index).copy_from_slice(rows.row(row));
            }
        }
    }
}

/// Twice the Jensen-Shannon divergence of two distributions as transformers has it: it adds the divergences of their
/// mean from either, not those of either from their mean. `a` and `b` are logits, the others their `ln Σ exp`.
/// (V), (V) → ()
fn divergence(a: &[f32], a_normaliser: f32, b: &[f32], b_normaliser: f32) -> f64 {
    let term = |(&a, &b): (&f32, &f32)| {
        let (a, b) = (a - a_normaliser, b - b_normaliser);
        let mean = 0.5 * (f64::from(exp_alone(a)) + f64::from(exp_alone(b)));
        // What is too small for a number counts for nothing.
        if mean > 0.0 { mean * (2.0 * ln(mean) - f64::from(a) - f64::from(b)) } else { 0.0 }
    };
    a.iter().zip(b).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_layers_that_transformers_takes() {
        let of = |n_layer: usize, tied: bool, half: DolaHalf| {
            let config = Config { n_layer, tie_word_embeddings: tied, ..Config::default() };
            layers(&config, &DolaLayers::Half(half)).ok()
        };
        let (low, high) = (DolaHalf::Low, DolaHalf::High);
        for (n_layer, tied, half, expected) in [
            (1, true, low, Some(vec![0])),
            (2, true, low, Some(vec![1])),
            (2, false, low, Some(vec![0])),
            (3, true, low, None),
            (3, false, low, Some(vec![0])),
            (4, true, low, Some(vec![2])),
            (6, true, low, Some(vec![2])),
            (12, true, low, Some(vec![2, 4])),
            (12, false, low, Some(vec![0, 2, 4])),
            (48, true, low, Some(vec![2, 4, 6, 8, 10, 12, 14, 16, 18])),
            (1, true, high, Some(vec![0])),
            (3, true, high, Some(vec![1])),
            (12, true, high, Some(vec![6, 8, 10])),
            (48, true, high, Some((28..48).step_by(2).collect())),
        ] {
            assert_eq!(of(n_layer, tied, half), expected, "{n_layer} layers, tied {tied}, {half:?}");
        }
    }

    #[test]
    fn distributions_diverge_from_others_only() {
        let (a, b) = ([1.0f32, 2.0, 3.0], [3.0f32, 2.0, 1.0]);
        let cpu = gpt2_kernels::Cpu::new(gpt2_kernels::Kernels::detect(), 1);
        let normaliser = ops::log_sum_exp(&cpu, &a);
        assert!(divergence(&a, normaliser, &a, normaliser).abs() < 1e-6);
        assert!(divergence(&a, normaliser, &b, normaliser) > 0.1);
    }
}
