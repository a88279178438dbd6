//! Keys and values of the positions a sequence has seen.
//!
//! A cache grows by blocks of 64 positions. Forks share blocks; a shared block is copied when one
//! of its owners is about to write into it, and only then.

mod prefix;

use std::sync::Arc;

use gpt2_kernels::attention::{BLOCK, CacheBlock, CacheShape};

use crate::model::Model;

pub use prefix::{PrefixCache, PrefixStats};

/// The cache of one sequence, `past` in transformers.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: CacheShape,
    pub(crate) blocks: Vec<Arc<CacheBlock>>,
    length: usize,
    limit: usize,
}

impl KvCache {
    /// Makes an empty cache for a model, or another of the same sizes and formats; allocates nothing yet.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        Self { shape: model.cache_shape(), blocks: Vec::new(), length: 0, limit: model.config().n_positions }
    }

    /// Number of positions seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no position was seen yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Number of positions that still fit into the model's context.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit - self.length
    }

    /// Bytes held, blocks shared with forks included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks.len() * self.shape.block_bytes()
    }

    /// Forgets all positions from `length` on, as if they had never been seen.
    ///
    /// # Panics
    /// Panics if the cache is shorter.
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.length, "truncating {} positions to {length}", self.length);
        self.length = length;
        self.blocks.truncate(length.div_ceil(BLOCK));
    }

    /// Makes a second sequence with the same past. Full blocks are shared for good, the last one
    /// until either sequence goes on.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// Whether it was made for this model, or one like it.
    pub(crate) fn is_for(&self, model: &Model) -> bool {
        self.shape == model.cache_shape() && self.limit == model.config().n_positions
    }

    /// Makes the next `count` positions writable: allocates blocks, and copies those that are shared.
    pub(crate) fn reserve(&mut self, count: usize) {
        let end = self.length + count;
        while self.blocks.len() * BLOCK < end {
            self.blocks.push(Arc::new(CacheBlock::new(self.shape)));
        }
        for block in &mut self.blocks[self.length / BLOCK..end.div_ceil(BLOCK)] {
            Arc::make_mut(block);
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.length += count;
        debug_assert!(self.length <= self.limit);
    }
}
