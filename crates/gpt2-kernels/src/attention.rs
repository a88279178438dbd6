//! Causal attention over a cache of keys and values.
//!
//! For one query at position p: `score[i] = fma` chain over D; `weight[i] = exp(scale · score[i] - max)`
//! for i in 0..=p; result = (fma chain over i ascending of `weight[i] · value[i]`) · (1 / Σ weight).
//! Positions beyond p take no part in any of it, so neither the chunking of a prompt nor what else
//! is in a block of the cache can change a bit.
//!
//! With a cache in eight bits the chains are those of `quant.rs`: over blocks of 32 channels, then over blocks of 32
//! positions, counted from the first. Queries are turned and rounded as activations are; `weight[i]`, times the scale
//! of value i, is rounded as it is, after the sum was taken.

mod cache;

use std::marker::PhantomData;
use std::sync::Arc;

use half::f16;

use self::cache::{Format, Inputs, Int8};
use crate::ops::Disjoint;
use crate::quant;
use crate::table::{Fetch, Tile};
use crate::{AlignedVec, Cpu, PANEL, Rows, RowsMut, Scratch};

pub use self::cache::{BLOCK, CacheBlock, CacheFormat, CacheShape, Layer, store};

/// Queries of one head that are computed together: the rows of one tile.
pub(crate) const QUERIES: usize = 6;

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
    out: RowsMut<'_>,
) {
    let shape = layer.shape;
    assert_eq!(qkv.width(), 3 * shape.channels(), "attend: values in a row of qkv, three times the channels");
    assert_eq!(out.width(), shape.channels(), "attend: values in a row of out, channels");
    assert_eq!(
        (qkv.count(), out.count()),
        (batch.rows, batch.rows),
        "attend: rows of qkv and out, of the batch"
    );
    assert!(scratch.threads() >= cpu.pool.threads(), "attend: scratch for every thread");
    match shape.format {
        CacheFormat::F32 => attend_in::<f32>(cpu, layer, batch, blocks, qkv, scratch, out),
        CacheFormat::F16 => attend_in::<f16>(cpu, layer, batch, blocks, qkv, scratch, out),
        CacheFormat::Int8 => attend_in::<Int8>(cpu, layer, batch, blocks, qkv, scratch, out),
    }
}

