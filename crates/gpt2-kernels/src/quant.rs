//! Eight, six and four bits: blocks of 32 values along k that share a scale.
//!
//! Weights are stored as unsigned bytes and activations as signed ones, which is how processors
//! multiply them. With `w` = byte - 128 and `q` an activation, a block's dot product is
//! `Σ (w + 128) · q - 128 · Σ q`: exact in 32 bits, whatever the order. An output is then one chain
//! over blocks: `out = fma(dot as f32, weight scale · activation scale, out)`.
//!
//! ```text
//! int8  weight[j] = (byte[j] - 128) · scale[j]              8.5 bits
//! int6  weight[j] = (six bits[j] - 32) · scale[j]           6.5 bits
//! int4  weight[j] = (LEVELS[nibble[j]] - 128) · scale[j]    4.5 bits
//! ```
//! Both sides are turned before they are rounded: by the Walsh-Hadamard matrix H of size 32, whose
//! entries are ±1 and whose square is 32 times the identity. `x · w = Hx · (Hw / 32)`, and a value that
//! stands out is spread over its block, so that the others keep their bits (Ashkboos et al., "QuaRot",
//! 2024). The scale of 32 weights is the one of some candidates that leaves the least squared error.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::PANEL;
use crate::aligned::Plain;

/// The version of what packing to eight and four bits makes of given weights.
///
/// To be raised by every change that packs other bytes, be it the rounding, the levels or the layout, here or in
/// `matrix.rs`: packed copies on disk are used by programs of the same version alone. The library's test of packed
/// copies pins the bytes of this version, so that a change cannot go unnoticed.
pub const PACK_VERSION: u32 = 1;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Values of one output that a processor multiplies together.
const GROUP: usize = 4;
/// Groups in a block.
const GROUPS: usize = BLOCK / GROUP;

/// What a four-bit weight stands for, times its scale: as a byte of [`Int8Block`], 128 added. The levels are the
/// best sixteen for normally distributed weights (Lloyd's algorithm), whose blocks have been scaled as below.
pub(crate) const LEVELS: [u8; 16] = [1, 27, 49, 66, 81, 94, 107, 119, 130, 141, 153, 165, 178, 193, 211, 235];

/// Weights of 64 outputs at 32 inputs in eight bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Int8Block {
    /// `[input / 4][output][input % 4]`, 128 added.
    pub(crate) values: [[[u8; GROUP]; PANEL]; GROUPS],
    pub(crate) scales: [f16; PANEL],
}

/// Weights of 64 outputs at 32 inputs in six bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Int6Block {
    /// The low four bits, 32 added, as in [`Int4Block`].
    pub(crate) low: [[[u8; GROUP]; PANEL]; GROUPS / 2],
    /// The high two bits: `[input / 16][output][input % 4]`, those of the group `input / 4 % 4` shifted by
    /// twice its number.
    pub(crate) high: [[[u8; GROUP]; PANEL]; GROUPS / 4],
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
    /// The sum of the values: times 128, it is what adding 128 to every weight adds.
    pub(crate) sum: i32,
}

// SAFETY: 2048 bytes and 128, a multiple of the alignment, so without padding; no invalid patterns.
unsafe impl Plain for Int8Block {}
// SAFETY: 1024 bytes, 512 and 128, as above.
unsafe impl Plain for Int6Block {}
// SAFETY: 1024 bytes and 128, as above.
unsafe impl Plain for Int4Block {}
// SAFETY: 32 bytes, 4 and 4, as above.
unsafe impl Plain for QuantizedBlock {}

impl QuantizedBlock {
    pub(crate) const ZERO: Self = Self { values: [0; BLOCK], scale: 0.0, sum: 0 };
}

impl Int8Block {
    /// Makes a row that was turned and rounded the weights of one output, for other such rows to be multiplied with.
    #[inline]
    pub(crate) fn set_output(&mut self, output: usize, row: &QuantizedBlock) {
        for (group, values) in self.values.iter_mut().zip(row.values.as_chunks::<GROUP>().0) {
            group[output] = values.map(|value| value.cast_unsigned().wrapping_add(128));
        }
        // Both sides were turned by H, and H · H is 32.
        let scale = f16::from_f32(row.scale * (1.0 / BLOCK as f32));
        self.scales[output] = if scale.is_infinite() { f16::NAN } else { scale };
    }

