//! The arithmetic of GPT-2 on a CPU: slices in, slices out.
//!
//! This crate knows no file, no token and no model. It promises one thing, the law: for given
//! inputs the output is bit for bit the same whatever the number of threads, the number of rows
//! computed together, and the row of the kernel [table](Kernels) that computes it.
//!
//! | module | holds |
//! |---|---|
//! | [`scalar`] | the specification: plain loops that say what every other row must equal |
//! | [`math`] | `exp`, `ln`, `tanh`, `erf` and the activations out of IEEE operations only |
//! | `x86` | the rows `avx2`, `avx512` and `avx512-vnni` |
//! | [`Kernels`] | the table: one row for each instruction set, chosen at run time |
//! | [`Matrix`] | weights in panels of 64 outputs, in one of four formats |
//! | [`quant`] | eight and four bits: blocks of 32 values that share a scale |
//! | [`ops`] | what a model calls: checks lengths once, splits the work over the [`Pool`] |
//! | [`attention`] | blocks of keys and values, and causal attention over them |
//! | [`limits`] | what the machine gives at most, to measure products against |
//!
//! ```
//! use gpt2_kernels::ops::{self, Epilogue};
//! use gpt2_kernels::{Cpu, Dtype, Kernels, Matrix, RowBuffer, Scratch, Source, WeightFormat};
//!
//! let cpu = Cpu::new(Kernels::detect(), 2);
//! // Two inputs, three outputs: weights[k][j] as in the checkpoint.
//! let weights: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|w| w.to_le_bytes()).collect();
//! let source = Source::by_input(&weights, Dtype::F32, 2, 3);
//! let matrix = Matrix::pack(&cpu, source, WeightFormat::F32);
//! let mut scratch = Scratch::new(&cpu, WeightFormat::F32, 1, 2, 0);
//! let mut x = RowBuffer::new(1, 2);
//! x.row_mut(0).copy_from_slice(&[10.0, 1.0]);
//! let mut out = RowBuffer::new(1, 3);
//! let epilogue = Epilogue { bias: Some(&[0.5, 0.0, 0.0]), activation: None };
//! ops::matmul(&cpu, x.rows(1), &matrix, epilogue, out.rows_mut(1), &mut scratch);
//! assert_eq!(out.row(0), [14.5, 25.0, 36.0]);
//! ```

mod aligned;
pub mod attention;
pub mod limits;
pub mod math;
mod matrix;
pub mod ops;
mod pool;
pub mod quant;
mod rows;
pub mod scalar;
mod scratch;
mod source;
mod sync;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use aligned::AlignedVec;
pub use math::Activation;
pub use matrix::{Matrix, WeightFormat};
pub use pool::Pool;
pub use rows::{RowBuffer, Rows, RowsMut};
pub use scratch::Scratch;
pub use source::{Dtype, Source};
pub use table::Kernels;

/// Number of outputs in one panel: the unit in which matrices are packed and rows are padded.
///
/// 64 outputs are four AVX-512 registers; six rows of them leave eight of the thirty-two
/// registers for operands, and one step along k reads four whole cache lines.
pub const PANEL: usize = 64;

/// What computes: a row of the kernel table and the threads it runs on.
///
/// Passed to every operation, never global, so that a test can choose both.
#[derive(Debug)]
pub struct Cpu {
    /// The instruction set in use.
    pub kernels: &'static Kernels,
    /// The threads in use.
    pub pool: Pool,
}

impl Cpu {
    /// Couples a row of the kernel table with `threads` threads, the caller's included.
    ///
    /// # Panics
    /// Panics if `threads` is zero or the system cannot start that many.
    #[must_use]
    pub fn new(kernels: &'static Kernels, threads: usize) -> Self {
        Self { kernels, pool: Pool::new(threads) }
    }

    /// Couples a row with `threads` threads, where the system may not be able to start that many.
    ///
    /// # Errors
    /// If a thread cannot be started.
    ///
    /// # Panics
    /// Panics if `threads` is zero.
    pub fn try_new(kernels: &'static Kernels, threads: usize) -> std::io::Result<Self> {
        Ok(Self { kernels, pool: Pool::try_new(threads)? })
    }
}
