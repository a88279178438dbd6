//! Causal attention over a cache of keys and values.
//!
//! The cache grows by blocks of 64 positions. Both halves of a block are panels, so that scores
//! and weighted sums are the same kernel as a linear layer:
//! ```text
//! block, for each layer and head:
//!   keys    [D][64 positions]                 scores  = q · keys        outputs are positions
//!   values  [D / 64][64 positions][64 of D]   result  = weights · values  outputs are channels
//! ```
//! For one query at position p: `score[i] = fma` chain over D; `weight[i] = exp(scale · score[i] - max)`
//! for i in 0..=p; result = (fma chain over i ascending of `weight[i] · value[i]`) · (1 / Σ weight).
//! Positions beyond p take no part in any of it, so neither the chunking of a prompt nor what else
//! is in the block can change a bit.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ops::Disjoint;
use crate::table::Tile;
use crate::{AlignedVec, Cpu, PANEL, Rows, RowsMut};

/// Positions in a block: one panel of scores.
pub const BLOCK: usize = PANEL;

/// Queries of one head that are computed together: the rows of one tile.
const QUERIES: usize = 6;
/// Fewest new positions that are worth sharing out when keys and values are stored.
const POSITIONS_WORTH_SHARING: usize = 16;

/// The sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Number of layers.
    pub layers: usize,
    /// Heads in a layer, H.
    pub heads: usize,
    /// Channels in a head, D.
    pub head_size: usize,
}

impl CacheShape {
    fn strips(self) -> usize {
        self.head_size.div_ceil(PANEL)
    }

    fn keys_size(self) -> usize {
        self.head_size * BLOCK
    }

    fn head_stride(self) -> usize {
        self.keys_size() + self.strips() * BLOCK * PANEL
    }

    /// Channels of all heads together, C.
    #[must_use]
    pub fn channels(self) -> usize {
        self.heads * self.head_size
    }

    /// Size of one block in bytes.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.layers * self.heads * self.head_stride() * size_of::<f32>()
    }
}

/// One layer of a model, as attention sees it.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The sizes of the cache.
    pub shape: CacheShape,
    /// Which layer.
    pub index: usize,
    /// What scores are multiplied by before the softmax.
    pub scale: f32,
}

impl Layer {
    /// Where a head's part of a block starts.
    fn start(self, head: usize) -> usize {
        let CacheShape { layers, heads, .. } = self.shape;
        assert!(self.index < layers && head < heads, "layer {} head {head} of {:?}", self.index, self.shape);
        (self.index * heads + head) * self.shape.head_stride()
    }
}

/// Keys and values of 64 positions, of every layer and head.
#[derive(Clone, Debug)]
pub struct CacheBlock {
    data: AlignedVec,
}

impl CacheBlock {
    /// Allocates an empty block.
    #[must_use]
    pub fn new(shape: CacheShape) -> Self {
        Self { data: AlignedVec::zeroed(shape.block_bytes() / size_of::<f32>()) }
    }

    /// Keys of one head, transposed: `[D][64]`.
    fn keys(&self, layer: Layer, head: usize) -> &[[f32; PANEL]] {
        self.data[layer.start(head)..][..layer.shape.keys_size()].as_chunks::<PANEL>().0
    }

    /// Values of one head: `[64][64]`, channels `64 * strip` to `64 * strip + 63`.
    fn values(&self, layer: Layer, head: usize, strip: usize) -> &[[f32; PANEL]] {
        let start = layer.start(head) + layer.shape.keys_size() + strip * BLOCK * PANEL;
        self.data[start..][..BLOCK * PANEL].as_chunks::<PANEL>().0
    }
}

/// Which rows of a batch belong to which sequence: one after the other, so that no two share a row.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    sequences: Vec<Sequence>,
    rows: usize,
    groups: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    past: usize,
    count: usize,
    first_row: usize,
    /// The number of groups of queries before this sequence's.
    first_group: usize,
}

impl Batch {
    /// Makes an empty batch with room for `sequences` sequences.
    #[must_use]
    pub fn with_capacity(sequences: usize) -> Self {
        Self { sequences: Vec::with_capacity(sequences), rows: 0, groups: 0 }
    }

    /// Removes all sequences.
    pub fn clear(&mut self) {
        (self.rows, self.groups) = (0, 0);
        self.sequences.clear();
    }

    /// Adds a sequence of `count` new positions behind `past` others, and returns its first row.
    pub fn push(&mut self, past: usize, count: usize) -> usize {
        let (first_row, first_group) = (self.rows, self.groups);
        self.sequences.push(Sequence { past, count, first_row, first_group });
        self.rows += count;
        self.groups += count.div_ceil(QUERIES);
        first_row
    }

