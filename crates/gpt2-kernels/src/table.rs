//! The kernel table: one row of functions for each instruction set.
//!
//! A `&'static Kernels` is the proof that this machine can run that row: the only way to one is
//! through the detection here.

use crate::PANEL;
use crate::math::Activation;
use crate::scalar;

/// One row of the kernel table.
///
/// All rows give the same bits; they differ in speed only.
pub struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) accumulate: unsafe fn(&Tile<'_>),
    pub(crate) layer_norm: LayerNorm,
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    pub(crate) activate: unsafe fn(Activation, &mut [f32]),
    pub(crate) exp_weights: unsafe fn(&mut [f32], f32) -> f32,
    pub(crate) exp_sum: unsafe fn(&[f32]) -> (f32, f32),
    pub(crate) read: unsafe fn(&[f32]) -> f32,
}

/// Row, weight, bias, epsilon, out.
type LayerNorm = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// A block of outputs: some rows of `x`, one panel of weights, 64 columns of `out`.
///
/// The one who makes it vouches that `panel.len()` floats are readable at `x + r * x_stride`, and
/// [`PANEL`] floats writable, by no one else meanwhile, at `out + r * out_stride`, for every
/// row r below `rows`.
pub(crate) struct Tile<'a> {
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    pub(crate) panel: &'a [[f32; PANEL]],
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
}

impl Kernels {
    /// Lists the rows that this machine can run, slowest first.
    pub fn available() -> impl Iterator<Item = &'static Self> {
        let mut rows: [Option<&'static Self>; 3] = [Some(&scalar::KERNELS), None, None];
        #[cfg(target_arch = "x86_64")]
        {
            rows[1] = crate::x86::avx2::kernels();
            rows[2] = crate::x86::avx512::kernels();
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

    /// The name of this row: `scalar`, `avx2` or `avx512`.
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
