//! Eight and four bits: blocks of 32 values along k that share a scale.
//!
//! Weights are stored as unsigned bytes and activations as signed ones, which is how processors
//! multiply them. With `w` = byte - 128 and `q` an activation, a block's dot product is
//! `Σ (w + 128) · q - 128 · Σ q`: exact in 32 bits, whatever the order. An output is then one chain
//! over blocks: `out = fma(dot as f32, weight scale · activation scale, out)`.
//!
//! ```text
//! int8  weight[j] = (byte[j] - 128) · scale[j]              8.5 bits
//! int4  weight[j] = LEVELS[nibble[j]] · scale[j]            4.5 bits
//! ```

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::PANEL;
use crate::aligned::Plain;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Values of one output that a processor multiplies together.
const GROUP: usize = 4;
/// Groups in a block.
const GROUPS: usize = BLOCK / GROUP;

/// The sixteen values of a four-bit weight, times its scale: as bytes of [`Int8Block`], 128 added.
pub(crate) const LEVELS: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Weights of 64 outputs at 32 inputs in eight bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Int8Block {
    /// `[input / 4][output][input % 4]`, 128 added.
    pub(crate) values: [[[u8; GROUP]; PANEL]; GROUPS],
    pub(crate) scales: [f16; PANEL],
}

/// Weights of 64 outputs at 32 inputs in four bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Int4Block {
    /// `[input / 8][output][input % 4]`: the low half of a byte is an input whose group is even, the
    /// high half the input four further on.
    pub(crate) values: [[[u8; GROUP]; PANEL]; GROUPS / 2],
    pub(crate) scales: [f16; PANEL],
}

/// 32 activations of a row in eight bits.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub struct QuantizedBlock {
    pub(crate) values: [i8; BLOCK],
    pub(crate) scale: f32,
    /// -128 times the sum of the values: what adding 128 to every weight adds, taken off.
    pub(crate) correction: i32,
}

// SAFETY: 2048 bytes and 128, a multiple of the alignment, so without padding; no invalid patterns.
unsafe impl Plain for Int8Block {}
// SAFETY: 1024 bytes and 128, as above.
unsafe impl Plain for Int4Block {}
// SAFETY: 32 bytes, 4 and 4, as above.
unsafe impl Plain for QuantizedBlock {}

/// A part of a matrix: 32 inputs of 64 outputs.
pub(crate) type Part = [[f32; PANEL]; BLOCK];

