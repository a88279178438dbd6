//! The row `avx2`: AVX2, FMA and F16C.
//!
//! A panel is eight registers wide, half of all there are: the panel is passed over in strips of
//! columns, two registers wide for three rows and more, so that six rows make 12 accumulators.
//!
//! Bytes are multiplied as 16-bit integers: the even ones of a group of four, then the odd ones, each
//! pair of products added exactly. The instruction that multiplies bytes would saturate.

use std::arch::x86_64::{
    __m256, __m256i, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_ps,
    _mm256_storeu_si256,
};
use std::hint::black_box;

use half::{bf16, f16};

use crate::PANEL;
use crate::limits::{self, OUTPUTS, Sums};
use crate::math::Activation;
use crate::quant::{self, Int4Block, Int6Block, Int8Block, LEVELS, Part, QuantizedBlock};
use crate::scalar;
use crate::table::{Kernels, Tile};

static KERNELS: Kernels = Kernels {
    name: "avx2",
    accumulate_f32,
    accumulate_bf16,
    accumulate_f16,
    accumulate_int8,
    accumulate_int6,
    accumulate_int4,
    widen_bf16,
    narrow_f16,
    expand_int6,
    expand_int4,
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
    peak_dot,
};

/// The row, if this machine has its instructions.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    let present = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    present.then_some(&KERNELS)
}

/// Rows computed together at most.
const ROWS: usize = 6;
/// Outputs in a register.
const LANES: usize = 8;

/// # Safety
/// The machine must have AVX2 and FMA, and the tile must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_f32(tile: &Tile<'_, f32, [f32; PANEL]>) {
    let load = |weights: &[f32; PANEL], column: usize| {
        // SAFETY: eight of the panel's 64 floats, from a multiple of eight on.
        unsafe { _mm256_loadu_ps(weights.as_ptr().add(column)) }
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate(tile, load) }
}

/// # Safety
/// The machine must have AVX2 and FMA, and the tile must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_bf16(tile: &Tile<'_, f32, [bf16; PANEL]>) {
    let load = |weights: &[bf16; PANEL], column: usize| {
        // SAFETY: eight of the panel's 64 values, from a multiple of eight on.
        let halves = unsafe { _mm_loadu_si128(weights.as_ptr().add(column).cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate(tile, load) }
}

/// # Safety
/// The machine must have AVX2, FMA and F16C, and the tile must be valid.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn accumulate_f16(tile: &Tile<'_, f32, [f16; PANEL]>) {
    let load = |weights: &[f16; PANEL], column: usize| {
        // SAFETY: eight of the panel's 64 values, from a multiple of eight on.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(weights.as_ptr().add(column).cast()) })
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate(tile, load) }
}

/// # Safety
/// The machine must have AVX2 and FMA, and the tile must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate<W>(tile: &Tile<'_, f32, W>, load: impl Fn(&W, usize) -> __m256) {
    for (first, rows, _) in tile.groups(ROWS) {
        // SAFETY: `first + rows` is at most `tile.rows`, and the tile is valid.
        unsafe {
            match rows {
                1 => accumulate_rows::<1, 8, W>(tile, first, &load),
                2 => accumulate_rows::<2, 4, W>(tile, first, &load),
                3 => accumulate_rows::<3, 2, W>(tile, first, &load),
                4 => accumulate_rows::<4, 2, W>(tile, first, &load),
                5 => accumulate_rows::<5, 2, W>(tile, first, &load),
                _ => accumulate_rows::<ROWS, 2, W>(tile, first, &load),
            }
        }
    }
}

