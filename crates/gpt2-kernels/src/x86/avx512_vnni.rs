//! The row `avx512-vnni`: `avx512` with the products of bytes of AVX-512 VNNI.
//!
//! `vpdpbusd` multiplies four unsigned bytes by four signed ones and adds the products to a 32-bit
//! sum, without saturation.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256, _mm512_add_epi8,
    _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi16,
    _mm512_srli_epi16, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
};

use half::f16;

use super::avx512;
use crate::PANEL;
use crate::limits::{self, OUTPUTS, Sums};
use crate::quant::{Int4Block, Int6Block, Int8Block, LEVELS, QuantizedBlock};
use crate::table::{Kernels, Steps, Tile};

static KERNELS: Kernels = Kernels {
    name: "avx512-vnni",
    accumulate_int8,
    accumulate_int6,
    accumulate_int4,
    expand_int6,
    expand_int4,
    peak_dot,
    ..avx512::KERNELS
};

/// The row, if this machine has its instructions.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    (avx512::kernels().is_some() && is_x86_feature_detected!("avx512vnni")).then_some(&KERNELS)
}

/// Blocks that all rows are multiplied with before the next ones are: with as much that was fetched ahead, and the
/// rows of x and out, they take little more than half of a cache of 48 KiB.
const NEAR: usize = 4;
/// Registers in a panel.
const WIDTH: usize = 4;
/// Groups of four inputs in a block.
const GROUPS: usize = 8;

/// 64 outputs' bytes of four inputs.
type Lanes = [__m512i; WIDTH];

/// # Safety
/// The machine must have AVX-512 BW and VNNI, and the tile must be valid.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn accumulate_int8(tile: &Tile<'_, QuantizedBlock, Int8Block>) {
    let load = |block: &Int8Block, step: usize| {
        let group = |group: usize| {
            let values = block.values[group].as_ptr();
            // SAFETY: a lane is sixteen of the 64 outputs' groups of four bytes.
            std::array::from_fn(|lane| unsafe { _mm512_loadu_si512(values.add(16 * lane).cast()) })
        };
        [group(2 * step), group(2 * step + 1)]
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate::<6, 128, _>(tile, load, |block| &block.scales) }
}

/// # Safety
/// The machine must have AVX-512 BW and VNNI, and the tile must be valid.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn accumulate_int4(tile: &Tile<'_, QuantizedBlock, Int4Block>) {
    let levels = levels();
    let load = |block: &Int4Block, step: usize| -> [Lanes; 2] {
        let values = block.values[step].as_ptr();
        let [mut low, mut high] = [[_mm512_setzero_si512(); WIDTH]; 2];
        for (lane, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
            // SAFETY: a lane is sixteen of the 64 outputs' groups of four bytes.
            let bytes = unsafe { _mm512_loadu_si512(values.add(16 * lane).cast()) };
            [*low, *high] = expand(bytes, levels);
        }
        [low, high]
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate::<4, 128, _>(tile, load, |block| &block.scales) }
}

/// # Safety
/// The machine must have AVX-512 BW and VNNI, and the tile must be valid.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn accumulate_int6(tile: &Tile<'_, QuantizedBlock, Int6Block>) {
    let load = |block: &Int6Block, step: usize| -> [Lanes; 2] {
        let (low, high) = (block.low[step].as_ptr(), block.high[step / 2].as_ptr());
        let [mut first, mut second] = [[_mm512_setzero_si512(); WIDTH]; 2];
        for (lane, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
            // SAFETY: a lane is sixteen of the 64 outputs' groups of four bytes.
            let low = unsafe { _mm512_loadu_si512(low.add(16 * lane).cast()) };
            // SAFETY: as above.
            let high = unsafe { _mm512_loadu_si512(high.add(16 * lane).cast()) };
            [*first, *second] = join(low, high, step % 2);
        }
        [first, second]
    };
    // SAFETY: by this function's own conditions.
    unsafe { accumulate::<4, 32, _>(tile, load, |block| &block.scales) }
}