/// Quantizes a row of activations; the last block is filled up with zeros.
///
/// A block's scale is a 127th of its largest magnitude, and its values are rounded to the nearest,
/// halves to even. A block that holds a value that is no number, or an infinity, has the scale NaN.
#[inline(always)]
pub(crate) fn quantize(x: &[f32], out: &mut [QuantizedBlock]) {
    debug_assert_eq!(x.len().div_ceil(BLOCK), out.len());
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for (x, out) in blocks.iter().zip(&mut *out) {
        quantize_block(x, out);
    }
    if let Some(last) = out.get_mut(blocks.len()) {
        let mut x = [0.0; BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        quantize_block(&x, last);
    }
}

#[inline(always)]
fn quantize_block(x: &[f32; BLOCK], out: &mut QuantizedBlock) {
    // As integers, magnitudes are ordered as their values are, with infinity and NaN on top.
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let (inverse, scale) = match f32::from_bits(largest) {
        largest if !largest.is_finite() => (0.0, f32::NAN),
        // Too small for an inverse: as good as zero.
        largest if largest < 127.0 / f32::MAX => (0.0, 0.0),
        largest => (127.0 / largest, largest / 127.0),
    };
    let mut sum = 0;
    for (value, &x) in out.values.iter_mut().zip(x) {
        let rounded = round(if inverse == 0.0 { 0.0 } else { x * inverse });
        *value = rounded as i8;
        sum += rounded;
    }
    out.scale = scale;
    out.correction = -128 * sum;
}

/// Rounds to the nearest integer, halves to even, below 2^22: there the sum's last bit is worth one.
#[inline(always)]
fn round(x: f32) -> i32 {
    const ONES: f32 = 12_582_912.0;
    (x + ONES).to_bits() as i32 - ONES.to_bits() as i32
}

/// Rounds a part of a matrix to eight bits: a scale is a 127th of the largest magnitude of its 32 weights,
/// rounded to an `f16`, and weights go to the nearest multiple of it.
///
/// 32 weights one of which is no number, or too large for the scale, make a scale that is none either.
#[inline(always)]
pub(crate) fn pack_int8(part: &Part, out: &mut Int8Block) {
    let mut scales = largest(part);
    for scale in &mut scales {
        *scale /= 127.0;
    }
    let scales = store_scales(&scales, &mut out.scales);
    let inverses = scales.map(inverse);
    for (group, values) in part.as_chunks::<GROUP>().0.iter().zip(&mut out.values) {
        for (k, weights) in group.iter().enumerate() {
            for ((value, &weight), &inverse) in values.iter_mut().zip(weights).zip(&inverses) {
                let scaled = if inverse == 0.0 { 0.0 } else { weight * inverse };
                value[k] = (round(scaled).clamp(-127, 127) + 128) as u8;
            }
        }
    }
}

/// Rounds a part of a matrix to four bits.
#[inline(always)]
pub(crate) fn pack_int4(part: &Part, out: &mut Int4Block) {
    let mut scales = largest(part);
    for scale in &mut scales {
        *scale /= 113.0;
    }
    let scales = store_scales(&scales, &mut out.scales);
    let inverses = scales.map(inverse);
    let mut nibbles = [[0u8; PANEL]; BLOCK];
    for (nibbles, weights) in nibbles.iter_mut().zip(part) {
        for ((nibble, &weight), &inverse) in nibbles.iter_mut().zip(weights).zip(&inverses) {
            *nibble = nearest_level(if inverse == 0.0 { 0.0 } else { weight * inverse });
        }
    }
    for (pair, values) in out.values.iter_mut().enumerate() {
        for (j, value) in values.iter_mut().enumerate() {
            for (k, byte) in value.iter_mut().enumerate() {
                let low = nibbles[2 * pair * GROUP + k][j];
                let high = nibbles[(2 * pair + 1) * GROUP + k][j];
                *byte = low | high << 4;
            }
        }
    }
}

/// The level nearest to a value, by counting the middles between levels that it exceeds.
#[inline(always)]
fn nearest_level(x: f32) -> u8 {
    let mut level = 0;
    for pair in LEVELS.windows(2) {
        let middle = f32::midpoint(f32::from(pair[0]), f32::from(pair[1])) - 128.0;
        level += u8::from(x > middle);
    }
    level
}

/// The largest magnitude of each output's weights; NaN where one is no number, or infinite.
#[inline(always)]
fn largest(part: &Part) -> [f32; PANEL] {
    let mut largest = [0u32; PANEL];
    for weights in part {
        for (largest, weight) in largest.iter_mut().zip(weights) {
            *largest = (*largest).max(weight.to_bits() & 0x7fff_ffff);
        }
    }
    largest.map(|bits| {
        let value = f32::from_bits(bits);
        if value.is_finite() { value } else { f32::NAN }
    })
}

/// Stores scales as `f16`, and returns what was stored.
#[inline(always)]
fn store_scales(scales: &[f32; PANEL], out: &mut [f16; PANEL]) -> [f32; PANEL] {
    out.convert_from_f32_slice(scales);
    let mut stored = [0.0; PANEL];
    out.convert_to_f32_slice(&mut stored);
    stored
}

/// One by a scale; zero where there is none.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

impl Int8Block {
    /// No weights yet: room for some.
    pub(crate) fn zeroed() -> Self {
        Self { values: [[[0; GROUP]; PANEL]; GROUPS], scales: [f16::ZERO; PANEL] }
    }

    /// One output's weights.
    pub(crate) fn output(&self, j: usize, out: &mut [f32; BLOCK]) {
        let scale = self.scales[j].to_f32();
        for (out, values) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(&self.values) {
            *out = values[j].map(|value| (f32::from(value) - 128.0) * scale);
        }
    }
}

impl Int4Block {
    /// One output's weights.
    pub(crate) fn output(&self, j: usize, out: &mut [f32; BLOCK]) {
        let scale = self.scales[j].to_f32();
        let weight = |nibble: u8| (f32::from(LEVELS[usize::from(nibble)]) - 128.0) * scale;
        for (pair, values) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().zip(&self.values) {
            let (low, high) = pair.split_at_mut(GROUP);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(values[j]) {
                (*low, *high) = (weight(byte & 15), weight(byte >> 4));
            }
        }
    }

    /// The same weights in eight bits.
    #[inline(always)]
    pub(crate) fn expand(&self) -> Int8Block {
        let mut out = Int8Block { scales: self.scales, ..Int8Block::zeroed() };
        for (values, pair) in self.values.iter().zip(out.values.as_chunks_mut::<2>().0) {
            let [low, high] = pair;
            for ((values, low), high) in values.iter().zip(low).zip(high) {
                *low = values.map(|byte| LEVELS[usize::from(byte & 15)]);
                *high = values.map(|byte| LEVELS[usize::from(byte >> 4)]);
            }
        }
        out
    }
}

/// Adds the products of a row of activations with the weights of 64 outputs; see the module.
#[inline(always)]
pub(crate) fn accumulate_int8(x: &[QuantizedBlock], panel: &[Int8Block], out: &mut [f32; PANEL]) {
    for (x, weights) in x.iter().zip(panel) {
        accumulate_block(x, weights, out);
    }
}

/// The same for weights in four bits.
#[inline(always)]
pub(crate) fn accumulate_int4(x: &[QuantizedBlock], panel: &[Int4Block], out: &mut [f32; PANEL]) {
    for (x, weights) in x.iter().zip(panel) {
        accumulate_block(x, &weights.expand(), out);
    }
}

#[inline(always)]
fn accumulate_block(x: &QuantizedBlock, weights: &Int8Block, out: &mut [f32; PANEL]) {
    let mut dots = [x.correction; PANEL];
    for (values, x) in weights.values.iter().zip(x.values.as_chunks::<GROUP>().0) {
        for (dot, values) in dots.iter_mut().zip(values) {
            for (&value, &x) in values.iter().zip(x) {
                *dot += i32::from(value) * i32::from(x);
            }
        }
    }
    let mut scales = [0.0; PANEL];
    weights.scales.convert_to_f32_slice(&mut scales);
    for ((out, &dot), &scale) in out.iter_mut().zip(&dots).zip(&scales) {
        *out = (dot as f32).mul_add(scale * x.scale, *out);
    }
}
