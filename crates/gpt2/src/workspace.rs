//! The buffers of a forward pass, allocated once and used for every pass.

use gpt2_kernels::attention::Batch;
use gpt2_kernels::{RowBuffer, Rows, Scratch};

use crate::model::Model;

/// Room for one forward pass over up to [`tokens`](Self::tokens) tokens.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) residual: RowBuffer,
    pub(crate) normed: RowBuffer,
    pub(crate) qkv: RowBuffer,
    pub(crate) hidden: RowBuffer,
    /// What a branch adds to the residual stream; at the end, the rows that are wanted.
    pub(crate) branch: RowBuffer,
    pub(crate) logits: RowBuffer,
    pub(crate) batch: Batch,
    pub(crate) scratch: Scratch,
}

impl Workspace {
    /// Allocates room for passes over up to `tokens` tokens in all steps together, of which the
    /// logits of up to `wanted` are wanted.
    #[must_use]
    pub fn new(model: &Model, tokens: usize, wanted: usize) -> Self {
        let config = model.config();
        let inputs = config.n_embd.max(config.n_inner);
        Self {
            residual: RowBuffer::new(tokens, config.n_embd),
            normed: RowBuffer::new(tokens, config.n_embd),
            qkv: RowBuffer::new(tokens, 3 * config.n_embd),
            hidden: RowBuffer::new(tokens, config.n_inner),
            branch: RowBuffer::new(tokens, config.n_embd),
            logits: RowBuffer::new(wanted, config.vocab_size),
            batch: Batch::with_capacity(tokens),
            scratch: Scratch::new(model.cpu(), model.weights().format(), tokens, inputs, config.n_positions),
        }
    }

    /// Number of tokens that one pass may have.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.residual.capacity()
    }

    /// Number of positions whose logits one pass may ask for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.logits.capacity()
    }

    /// The first `count` rows of the latest logits, again. (count, V)
    #[must_use]
    pub fn logits(&self, count: usize) -> Rows<'_> {
        self.logits.rows(count)
    }
}