    /// Rounds `weights * inverse` to the weights of one input. Their scales are one: all is in that of the input.
    #[inline]
    pub(crate) fn set_input(&mut self, input: usize, weights: &[f32], inverse: f32) {
        for (group, &weight) in self.values[input / GROUP].iter_mut().zip(weights) {
            group[input % GROUP] = (round_times(weight, inverse) + 128) as u8;
        }
        self.scales = [f16::ONE; PANEL];
    }
}

/// A part of a matrix: 32 inputs of 64 outputs.
pub(crate) type Part = [[f32; PANEL]; BLOCK];

/// Multiplies a block by H: in five steps of sums and differences.
#[inline(always)]
pub(crate) fn turn(x: &mut [f32; BLOCK]) {
    turn_step::<16>(x);
    turn_step::<8>(x);
    turn_step::<4>(x);
    turn_step::<2>(x);
    turn_step::<1>(x);
}

#[inline(always)]
fn turn_step<const STEP: usize>(x: &mut [f32; BLOCK]) {
    let old = *x;
    for (i, x) in x.iter_mut().enumerate() {
        let other = old[i ^ STEP];
        *x = if i & STEP == 0 { old[i] + other } else { other - old[i] };
    }
}

/// Multiplies the weights of each output by H / 32.
#[inline(always)]
fn turn_part(part: &mut Part) {
    for step in [16, 8, 4, 2, 1] {
        for pair in part.chunks_exact_mut(2 * step) {
            let (first, second) = pair.split_at_mut(step);
            for (a, b) in first.as_flattened_mut().iter_mut().zip(second.as_flattened_mut()) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
    for weights in part {
        for weight in weights {
            *weight *= 1.0 / BLOCK as f32;
        }
    }
}

/// Turns a row of activations and rounds it; the last block is filled up with zeros.
///
/// A block's scale is a 127th of its largest magnitude, and its values are rounded to the nearest,
/// halves to even. A block that holds a value that is no number, or an infinity, has the scale NaN.
#[inline(always)]
pub(crate) fn quantize(x: &[f32], out: &mut [QuantizedBlock]) {
    debug_assert_eq!(x.len().div_ceil(BLOCK), out.len());
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for (x, out) in blocks.iter().zip(&mut *out) {
        quantize_block(*x, out);
    }
    if let Some(last) = out.get_mut(blocks.len()) {
        let mut x = [0.0; BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        quantize_block(x, last);
    }
}

#[inline(always)]
fn quantize_block(mut x: [f32; BLOCK], out: &mut QuantizedBlock) {
    turn(&mut x);
    round_block(&x, out);
}

/// Rounds a row of whole blocks as it is, without turning it; else as [`quantize`].
#[inline(always)]
pub(crate) fn round_row(x: &[f32], out: &mut [QuantizedBlock]) {
    debug_assert_eq!(x.len(), out.len() * BLOCK);
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        round_block(x, out);
    }
}

#[inline(always)]
fn round_block(x: &[f32; BLOCK], out: &mut QuantizedBlock) {
    let (inverse, scale) = inverse_and_scale(largest_magnitude(x));
    let mut sum = 0;
    for (value, &x) in out.values.iter_mut().zip(x) {
        let rounded = round_times(x, inverse);
        *value = rounded as i8;
        sum += rounded;
    }
    out.scale = scale;
    out.sum = sum;
}

/// The largest magnitude; infinity is above all numbers, and NaN above infinity.
#[inline(always)]
pub(crate) fn largest_magnitude(x: &[f32]) -> f32 {
    // As integers, magnitudes are ordered as their values are.
    f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)))
}

/// Rounds `x * inverse`; where there is no inverse, nothing is kept of x.
#[inline(always)]
fn round_times(x: f32, inverse: f32) -> i32 {
    round(if inverse == 0.0 { 0.0 } else { x * inverse })
}

