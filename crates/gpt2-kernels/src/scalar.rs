//! The specification: plain loops that say, operation by operation, what every kernel computes.
//!
//! Every other row of the [table](crate::Kernels) equals these functions with `==`. Two rules
//! make that possible at any vector width:
//! - a linear output is one chain of `fma` along k; vector lanes run across outputs;
//! - where a sum must run across lanes, element i goes into partial sum `i % 16`, and the sixteen
//!   are added by a fixed tree: 16 → 8 → 4 → 2 → 1, lane i taking lane i + half.
//!
//! The element-wise functions are `#[inline(always)]`: rows `avx2` and `avx512` compile these very
//! bodies with their instructions switched on, and Rust never reorders floating-point operations.

use std::hint::black_box;

use half::{bf16, f16};

use crate::limits::{OUTPUTS, ROWS, Sums};
use crate::math::{self, Activation};
use crate::quant::{self, Block, Int8Block};
use crate::table::{Kernels, Tile};
use crate::{PANEL, math::exp};

/// The row of the table that runs everywhere.
pub(crate) static KERNELS: Kernels = Kernels {
    name: "scalar",
    // SAFETY: whoever calls a function of the table vouches for the tile.
    accumulate_f32: |tile| unsafe { accumulate_rows(tile, accumulate) },
    // SAFETY: whoever calls a function of the table vouches for the tile.
    accumulate_bf16: |tile| unsafe { accumulate_rows(tile, accumulate) },
    // SAFETY: whoever calls a function of the table vouches for the tile.
    accumulate_f16: |tile| unsafe { accumulate_rows(tile, accumulate) },
    // SAFETY: whoever calls a function of the table vouches for the tile.
    accumulate_int8: |tile| unsafe { accumulate_rows(tile, quant::accumulate) },
    // SAFETY: whoever calls a function of the table vouches for the tile.
    accumulate_int6: |tile| unsafe { accumulate_rows(tile, quant::accumulate) },
    // SAFETY: whoever calls a function of the table vouches for the tile.
    accumulate_int4: |tile| unsafe { accumulate_rows(tile, quant::accumulate) },
    widen_bf16,
    narrow_f16,
    expand_int6: expand,
    expand_int4: expand,
    quantize: quant::quantize,
    round: quant::round_row,
    pack_int8: quant::pack_int8,
    pack_int6: quant::pack_int6,
    pack_int4: quant::pack_int4,
    layer_norm,
    add,
    activate,
    exp_weights,
    exp_sum,
    read,
    peak_fma,
    peak_dot,
};

/// Number of partial sums wherever a sum runs across a row.
const PARTIALS: usize = 16;

/// A weight as it lies in memory.
pub trait Weight: Copy {
    /// Its value.
    fn value(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Weight for bf16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Weight for f16 {
    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

/// Continues 64 chains of `fma`: `out[j] = fma(x[k], panel[k][j], out[j])` for k ascending.
///
/// Linear layers start `out` at the bias; attention starts it at zero and continues it from one
/// block of positions to the next.
#[inline(always)]
pub fn accumulate<W: Weight>(x: &[f32], panel: &[[W; PANEL]], out: &mut [f32; PANEL]) {
    debug_assert_eq!(x.len(), panel.len());
    for (&x, weights) in x.iter().zip(panel) {
        for (sum, &weight) in out.iter_mut().zip(weights) {
            *sum = x.mul_add(weight.value(), *sum);
        }
    }
}

/// Calls `accumulate` for each row of a tile.
///
/// # Safety
/// The tile must be valid, as [`Tile`] says.
unsafe fn accumulate_rows<X, W>(tile: &Tile<'_, X, W>, accumulate: impl Fn(&[X], &[W], &mut [f32; PANEL])) {
    for row in 0..tile.rows {
        // SAFETY: the tile vouches for `panel.len()` readable values at each row of `x`.
        let x = unsafe { std::slice::from_raw_parts(tile.x(row), tile.panel.len()) };
        // SAFETY: the tile vouches for one writable panel at each row of `out`, unaliased.
        let out = unsafe { &mut *tile.out(row).cast::<[f32; PANEL]>() };
        accumulate(x, tile.panel, out);
    }
}

/// Rounds values to nearest, ties to even.
pub(crate) fn narrow_f16(x: &[f32], out: &mut [f16]) {
    debug_assert_eq!(x.len(), out.len());
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f16::from_f32(x);
    }
}

/// Copies weights into a wider format.
#[inline(always)]
pub(crate) fn widen_bf16(panel: &[[bf16; PANEL]], out: &mut [[f32; PANEL]]) {
    debug_assert_eq!(panel.len(), out.len());
    for (weights, out) in panel.iter().zip(out) {
        for (out, weight) in out.iter_mut().zip(weights) {
            *out = weight.value();
        }
    }
}

/// Copies weights into a wider format.
#[inline(always)]
pub(crate) fn expand<W: Block>(panel: &[W], out: &mut [Int8Block]) {
    for (weights, out) in panel.iter().zip(out) {
        *out = weights.expand();
    }
}

/// Normalises a row: `out = (x - mean) / sqrt(variance + epsilon) * weight + bias`.
///
/// Mean and variance are sums of sixteen partials; the variance is that of the differences from
/// the mean (two passes), divided by the length of the row (Ba, Kiros, Hinton 2016).
#[inline(always)]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    debug_assert!(x.len() == weight.len() && x.len() == bias.len() && x.len() == out.len());
    let width = x.len() as f32;
    let mean = sum(x, |x| x) / width;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / width;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((x - mean) * scale).mul_add(weight, bias);
    }
}

