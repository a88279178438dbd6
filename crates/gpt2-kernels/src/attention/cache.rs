//! The cache of keys and values: how they lie in memory, and how they get there.
//!
//! It grows by blocks of 64 positions. Both halves of a block are panels, so that scores and weighted sums are the
//! same kernels as a linear layer:
//! ```text
//! block, for each layer and head:
//!   keys    [D][64 positions]                 scores  = q · keys          outputs are positions
//!   values  [D / 64][64 positions][64 of D]   result  = weights · values  outputs are channels
//! ```
//! They are `f32`, or `f16`, to which they are rounded when they are stored; or blocks of 32 channels or positions in
//! eight bits, as the weights of a linear layer. Then a key is turned and has a scale for every 32 channels, and a
//! value has one scale, which lies outside and goes into what the value is multiplied by.

use std::sync::Arc;

use half::f16;

use crate::aligned::Plain;
use crate::ops::Disjoint;
use crate::quant::{self, Int8Block, QuantizedBlock};
use crate::scalar::Weight;
use crate::table::{Kernels, Tile};
use crate::{AlignedVec, PANEL, Pool, Rows};

/// Positions in a block: one panel of scores.
pub const BLOCK: usize = PANEL;

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
    /// Whole numbers of eight bits with scales: little more than a quarter. What they are multiplied by is rounded
    /// to eight bits as well. Where one value of a head is no number, or infinite, none of that position is a number.
    Int8,
}

