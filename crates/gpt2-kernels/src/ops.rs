//! What a model calls: every function checks its lengths once, then splits the work over threads.
//!
//! Work is split by outputs or by rows, never along a sum, so the number of threads changes no bit.

use std::marker::PhantomData;

use crate::aligned::Plain;
use crate::math::{Activation, ln};
use crate::matrix::Panels;
use crate::quant::{self, Int8Block, QuantizedBlock};
use crate::scratch::{INT8_PIECE, Shares, WIDE_PIECE};
use crate::table::{Fetch, Kernels, Tile};
use crate::{AlignedVec, Cpu, Matrix, PANEL, Rows, RowsMut, Scratch};

/// Tasks that each thread should find, so that an unlucky one does not hold up the others.
const TASKS_PER_THREAD: usize = 4;
/// Fewest values worth handing to another thread in an element-wise operation.
const VALUES_PER_TASK: usize = 16 * 1024;
/// Rows of a matrix product are split in multiples of this when there are too few panels.
const ROWS_PER_PART: usize = 24;
/// Most rows that are multiplied with weights in one pass over them; more go over them piece by piece.
const ROWS_PER_PASS: usize = 6;

/// Fewest rows that are worth fetching the weights behind for, where they are multiplied with whole panels.
const ROWS_AT_LEISURE: usize = 13;
/// Rows whose outputs are started, summed up and put through the activation before the next ones are: 6 KiB.
const ROWS_PER_TURN: usize = 24;

/// What a product adds before and does after: `activation(bias + x · matrix)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// What each output starts at; zero without one.
    pub bias: Option<&'a [f32]>,
    /// What is applied to each output.
    pub activation: Option<Activation>,
}

/// Multiplies rows by a matrix: `out = activation(x · matrix + bias)`. (M, K) · (K, N) → (M, N)
///
/// Every output is one chain that starts at the bias. With weights in `f32` and `bf16` it takes
/// `fma(x[k], w[k][j], sum)` for k ascending; in `int8`, `int6` and `int4` one `fma` for each block of 32 inputs,
/// after x was rounded to eight bits ([`quant`]).
///
/// # Panics
/// Panics if the shapes do not fit, or `scratch` was made for fewer rows or inputs, fewer threads or another format.
pub fn matmul(
    cpu: &Cpu,
    x: Rows<'_>,
    matrix: &Matrix,
    epilogue: Epilogue<'_>,
    out: RowsMut<'_>,
    scratch: &mut Scratch,
) {
    assert_eq!(x.width(), matrix.inputs(), "matmul: values in a row of x, inputs of the matrix");
    assert_eq!(out.width(), matrix.outputs(), "matmul: values in a row of out, outputs of the matrix");
    assert_eq!(x.count(), out.count(), "matmul: rows of x, rows of out");
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), matrix.outputs(), "matmul: length of the bias, outputs of the matrix");
    }
    assert!(scratch.threads() >= cpu.pool.threads(), "matmul: scratch for every thread");
    if matrix.format().rounds_activations() {
        quantize(cpu, x, scratch);
    }
    let panels = matrix.outputs().div_ceil(PANEL);
    let parts = parts(cpu, x.count(), panels);
    scratch.shares.deal(panels * parts);
    let scratch = &*scratch;
    let quantized = (&scratch.quantized[..], x.width().div_ceil(quant::BLOCK));
    let job = Job { cpu, matrix, parts, epilogue, shares: &scratch.shares };
    let kernels = cpu.kernels;
    let floats = (x.data(), x.stride());
    // SAFETY, for every call of the table below: the machine has this row's instructions, for the table gives
    // out no other, and `Part::each` makes valid tiles.
    match matrix.panels() {
        Panels::F32(data) => job.run(floats, data, usize::MAX, out, ROWS_AT_LEISURE, |part| {
            // SAFETY: see above.
            part.each(|tile| unsafe { (kernels.accumulate_f32)(tile) });
        }),
        Panels::Bf16(data) => job.run(floats, data, WIDE_PIECE, out, ROWS_PER_PASS + 1, |part| {
            if part.rows <= ROWS_PER_PASS {
                // SAFETY: see above.
                return part.each(|tile| unsafe { (kernels.accumulate_bf16)(tile) });
            }
            let wide = &mut scratch.thread(part.thread).wide[..part.weights.len()];
            // SAFETY: see above.
            unsafe { (kernels.widen_bf16)(part.weights, wide) }
            // SAFETY: see above.
            part.with_weights(wide).each(|tile| unsafe { (kernels.accumulate_f32)(tile) });
        }),
        Panels::Int8(data) => job.run(quantized, data, usize::MAX, out, ROWS_PER_TURN + 1, |part| {
            // SAFETY: see above.
            part.each(|tile| unsafe { (kernels.accumulate_int8)(tile) });
        }),
        Panels::Int6(data) => job.run(quantized, data, INT8_PIECE, out, ROWS_PER_PASS + 1, |part| {
            part.multiply_or_expand(kernels.accumulate_int6, kernels.expand_int6, scratch);
        }),
        Panels::Int4(data) => job.run(quantized, data, INT8_PIECE, out, ROWS_PER_PASS + 1, |part| {
            part.multiply_or_expand(kernels.accumulate_int4, kernels.expand_int4, scratch);
        }),
    }
}