/// Adds `y` to `x`, element by element.
#[inline(always)]
pub fn add(x: &mut [f32], y: &[f32]) {
    debug_assert_eq!(x.len(), y.len());
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Applies an activation to every element.
#[inline(always)]
pub fn activate(activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::GeluTanh => map(x, math::gelu_tanh),
        Activation::GeluErf => map(x, math::gelu_erf),
        Activation::GeluErfClipped => map(x, math::gelu_erf_clipped),
        Activation::QuickGelu => map(x, math::quick_gelu),
        Activation::Relu => map(x, math::relu),
        Activation::ReluSquared => map(x, math::relu_squared),
        Activation::Silu => map(x, math::silu),
        Activation::Tanh => map(x, math::tanh),
    }
}

/// Turns attention scores into unnormalised weights, `exp(scale * x - max)`, and returns their sum.
#[inline(always)]
pub fn exp_weights(x: &mut [f32], scale: f32) -> f32 {
    map(x, |x| x * scale);
    let max = max(x);
    map(x, |x| exp(x - max));
    sum(x, |x| x)
}

/// Returns the largest element and the sum of `exp(x - largest)`.
#[inline(always)]
pub fn exp_sum(x: &[f32]) -> (f32, f32) {
    let max = max(x);
    (max, sum(x, |x| exp(x - max)))
}

/// Adds up the 32-bit words of some bytes, the last filled up with zeros, in as many chains as a panel has outputs:
/// the pace at which memory can be read. Not as floats, for bytes of all formats are read, and some would be slow.
#[inline(always)]
pub fn read(bytes: &[u8]) -> u32 {
    let mut sums = [0u32; PANEL];
    let (panels, rest) = bytes.as_chunks::<{ 4 * PANEL }>();
    for panel in panels {
        add_words(&mut sums, panel);
    }
    let mut last = [0; 4 * PANEL];
    last[..rest.len()].copy_from_slice(rest);
    add_words(&mut sums, &last);
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

#[inline(always)]
fn add_words(sums: &mut [u32; PANEL], bytes: &[u8; 4 * PANEL]) {
    for (sum, word) in sums.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *sum = sum.wrapping_add(u32::from_le_bytes(*word));
    }
}

/// Multiplies and adds `steps` times what stays where it is: the pace of `accumulate` if weights came for nothing.
pub fn peak_fma(x: &[f32; ROWS], weights: &[f32; OUTPUTS], steps: usize, sums: &mut Sums<f32>) {
    for (sums, &x) in sums.iter_mut().zip(x) {
        for _ in 0..steps {
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                *sum = x.mul_add(weight, *sum);
            }
        }
    }
}

/// The same for the products of bytes.
pub fn peak_dot(x: &[[i8; 4]; ROWS], weights: &[[u8; 4]; OUTPUTS], steps: usize, sums: &mut Sums<i32>) {
    for (sums, x) in sums.iter_mut().zip(x) {
        for _ in 0..steps {
            // A product of the same values in every step would be computed once.
            for (sum, weights) in sums.iter_mut().zip(black_box(weights)) {
                for (&weight, &x) in weights.iter().zip(x) {
                    *sum = sum.wrapping_add(i32::from(weight) * i32::from(x));
                }
            }
        }
    }
}

#[inline(always)]
fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in x {
        *x = f(*x);
    }
}

/// Sums `f(x)` over a row: sixteen partials, then the tree.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut partials = [0.0; PARTIALS];
    let (lanes, rest) = x.as_chunks::<PARTIALS>();
    for lane in lanes {
        for (partial, &x) in partials.iter_mut().zip(lane) {
            *partial += f(x);
        }
    }
    for (partial, &x) in partials.iter_mut().zip(rest) {
        *partial += f(x);
    }
    tree_of_sums(&partials)
}

/// The largest element; NaN is never larger, so a row of NaN has `-inf`.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let mut partials = [f32::NEG_INFINITY; PARTIALS];
    let (lanes, rest) = x.as_chunks::<PARTIALS>();
    for lane in lanes {
        for (partial, &x) in partials.iter_mut().zip(lane) {
            *partial = larger(*partial, x);
        }
    }
    for (partial, &x) in partials.iter_mut().zip(rest) {
        *partial = larger(*partial, x);
    }
    tree_of_largest(&partials)
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// A function of its own, and so is the next: where the compiler sees both the tree and the loop before it, it cuts the
/// partials of the loop into the pairs that the tree ends with.
#[inline(never)]
fn tree_of_largest(partials: &[f32; PARTIALS]) -> f32 {
    tree(*partials, larger)
}

#[inline(never)]
fn tree_of_sums(partials: &[f32; PARTIALS]) -> f32 {
    tree(*partials, |a, b| a + b)
}

/// Folds sixteen partials: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
#[inline(always)]
fn tree(mut partials: [f32; PARTIALS], fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = PARTIALS / 2;
    while half > 0 {
        for i in 0..half {
            partials[i] = fold(partials[i], partials[i + half]);
        }
        half /= 2;
    }
    partials[0]
}