    /// Number of rows of all sequences together.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// Room for the scores of six queries, for every thread.
#[derive(Debug)]
pub struct Scratch {
    threads: Vec<Mutex<AlignedVec>>,
    stride: usize,
}

impl Scratch {
    /// Allocates room for sequences of up to `positions` positions on `threads` threads.
    #[must_use]
    pub fn new(threads: usize, positions: usize) -> Self {
        let stride = positions.next_multiple_of(BLOCK);
        let thread = || Mutex::new(AlignedVec::zeroed(QUERIES * (stride + PANEL)));
        Self { threads: (0..threads).map(|_| thread()).collect(), stride }
    }
}

/// Stores the keys and values of new positions `past..` of one layer. qkv is (T, 3C).
///
/// # Panics
/// Panics if the shapes do not fit, or if a block that would be written is shared.
pub fn store(cpu: &Cpu, layer: Layer, blocks: &mut [Arc<CacheBlock>], past: usize, qkv: Rows<'_>) {
    let shape = layer.shape;
    let channels = shape.channels();
    assert_eq!(qkv.width(), 3 * channels, "store: values in a row of qkv, three times the channels");
    assert!(
        past + qkv.count() <= blocks.len() * BLOCK,
        "store: {} positions of {}",
        past + qkv.count(),
        blocks.len() * BLOCK
    );
    let mut done = 0;
    while done < qkv.count() {
        let position = past + done;
        let slot = position % BLOCK;
        let count = (BLOCK - slot).min(qkv.count() - done);
        let block =
            Arc::get_mut(&mut blocks[position / BLOCK]).expect("a block that is written must not be shared");
        let rows = qkv.part(done, count, 0, 3 * channels);
        let data = Disjoint::new(&mut block.data);
        let store_head = |head: usize| {
            // SAFETY: heads do not overlap, and each is stored by one task.
            let data = unsafe { data.slice(layer.start(head), shape.head_stride()) };
            let (keys, values) = data.split_at_mut(shape.keys_size());
            for index in 0..count {
                let (slot, row) = (slot + index, rows.row(index));
                let from =
                    |third: usize| &row[third * channels + head * shape.head_size..][..shape.head_size];
                for (keys, &key) in keys.as_chunks_mut::<BLOCK>().0.iter_mut().zip(from(1)) {
                    keys[slot] = key;
                }
                for (strip, part) in from(2).chunks(PANEL).enumerate() {
                    values[(strip * BLOCK + slot) * PANEL..][..part.len()].copy_from_slice(part);
                }
            }
        };
        if count < POSITIONS_WORTH_SHARING {
            (0..shape.heads).for_each(store_head);
        } else {
            cpu.pool.run(shape.heads, |head, _| store_head(head));
        }
        done += count;
    }
}

/// Attends from every new position to itself and all before it, for every sequence of a batch.
///
/// `blocks(i)` is the cache of sequence i, whose new keys and values are [stored](store) already.
/// qkv is (M, 3C), out (M, C), over the rows of all sequences.
///
/// # Panics
/// Panics if the shapes do not fit or a sequence is longer than its cache or `scratch` has room for.
pub fn attend<'a>(
    cpu: &Cpu,
    layer: Layer,
    batch: &Batch,
    blocks: impl Fn(usize) -> &'a [Arc<CacheBlock>] + Sync,
    qkv: Rows<'_>,
    scratch: &Scratch,
    mut out: RowsMut<'_>,
) {
    let shape = layer.shape;
    assert_eq!(qkv.width(), 3 * shape.channels(), "attend: values in a row of qkv, three times the channels");
    assert_eq!(out.width(), shape.channels(), "attend: values in a row of out, channels");
    assert_eq!(
        (qkv.count(), out.count()),
        (batch.rows, batch.rows),
        "attend: rows of qkv and out, of the batch"
    );
    assert!(scratch.threads.len() >= cpu.pool.threads(), "attend: scratch for every thread");
    let out_stride = out.stride();
    let target = Disjoint::of_rows(&mut out);
    cpu.pool.run(batch.groups * shape.heads, |task, thread| {
        // All groups of one head, then the next: neighbours share keys and values.
        let (index, group) = (task / batch.groups, task % batch.groups);
        let owner = batch.sequences.partition_point(|sequence| sequence.first_group <= group) - 1;
        let Sequence { past, count, first_row, first_group } = batch.sequences[owner];
        let blocks = blocks(owner);
        assert!(
            past + count <= scratch.stride.min(blocks.len() * BLOCK),
            "attend: {} positions",
            past + count
        );
        // The last queries have the most positions to attend to: they come first.
        let first = (count.div_ceil(QUERIES) - 1 - (group - first_group)) * QUERIES;
        let count = QUERIES.min(count - first);
        let queries = qkv.part(first_row + first, count, index * shape.head_size, shape.head_size);
        let mut scratch_data = scratch.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let (scores, result) = scratch_data.split_at_mut(QUERIES * scratch.stride);
        let head = Head { cpu, layer, index, blocks };
        let sums = head.weights(queries, past + first, scores, scratch.stride);
        for strip in 0..shape.strips() {
            head.weighted_values(strip, count, past + first, scores, scratch.stride, result);
            let width = PANEL.min(shape.head_size - strip * PANEL);
            for (row, (result, sum)) in result.as_chunks::<PANEL>().0.iter().zip(sums).take(count).enumerate()
            {
                let row = first_row + first + row;
                let column = index * shape.head_size + strip * PANEL;
                // SAFETY: a batch gives every row to one sequence, so these columns of these rows
                // belong to this head and group: to this task alone.
                let out = unsafe { target.slice(row * out_stride + column, width) };
                let scale = 1.0 / sum;
                for (out, result) in out.iter_mut().zip(result) {
                    *out = result * scale;
                }
            }
        }
    });
}

