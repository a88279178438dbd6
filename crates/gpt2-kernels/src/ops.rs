//! What a model calls: every function checks its lengths once, then splits the work over threads.
//!
//! Work is split by outputs or by rows, never along a sum, so the number of threads changes no bit.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use crate::math::{Activation, ln};
use crate::table::Tile;
use crate::{Cpu, Matrix, PANEL, Rows, RowsMut};

/// Tasks that each thread should find, so that an unlucky one does not hold up the others.
const TASKS_PER_THREAD: usize = 4;
/// Fewest values worth handing to another thread in an element-wise operation.
const VALUES_PER_TASK: usize = 16 * 1024;
/// Rows of a matrix product are split in multiples of this when there are too few panels.
const ROWS_PER_GROUP: usize = 24;

/// Multiplies rows by a matrix: `out = x · matrix + bias`. (M, K) · (K, N) → (M, N)
///
/// Every output is one chain: it starts at the bias (zero without one) and takes
/// `fma(x[k], w[k][j], sum)` for k ascending.
///
/// # Panics
/// Panics if the shapes do not fit.
pub fn matmul(cpu: &Cpu, x: Rows<'_>, matrix: &Matrix, bias: Option<&[f32]>, mut out: RowsMut<'_>) {
    assert_eq!(x.width(), matrix.inputs(), "matmul: values in a row of x, inputs of the matrix");
    assert_eq!(out.width(), matrix.outputs(), "matmul: values in a row of out, outputs of the matrix");
    assert_eq!(x.count(), out.count(), "matmul: rows of x, rows of out");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), matrix.outputs(), "matmul: length of the bias, outputs of the matrix");
    }
    let rows = x.count();
    let panels = matrix.panels();
    let wanted = (TASKS_PER_THREAD * cpu.pool.threads()).div_ceil(panels.max(1));
    let groups = wanted.min(rows / ROWS_PER_GROUP).max(1);
    let group_rows = rows.div_ceil(groups);
    let (out_stride, x_stride) = (out.stride(), x.stride());
    let target = Disjoint::of_rows(&mut out);
    cpu.pool.run(panels * groups, |task, _| {
        let (panel, group) = (task / groups, task % groups);
        let first = group * group_rows;
        let count = group_rows.min(rows.saturating_sub(first));
        let column = panel * PANEL;
        for row in first..first + count {
            // SAFETY: rows are padded to whole panels, and this panel of these rows is this task's.
            let start = unsafe { target.slice(row * out_stride + column, PANEL) };
            let bias = bias.map_or(&[][..], |bias| &bias[column..bias.len().min(column + PANEL)]);
            start[..bias.len()].copy_from_slice(bias);
            start[bias.len()..].fill(0.0);
        }
        let tile = Tile {
            x: x.data().as_ptr().wrapping_add(first * x_stride),
            x_stride,
            rows: count,
            panel: matrix.panel(panel),
            out: target.start.wrapping_add(first * out_stride + column),
            out_stride,
        };
        // SAFETY: the machine has this row's instructions, for the table gives out no other; rows
        // `first..first + count` exist in x and out, x is `inputs` wide, which is the length of
        // the panel, and no other task writes these columns of these rows.
        unsafe { (cpu.kernels.accumulate)(&tile) }
    });
}

/// Normalises every row. (M, C) → (M, C)
///
/// # Panics
/// Panics if the shapes do not fit.
pub fn layer_norm(cpu: &Cpu, x: Rows<'_>, weight: &[f32], bias: &[f32], epsilon: f32, out: RowsMut<'_>) {
    assert_eq!(x.width(), weight.len(), "layer_norm: values in a row, weights");
    assert_eq!(x.width(), bias.len(), "layer_norm: values in a row, biases");
    assert_eq!(x.width(), out.width(), "layer_norm: values in a row of x and of out");
    assert_eq!(x.count(), out.count(), "layer_norm: rows of x and of out");
    for_each_row(cpu, out, |index, out| {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        unsafe { (cpu.kernels.layer_norm)(x.row(index), weight, bias, epsilon, out) }
    });
}

/// Adds `y` to `x`. (M, C)
///
/// # Panics
/// Panics if the shapes do not fit.
pub fn add(cpu: &Cpu, x: RowsMut<'_>, y: Rows<'_>) {
    assert_eq!(x.width(), y.width(), "add: values in a row");
    assert_eq!(x.count(), y.count(), "add: rows");
    for_each_row(cpu, x, |index, x| {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        unsafe { (cpu.kernels.add)(x, y.row(index)) }
    });
}

/// Applies an activation to every value. (M, C)
pub fn activate(cpu: &Cpu, activation: Activation, x: RowsMut<'_>) {
    for_each_row(cpu, x, |_, x| {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        unsafe { (cpu.kernels.activate)(activation, x) }
    });
}

/// Returns `ln Σ exp(x)`: a logit minus this is its log-probability. (V) → ()
///
/// It is NaN if any value is NaN or positive infinity, or all are negative infinity.
#[must_use]
pub fn log_sum_exp(cpu: &Cpu, x: &[f32]) -> f32 {
    // SAFETY: the machine has this row's instructions, for the table gives out no other.
    let (max, sum) = unsafe { (cpu.kernels.exp_sum)(x) };
    if sum.is_nan() { f32::NAN } else { max + ln(f64::from(sum)) as f32 }
}

/// Reads a buffer from end to end with all threads, as fast as they can: what the speed of a product, which
/// reads every weight once, is measured against. Returns the sum of one part of it, so that nothing is left out.
#[must_use]
pub fn read(cpu: &Cpu, x: &[f32]) -> f32 {
    /// One megabyte.
    const PART: usize = 1 << 18;
    let last = Mutex::new(0.0);
    cpu.pool.run(x.len().div_ceil(PART), |task, _| {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        let sum = unsafe { (cpu.kernels.read)(&x[task * PART..x.len().min((task + 1) * PART)]) };
        *last.lock().unwrap_or_else(PoisonError::into_inner) = sum;
    });
    last.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `f` with the index and the values of every row; rows run in parallel when there are enough. (M, C)
pub fn for_each_row(cpu: &Cpu, mut rows: RowsMut<'_>, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (count, width, stride) = (rows.count(), rows.width(), rows.stride());
    let per_task = (VALUES_PER_TASK / width.max(1)).max(1);
    let target = Disjoint::of_rows(&mut rows);
    cpu.pool.run(count.div_ceil(per_task), |task, _| {
        for row in task * per_task..count.min((task + 1) * per_task) {
            // SAFETY: rows do not overlap, and each is one task's.
            f(row, unsafe { target.slice(row * stride, width) });
        }
    });
}

/// A buffer that several tasks write at once, each its own part.
pub(crate) struct Disjoint<'a> {
    start: *mut f32,
    length: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: `slice` is the only access, and its callers vouch that no two parts overlap.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub(crate) fn new(buffer: &'a mut [f32]) -> Self {
        Self { start: buffer.as_mut_ptr(), length: buffer.len(), buffer: PhantomData }
    }

    pub(crate) fn of_rows(rows: &'a mut RowsMut<'_>) -> Self {
        Self { length: rows.count() * rows.stride(), start: rows.as_mut_ptr(), buffer: PhantomData }
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// No other part that is in use may overlap this one.
    #[expect(
        clippy::mut_from_ref,
        reason = "this is what the type is for; the caller vouches for disjointness"
    )]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [f32] {
        assert!(
            start <= self.length && length <= self.length - start,
            "{start} + {length} of {}",
            self.length
        );
        // SAFETY: inside the buffer by the assertion, and unaliased by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}