/// Computes M rows in strips of N registers.
///
/// # Safety
/// The machine must have AVX2 and FMA; rows `first..first + M` of the tile must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_rows<const M: usize, const N: usize, W>(
    tile: &Tile<'_, f32, W>,
    first: usize,
    load: &impl Fn(&W, usize) -> __m256,
) {
    let x: [*const f32; M] = std::array::from_fn(|r| tile.x(first + r));
    let out: [*mut f32; M] = std::array::from_fn(|r| tile.out(first + r));
    for column in (0..PANEL).step_by(LANES * N) {
        let mut sums: [[__m256; N]; M] = [[_mm256_setzero_ps(); N]; M];
        for (sums, &out) in sums.iter_mut().zip(&out) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `column + 8 * lane` and the seven floats behind it are inside the panel.
                *sum = unsafe { _mm256_loadu_ps(out.add(column + LANES * lane)) };
            }
        }
        for (k, weights) in tile.panel.iter().enumerate() {
            let mut lanes = [_mm256_setzero_ps(); N];
            for (lane, weight) in lanes.iter_mut().enumerate() {
                *weight = load(weights, column + LANES * lane);
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
                unsafe { _mm256_storeu_ps(out.add(column + LANES * lane), sum) };
            }
        }
    }
}

/// # Safety
/// The machine must have AVX2, FMA and F16C, and the tile must be valid.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate_int8(tile: &Tile<'_, QuantizedBlock, Int8Block>) {
    for (first, rows, _) in tile.groups(ROWS) {
        for (index, block) in tile.panel.iter().enumerate() {
            // SAFETY: `first + rows` is at most `tile.rows`, `index` below `panel.len()`, the tile valid.
            unsafe { accumulate_block(tile, first, rows, index, block) }
        }
    }
}

/// # Safety
/// The machine must have AVX2, FMA and F16C, and the tile must be valid.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate_int6(tile: &Tile<'_, QuantizedBlock, Int6Block>) {
    // SAFETY: by this function's own conditions.
    unsafe { accumulate_expanded(tile, |block, out| expand_int6(block, out)) }
}

/// # Safety
/// The machine must have AVX2, FMA and F16C, and the tile must be valid.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate_int4(tile: &Tile<'_, QuantizedBlock, Int4Block>) {
    // SAFETY: by this function's own conditions.
    unsafe { accumulate_expanded(tile, |block, out| expand_int4(block, out)) }
}

/// # Safety
/// The machine must have AVX2, FMA and F16C, and the tile must be valid.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn accumulate_expanded<W>(
    tile: &Tile<'_, QuantizedBlock, W>,
    expand: impl Fn(&[W], &mut [Int8Block]),
) {
    for (first, rows, _) in tile.groups(ROWS) {
        for (index, block) in tile.panel.iter().enumerate() {
            let mut expanded = Int8Block::zeroed();
            expand(std::slice::from_ref(block), std::slice::from_mut(&mut expanded));
            // SAFETY: `first + rows` is at most `tile.rows`, `index` below `panel.len()`, the tile valid.
            unsafe { accumulate_block(tile, first, rows, index, &expanded) }
        }
    }
}

/// # Safety
/// The machine must have AVX2, FMA and F16C; rows `first..first + rows` of the tile must be valid and longer
/// than `index`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn accumulate_block<W>(
    tile: &Tile<'_, QuantizedBlock, W>,
    first: usize,
    rows: usize,
    index: usize,
    block: &Int8Block,
) {
    // SAFETY: these are the caller's own conditions.
    unsafe {
        match rows {
            1 => accumulate_block_rows::<1, 4, W>(tile, first, index, block),
            2 => accumulate_block_rows::<2, 2, W>(tile, first, index, block),
            3 => accumulate_block_rows::<3, 2, W>(tile, first, index, block),
            4 => accumulate_block_rows::<4, 1, W>(tile, first, index, block),
            5 => accumulate_block_rows::<5, 1, W>(tile, first, index, block),
            _ => accumulate_block_rows::<ROWS, 1, W>(tile, first, index, block),
        }
    }
}

