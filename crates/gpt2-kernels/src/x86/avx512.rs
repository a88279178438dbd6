//! The row `avx512`: AVX-512 F, BW, VL, DQ and FMA.
//!
//! A panel is four registers wide. Six rows of it make 24 accumulators, which leaves eight
//! registers for the weights and the broadcast inputs.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use crate::math::Activation;
use crate::scalar;
use crate::table::{Kernels, Tile};

static KERNELS: Kernels =
    Kernels { name: "avx512", accumulate, layer_norm, add, activate, exp_weights, exp_sum, read };

/// The row, if this machine has its instructions.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    let present = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("fma");
    present.then_some(&KERNELS)
}

/// Rows computed together at most.
const ROWS: usize = 6;
/// How far ahead of the sums weights are fetched, in floats: 32 steps along k. With several rows the
/// arithmetic between two steps hides the stream from the hardware's own prefetcher.
const PREFETCH: usize = 32 * 64;
/// Registers in a panel.
const WIDTH: usize = 4;

/// # Safety
/// The machine must have AVX-512 F, and the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate(tile: &Tile<'_>) {
    if tile.rows == 0 {
        return;
    }
    // Evenly sized groups: seven rows are 4 + 3, not 6 + 1.
    let groups = tile.rows.div_ceil(ROWS);
    let size = tile.rows.div_ceil(groups);
    let mut first = 0;
    while first < tile.rows {
        let rows = size.min(tile.rows - first);
        // SAFETY: `first + rows` is at most `tile.rows`, and the tile is valid.
        unsafe {
            match rows {
                1 => accumulate_rows::<1>(tile, first),
                2 => accumulate_rows::<2>(tile, first),
                3 => accumulate_rows::<3>(tile, first),
                4 => accumulate_rows::<4>(tile, first),
                5 => accumulate_rows::<5>(tile, first),
                _ => accumulate_rows::<ROWS>(tile, first),
            }
        }
        first += rows;
    }
}

/// # Safety
/// The machine must have AVX-512 F; rows `first..first + M` of the tile must be valid.
#[target_feature(enable = "avx512f,fma")]
unsafe fn accumulate_rows<const M: usize>(tile: &Tile<'_>, first: usize) {
    // SAFETY: the tile vouches for `rows` rows of x and out; `first + M` is at most that.
    let x: [*const f32; M] = std::array::from_fn(|r| unsafe { tile.x.add((first + r) * tile.x_stride) });
    // SAFETY: as above.
    let out: [*mut f32; M] = std::array::from_fn(|r| unsafe { tile.out.add((first + r) * tile.out_stride) });
    let mut sums: [[__m512; WIDTH]; M] = [[_mm512_setzero_ps(); WIDTH]; M];
    for (sums, &out) in sums.iter_mut().zip(&out) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `out` is a row of one panel, four registers wide.
            *sum = unsafe { _mm512_loadu_ps(out.add(16 * lane)) };
        }
    }
    for (k, weights) in tile.panel.iter().enumerate() {
        let mut lanes = [_mm512_setzero_ps(); WIDTH];
        for (lane, weight) in lanes.iter_mut().enumerate() {
            _mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(PREFETCH + 16 * lane).cast());
            // SAFETY: `weights` is a panel's 64 floats.
            *weight = unsafe { _mm512_loadu_ps(weights.as_ptr().add(16 * lane)) };
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
fn read(x: &[f32]) -> f32 {
    scalar::read(x)
}