/// What activations of that largest magnitude are multiplied by to be rounded, and the scale they have then.
#[inline(always)]
pub(crate) fn inverse_and_scale(largest: f32) -> (f32, f32) {
    if !largest.is_finite() {
        (0.0, f32::NAN)
    } else if largest < 127.0 / f32::MAX {
        // Too small for an inverse: as good as zero.
        (0.0, 0.0)
    } else {
        (127.0 / largest, largest / 127.0)
    }
}

/// Where the last bit of a float is worth one: adding it rounds to the nearest integer, halves to even.
const ONES: f32 = 12_582_912.0;

/// Rounds to the nearest integer, halves to even, below 2^22.
#[inline(always)]
fn round(x: f32) -> i32 {
    (x + ONES).to_bits() as i32 - ONES.to_bits() as i32
}

/// Rounds a part of a matrix to eight bits.
#[inline(always)]
pub(crate) fn pack_int8(part: &Part, out: &mut Int8Block) {
    const RANGE: f32 = 127.0;
    let mut part = *part;
    turn_part(&mut part);
    let candidates: [f32; 16] = std::array::from_fn(|i| RANGE + 0.5 - 0.5 * i as f32);
    let nearest = |x: f32| (x.clamp(-RANGE, RANGE) + ONES) - ONES;
    out.scales = best_scales(&part, &candidates, nearest);
    each_weight(&part, &out.scales, |k, j, x| {
        out.values[k / GROUP][j][k % GROUP] = (round(x.clamp(-RANGE, RANGE)) + 128) as u8;
    });
}

/// Rounds a part of a matrix to six bits.
#[inline(always)]
pub(crate) fn pack_int6(part: &Part, out: &mut Int6Block) {
    let mut part = *part;
    turn_part(&mut part);
    let sizes: [f32; 8] = [0.9, 0.93, 0.96, 0.98, 1.0, 1.02, 1.04, 1.07];
    let candidates: [f32; 16] = std::array::from_fn(|i| if i < 8 { 32.0 } else { -32.0 } * sizes[i % 8]);
    let nearest = |x: f32| (x.clamp(-32.0, 31.0) + ONES) - ONES;
    out.scales = best_scales(&part, &candidates, nearest);
    out.low = [[[0; GROUP]; PANEL]; GROUPS / 2];
    out.high = [[[0; GROUP]; PANEL]; GROUPS / 4];
    each_weight(&part, &out.scales, |k, j, x| {
        let (group, k) = (k / GROUP, k % GROUP);
        let bits = (round(x.clamp(-32.0, 31.0)) + 32) as u8;
        out.low[group / 2][j][k] |= (bits & 15) << (4 * (group % 2));
        out.high[group / 4][j][k] |= (bits >> 4) << (2 * (group % 4));
    });
}

/// Rounds a part of a matrix to four bits.
#[inline(always)]
pub(crate) fn pack_int4(part: &Part, out: &mut Int4Block) {
    let mut part = *part;
    turn_part(&mut part);
    let sizes: [f32; 4] = [0.86, 0.94, 1.02, 1.1];
    // Both signs, for the levels reach further down than up.
    let candidates: [f32; 8] = std::array::from_fn(|i| if i < 4 { 127.0 } else { -127.0 } * sizes[i % 4]);
    out.scales = best_scales(&part, &candidates, |x| {
        let mut level = level(0);
        for i in 1..LEVELS.len() {
            level = if x > middle(i) { self::level(i) } else { level };
        }
        level
    });
    out.values = [[[0; GROUP]; PANEL]; GROUPS / 2];
    each_weight(&part, &out.scales, |k, j, x| {
        let (group, k) = (k / GROUP, k % GROUP);
        let nibble = (1..LEVELS.len()).map(|i| u8::from(x > middle(i))).sum::<u8>();
        out.values[group / 2][j][k] |= nibble << (4 * (group % 2));
    });
}

/// What a four-bit weight stands for, times its scale.
#[inline(always)]
fn level(i: usize) -> f32 {
    f32::from(LEVELS[i]) - 128.0
}

/// The middle between a level and the one below it.
#[inline(always)]
fn middle(i: usize) -> f32 {
    0.5 * (level(i - 1) + level(i))
}