/// Computes the attention weights of one query, normalised to a sum of one: what [`attend`] uses, to look at.
///
/// `query` is the head's (1, D); `weights` gets one weight for each of `weights.len()` positions,
/// the last of which is the query's own.
///
/// # Panics
/// Panics if the shapes do not fit.
pub fn weights(
    cpu: &Cpu,
    layer: Layer,
    head: usize,
    blocks: &[Arc<CacheBlock>],
    query: Rows<'_>,
    weights: &mut [f32],
) {
    assert_eq!((query.count(), query.width()), (1, layer.shape.head_size), "weights: one query of a head");
    assert!((1..=blocks.len() * BLOCK).contains(&weights.len()), "weights: {} positions", weights.len());
    let mut scores = AlignedVec::zeroed(weights.len().next_multiple_of(BLOCK));
    let stride = scores.len();
    let head = Head { cpu, layer, index: head, blocks };
    let sums = head.weights(query, weights.len() - 1, &mut scores, stride);
    let normalise = 1.0 / sums[0];
    for (weight, score) in weights.iter_mut().zip(&*scores) {
        *weight = score * normalise;
    }
}

/// One head of one layer, over the cache of one sequence.
struct Head<'a> {
    cpu: &'a Cpu,
    layer: Layer,
    index: usize,
    blocks: &'a [Arc<CacheBlock>],
}

impl Head<'_> {
    /// Unnormalised weights of the queries at positions `first..`, and their sums.
    fn weights(&self, queries: Rows<'_>, first: usize, scores: &mut [f32], stride: usize) -> [f32; QUERIES] {
        let count = queries.count();
        let positions = first + count;
        for row in 0..count {
            scores[row * stride..][..positions.next_multiple_of(BLOCK)].fill(0.0);
        }
        for (index, block) in self.blocks.iter().enumerate().take(positions.div_ceil(BLOCK)) {
            let panel = block.keys(self.layer, self.index);
            self.accumulate(
                (queries.data(), queries.stride()),
                count,
                panel,
                (&mut scores[index * BLOCK..], stride),
            );
        }
        let mut sums = [0.0; QUERIES];
        for (row, sum) in sums.iter_mut().enumerate().take(count) {
            let scores = &mut scores[row * stride..][..first + row + 1];
            // SAFETY: the machine has this row's instructions, for the table gives out no other.
            *sum = unsafe { (self.cpu.kernels.exp_weights)(scores, self.layer.scale) };
        }
        sums
    }

    /// Weighted sums of 64 channels of the values, into `result` (count, 64).
    fn weighted_values(
        &self,
        strip: usize,
        count: usize,
        first: usize,
        weights: &[f32],
        stride: usize,
        result: &mut [f32],
    ) {
        result[..count * PANEL].fill(0.0);
        // Positions that every query of the group attends to.
        let common = first + 1;
        for (index, block) in self.blocks.iter().enumerate().take(common.div_ceil(BLOCK)) {
            let values = block.values(self.layer, self.index, strip);
            let values = &values[..BLOCK.min(common - index * BLOCK)];
            self.accumulate((&weights[index * BLOCK..], stride), count, values, (result, PANEL));
        }
        // The rest of the triangle, row by row.
        for row in 1..count {
            for position in common..=first + row {
                let values = self.blocks[position / BLOCK].values(self.layer, self.index, strip);
                let values = &values[position % BLOCK..][..1];
                self.accumulate(
                    (&weights[row * stride + position..], stride),
                    1,
                    values,
                    (&mut result[row * PANEL..], PANEL),
                );
            }
        }
    }

    /// Continues the chains of `rows` rows of `out` with the rows of `x`.
    fn accumulate(
        &self,
        (x, x_stride): (&[f32], usize),
        rows: usize,
        panel: &[[f32; PANEL]],
        (out, out_stride): (&mut [f32], usize),
    ) {
        assert!(rows > 0, "a group has at least one query");
        assert!((rows - 1) * x_stride + panel.len() <= x.len(), "attention: {rows} rows of {}", panel.len());
        assert!((rows - 1) * out_stride + PANEL <= out.len(), "attention: room for {rows} rows");
        let tile = Tile { x: x.as_ptr(), x_stride, rows, panel, out: out.as_mut_ptr(), out_stride };
        // SAFETY: the machine has this row's instructions, for the table gives out no other; x and
        // out hold the tile by the assertions, and `out` is borrowed mutably here.
        unsafe { (self.cpu.kernels.accumulate)(&tile) }
    }
}