/// Rounds rows to eight bits, into the scratch.
fn quantize(cpu: &Cpu, x: Rows<'_>, scratch: &mut Scratch) {
    let blocks = x.width().div_ceil(quant::BLOCK);
    let target = Disjoint::new(&mut scratch.quantized);
    in_parts(cpu, x.count(), x.width(), |row| {
        // SAFETY: rows do not overlap, and each is one task's; the machine has this row's instructions.
        unsafe { (cpu.kernels.quantize)(x.row(row), target.slice(row * blocks, blocks)) }
    });
}

/// Into how many parts rows are cut where there are too few panels to go round.
fn parts(cpu: &Cpu, rows: usize, panels: usize) -> usize {
    let wanted = (TASKS_PER_THREAD * cpu.pool.threads()).div_ceil(panels.max(1));
    wanted.min(rows / ROWS_PER_PART).max(1)
}

/// A product, its tasks dealt out.
struct Job<'a> {
    cpu: &'a Cpu,
    matrix: &'a Matrix,
    /// Parts that rows are cut into.
    parts: usize,
    epilogue: Epilogue<'a>,
    shares: &'a Shares,
}

impl Job<'_> {
    /// Computes the product part by part: `multiply` goes through the tiles of each. A part has the weights of a
    /// whole panel, or `piece` elements of it, one piece after the other, where there are many rows. Where they are
    /// `enough` for the weights behind to be read meanwhile, these are fetched: memory is busy all the time then.
    fn run<X: Sync, W: Plain>(
        &self,
        (x, x_stride): (&[X], usize),
        data: &AlignedVec<W>,
        piece: usize,
        mut out: RowsMut<'_>,
        enough: usize,
        multiply: impl Fn(&Part<'_, X, W>) + Sync,
    ) {
        let &Self { cpu, matrix, parts, epilogue, shares } = self;
        let (rows, out_stride) = (out.count(), out.stride());
        let tasks = matrix.outputs().div_ceil(PANEL) * parts;
        let part_rows = rows.div_ceil(parts);
        let target = Disjoint::of_rows(&mut out);
        cpu.pool.run(tasks, |_, thread| {
            let task = shares.take(tasks, thread);
            let (panel, part) = (task / parts, task % parts);
            let first = part * part_rows;
            let rows = part_rows.min(rows.saturating_sub(first));
            let weights = matrix.panel(data, panel);
            let piece = if rows <= ROWS_PER_PASS { weights.len() } else { piece.min(weights.len()) }.max(1);
            let pieces = weights.len().div_ceil(piece).max(1);
            for index in 0..pieces {
                let weights = &weights[index * piece..weights.len().min((index + 1) * piece)];
                let x = x.get(first * x_stride + index * piece..).unwrap_or_default();
                assert!(rows == 0 || (rows - 1) * x_stride + weights.len() <= x.len(), "product: rows of x");
                multiply(&Part {
                    kernels: cpu.kernels,
                    x,
                    x_stride,
                    rows,
                    weights,
                    fetch: if rows < enough { Fetch::these(weights) } else { Fetch::behind(weights) },
                    target: &target,
                    out: first * out_stride + panel * PANEL,
                    out_stride,
                    thread,
                    start: (index == 0).then_some(epilogue.bias.map_or(&[], |bias| &bias[panel * PANEL..])),
                    activation: epilogue.activation.filter(|_| index + 1 == pieces),
                });
            }
        });
    }
}

/// Some rows of x, some weights of one panel, and that panel of some rows of out.
struct Part<'a, X, W> {
    kernels: &'static Kernels,
    x: &'a [X],
    x_stride: usize,
    rows: usize,
    weights: &'a [W],
    /// What to fetch meanwhile.
    fetch: Fetch,
    target: &'a Disjoint<'a>,
    /// Where in `target` the first row's panel starts.
    out: usize,
    out_stride: usize,
    thread: usize,
    /// What outputs start at, where these are the first weights of the panel; zero beyond its end.
    start: Option<&'a [f32]>,
    /// What outputs go through, where these are the last weights.
    activation: Option<Activation>,
}

