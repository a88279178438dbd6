//! The row `avx512`: AVX-512 F, BW, VL, DQ and FMA.
//!
//! A panel is four registers wide. Six rows of it make 24 accumulators, which leaves eight
//! registers for the weights and the broadcast inputs. The products of bytes are those of `avx2`:
//! processors of this kind without VNNI have little more to offer them.

use std::arch::x86_64::{
    __m128i, __m512, __m512i, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_prefetch, _mm_storeu_si128,
    _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi8, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_cvtps_ph, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_sub_ps, _mm512_maskz_cvtps_epi32,
    _mm512_max_epi32, _mm512_mul_ps, _mm512_permute_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_epi32,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use half::{bf16, f16};

use super::avx2;
use crate::PANEL;
use crate::limits::{self, OUTPUTS, Sums};
use crate::math::Activation;
use crate::quant::{self, Int4Block, Int6Block, Int8Block, Part, QuantizedBlock};
use crate::scalar;
use crate::table::{Fetch, Kernels, Tile};

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx512",
    accumulate_f32,
    accumulate_bf16,
    accumulate_f16,
    accumulate_int8: avx2::accumulate_int8,
    accumulate_int6: avx2::accumulate_int6,
    accumulate_int4: avx2::accumulate_int4,
    widen_bf16,
    narrow_f16,
    expand_int6: avx2::expand_int6,
    expand_int4: avx2::expand_int4,
    quantize,
    round,
    pack_int8,
    pack_int6,
    pack_int4,
    layer_norm,
    add,
    activate,
    exp_weights,
    exp_sum,
    read,
    peak_fma,
    peak_dot: avx2::peak_dot,
};

/// The row, if this machine has its instructions.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    let present = avx2::kernels().is_some()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    present.then_some(&KERNELS)
}

/// Rows computed together at most.
const ROWS: usize = 6;
/// Registers in a panel.
const WIDTH: usize = 4;

/// # Safety
/// The machine must have AVX-512 F, and the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate_f32(tile: &Tile<'_, f32, [f32; PANEL]>) {
    let load = |weights: &[f32; PANEL], lane: usize| {
        // SAFETY: a lane is sixteen of the panel's 64 floats.
        unsafe { _mm512_loadu_ps(weights.as_ptr().add(16 * lane)) }
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate(tile, load) }
}

/// # Safety
/// The machine must have AVX-512 F, and the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate_bf16(tile: &Tile<'_, f32, [bf16; PANEL]>) {
    let load = |weights: &[bf16; PANEL], lane: usize| {
        // SAFETY: a lane is sixteen of the panel's 64 values.
        let halves = unsafe { _mm256_loadu_si256(weights.as_ptr().add(16 * lane).cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate(tile, load) }
}

/// # Safety
/// The machine must have AVX-512 F, and the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate_f16(tile: &Tile<'_, f32, [f16; PANEL]>) {
    let load = |weights: &[f16; PANEL], lane: usize| {
        // SAFETY: a lane is sixteen of the panel's 64 values.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(weights.as_ptr().add(16 * lane).cast()) })
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate(tile, load) }
}

/// # Safety
/// The machine must have AVX-512 F, and the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate<W>(tile: &Tile<'_, f32, W>, load: impl Fn(&W, usize) -> __m512) {
    for (first, rows, fetch) in tile.groups(ROWS) {
        // SAFETY: `first + rows` is at most `tile.rows`, and the tile is valid.
        unsafe {
            match rows {
                1 => accumulate_rows::<1, W>(tile, first, fetch, &load),
                2 => accumulate_rows::<2, W>(tile, first, fetch, &load),
                3 => accumulate_rows::<3, W>(tile, first, fetch, &load),
                4 => accumulate_rows::<4, W>(tile, first, fetch, &load),
                5 => accumulate_rows::<5, W>(tile, first, fetch, &load),
                _ => accumulate_rows::<ROWS, W>(tile, first, fetch, &load),
            }
        }
    }
}