fn attend_in<'a, T: Format>(
    cpu: &Cpu,
    layer: Layer,
    batch: &Batch,
    blocks: impl Fn(usize) -> &'a [Arc<CacheBlock>] + Sync,
    qkv: Rows<'_>,
    scratch: &Scratch,
    mut out: RowsMut<'_>,
) {
    let shape = layer.shape;
    let out_stride = out.stride();
    let target = Disjoint::of_rows(&mut out);
    cpu.pool.run(batch.groups * shape.heads, |task, thread| {
        // All groups of one head, then the next: neighbours share keys and values.
        let (index, group) = (task / batch.groups, task % batch.groups);
        let owner = batch.sequences.partition_point(|sequence| sequence.first_group <= group) - 1;
        let Sequence { past, count, first_row, first_group } = batch.sequences[owner];
        let blocks = blocks(owner);
        assert!(
            past + count <= scratch.positions().min(blocks.len() * BLOCK),
            "attend: {} positions",
            past + count
        );
        // The last queries have the most positions to attend to: they come first.
        let first = (count.div_ceil(QUERIES) - 1 - (group - first_group)) * QUERIES;
        let count = QUERIES.min(count - first);
        let queries = qkv.part(first_row + first, count, index * shape.head_size, shape.head_size);
        let stride = scratch.positions();
        let scratch = &mut *scratch.thread(thread);
        let (scores, result) = scratch.scores.split_at_mut(QUERIES * stride);
        let head = Head::<T>::new(cpu, layer, index, blocks);
        let inputs = T::queries(cpu.kernels, queries, &mut scratch.rounded);
        let sums = head.weights(inputs, count, past + first, scores, stride);
        head.scale_weights(count, past + first, scores, stride);
        let positions = past + first + count;
        let weights = T::weights(cpu.kernels, scores, stride, count, positions, &mut scratch.rounded);
        for strip in 0..shape.strips() {
            head.weighted_values(strip, weights, count, past + first, result);
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
    let scores = &mut scores[..];
    let last = weights.len() - 1;
    let sum = match layer.shape.format {
        CacheFormat::F32 => weights_in::<f32>(cpu, layer, head, blocks, query, last, scores),
        CacheFormat::F16 => weights_in::<f16>(cpu, layer, head, blocks, query, last, scores),
        CacheFormat::Int8 => weights_in::<Int8>(cpu, layer, head, blocks, query, last, scores),
    };
    let normalise = 1.0 / sum;
    for (weight, score) in weights.iter_mut().zip(scores) {
        *weight = *score * normalise;
    }
}

/// Unnormalised weights of one query at the position `last`, and their sum.
fn weights_in<T: Format>(
    cpu: &Cpu,
    layer: Layer,
    index: usize,
    blocks: &[Arc<CacheBlock>],
    query: Rows<'_>,
    last: usize,
    scores: &mut [f32],
) -> f32 {
    let mut rounded = AlignedVec::zeroed(layer.shape.head_size.div_ceil(quant::BLOCK));
    let query = T::queries(cpu.kernels, query, &mut rounded);
    let stride = scores.len();
    let head = Head::<T>::new(cpu, layer, index, blocks);
    let [sum, ..] = head.weights(query, 1, last, scores, stride);
    sum
}

/// One head of one layer, over the cache of one sequence.
struct Head<'a, T> {
    cpu: &'a Cpu,
    layer: Layer,
    index: usize,
    blocks: &'a [Arc<CacheBlock>],
    /// Where the head's part of a block starts, and how much of it are keys.
    start: usize,
    keys_size: usize,
    format: PhantomData<T>,
}

impl<'a, T: Format> Head<'a, T> {
    fn new(cpu: &'a Cpu, layer: Layer, index: usize, blocks: &'a [Arc<CacheBlock>]) -> Self {
        let (start, keys_size) = (layer.start(index), layer.shape.keys_size());
        Self { cpu, layer, index, blocks, start, keys_size, format: PhantomData }
    }

    /// Keys of a block, transposed: outputs are its positions.
    fn keys(&self, block: usize) -> &[T::Weights] {
        &T::of(&self.blocks[block])[self.start..][..self.keys_size]
    }

    /// Values of a block: outputs are channels `64 * strip` to `64 * strip + 63`.
    fn values(&self, block: usize, strip: usize) -> &[T::Weights] {
        let size = BLOCK / T::INPUTS;
        &T::of(&self.blocks[block])[self.start + self.keys_size + strip * size..][..size]
    }

    /// Unnormalised weights of `count` queries at positions `first..`, and their sums.
    fn weights(
        &self,
        queries: Inputs<'_, T::Input>,
        count: usize,
        first: usize,
        scores: &mut [f32],
        stride: usize,
    ) -> [f32; QUERIES] {
        let positions = first + count;
        for row in 0..count {
            scores[row * stride..][..positions.next_multiple_of(BLOCK)].fill(0.0);
        }
        for index in 0..positions.div_ceil(BLOCK) {
            let panel = self.keys(index);
            let next = match self.blocks.get(index + 1) {
                Some(_) => self.keys(index + 1),
                None => self.values(0, 0),
            };
            self.accumulate(queries, count, panel, next, (&mut scores[index * BLOCK..], stride));
        }
        let mut sums = [0.0; QUERIES];
        for (row, sum) in sums.iter_mut().enumerate().take(count) {
            let scores = &mut scores[row * stride..][..first + row + 1];
            // SAFETY: the machine has this row's instructions, for the table gives out no other.
            *sum = unsafe { (self.cpu.kernels.exp_weights)(scores, self.layer.scale) };
        }
        sums
    }

    /// Multiplies weights by the scales of the values they belong to, where the format has scales, and makes
    /// those of positions behind a query zero.
    fn scale_weights(&self, count: usize, first: usize, weights: &mut [f32], stride: usize) {
        if self.layer.shape.format.scales() == 0 {
            return;
        }
        for row in 0..count {
            let weights = &mut weights[row * stride..][..(first + count).next_multiple_of(T::INPUTS)];
            let (own, others) = weights.split_at_mut(first + row + 1);
            for (weights, block) in own.chunks_mut(BLOCK).zip(self.blocks) {
                for (weight, scale) in weights.iter_mut().zip(block.scales(self.layer, self.index)) {
                    *weight *= scale;
                }
            }
            others.fill(0.0);
        }
    }

    /// Weighted sums of 64 channels of the values, into `result` (count, 64).
    fn weighted_values(
        &self,
        strip: usize,
        weights: Inputs<'_, T::Input>,
        count: usize,
        first: usize,
        result: &mut [f32],
    ) {
        result[..count * PANEL].fill(0.0);
        // Positions that every query of the group attends to; or whose weight is zero, in whole blocks.
        let common = if T::INPUTS == 1 { first + 1 } else { first + count };
        for index in 0..common.div_ceil(BLOCK) {
            let values = self.values(index, strip);
            let values = &values[..BLOCK.min(common - index * BLOCK).div_ceil(T::INPUTS)];
            let next = if index + 1 < self.blocks.len() { self.values(index + 1, strip) } else { &[] };
            self.accumulate(weights.from(index * BLOCK / T::INPUTS), count, values, next, (result, PANEL));
        }
        if T::INPUTS > 1 {
            return;
        }
        // The rest of the triangle, row by row.
        for row in 1..count {
            let mut position = common;
            while position <= first + row {
                let end = (first + row + 1).min((position / BLOCK + 1) * BLOCK);
                let values = &self.values(position / BLOCK, strip)[position % BLOCK..][..end - position];
                let weights = weights.from(row * weights.stride + position);
                self.accumulate(weights, 1, values, &[], (&mut result[row * PANEL..], PANEL));
                position = end;
            }
        }
    }

    /// Continues the chains of `rows` rows of `out` with the rows of `x`; fetches what is needed next.
    fn accumulate(
        &self,
        x: Inputs<'_, T::Input>,
        rows: usize,
        panel: &[T::Weights],
        next: &[T::Weights],
        (out, out_stride): (&mut [f32], usize),
    ) {
        assert!(rows > 0, "a group has at least one query");
        assert!(
            (rows - 1) * x.stride + panel.len() <= x.data.len(),
            "attention: {rows} rows of {}",
            panel.len()
        );
        assert!((rows - 1) * out_stride + PANEL <= out.len(), "attention: room for {rows} rows");
        let (fetch, out) = (Fetch::all(next), out.as_mut_ptr());
        let tile = Tile { x: x.data.as_ptr(), x_stride: x.stride, rows, panel, fetch, out, out_stride };
        // SAFETY: the machine has this row's instructions, for the table gives out no other; x and
        // out hold the tile by the assertions, and `out` is borrowed mutably here.
        unsafe { (T::accumulate(self.cpu.kernels))(&tile) }
    }
}