impl<X, W> Part<'_, X, W> {
    /// Goes through the rows, a few at a time, so that their outputs stay near: sets what the outputs start at,
    /// calls `accumulate`, applies the activation.
    fn each(&self, accumulate: impl Fn(&Tile<'_, X, W>)) {
        let out = |row: usize| -> &mut [f32; PANEL] {
            // SAFETY: rows are padded to whole panels, and this panel of these rows is this part's.
            let out = unsafe { self.target.slice(self.out + row * self.out_stride, PANEL) };
            out.first_chunk_mut().expect("a panel")
        };
        for first in (0..self.rows).step_by(ROWS_PER_TURN) {
            let rows = ROWS_PER_TURN.min(self.rows - first);
            if let Some(start) = self.start {
                match start.first_chunk::<PANEL>() {
                    Some(start) => (first..first + rows).for_each(|row| *out(row) = *start),
                    None => (first..first + rows).for_each(|row| {
                        out(row)[..start.len()].copy_from_slice(start);
                        out(row)[start.len()..].fill(0.0);
                    }),
                }
            }
            accumulate(&Tile {
                x: self.x[first * self.x_stride..].as_ptr(),
                x_stride: self.x_stride,
                rows,
                panel: self.weights,
                fetch: self.fetch.share(first / ROWS_PER_TURN, self.rows.div_ceil(ROWS_PER_TURN)),
                out: out(first).as_mut_ptr(),
                out_stride: self.out_stride,
            });
            if let Some(activation) = self.activation {
                for row in first..first + rows {
                    // SAFETY: the machine has this row's instructions, for the table gives out no other.
                    unsafe { (self.kernels.activate)(activation, out(row)) }
                }
            }
        }
    }

    /// The same with other weights.
    fn with_weights<'b, V>(&'b self, weights: &'b [V]) -> Part<'b, X, V> {
        let &Self {
            kernels,
            x,
            x_stride,
            rows,
            fetch,
            target,
            out,
            out_stride,
            thread,
            start,
            activation,
            ..
        } = self;
        Part {
            kernels,
            x,
            x_stride,
            rows,
            weights,
            fetch,
            target,
            out,
            out_stride,
            thread,
            start,
            activation,
        }
    }
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

/// Calls `f` with the index and the values of every row; rows run in parallel when there are enough. (M, C)
pub fn for_each_row(cpu: &Cpu, mut rows: RowsMut<'_>, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (count, width, stride) = (rows.count(), rows.width(), rows.stride());
    let target = Disjoint::of_rows(&mut rows);
    in_parts(cpu, count, width, |row| {
        // SAFETY: rows do not overlap, and each is one task's.
        f(row, unsafe { target.slice(row * stride, width) });
    });
}

/// Calls `f` with every element, in parallel.
pub fn for_each_mut<T: Send>(cpu: &Cpu, elements: &mut [T], f: impl Fn(&mut T) + Sync) {
    let count = elements.len();
    let target = Disjoint::new(elements);
    cpu.pool.run(count, |index, _| {
        // SAFETY: elements do not overlap, and each is one task's.
        unsafe { target.slice(index, 1) }.iter_mut().for_each(&f);
    });
}

/// Calls `f` with every index below `count`, several to a task where they stand for few values.
fn in_parts(cpu: &Cpu, count: usize, values: usize, f: impl Fn(usize) + Sync) {
    let per_task = (VALUES_PER_TASK / values.max(1)).max(1);
    cpu.pool.run(count.div_ceil(per_task), |task, _| {
        (task * per_task..count.min((task + 1) * per_task)).for_each(&f);
    });
}

impl<W> Part<'_, QuantizedBlock, W> {
    /// Multiplies a few rows with the weights as they are, and many with the same weights in eight bits, which are
    /// expanded once for all of them. The functions are those of this part's row of the table.
    fn multiply_or_expand(
        &self,
        accumulate: unsafe fn(&Tile<'_, QuantizedBlock, W>),
        expand: unsafe fn(&[W], &mut [Int8Block]),
        scratch: &Scratch,
    ) {
        if self.rows <= ROWS_PER_PASS {
            // SAFETY: the machine has this row's instructions, for the table gives out no other; the tile is valid.
            return self.each(|tile| unsafe { accumulate(tile) });
        }
        let expanded = &mut scratch.thread(self.thread).expanded[..self.weights.len()];
        // SAFETY: as above.
        unsafe { expand(self.weights, expanded) }
        // SAFETY: as above.
        self.with_weights(expanded).each(|tile| unsafe { (self.kernels.accumulate_int8)(tile) });
    }
}

/// A buffer that several tasks write at once, each its own part.
pub(crate) struct Disjoint<'a, T = f32> {
    start: *mut T,
    length: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: `slice` is the only access, and its callers vouch that no two parts overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a> Disjoint<'a> {
    pub(crate) fn of_rows(rows: &'a mut RowsMut<'_>) -> Self {
        Self { length: rows.count() * rows.stride(), start: rows.as_mut_ptr(), buffer: PhantomData }
    }
}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), length: buffer.len(), buffer: PhantomData }
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// No other part that is in use may overlap this one.
    #[expect(
        clippy::mut_from_ref,
        reason = "this is what the type is for; the caller vouches for disjointness"
    )]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(
            start <= self.length && length <= self.length - start,
            "{start} + {length} of {}",
            self.length
        );
        // SAFETY: inside the buffer by the assertion, and unaliased by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}