/// Chooses a scale for each output: of those that some candidates lead to, the one with the least squared error.
///
/// A candidate is what the weight of largest magnitude would be over the scale. The weights rounded with it have
/// a best scale, `Σ w·q / Σ q·q`, which is stored as an `f16` and judged by the weights rounded with that. 32
/// weights one of which is no number or infinite have the scale NaN.
#[inline(always)]
fn best_scales(part: &Part, candidates: &[f32], nearest: impl Fn(f32) -> f32) -> [f16; PANEL] {
    let largest = largest(part);
    let mut best = [f16::ZERO; PANEL];
    let mut best_gains = [0.0; PANEL];
    for &candidate in candidates {
        let mut inverses = [0.0; PANEL];
        for (inverse, &largest) in inverses.iter_mut().zip(&largest) {
            let finite = (candidate / largest).is_finite();
            *inverse = if finite { candidate / largest } else { 0.0 };
        }
        let (products, squares) = fit(part, &inverses, &nearest);
        let mut fitted = [0.0; PANEL];
        for ((fitted, &product), &square) in fitted.iter_mut().zip(&products).zip(&squares) {
            *fitted = if square > 0.0 { product / square } else { 0.0 };
        }
        let mut scales = [f16::ZERO; PANEL];
        scales.convert_from_f32_slice(&fitted);
        let (products, squares) = fit(part, &inverses_of(&scales), &nearest);
        let mut stored = [0.0; PANEL];
        scales.convert_to_f32_slice(&mut stored);
        for j in 0..PANEL {
            let scale = stored[j];
            let gain = 2.0 * scale * products[j] - scale * scale * squares[j];
            if gain > best_gains[j] {
                (best_gains[j], best[j]) = (gain, scales[j]);
            }
        }
    }
    for (best, largest) in best.iter_mut().zip(&largest) {
        if !largest.is_finite() {
            *best = f16::NAN;
        }
    }
    best
}

/// `Σ w·q` and `Σ q·q` of each output, where q is the nearest to the weight times an inverse.
#[inline(always)]
fn fit(part: &Part, inverses: &[f32; PANEL], nearest: impl Fn(f32) -> f32) -> ([f32; PANEL], [f32; PANEL]) {
    let (mut products, mut squares) = ([0.0; PANEL], [0.0; PANEL]);
    for weights in part {
        for j in 0..PANEL {
            let q = nearest(weights[j] * inverses[j]);
            products[j] += weights[j] * q;
            squares[j] += q * q;
        }
    }
    (products, squares)
}

/// Calls `put` with k, the output and the weight over its scale, for every weight; over no scale it is zero.
#[inline(always)]
fn each_weight(part: &Part, scales: &[f16; PANEL], mut put: impl FnMut(usize, usize, f32)) {
    let inverses = inverses_of(scales);
    for (k, weights) in part.iter().enumerate() {
        for (j, (&weight, &inverse)) in weights.iter().zip(&inverses).enumerate() {
            put(k, j, if inverse == 0.0 { 0.0 } else { weight * inverse });
        }
    }
}

/// One by each scale; zero where there is none.
#[inline(always)]
fn inverses_of(scales: &[f16; PANEL]) -> [f32; PANEL] {
    let mut inverses = [0.0; PANEL];
    scales.convert_to_f32_slice(&mut inverses);
    for inverse in &mut inverses {
        let one_by = 1.0 / *inverse;
        *inverse = if one_by.is_finite() { one_by } else { 0.0 };
    }
    inverses
}

/// The weight of largest magnitude of each output; NaN where one is no number, or infinite.
#[inline(always)]
fn largest(part: &Part) -> [f32; PANEL] {
    let mut largest = [0.0f32; PANEL];
    for weights in part {
        for (largest, &weight) in largest.iter_mut().zip(weights) {
            // As integers, with infinity and NaN on top.
            let bits = |x: f32| x.to_bits() & 0x7fff_ffff;
            *largest = if bits(weight) > bits(*largest) { weight } else { *largest };
        }
    }
    largest.map(|largest| if largest.is_finite() { largest } else { f32::NAN })
}

/// A block of weights in some format.
pub(crate) trait Block: Plain {
    /// What an input's weights are multiplied by.
    fn scales(&self) -> &[f16; PANEL];

