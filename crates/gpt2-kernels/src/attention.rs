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
//! Keys and values are `f32`, or `f16`, to which they are rounded when they are stored.
//! Positions beyond p take no part in any of it, so neither the chunking of a prompt nor what else
//! is in the block can change a bit.

use std::marker::PhantomData;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::aligned::Plain;
use crate::ops::Disjoint;
use crate::scalar::Weight;
use crate::table::{Fetch, Kernels, Tile};
use crate::{AlignedVec, Cpu, PANEL, Rows, RowsMut, Scratch};

/// Positions in a block: one panel of scores.
pub const BLOCK: usize = PANEL;

/// Queries of one head that are computed together: the rows of one tile.
pub(crate) const QUERIES: usize = 6;
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
    /// How keys and values are held.
    pub format: CacheFormat,
}

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision: half the memory. Magnitudes from 65,520 on become infinite.
    F16,
}

impl CacheFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// The name: `f32` or `f16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Size of one value in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
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

    /// Number of values in a block.
    fn block_size(self) -> usize {
        self.layers * self.heads * self.head_stride()
    }

    /// Size of one block in bytes.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.block_size() * self.format.size()
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
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    F32(AlignedVec<f32>),
    F16(AlignedVec<f16>),
}

impl CacheBlock {
    /// Allocates an empty block.
    #[must_use]
    pub fn new(shape: CacheShape) -> Self {
        let size = shape.block_size();
        let data = match shape.format {
            CacheFormat::F32 => Data::F32(AlignedVec::zeroed(size)),
            CacheFormat::F16 => Data::F16(AlignedVec::zeroed(size)),
        };
        Self { data }
    }
}

/// A key or a value as it lies in memory.
trait Value: Weight + Plain + Default {
    /// The values of a block, which must be of this format.
    fn of(block: &CacheBlock) -> &[Self];

    /// The same, to be written.
    fn of_mut(block: &mut CacheBlock) -> &mut [Self];

    /// Rounds values.
    fn round(from: &[f32], to: &mut [Self]);

    /// The kernel for this format.
    fn accumulate(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, [Self; PANEL]>);
}

impl Value for f32 {
    fn of(block: &CacheBlock) -> &[Self] {
        match &block.data {
            Data::F32(data) => data,
            Data::F16(_) => panic!("{OTHER_FORMAT}"),
        }
    }

    fn of_mut(block: &mut CacheBlock) -> &mut [Self] {
        match &mut block.data {
            Data::F32(data) => data,
            Data::F16(_) => panic!("{OTHER_FORMAT}"),
        }
    }

    fn round(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn accumulate(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, [Self; PANEL]>) {
        kernels.accumulate_f32
    }
}

impl Value for f16 {
    fn of(block: &CacheBlock) -> &[Self] {
        match &block.data {
            Data::F16(data) => data,
            Data::F32(_) => panic!("{OTHER_FORMAT}"),
        }
    }

    fn of_mut(block: &mut CacheBlock) -> &mut [Self] {
        match &mut block.data {
            Data::F16(data) => data,
            Data::F32(_) => panic!("{OTHER_FORMAT}"),
        }
    }

    fn round(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }

    fn accumulate(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, [Self; PANEL]>) {
        kernels.accumulate_f16
    }
}

const OTHER_FORMAT: &str = "a block of a cache of another format";

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

/// Stores the keys and values of new positions `past..` of one layer. qkv is (T, 3C).
///
/// Many positions are shared out over the threads of `cpu`; without it all is done on the caller's, which may then
/// be one of them.
///
/// # Panics
/// Panics if the shapes do not fit, or if a block that would be written is shared.
pub fn store(cpu: Option<&Cpu>, layer: Layer, blocks: &mut [Arc<CacheBlock>], past: usize, qkv: Rows<'_>) {
    assert_eq!(
        qkv.width(),
        3 * layer.shape.channels(),
        "store: values in a row of qkv, channels times three"
    );
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
        let rows = qkv.part(done, count, 0, qkv.width());
        match layer.shape.format {
            CacheFormat::F32 => store_block::<f32>(cpu, layer, block, slot, rows),
            CacheFormat::F16 => store_block::<f16>(cpu, layer, block, slot, rows),
        }
        done += count;
    }
}

/// Stores positions from `slot` of a block on.
fn store_block<T: Value>(
    cpu: Option<&Cpu>,
    layer: Layer,
    block: &mut CacheBlock,
    slot: usize,
    rows: Rows<'_>,
) {
    let shape = layer.shape;
    let data = Disjoint::new(T::of_mut(block));
    let store_head = |head: usize| {
        // SAFETY: heads do not overlap, and each is stored by one task.
        let data = unsafe { data.slice(layer.start(head), shape.head_stride()) };
        let (keys, values) = data.split_at_mut(shape.keys_size());
        for index in 0..rows.count() {
            let (slot, row) = (slot + index, rows.row(index));
            let from = |third: usize| {
                row[third * shape.channels() + head * shape.head_size..][..shape.head_size].chunks(PANEL)
            };
            for (strip, part) in from(1).enumerate() {
                let mut rounded = [T::default(); PANEL];
                T::round(part, &mut rounded[..part.len()]);
                let keys = &mut keys[strip * PANEL * BLOCK..];
                for (keys, &key) in keys.as_chunks_mut::<BLOCK>().0.iter_mut().zip(&rounded[..part.len()]) {
                    keys[slot] = key;
                }
            }
            for (strip, part) in from(2).enumerate() {
                T::round(part, &mut values[(strip * BLOCK + slot) * PANEL..][..part.len()]);
            }
        }
    };
    match cpu.filter(|_| rows.count() >= POSITIONS_WORTH_SHARING) {
        Some(cpu) => cpu.pool.run(shape.heads, |head, _| store_head(head)),
        None => (0..shape.heads).for_each(store_head),
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
    }
}

