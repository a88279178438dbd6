//! The kernel table: one row of functions for each instruction set.
//!
//! A `&'static Kernels` is the proof that this machine can run that row: the only way to one is
//! through the detection here.

use half::{bf16, f16};

use crate::PANEL;
use crate::limits::{OUTPUTS, ROWS, Sums};
use crate::math::Activation;
use crate::quant::{Int4Block, Int6Block, Int8Block, Part, QuantizedBlock};
use crate::scalar;

/// One row of the kernel table.
///
/// All rows give the same bits; they differ in speed only.
pub struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) accumulate_f32: unsafe fn(&Tile<'_, f32, [f32; PANEL]>),
    pub(crate) accumulate_bf16: unsafe fn(&Tile<'_, f32, [bf16; PANEL]>),
    pub(crate) accumulate_f16: unsafe fn(&Tile<'_, f32, [f16; PANEL]>),
    pub(crate) accumulate_int8: unsafe fn(&Tile<'_, QuantizedBlock, Int8Block>),
    pub(crate) accumulate_int6: unsafe fn(&Tile<'_, QuantizedBlock, Int6Block>),
    pub(crate) accumulate_int4: unsafe fn(&Tile<'_, QuantizedBlock, Int4Block>),
    /// The same weights, in the format that many rows are multiplied with faster.
    pub(crate) widen_bf16: unsafe fn(&[[bf16; PANEL]], &mut [[f32; PANEL]]),
    /// Values in half the bits, rounded to nearest.
    pub(crate) narrow_f16: unsafe fn(&[f32], &mut [f16]),
    pub(crate) expand_int6: unsafe fn(&[Int6Block], &mut [Int8Block]),
    pub(crate) expand_int4: unsafe fn(&[Int4Block], &mut [Int8Block]),
    pub(crate) quantize: unsafe fn(&[f32], &mut [QuantizedBlock]),
    pub(crate) round: unsafe fn(&[f32], &mut [QuantizedBlock]),
    pub(crate) pack_int8: unsafe fn(&Part, &mut Int8Block),
    pub(crate) pack_int6: unsafe fn(&Part, &mut Int6Block),
    pub(crate) pack_int4: unsafe fn(&Part, &mut Int4Block),
    pub(crate) layer_norm: LayerNorm,
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    pub(crate) activate: unsafe fn(Activation, &mut [f32]),
    pub(crate) exp_weights: unsafe fn(&mut [f32], f32) -> f32,
    pub(crate) exp_sum: unsafe fn(&[f32]) -> (f32, f32),
    pub(crate) read: unsafe fn(&[u8]) -> u32,
    pub(crate) peak_fma: PeakFma,
    pub(crate) peak_dot: PeakDot,
}

/// Row, weight, bias, epsilon, out.
type LayerNorm = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// Rows, weights, steps, sums.
type PeakFma = unsafe fn(&[f32; ROWS], &[f32; OUTPUTS], usize, &mut Sums<f32>);
type PeakDot = unsafe fn(&[[i8; 4]; ROWS], &[[u8; 4]; OUTPUTS], usize, &mut Sums<i32>);

/// A block of outputs: some rows of `x`, one panel of weights, 64 columns of `out`.
///
/// X is a value of x, or a block of them, and W the weights that belong to it. The one who makes the tile
/// vouches that `panel.len()` X are readable at `x + r * x_stride`, and [`PANEL`] floats writable, by no one
/// else meanwhile, at `out + r * out_stride`, for every row r below `rows`.
pub(crate) struct Tile<'a, X, W> {
    pub(crate) x: *const X,
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    pub(crate) panel: &'a [W],
    /// What is to be in a cache soon.
    pub(crate) fetch: Fetch,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
}

/// Lines of memory to be fetched into a cache while something is computed, spread evenly over it. Any address will do:
/// what cannot be read is not fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    start: *const u8,
    lines: usize,
    /// Whether those who take shares get equal ones; else the first one gets all.
    spread: bool,
}

/// Size of a line in bytes.
const LINE: usize = 64;
/// How far ahead weights are fetched that are used at once, in bytes.
const AHEAD: usize = 8192;

// SAFETY: the address is for the processor only; nobody reads or writes there on account of it.
unsafe impl Sync for Fetch {}

impl Fetch {
    /// For weights that a few rows are multiplied with: memory is what they wait for, so these very weights, a little
    /// ahead.
    pub(crate) fn these<W>(weights: &[W]) -> Self {
        Self { start: weights.as_ptr().wrapping_byte_add(AHEAD).cast(), ..Self::all(weights) }
    }

    /// For weights that many rows are multiplied with: what lies behind them, at leisure.
    pub(crate) fn behind<W>(weights: &[W]) -> Self {
        Self { start: weights.as_ptr_range().end.cast(), spread: true, ..Self::all(weights) }
    }

    /// All of it.
    pub(crate) fn all<W>(weights: &[W]) -> Self {
        Self { start: weights.as_ptr().cast(), lines: size_of_val(weights) / LINE, spread: false }
    }

    /// One of `count` shares.
    pub(crate) fn share(self, index: usize, count: usize) -> Self {
        if !self.spread {
            return Self { lines: if index == 0 { self.lines } else { 0 }, ..self };
        }
        let (from, to) = (self.lines * index / count, self.lines * (index + 1) / count);
        Self { start: self.start.wrapping_add(from * LINE), lines: to - from, ..self }
    }

    /// Spreads the lines over some steps.
    pub(crate) fn steps(self, steps: usize) -> Steps {
        Steps { start: self.start, lines: self.lines, steps, due: 0 }
    }
}

/// Lines to be fetched in some steps.
pub(crate) struct Steps {
    start: *const u8,
    lines: usize,
    steps: usize,
    /// Lines that are due, times the number of steps.
    due: usize,
}

impl Steps {
    /// Calls `fetch` for the lines that are due, after one of the steps.
    #[inline(always)]
    pub(crate) fn step(&mut self, fetch: impl Fn(*const u8)) {
        self.due += self.lines;
        while self.due >= self.steps {
            fetch(self.start);
            self.start = self.start.wrapping_add(LINE);
            self.due -= self.steps;
        }
    }
}

impl<X, W> Tile<'_, X, W> {
    /// Where the row `r` of x starts.
    #[inline(always)]
    pub(crate) fn x(&self, r: usize) -> *const X {
        self.x.wrapping_add(r * self.x_stride)
    }

    /// Where the row `r` of out starts.
    #[inline(always)]
    pub(crate) fn out(&self, r: usize) -> *mut f32 {
        self.out.wrapping_add(r * self.out_stride)
    }

    /// Cuts the rows into evenly sized groups of at most `most`: seven are 4 + 3, not 6 + 1. Gives the first row
    /// and the number of each, and what to fetch meanwhile.
    #[inline(always)]
    pub(crate) fn groups(&self, most: usize) -> impl Iterator<Item = (usize, usize, Fetch)> {
        let rows = self.rows;
        let size = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        let count = rows.div_ceil(size);
        (0..count)
            .map(move |index| (index * size, size.min(rows - index * size), self.fetch.share(index, count)))
    }
}

impl Kernels {
    /// Lists the rows that this machine can run, slowest first.
    pub fn available() -> impl Iterator<Item = &'static Self> {
        let mut rows: [Option<&'static Self>; 4] = [Some(&scalar::KERNELS), None, None, None];
        #[cfg(target_arch = "x86_64")]
        {
            rows[1] = crate::x86::avx2::kernels();
            rows[2] = crate::x86::avx512::kernels();
            rows[3] = crate::x86::avx512_vnni::kernels();
        }
        rows.into_iter().flatten()
    }

    /// Picks the fastest row that this machine can run.
    #[must_use]
    pub fn detect() -> &'static Self {
        Self::available().last().unwrap_or(&scalar::KERNELS)
    }

    /// Finds a row by its name, if this machine can run it.
    ///
    /// ```
    /// # use gpt2_kernels::Kernels;
    /// assert!(Kernels::by_name("scalar").is_some());
    /// assert!(Kernels::by_name("abacus").is_none());
    /// ```
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::available().find(|row| row.name == name)
    }

    /// The name of this row: `scalar`, `avx2`, `avx512` or `avx512-vnni`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.name)
    }
}