    /// The weight of one output, 128 added.
    fn byte(&self, k: usize, j: usize) -> u8;

    /// The same weights in eight bits.
    #[inline(always)]
    fn expand(&self) -> Int8Block {
        let mut out = Int8Block { scales: *self.scales(), ..Int8Block::zeroed() };
        for (group, values) in out.values.iter_mut().enumerate() {
            for (j, values) in values.iter_mut().enumerate() {
                for (k, value) in values.iter_mut().enumerate() {
                    *value = self.byte(group * GROUP + k, j);
                }
            }
        }
        out
    }

    /// One output's weights as they were before they were turned, but for the rounding.
    fn output(&self, j: usize, out: &mut [f32; BLOCK]) {
        let scale = self.scales()[j].to_f32();
        for (k, out) in out.iter_mut().enumerate() {
            *out = (f32::from(self.byte(k, j)) - 128.0) * scale;
        }
        turn(out);
    }
}

impl Block for Int8Block {
    #[inline(always)]
    fn scales(&self) -> &[f16; PANEL] {
        &self.scales
    }

    #[inline(always)]
    fn byte(&self, k: usize, j: usize) -> u8 {
        self.values[k / GROUP][j][k % GROUP]
    }
}

impl Block for Int6Block {
    #[inline(always)]
    fn scales(&self) -> &[f16; PANEL] {
        &self.scales
    }

    #[inline(always)]
    fn byte(&self, k: usize, j: usize) -> u8 {
        let (group, k) = (k / GROUP, k % GROUP);
        let low = self.low[group / 2][j][k] >> (4 * (group % 2)) & 15;
        let high = self.high[group / 4][j][k] >> (2 * (group % 4)) & 3;
        (low | high << 4) + 96
    }
}

impl Block for Int4Block {
    #[inline(always)]
    fn scales(&self) -> &[f16; PANEL] {
        &self.scales
    }

    #[inline(always)]
    fn byte(&self, k: usize, j: usize) -> u8 {
        let (group, k) = (k / GROUP, k % GROUP);
        LEVELS[usize::from(self.values[group / 2][j][k] >> (4 * (group % 2)) & 15)]
    }
}

impl Int8Block {
    /// No weights yet: room for some.
    pub(crate) fn zeroed() -> Self {
        Self { values: [[[0; GROUP]; PANEL]; GROUPS], scales: [f16::ZERO; PANEL] }
    }
}

/// Adds the products of a row of activations with the weights of 64 outputs; see the module.
#[inline(always)]
pub(crate) fn accumulate<W: Block>(x: &[QuantizedBlock], panel: &[W], out: &mut [f32; PANEL]) {
    for (x, weights) in x.iter().zip(panel) {
        let weights = weights.expand();
        let mut dots = [-128 * x.sum; PANEL];
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_gives_32_times_what_was() {
        let x: [f32; BLOCK] = std::array::from_fn(|i| (i * i % 23) as f32 - 11.0);
        let mut turned = x;
        turn(&mut turned);
        assert_eq!(turned[0], x.iter().sum::<f32>());
        assert_eq!(turned[1], (0..BLOCK).map(|i| if i % 2 == 0 { x[i] } else { -x[i] }).sum::<f32>());
        turn(&mut turned);
        assert_eq!(turned, x.map(|x| 32.0 * x));
    }

    #[test]
    fn a_value_that_stands_out_costs_the_others_no_more_than_the_scale_says() {
        let mut x = [1.0; BLOCK];
        x[7] = 1000.0;
        let mut out = [QuantizedBlock { values: [0; BLOCK], scale: 0.0, sum: 0 }];
        quantize(&x, &mut out);
        let mut back = out[0].values.map(|value| f32::from(value) * out[0].scale);
        turn(&mut back);
        for (back, x) in back.iter().zip(x) {
            // Without turning, every one would have become zero.
            assert!((back / 32.0 - x).abs() < 0.7, "{back} of {x}");
        }
        assert_eq!(out[0].sum, out[0].values.iter().map(|&value| i32::from(value)).sum::<i32>());
    }
}