/// Multiplies all rows, at most MOST at once, with a few blocks before the next ones: the blocks stay in the nearest
/// cache meanwhile, and come from memory at an even pace. `load` gives the two groups `2 * step` and `2 * step + 1`
/// of a block, ZERO added to every weight.
///
/// # Safety
/// The machine must have AVX-512 BW and VNNI, and the tile must be valid.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn accumulate<const MOST: usize, const ZERO: i32, W>(
    tile: &Tile<'_, QuantizedBlock, W>,
    load: impl Fn(&W, usize) -> [Lanes; 2],
    scales: impl Fn(&W) -> &[f16; PANEL],
) {
    let mut fetch = tile.fetch.steps(tile.panel.len() * tile.groups(MOST).count());
    let near = if tile.rows <= MOST { tile.panel.len().max(1) } else { NEAR };
    for (index, panel) in tile.panel.chunks(near).enumerate() {
        for (first, rows, _) in tile.groups(MOST) {
            let tile = Tile {
                x: tile.x(first).wrapping_add(index * near),
                rows,
                panel,
                out: tile.out(first),
                ..*tile
            };
            // SAFETY: these are some of the rows, blocks and outputs of the tile, which is valid.
            unsafe {
                match rows {
                    1 => accumulate_rows::<1, ZERO, W>(&tile, &mut fetch, &load, &scales),
                    2 => accumulate_rows::<2, ZERO, W>(&tile, &mut fetch, &load, &scales),
                    3 => accumulate_rows::<3, ZERO, W>(&tile, &mut fetch, &load, &scales),
                    5 if MOST > 4 => accumulate_rows::<5, ZERO, W>(&tile, &mut fetch, &load, &scales),
                    6 if MOST > 5 => accumulate_rows::<6, ZERO, W>(&tile, &mut fetch, &load, &scales),
                    _ => accumulate_rows::<4, ZERO, W>(&tile, &mut fetch, &load, &scales),
                }
            }
        }
    }
}

/// # Safety
/// The machine must have AVX-512 BW and VNNI, and the tile, which has M rows, must be valid.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn accumulate_rows<const M: usize, const ZERO: i32, W>(
    tile: &Tile<'_, QuantizedBlock, W>,
    fetch: &mut Steps,
    load: &impl Fn(&W, usize) -> [Lanes; 2],
    scales: &impl Fn(&W) -> &[f16; PANEL],
) {
    // Hidden from the compiler, which would unroll the loop and then run out of registers.
    let steps = std::hint::black_box(GROUPS / 2);
    let out: [*mut f32; M] = std::array::from_fn(|r| tile.out(r));
    for (index, block) in tile.panel.iter().enumerate() {
        fetch.step(|line| _mm_prefetch::<_MM_HINT_T0>(line.cast()));
        // SAFETY: `index` is below `panel.len()`, the length of a row of x.
        let x: [&QuantizedBlock; M] = std::array::from_fn(|r| unsafe { &*tile.x(r).add(index) });
        let mut dots: [Lanes; M] = std::array::from_fn(|r| [_mm512_set1_epi32(-ZERO * x[r].sum); WIDTH]);
        for step in 0..steps.min(GROUPS / 2) {
            for (half, weights) in load(block, step).into_iter().enumerate() {
                for (dots, x) in dots.iter_mut().zip(&x) {
                    let x = x.values.as_chunks::<4>().0[2 * step + half].map(|x| x as u8);
                    let x = _mm512_set1_epi32(i32::from_le_bytes(x));
                    for (dot, &weights) in dots.iter_mut().zip(&weights) {
                        *dot = _mm512_dpbusd_epi32(*dot, weights, x);
                    }
                }
            }
        }
        let mut lanes = [_mm512_setzero_ps(); WIDTH];
        for (lane, scale) in lanes.iter_mut().enumerate() {
            // SAFETY: a lane is sixteen of the 64 scales.
            let halves = unsafe { _mm256_loadu_si256(scales(block).as_ptr().add(16 * lane).cast()) };
            *scale = _mm512_cvtph_ps(halves);
        }
        for ((dots, x), &out) in dots.iter().zip(&x).zip(&out) {
            let x = _mm512_set1_ps(x.scale);
            for (lane, (&dot, &scale)) in dots.iter().zip(&lanes).enumerate() {
                // SAFETY: `out` is a row of one panel, four registers wide, that no one else writes.
                unsafe {
                    let out = out.add(16 * lane);
                    let sum = _mm512_loadu_ps(out);
                    let dot = _mm512_cvtepi32_ps(dot);
                    _mm512_storeu_ps(out, _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, x), sum));
                }
            }
        }
    }
}

/// The table of four-bit weights, once for every sixteen bytes.
#[target_feature(enable = "avx512f")]
fn levels() -> __m512i {
    // SAFETY: sixteen bytes are read from an array of sixteen.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) })
}

