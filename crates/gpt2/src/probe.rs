//! A look inside: named intermediate values of a forward pass.
//!
//! Hidden states, attention maps, the logit lens and the step-through mode are observers of the one
//! forward pass, not second implementations beside it. [`()`](unit) observes nothing and costs nothing.

use gpt2_kernels::Rows;

/// A place in the model. M is the number of tokens in the batch, C channels, V vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Site {
    /// `wte[token] + wpe[position]`: transformers' `hidden_states[0]`. (M, C)
    Embeddings,
    /// The input of a layer's attention. (M, C)
    Ln1(usize),
    /// Queries, keys and values, in this order. (M, 3C)
    Qkv(usize),
    /// What the heads bring together, before `c_proj`. (M, C)
    Heads(usize),
    /// What attention adds to the residual stream. (M, C)
    Attention(usize),
    /// The input of a layer's MLP. (M, C)
    Ln2(usize),
    /// The hidden layer of the MLP, after its activation. (M, `n_inner`)
    Hidden(usize),
    /// What the MLP adds to the residual stream. (M, C)
    Mlp(usize),
    /// The residual stream behind a layer: `hidden_states[layer + 1]`, but that transformers shows
    /// the last one behind `ln_f`. (M, C)
    Residual(usize),
    /// The input of the head, for the wanted positions only. (W, C)
    LnF,
    /// The logits, for the wanted positions only. (W, V)
    Logits,
}

/// Observes a forward pass; see [`Model::forward_probed`](crate::model::Model::forward_probed).
pub trait Probe {
    /// Sees the values at a site: one row for each token of the batch, in the order of the steps.
    fn observe(&mut self, site: Site, rows: Rows<'_>) {
        let _ = (site, rows);
    }

    /// Says whether [`attention`](Self::attention) is to be called for a layer.
    fn wants_attention(&self, layer: usize) -> bool {
        let _ = layer;
        false
    }

    /// Sees how one token of the batch attends: one weight for each position up to its own.
    fn attention(&mut self, layer: usize, head: usize, row: usize, weights: &[f32]) {
        let _ = (layer, head, row, weights);
    }
}

impl Probe for () {}
