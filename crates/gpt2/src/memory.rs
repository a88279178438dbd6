//! The bytes of memory that a model needs, told from its configuration alone.
//!
//! To be asked before a model is loaded. How much memory there is, is the caller's to find out.

use gpt2_kernels::PANEL;
use gpt2_kernels::attention::BLOCK;

use crate::checkpoint::expected_tensors;
use crate::config::Config;
use crate::model::{Formats, cache_shape};
use crate::predict::PREFILL_CHUNK;
use crate::weights::format_of_embeddings;

/// The bytes that a model needs, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// The parameters, the matrices packed.
    pub weights: u64,
    /// Activations and logits of one pass.
    pub workspace: u64,
    /// Keys and values of one sequence that fills the context.
    pub cache: u64,
}

impl MemoryNeed {
    /// Computes what a configuration needs in these formats, for passes over `tokens` tokens each of which wants
    /// the logits of one.
    ///
    /// Not counted is what each thread needs for itself, a few hundred kilobytes, and the tokenizer. A checkpoint
    /// that holds a head of its own although its configuration ties it to `wte` needs that matrix as well. Sums
    /// beyond 64 bits saturate.
    ///
    /// The configuration has to be [valid](Config::validate), as one that was read from a file is.
    ///
    /// ```
    /// use gpt2::{config::Config, memory::MemoryNeed};
    /// use gpt2_kernels::WeightFormat;
    ///
    /// let config = Config::default(); // GPT-2 small
    /// let need = |format: WeightFormat| MemoryNeed::new(&config, format.into(), 1).weights / 1_000_000;
    /// assert_eq!(need(WeightFormat::F32), 497);
    /// assert_eq!(need(WeightFormat::Int4), 82);
    /// ```
    #[must_use]
    pub fn new(config: &Config, formats: Formats, tokens: usize) -> Self {
        let float = |values: u64| values.saturating_mul(size_of::<f32>() as u64);
        let weights = expected_tensors(config).map(|(name, shape)| match shape[..] {
            // Stored by output, unlike all other matrices.
            [outputs, inputs] if matches!(name.as_str(), "wte.weight" | "lm_head.weight") => {
                format_of_embeddings(formats.weights).bytes(inputs, outputs) as u64
            }
            [inputs, outputs] if name != "wpe.weight" => formats.weights.bytes(inputs, outputs) as u64,
            _ => float(product(&shape)),
        });
        let padded = |width: usize| width.div_ceil(PANEL).saturating_mul(PANEL) as u64;
        let (c, inner) = (padded(config.n_embd), padded(config.n_inner));
        // Residual stream, what is normalised, a branch; queries, keys and values; the hidden layer.
        let row =
            c.saturating_mul(3).saturating_add(padded(config.n_embd.saturating_mul(3))).saturating_add(inner);
        let rows = float(row.saturating_mul(tokens as u64)).saturating_add(float(padded(config.vocab_size)));
        let shape = cache_shape(config, formats.cache);
        // As `CacheShape::block_bytes`, but that sizes which were not checked cannot overflow.
        let factors = [shape.layers, shape.heads, config.n_positions.div_ceil(BLOCK)];
        Self {
            weights: weights.fold(0, u64::saturating_add),
            workspace: rows,
            cache: factors.into_iter().fold(shape.head_bytes(), usize::saturating_mul) as u64,
        }
    }

    /// Computes what a [`Batch`](crate::generate::Batch) with so many slots needs at most, as long as no request is for more
    /// sequences than that:
    ///
    /// `weights + 2 passes over 512 tokens + slots × (4 rows of logits and scores + ⌈n_positions / 64⌉ blocks of the cache)`
    ///
    /// The second pass is that of a request that shares none. Texts that are shorter than the context need as many blocks as
    /// they have 64 positions.
    #[must_use]
    pub fn batch(config: &Config, formats: Formats, slots: usize) -> Self {
        let need = Self::new(config, formats, PREFILL_CHUNK.max(slots));
        let row = (config.vocab_size.div_ceil(PANEL).saturating_mul(PANEL) as u64).saturating_mul(4);
        // Logits, scores, which of them are left, and what processors sort.
        let rows = row.saturating_mul(4).saturating_mul(slots as u64);
        Self {
            workspace: need.workspace.saturating_mul(2).saturating_add(rows),
            cache: need.cache.saturating_mul(slots as u64),
            ..need
        }
    }

    /// All of it together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.workspace).saturating_add(self.cache)
    }
}

fn product(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, &length| product.saturating_mul(length as u64))
}