fn attend_in<'a, T: Value>(
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
        let scratch = &mut scratch.thread(thread).scores;
        let (scores, result) = scratch.split_at_mut(QUERIES * stride);
        let head = Head::<T> { cpu, layer, index, blocks, format: PhantomData };
        let sums = head.weights(queries, past + first, scores, stride);
        for strip in 0..shape.strips() {
            head.weighted_values(strip, count, past + first, scores, stride, result);
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
    let first = weights.len() - 1;
    let index = head;
    let sums = match layer.shape.format {
        CacheFormat::F32 => Head::<f32> { cpu, layer, index, blocks, format: PhantomData }.weights(
            query,
            first,
            &mut scores,
            stride,
        ),
        CacheFormat::F16 => Head::<f16> { cpu, layer, index, blocks, format: PhantomData }.weights(
            query,
            first,
            &mut scores,
            stride,
        ),
    };
    let normalise = 1.0 / sums[0];
    for (weight, score) in weights.iter_mut().zip(&*scores) {
        *weight = score * normalise;
    }
}

/// One head of one layer, over the cache of one sequence.
struct Head<'a, T> {
    cpu: &'a Cpu,
    layer: Layer,
    index: usize,
    blocks: &'a [Arc<CacheBlock>],
    format: PhantomData<T>,
}

impl<T: Value> Head<'_, T> {
    /// Keys of a block, transposed: `[D][64]`.
    fn keys(&self, block: usize) -> &[[T; PANEL]] {
        let data = T::of(&self.blocks[block]);
        data[self.layer.start(self.index)..][..self.layer.shape.keys_size()].as_chunks::<PANEL>().0
    }

    /// Values of a block: `[64][64]`, channels `64 * strip` to `64 * strip + 63`.
    fn values(&self, block: usize, strip: usize) -> &[[T; PANEL]] {
        let data = T::of(&self.blocks[block]);
        let start = self.layer.start(self.index) + self.layer.shape.keys_size() + strip * BLOCK * PANEL;
        data[start..][..BLOCK * PANEL].as_chunks::<PANEL>().0
    }

    /// Unnormalised weights of the queries at positions `first..`, and their sums.
    fn weights(&self, queries: Rows<'_>, first: usize, scores: &mut [f32], stride: usize) -> [f32; QUERIES] {
        let count = queries.count();
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
            self.accumulate(
                (queries.data(), queries.stride()),
                count,
                panel,
                next,
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
        for index in 0..common.div_ceil(BLOCK) {
            let values = self.values(index, strip);
            let values = &values[..BLOCK.min(common - index * BLOCK)];
            let next = if index + 1 < self.blocks.len() { self.values(index + 1, strip) } else { &[] };
            self.accumulate((&weights[index * BLOCK..], stride), count, values, next, (result, PANEL));
        }
        // The rest of the triangle, row by row.
        for row in 1..count {
            let mut position = common;
            while position <= first + row {
                let end = (first + row + 1).min((position / BLOCK + 1) * BLOCK);
                let values = &self.values(position / BLOCK, strip)[position % BLOCK..][..end - position];
                let weights = &weights[row * stride + position..];
                self.accumulate((weights, stride), 1, values, &[], (&mut result[row * PANEL..], PANEL));
                position = end;
            }
        }
    }

    /// Continues the chains of `rows` rows of `out` with the rows of `x`; fetches what is needed next.
    fn accumulate(
        &self,
        (x, x_stride): (&[f32], usize),
        rows: usize,
        panel: &[[T; PANEL]],
        next: &[[T; PANEL]],
        (out, out_stride): (&mut [f32], usize),
    ) {
        assert!(rows > 0, "a group has at least one query");
        assert!((rows - 1) * x_stride + panel.len() <= x.len(), "attention: {rows} rows of {}", panel.len());
        assert!((rows - 1) * out_stride + PANEL <= out.len(), "attention: room for {rows} rows");
        let (x, fetch, out) = (x.as_ptr(), Fetch::all(next), out.as_mut_ptr());
        let tile = Tile { x, x_stride, rows, panel, fetch, out, out_stride };
        // SAFETY: the machine has this row's instructions, for the table gives out no other; x and
        // out hold the tile by the assertions, and `out` is borrowed mutably here.
        unsafe { (T::accumulate(self.cpu.kernels))(&tile) }
    }
}