/// The bytes that stand for the low and the high halves of some bytes.
#[target_feature(enable = "avx512f,avx512bw")]
fn expand(bytes: __m512i, levels: __m512i) -> [__m512i; 2] {
    let low = _mm512_set1_epi8(15);
    [bytes, _mm512_srli_epi16::<4>(bytes)]
        .map(|nibbles| _mm512_shuffle_epi8(levels, _mm512_and_si512(nibbles, low)))
}

/// The bytes of two groups out of their low four and their high two bits; these are the first or the second
/// two of the four groups whose high bits lie together.
#[target_feature(enable = "avx512f,avx512bw")]
fn join(low: __m512i, high: __m512i, half: usize) -> [__m512i; 2] {
    let [first, second] = if half == 0 {
        [_mm512_slli_epi16::<4>(high), _mm512_slli_epi16::<2>(high)]
    } else {
        [high, _mm512_srli_epi16::<2>(high)]
    };
    // Of each bit the first where the mask has a one, else the second.
    const CHOOSE: i32 = 0b1110_0100;
    let (nibble, six) = (_mm512_set1_epi8(15), _mm512_set1_epi8(63));
    [(low, first), (_mm512_srli_epi16::<4>(low), second)]
        .map(|(low, high)| _mm512_and_si512(_mm512_ternarylogic_epi32::<CHOOSE>(low, high, nibble), six))
}

#[target_feature(enable = "avx512f,avx512bw")]
fn expand_int6(panel: &[Int6Block], out: &mut [Int8Block]) {
    let zero = _mm512_set1_epi8(96);
    for (block, out) in panel.iter().zip(out) {
        for (step, pair) in out.values.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            for lane in (0..PANEL).step_by(16) {
                // SAFETY: a lane is sixteen of the 64 outputs' groups of four bytes, here and below.
                let low = unsafe { _mm512_loadu_si512(block.low[step].as_ptr().add(lane).cast()) };
                // SAFETY: as above.
                let high = unsafe { _mm512_loadu_si512(block.high[step / 2].as_ptr().add(lane).cast()) };
                for (group, joined) in pair.iter_mut().zip(join(low, high, step % 2)) {
                    let bytes = _mm512_add_epi8(joined, zero);
                    // SAFETY: as above.
                    unsafe { _mm512_storeu_si512(group.as_mut_ptr().add(lane).cast(), bytes) };
                }
            }
        }
        out.scales = block.scales;
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn expand_int4(panel: &[Int4Block], out: &mut [Int8Block]) {
    let levels = levels();
    for (block, out) in panel.iter().zip(out) {
        for (values, pair) in block.values.iter().zip(out.values.as_chunks_mut::<2>().0) {
            for lane in (0..PANEL).step_by(16) {
                // SAFETY: a lane is sixteen of the 64 outputs' groups of four bytes, here and below.
                let bytes = unsafe { _mm512_loadu_si512(values.as_ptr().add(lane).cast()) };
                for (group, expanded) in pair.iter_mut().zip(expand(bytes, levels)) {
                    // SAFETY: as above.
                    unsafe { _mm512_storeu_si512(group.as_mut_ptr().add(lane).cast(), expanded) };
                }
            }
        }
        out.scales = block.scales;
    }
}

/// Twelve registers of sums, two for each row.
#[target_feature(enable = "avx512f,avx512vnni")]
fn peak_dot(x: &[[i8; 4]; limits::ROWS], weights: &[[u8; 4]; OUTPUTS], steps: usize, out: &mut Sums<i32>) {
    let x = x.map(|x| _mm512_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8))));
    // SAFETY: sixteen of 32 groups of four bytes.
    let weights = [0, 16].map(|lane| unsafe { _mm512_loadu_si512(weights.as_ptr().add(lane).cast()) });
    let mut sums = [[_mm512_setzero_si512(); 2]; limits::ROWS];
    for (sums, out) in sums.iter_mut().zip(&*out) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: sixteen of 32 sums, here and below.
            *sum = unsafe { _mm512_loadu_si512(out.as_ptr().add(16 * lane).cast()) };
        }
    }
    for _ in 0..steps {
        for (sums, &x) in sums.iter_mut().zip(&x) {
            for (sum, &weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm512_dpbusd_epi32(*sum, weights, x);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (lane, &sum) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(16 * lane).cast(), sum) };
        }
    }
}
