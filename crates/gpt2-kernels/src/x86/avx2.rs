//! The row `avx2`: AVX2 and FMA.
//!
//! A panel is eight registers wide, half of all there are: the panel is passed over in strips of
//! columns, two registers wide for three rows and more, so that six rows make 12 accumulators.

use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use crate::PANEL;
use crate::math::Activation;
use crate::scalar;
use crate::table::{Kernels, Tile};

static KERNELS: Kernels =
    Kernels { name: "avx2", accumulate, layer_norm, add, activate, exp_weights, exp_sum, read };

/// The row, if this machine has its instructions.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&KERNELS)
}

/// Rows computed together at most.
const ROWS: usize = 6;

/// # Safety
/// The machine must have AVX2 and FMA, and the tile must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate(tile: &Tile<'_>) {
    if tile.rows == 0 {
        return;
    }
    let groups = tile.rows.div_ceil(ROWS);
    let size = tile.rows.div_ceil(groups);
    let mut first = 0;
    while first < tile.rows {
        let rows = size.min(tile.rows - first);
        // SAFETY: `first + rows` is at most `tile.rows`, and the tile is valid.
        unsafe {
            match rows {
                1 => accumulate_rows::<1, 8>(tile, first),
                2 => accumulate_rows::<2, 4>(tile, first),
                3 => accumulate_rows::<3, 2>(tile, first),
                4 => accumulate_rows::<4, 2>(tile, first),
                5 => accumulate_rows::<5, 2>(tile, first),
                _ => accumulate_rows::<ROWS, 2>(tile, first),
            }
        }
        first += rows;
    }
}

/// Computes M rows in strips of N registers.
///
/// # Safety
/// The machine must have AVX2 and FMA; rows `first..first + M` of the tile must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_rows<const M: usize, const N: usize>(tile: &Tile<'_>, first: usize) {
    // SAFETY: the tile vouches for `rows` rows of x and out; `first + M` is at most that.
    let x: [*const f32; M] = std::array::from_fn(|r| unsafe { tile.x.add((first + r) * tile.x_stride) });
    // SAFETY: as above.
    let out: [*mut f32; M] = std::array::from_fn(|r| unsafe { tile.out.add((first + r) * tile.out_stride) });
    for column in (0..PANEL).step_by(8 * N) {
        let mut sums: [[__m256; N]; M] = [[_mm256_setzero_ps(); N]; M];
        for (sums, &out) in sums.iter_mut().zip(&out) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `column + 8 * lane` and the seven floats behind it are inside the panel.
                *sum = unsafe { _mm256_loadu_ps(out.add(column + 8 * lane)) };
            }
        }
        for (k, weights) in tile.panel.iter().enumerate() {
            let mut lanes = [_mm256_setzero_ps(); N];
            for (lane, weight) in lanes.iter_mut().enumerate() {
                // SAFETY: as above; `weights` is a panel's 64 floats.
                *weight = unsafe { _mm256_loadu_ps(weights.as_ptr().add(column + 8 * lane)) };
            }
            for (sums, &x) in sums.iter_mut().zip(&x) {
                // SAFETY: k is below `panel.len()`, the length of a row of x.
                let x = _mm256_set1_ps(unsafe { *x.add(k) });
                for (sum, &weight) in sums.iter_mut().zip(&lanes) {
                    *sum = _mm256_fmadd_ps(x, weight, *sum);
                }
            }
        }
        for (sums, &out) in sums.iter().zip(&out) {
            for (lane, &sum) in sums.iter().enumerate() {
                // SAFETY: as for the loads; no one else writes this tile.
                unsafe { _mm256_storeu_ps(out.add(column + 8 * lane), sum) };
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    scalar::layer_norm(x, weight, bias, epsilon, out);
}

#[target_feature(enable = "avx2,fma")]
fn add(x: &mut [f32], y: &[f32]) {
    scalar::add(x, y);
}

#[target_feature(enable = "avx2,fma")]
fn activate(activation: Activation, x: &mut [f32]) {
    scalar::activate(activation, x);
}

#[target_feature(enable = "avx2,fma")]
fn exp_weights(x: &mut [f32], scale: f32) -> f32 {
    scalar::exp_weights(x, scale)
}

#[target_feature(enable = "avx2,fma")]
fn exp_sum(x: &[f32]) -> (f32, f32) {
    scalar::exp_sum(x)
}

#[target_feature(enable = "avx2,fma")]
fn read(x: &[f32]) -> f32 {
    scalar::read(x)
}