impl CacheFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The name: `f32`, `f16` or `int8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Inputs whose weights lie together, and the bytes of these weights of 64 outputs.
    fn unit(self) -> (usize, usize) {
        match self {
            Self::F32 => (f32::INPUTS, size_of::<[f32; PANEL]>()),
            Self::F16 => (f16::INPUTS, size_of::<[f16; PANEL]>()),
            Self::Int8 => (Int8::INPUTS, size_of::<Int8Block>()),
        }
    }

    /// Number of scales outside of the weights that a position of a head has.
    pub(super) fn scales(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 0,
            Self::Int8 => 1,
        }
    }
}

impl CacheShape {
    pub(super) fn strips(self) -> usize {
        self.head_size.div_ceil(PANEL)
    }

    /// Units of weights in the keys of a head.
    pub(super) fn keys_size(self) -> usize {
        self.head_size.div_ceil(self.format.unit().0)
    }

    /// Units of weights in a head.
    fn head_stride(self) -> usize {
        self.keys_size().saturating_add(self.strips().saturating_mul(BLOCK / self.format.unit().0))
    }

    /// Channels of all heads together, C.
    #[must_use]
    pub fn channels(self) -> usize {
        self.heads * self.head_size
    }

    /// Number of heads of all layers.
    fn all_heads(self) -> usize {
        self.layers * self.heads
    }

    /// Size of one head's part of a block in bytes, or `usize::MAX` if it is more than that.
    #[must_use]
    pub fn head_bytes(self) -> usize {
        let scales = self.format.scales() * BLOCK * size_of::<f32>();
        self.head_stride().saturating_mul(self.format.unit().1).saturating_add(scales)
    }

    /// Size of one block in bytes.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.all_heads() * self.head_bytes()
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
    pub(super) fn start(self, head: usize) -> usize {
        self.place(head) * self.shape.head_stride()
    }

    /// Where a head's scales start in a block.
    fn scales(self, head: usize) -> usize {
        self.place(head) * self.shape.format.scales() * BLOCK
    }

    /// Number of heads before this one, those of other layers included.
    fn place(self, head: usize) -> usize {
        let CacheShape { layers, heads, .. } = self.shape;
        assert!(self.index < layers && head < heads, "layer {} head {head} of {:?}", self.index, self.shape);
        self.index * heads + head
    }
}

/// Keys and values of 64 positions, of every layer and head.
#[derive(Clone, Debug)]
pub struct CacheBlock {
    data: Data,
    /// `[layer][head][64 positions]`, of the values, where the format has scales.
    scales: AlignedVec<f32>,
}

#[derive(Clone, Debug)]
enum Data {
    F32(AlignedVec<[f32; PANEL]>),
    F16(AlignedVec<[f16; PANEL]>),
    Int8(AlignedVec<Int8Block>),
}

impl CacheBlock {
    /// Allocates an empty block.
    #[must_use]
    pub fn new(shape: CacheShape) -> Self {
        let size = shape.all_heads() * shape.head_stride();
        let data = match shape.format {
            CacheFormat::F32 => Data::F32(AlignedVec::zeroed(size)),
            CacheFormat::F16 => Data::F16(AlignedVec::zeroed(size)),
            CacheFormat::Int8 => Data::Int8(AlignedVec::zeroed(size)),
        };
        Self { data, scales: AlignedVec::zeroed(shape.all_heads() * shape.format.scales() * BLOCK) }
    }

    /// The scales of a head's values.
    pub(super) fn scales(&self, layer: Layer, head: usize) -> &[f32] {
        &self.scales[layer.scales(head)..][..layer.shape.format.scales() * BLOCK]
    }
}

/// Rows of what is multiplied with keys or values.
pub(super) struct Inputs<'a, X> {
    pub(super) data: &'a [X],
    pub(super) stride: usize,
}

impl<X> Clone for Inputs<'_, X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Inputs<'_, X> {}

impl<X> Inputs<'_, X> {
    /// The same rows from another place on.
    pub(super) fn from(self, start: usize) -> Self {
        Self { data: &self.data[start..], ..self }
    }
}

/// How keys and values lie in memory, and what is multiplied with them.
pub(super) trait Format: Sized {
    /// Weights of 64 outputs at `INPUTS` inputs.
    type Weights: Plain;
    /// What they are multiplied with.
    type Input;

    /// How many inputs lie together.
    const INPUTS: usize;

    /// The keys and values of a block, which must be of this format.
    fn of(block: &CacheBlock) -> &[Self::Weights];

    /// The same, to be written, and the scales.
    fn of_mut(block: &mut CacheBlock) -> (&mut [Self::Weights], &mut [f32]);

    /// Stores a head's key.
    fn store_key(kernels: &Kernels, key: &[f32], slot: usize, keys: &mut [Self::Weights]);

    /// Stores a head's value, and its scale if there is one.
    fn store_value(
        kernels: &Kernels,
        value: &[f32],
        slot: usize,
        values: &mut [Self::Weights],
        scales: &mut [f32],
    );

    /// Queries as they are multiplied with keys; `rounded` has room for them.
    fn queries<'a>(
        kernels: &Kernels,
        queries: Rows<'a>,
        rounded: &'a mut [QuantizedBlock],
    ) -> Inputs<'a, Self::Input>;

    /// `count` rows of weights as they are multiplied with the values of `positions` positions.
    fn weights<'a>(
        kernels: &Kernels,
        weights: &'a [f32],
        stride: usize,
        count: usize,
        positions: usize,
        rounded: &'a mut [QuantizedBlock],
    ) -> Inputs<'a, Self::Input>;

    /// The kernel for this format.
    fn accumulate(kernels: &Kernels) -> unsafe fn(&Tile<'_, Self::Input, Self::Weights>);
}

/// A key or a value that stands for itself.
pub(super) trait Value: Weight + Plain + Default {
    fn panels(block: &CacheBlock) -> &[[Self; PANEL]];
    fn panels_mut(block: &mut CacheBlock) -> &mut [[Self; PANEL]];
    fn round(kernels: &Kernels, from: &[f32], to: &mut [Self]);
    fn kernel(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, [Self; PANEL]>);
}

impl Value for f32 {
    fn panels(block: &CacheBlock) -> &[[Self; PANEL]] {
        let Data::F32(data) = &block.data else { panic!("{OTHER_FORMAT}") };
        data
    }

    fn panels_mut(block: &mut CacheBlock) -> &mut [[Self; PANEL]] {
        let Data::F32(data) = &mut block.data else { panic!("{OTHER_FORMAT}") };
        data
    }

    fn round(_kernels: &Kernels, from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn kernel(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, [Self; PANEL]>) {
        kernels.accumulate_f32
    }
}

impl Value for f16 {
    fn panels(block: &CacheBlock) -> &[[Self; PANEL]] {
        let Data::F16(data) = &block.data else { panic!("{OTHER_FORMAT}") };
        data
    }

    fn panels_mut(block: &mut CacheBlock) -> &mut [[Self; PANEL]] {
        let Data::F16(data) = &mut block.data else { panic!("{OTHER_FORMAT}") };
        data
    }

    fn round(kernels: &Kernels, from: &[f32], to: &mut [Self]) {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        unsafe { (kernels.narrow_f16)(from, to) }
    }

    fn kernel(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, [Self; PANEL]>) {
        kernels.accumulate_f16
    }
}

const OTHER_FORMAT: &str = "a block of a cache of another format";

impl<T: Value> Format for T {
    type Weights = [T; PANEL];
    type Input = f32;

    const INPUTS: usize = 1;

    fn of(block: &CacheBlock) -> &[Self::Weights] {
        T::panels(block)
    }

    fn of_mut(block: &mut CacheBlock) -> (&mut [Self::Weights], &mut [f32]) {
        (T::panels_mut(block), &mut [])
    }

    fn store_key(kernels: &Kernels, key: &[f32], slot: usize, keys: &mut [Self::Weights]) {
        for (key, keys) in key.chunks(PANEL).zip(keys.chunks_mut(PANEL)) {
            let mut rounded = [T::default(); PANEL];
            T::round(kernels, key, &mut rounded[..key.len()]);
            for (keys, &key) in keys.iter_mut().zip(&rounded) {
                keys[slot] = key;
            }
        }
    }

    fn store_value(
        kernels: &Kernels,
        value: &[f32],
        slot: usize,
        values: &mut [Self::Weights],
        _scales: &mut [f32],
    ) {
        for (value, values) in value.chunks(PANEL).zip(values.chunks_mut(BLOCK)) {
            T::round(kernels, value, &mut values[slot][..value.len()]);
        }
    }

    fn queries<'a>(
        _kernels: &Kernels,
        queries: Rows<'a>,
        _rounded: &'a mut [QuantizedBlock],
    ) -> Inputs<'a, f32> {
        Inputs { data: queries.data(), stride: queries.stride() }
    }

    fn weights<'a>(
        _kernels: &Kernels,
        weights: &'a [f32],
        stride: usize,
        _count: usize,
        _positions: usize,
        _rounded: &'a mut [QuantizedBlock],
    ) -> Inputs<'a, f32> {
        Inputs { data: weights, stride }
    }

    fn accumulate(kernels: &Kernels) -> unsafe fn(&Tile<'_, f32, Self::Weights>) {
        T::kernel(kernels)
    }
}

/// Eight bits.
pub(super) struct Int8;

impl Format for Int8 {
    type Weights = Int8Block;
    type Input = QuantizedBlock;

    const INPUTS: usize = quant::BLOCK;

    fn of(block: &CacheBlock) -> &[Int8Block] {
        let Data::Int8(data) = &block.data else { panic!("{OTHER_FORMAT}") };
        data
    }

    fn of_mut(block: &mut CacheBlock) -> (&mut [Int8Block], &mut [f32]) {
        let Data::Int8(data) = &mut block.data else { panic!("{OTHER_FORMAT}") };
        (data, &mut block.scales)
    }

    fn store_key(kernels: &Kernels, key: &[f32], slot: usize, keys: &mut [Int8Block]) {
        for (key, keys) in key.chunks(quant::BLOCK).zip(keys) {
            let mut rounded = QuantizedBlock::ZERO;
            // SAFETY: the machine has this row's instructions, for the table gives out no other.
            unsafe { (kernels.quantize)(key, std::slice::from_mut(&mut rounded)) };
            keys.set_output(slot, &rounded);
        }
    }

    fn store_value(
        _kernels: &Kernels,
        value: &[f32],
        slot: usize,
        values: &mut [Int8Block],
        scales: &mut [f32],
    ) {
        let (inverse, scale) = quant::inverse_and_scale(quant::largest_magnitude(value));
        scales[slot] = scale;
        for (value, values) in value.chunks(PANEL).zip(values.chunks_mut(BLOCK / quant::BLOCK)) {
            values[slot / quant::BLOCK].set_input(slot % quant::BLOCK, value, inverse);
        }
    }

    fn queries<'a>(
        kernels: &Kernels,
        queries: Rows<'a>,
        rounded: &'a mut [QuantizedBlock],
    ) -> Inputs<'a, QuantizedBlock> {
        let stride = queries.width().div_ceil(quant::BLOCK);
        for (index, rounded) in rounded.chunks_exact_mut(stride).take(queries.count()).enumerate() {
            // SAFETY: the machine has this row's instructions, for the table gives out no other.
            unsafe { (kernels.quantize)(queries.row(index), rounded) };
        }
        Inputs { data: rounded, stride }
    }

    fn weights<'a>(
        kernels: &Kernels,
        weights: &'a [f32],
        weights_stride: usize,
        count: usize,
        positions: usize,
        rounded: &'a mut [QuantizedBlock],
    ) -> Inputs<'a, QuantizedBlock> {
        let stride = positions.div_ceil(quant::BLOCK);
        for (index, rounded) in rounded.chunks_exact_mut(stride).take(count).enumerate() {
            let weights = &weights[index * weights_stride..][..stride * quant::BLOCK];
            // SAFETY: the machine has this row's instructions, for the table gives out no other.
            unsafe { (kernels.round)(weights, rounded) };
        }
        Inputs { data: rounded, stride }
    }

    fn accumulate(kernels: &Kernels) -> unsafe fn(&Tile<'_, QuantizedBlock, Int8Block>) {
        kernels.accumulate_int8
    }
}

/// Stores the keys and values of new positions `past..` of one layer. qkv is (T, 3C).
///
/// Many positions are shared out over the threads of `pool`; without it all is done on the caller's, which may then
/// be one of them.
///
/// # Panics
/// Panics if the shapes do not fit, or if a block that would be written is shared.
pub fn store(
    kernels: &'static Kernels,
    pool: Option<&Pool>,
    layer: Layer,
    blocks: &mut [Arc<CacheBlock>],
    past: usize,
    qkv: Rows<'_>,
) {
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
            CacheFormat::F32 => store_block::<f32>(kernels, pool, layer, block, slot, rows),
            CacheFormat::F16 => store_block::<f16>(kernels, pool, layer, block, slot, rows),
            CacheFormat::Int8 => store_block::<Int8>(kernels, pool, layer, block, slot, rows),
        }
        done += count;
    }
}

/// Stores positions from `slot` of a block on.
fn store_block<T: Format>(
    kernels: &'static Kernels,
    pool: Option<&Pool>,
    layer: Layer,
    block: &mut CacheBlock,
    slot: usize,
    rows: Rows<'_>,
) {
    let shape = layer.shape;
    let (data, scales) = T::of_mut(block);
    let (data, scales) = (Disjoint::new(data), Disjoint::new(scales));
    let store_head = |head: usize| {
        // SAFETY: heads do not overlap, and each is stored by one task.
        let data = unsafe { data.slice(layer.start(head), shape.head_stride()) };
        // SAFETY: as above.
        let scales = unsafe { scales.slice(layer.scales(head), shape.format.scales() * BLOCK) };
        let (keys, values) = data.split_at_mut(shape.keys_size());
        for index in 0..rows.count() {
            let (slot, row) = (slot + index, rows.row(index));
            let part =
                |third: usize| &row[third * shape.channels() + head * shape.head_size..][..shape.head_size];
            T::store_key(kernels, part(1), slot, keys);
            T::store_value(kernels, part(2), slot, values, scales);
        }
    };
    match pool.filter(|_| rows.count() >= POSITIONS_WORTH_SHARING) {
        Some(pool) => pool.run(shape.heads, |head, _| store_head(head)),
        None => (0..shape.heads).for_each(store_head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_rounds_to_half_the_bits_alike() {
        // All halves, what lies between them and their neighbours, and what is too small, too large or no number.
        let x: Vec<f32> = (0..=u16::MAX)
            .flat_map(|bits| {
                let half = f16::from_bits(bits).to_f32().to_bits();
                [half, half + 0x0fff, half + 0x1000, half + 0x1001].map(f32::from_bits)
            })
            .chain([f32::MIN_POSITIVE, 1e-40, 65519.9, 65520.0, f32::MAX, f32::NEG_INFINITY, f32::NAN])
            .collect();
        for kernels in Kernels::available() {
            let mut rounded = vec![f16::ZERO; x.len()];
            f16::round(kernels, &x, &mut rounded);
            for (&x, &rounded) in x.iter().zip(&rounded) {
                let expected = f16::from_f32_const(x);
                let same = rounded.to_bits() == expected.to_bits() || x.is_nan() && rounded.is_nan();
                assert!(same, "{}: {x:e} is {rounded}, not {expected}", kernels.name());
            }
        }
    }
}