/// # Safety
/// The machine must have AVX-512 F; rows `first..first + M` of the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate_rows<const M: usize, W>(
    tile: &Tile<'_, f32, W>,
    first: usize,
    fetch: Fetch,
    load: &impl Fn(&W, usize) -> __m512,
) {
    let x: [*const f32; M] = std::array::from_fn(|r| tile.x(first + r));
    let out: [*mut f32; M] = std::array::from_fn(|r| tile.out(first + r));
    let mut sums: [[__m512; WIDTH]; M] = [[_mm512_setzero_ps(); WIDTH]; M];
    for (sums, &out) in sums.iter_mut().zip(&out) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `out` is a row of one panel, four registers wide.
            *sum = unsafe { _mm512_loadu_ps(out.add(16 * lane)) };
        }
    }
    let mut fetch = fetch.steps(tile.panel.len());
    for (k, weights) in tile.panel.iter().enumerate() {
        fetch.step(|line| _mm_prefetch::<_MM_HINT_T0>(line.cast()));
        let mut lanes = [_mm512_setzero_ps(); WIDTH];
        for (lane, weight) in lanes.iter_mut().enumerate() {
            *weight = load(weights, lane);
        }
        for (sums, &x) in sums.iter_mut().zip(&x) {
            // SAFETY: k is below `panel.len()`, the length of a row of x.
            let x = _mm512_set1_ps(unsafe { *x.add(k) });
            for (sum, &weight) in sums.iter_mut().zip(&lanes) {
                *sum = _mm512_fmadd_ps(x, weight, *sum);
            }
        }
    }
    for (sums, &out) in sums.iter().zip(&out) {
        for (lane, &sum) in sums.iter().enumerate() {
            // SAFETY: as for the loads; no one else writes this tile.
            unsafe { _mm512_storeu_ps(out.add(16 * lane), sum) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn widen_bf16(panel: &[[bf16; PANEL]], out: &mut [[f32; PANEL]]) {
    scalar::widen_bf16(panel, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn narrow_f16(x: &[f32], out: &mut [f16]) {
    let ((lanes, rest), (to, to_rest)) = (x.as_chunks::<16>(), out.as_chunks_mut::<16>());
    for (x, out) in lanes.iter().zip(to) {
        // SAFETY: sixteen floats.
        let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(unsafe { _mm512_loadu_ps(x.as_ptr()) });
        // SAFETY: sixteen values of two bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), halves) };
    }
    scalar::narrow_f16(rest, to_rest);
}

/// The compiler finds no good shuffles for [`quant::quantize`], so they are here.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn quantize(x: &[f32], out: &mut [QuantizedBlock]) {
    let (blocks, rest) = x.as_chunks::<{ quant::BLOCK }>();
    for (x, out) in blocks.iter().zip(&mut *out) {
        quantize_block(x, out);
    }
    if let Some(last) = out.get_mut(blocks.len()) {
        let mut x = [0.0; quant::BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        quantize_block(&x, last);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn quantize_block(x: &[f32; quant::BLOCK], out: &mut QuantizedBlock) {
    // SAFETY: the first sixteen of 32 floats.
    let low = unsafe { _mm512_loadu_ps(x.as_ptr()) };
    // SAFETY: the other sixteen.
    let high = unsafe { _mm512_loadu_ps(x.as_ptr().add(16)) };
    let (low, high) = (_mm512_add_ps(low, high), _mm512_sub_ps(low, high));
    round_block(turn_lanes(low), turn_lanes(high), out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn round(x: &[f32], out: &mut [QuantizedBlock]) {
    for (x, out) in x.as_chunks::<{ quant::BLOCK }>().0.iter().zip(out) {
        // SAFETY: the first sixteen of 32 floats.
        let low = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        // SAFETY: the other sixteen.
        let high = unsafe { _mm512_loadu_ps(x.as_ptr().add(16)) };
        round_block(low, high, out);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn round_block(low: __m512, high: __m512, out: &mut QuantizedBlock) {
    let magnitudes = _mm512_max_epi32(magnitudes(low), magnitudes(high));
    let largest = _mm512_reduce_max_epi32(magnitudes).cast_unsigned();
    let (inverse, scale) = quant::inverse_and_scale(f32::from_bits(largest));
    // Where there is no inverse, nothing is kept of what it would have multiplied.
    let kept = if inverse == 0.0 { 0 } else { 0xffff };
    let inverse = _mm512_set1_ps(inverse);
    let low = _mm512_maskz_cvtps_epi32(kept, _mm512_mul_ps(low, inverse));
    let high = _mm512_maskz_cvtps_epi32(kept, _mm512_mul_ps(high, inverse));
    // SAFETY: sixteen bytes each, of 32.
    unsafe {
        let values = out.values.as_mut_ptr().cast::<__m128i>();
        _mm_storeu_si128(values, _mm512_cvtepi32_epi8(low));
        _mm_storeu_si128(values.add(1), _mm512_cvtepi32_epi8(high));
    }
    out.scale = scale;
    out.sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
}

/// The four steps of [`quant::turn`] within a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn_lanes(x: __m512) -> __m512 {
    let x = turn_step(x, _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x), 0xff00);
    let x = turn_step(x, _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x), 0xf0f0);
    let x = turn_step(x, _mm512_permute_ps::<0b01_00_11_10>(x), 0xcccc);
    turn_step(x, _mm512_permute_ps::<0b10_11_00_01>(x), 0xaaaa)
}

/// Magnitudes as integers, which are ordered as they are.
#[inline]
#[target_feature(enable = "avx512f")]
fn magnitudes(x: __m512) -> __m512i {
    _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff))
}

/// Adds to each value the other one of its pair, or takes it off the other where the mask says that it is the second.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn_step(x: __m512, other: __m512, second: u16) -> __m512 {
    _mm512_mask_sub_ps(_mm512_add_ps(x, other), second, other, x)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn pack_int8(part: &Part, out: &mut Int8Block) {
    quant::pack_int8(part, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn pack_int6(part: &Part, out: &mut Int6Block) {
    quant::pack_int6(part, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn pack_int4(part: &Part, out: &mut Int4Block) {
    quant::pack_int4(part, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    scalar::layer_norm(x, weight, bias, epsilon, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn add(x: &mut [f32], y: &[f32]) {
    scalar::add(x, y);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn activate(activation: Activation, x: &mut [f32]) {
    scalar::activate(activation, x);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn exp_weights(x: &mut [f32], scale: f32) -> f32 {
    scalar::exp_weights(x, scale)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn exp_sum(x: &[f32]) -> (f32, f32) {
    scalar::exp_sum(x)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
fn read(bytes: &[u8]) -> u32 {
    scalar::read(bytes)
}

/// Twelve registers of sums, two for each row.
#[target_feature(enable = "avx512f")]
fn peak_fma(x: &[f32; limits::ROWS], weights: &[f32; OUTPUTS], steps: usize, out: &mut Sums<f32>) {
    // SAFETY: sixteen of 32 floats.
    let load = |row: &[f32; OUTPUTS], lane: usize| unsafe { _mm512_loadu_ps(row.as_ptr().add(16 * lane)) };
    let x = x.map(|x| _mm512_set1_ps(x));
    let weights = [load(weights, 0), load(weights, 1)];
    let mut sums = [[_mm512_setzero_ps(); 2]; limits::ROWS];
    for (sums, out) in sums.iter_mut().zip(&*out) {
        *sums = [load(out, 0), load(out, 1)];
    }
    for _ in 0..steps {
        for (sums, &x) in sums.iter_mut().zip(&x) {
            for (sum, &weight) in sums.iter_mut().zip(&weights) {
                *sum = _mm512_fmadd_ps(x, weight, *sum);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (lane, &sum) in sums.iter().enumerate() {
            // SAFETY: sixteen of 32 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(16 * lane), sum) };
        }
    }
}