/// Computes one block of M rows in strips of N registers.
///
/// # Safety
/// The machine must have AVX2, FMA and F16C; rows `first..first + M` of the tile must be valid and longer than
/// `index`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn accumulate_block_rows<const M: usize, const N: usize, W>(
    tile: &Tile<'_, QuantizedBlock, W>,
    first: usize,
    index: usize,
    block: &Int8Block,
) {
    // SAFETY: `index` is below the length of a row of x.
    let x: [&QuantizedBlock; M] = std::array::from_fn(|r| unsafe { &*tile.x(first + r).add(index) });
    let even = _mm256_set1_epi16(0xff);
    for column in (0..PANEL).step_by(LANES * N) {
        let mut dots: [[__m256i; N]; M] = std::array::from_fn(|r| [_mm256_set1_epi32(-128 * x[r].sum); N]);
        for (group, values) in block.values.iter().enumerate() {
            let mut pairs = [[_mm256_setzero_si256(); 2]; N];
            for (lane, pairs) in pairs.iter_mut().enumerate() {
                // SAFETY: eight of the 64 outputs' groups of four bytes.
                let bytes = unsafe { _mm256_loadu_si256(values.as_ptr().add(column + LANES * lane).cast()) };
                *pairs = [_mm256_and_si256(bytes, even), _mm256_srli_epi16::<8>(bytes)];
            }
            for (dots, x) in dots.iter_mut().zip(&x) {
                let x = x.values.as_chunks::<4>().0[group].map(|x| x as u8);
                let bytes = _mm256_set1_epi32(i32::from_le_bytes(x));
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
                let odd = _mm256_srai_epi16::<8>(bytes);
                for (dot, pairs) in dots.iter_mut().zip(&pairs) {
                    let products =
                        _mm256_add_epi32(_mm256_madd_epi16(pairs[0], even), _mm256_madd_epi16(pairs[1], odd));
                    *dot = _mm256_add_epi32(*dot, products);
                }
            }
        }
        for lane in 0..N {
            let column = column + LANES * lane;
            // SAFETY: eight of the 64 scales.
            let scale = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(block.scales.as_ptr().add(column).cast()) });
            for (r, (dots, x)) in dots.iter().zip(&x).enumerate() {
                let out = tile.out(first + r).wrapping_add(column);
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.scale));
                // SAFETY: eight of the 64 outputs of a row, which no one else writes.
                unsafe {
                    let sum = _mm256_loadu_ps(out);
                    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[lane]), scale, sum));
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn expand_int6(panel: &[Int6Block], out: &mut [Int8Block]) {
    scalar::expand(panel, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn expand_int4(panel: &[Int4Block], out: &mut [Int8Block]) {
    // SAFETY: sixteen bytes are read from an array of sixteen.
    let levels = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) });
    let low = _mm256_set1_epi8(15);
    for (block, out) in panel.iter().zip(out) {
        for (values, pair) in block.values.iter().zip(out.values.as_chunks_mut::<2>().0) {
            for lane in (0..PANEL).step_by(LANES) {
                // SAFETY: eight of the 64 outputs' groups of four bytes, here and below.
                let bytes = unsafe { _mm256_loadu_si256(values.as_ptr().add(lane).cast()) };
                for (group, nibbles) in pair.iter_mut().zip([bytes, _mm256_srli_epi16::<4>(bytes)]) {
                    let expanded = _mm256_shuffle_epi8(levels, _mm256_and_si256(nibbles, low));
                    // SAFETY: as above.
                    unsafe { _mm256_storeu_si256(group.as_mut_ptr().add(lane).cast(), expanded) };
                }
            }
        }
        out.scales = block.scales;
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn widen_bf16(panel: &[[bf16; PANEL]], out: &mut [[f32; PANEL]]) {
    scalar::widen_bf16(panel, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn narrow_f16(x: &[f32], out: &mut [f16]) {
    let ((eights, rest), (to, to_rest)) = (x.as_chunks::<8>(), out.as_chunks_mut::<8>());
    for (x, out) in eights.iter().zip(to) {
        // SAFETY: eight floats.
        let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(unsafe { _mm256_loadu_ps(x.as_ptr()) });
        // SAFETY: eight values of two bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), halves) };
    }
    scalar::narrow_f16(rest, to_rest);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantize(x: &[f32], out: &mut [QuantizedBlock]) {
    quant::quantize(x, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn round(x: &[f32], out: &mut [QuantizedBlock]) {
    quant::round_row(x, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack_int8(part: &Part, out: &mut Int8Block) {
    quant::pack_int8(part, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack_int6(part: &Part, out: &mut Int6Block) {
    quant::pack_int6(part, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack_int4(part: &Part, out: &mut Int4Block) {
    quant::pack_int4(part, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    scalar::layer_norm(x, weight, bias, epsilon, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add(x: &mut [f32], y: &[f32]) {
    scalar::add(x, y);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn activate(activation: Activation, x: &mut [f32]) {
    scalar::activate(activation, x);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn exp_weights(x: &mut [f32], scale: f32) -> f32 {
    scalar::exp_weights(x, scale)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn exp_sum(x: &[f32]) -> (f32, f32) {
    scalar::exp_sum(x)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn read(bytes: &[u8]) -> u32 {
    scalar::read(bytes)
}

/// In two strips of sixteen outputs: twelve registers of sums.
#[target_feature(enable = "avx2,fma")]
fn peak_fma(x: &[f32; limits::ROWS], weights: &[f32; OUTPUTS], steps: usize, out: &mut Sums<f32>) {
    for column in (0..OUTPUTS).step_by(2 * LANES) {
        let load = |row: &[f32; OUTPUTS]| {
            // SAFETY: eight of 32 floats, from a multiple of eight on.
            [column, column + LANES].map(|column| unsafe { _mm256_loadu_ps(row.as_ptr().add(column)) })
        };
        let weights = load(weights);
        let mut sums = [[_mm256_setzero_ps(); 2]; limits::ROWS];
        for (sums, out) in sums.iter_mut().zip(&*out) {
            *sums = load(out);
        }
        for _ in 0..steps {
            // Six more registers there are not: x comes anew in every step, as in `accumulate`.
            for (sums, &x) in sums.iter_mut().zip(black_box(x)) {
                let x = _mm256_set1_ps(x);
                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                    *sum = _mm256_fmadd_ps(x, weight, *sum);
                }
            }
        }
        for (sums, out) in sums.iter().zip(&mut *out) {
            for (lane, &sum) in sums.iter().enumerate() {
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(column + LANES * lane), sum) };
            }
        }
    }
}

/// In strips of eight outputs for three rows: the products of `accumulate_int8`.
#[target_feature(enable = "avx2")]
pub(super) fn peak_dot(
    x: &[[i8; 4]; limits::ROWS],
    weights: &[[u8; 4]; OUTPUTS],
    steps: usize,
    out: &mut Sums<i32>,
) {
    const ROWS: usize = 3;
    for column in (0..OUTPUTS).step_by(LANES) {
        // SAFETY: eight of 32 groups of four bytes, from a multiple of eight on.
        let bytes = unsafe { _mm256_loadu_si256(weights.as_ptr().add(column).cast()) };
        let pairs = [_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes)];
        for (x, out) in x.as_chunks::<ROWS>().0.iter().zip(out.as_chunks_mut::<ROWS>().0) {
            let x = x.map(|x| {
                let bytes = _mm256_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8)));
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
            });
            let mut sums = [_mm256_setzero_si256(); ROWS];
            for (sum, out) in sums.iter_mut().zip(&*out) {
                // SAFETY: eight of 32 sums, from a multiple of eight on.
                *sum = unsafe { _mm256_loadu_si256(out.as_ptr().add(column).cast()) };
            }
            for _ in 0..steps {
                // A product of the same values in every step would be computed once.
                let [even, odd] = *black_box(&pairs);
                for (sum, x) in sums.iter_mut().zip(&x) {
                    let products =
                        _mm256_add_epi32(_mm256_madd_epi16(even, x[0]), _mm256_madd_epi16(odd, x[1]));
                    *sum = _mm256_add_epi32(*sum, products);
                }
            }
            for (sum, out) in sums.iter().zip(out) {
                // SAFETY: as for the sums above.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(column).cast(), *sum) };
            }
        }
    }
}
