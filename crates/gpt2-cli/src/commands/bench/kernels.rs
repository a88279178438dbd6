//! `gpt2 bench --kernels-table`: how fast every row of the kernel table multiplies, at GPT-2's own shapes.
//!
//! No model is needed. For every weight format and every matrix of a GPT-2:
//! ```text
//! copies of the matrix     as many as there are bytes in the weights of a whole model, but no more than 512 MiB;
//!                          every product takes the next one, as the layers of a model do, so that no product finds
//!                          its weights in a nearer cache than decoding would
//! for each kernel row      read: all threads read all copies and do nothing else, the limit of a product of few rows;
//!                          the peak: its multiply-adds in registers, the limit of a product of many rows;
//!                          then the products of 1, 6, 32 and 512 rows of activations
//! ```
//! A time is the median of as many as fit into [`ENOUGH`], at least [`FEWEST`], the first of them not counted. A peak
//! is the highest so far: it does not move with what else the machine does, as the speed of memory does.
//! Products that would take longer than [`TOO_LONG`], going by the one of fewer rows, are named and left out.
//!
//! Where other programs run, shares may exceed 100 %: a long pass is interrupted, and a short product often is not.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use gpt2_kernels::ops::{self, Epilogue};
use gpt2_kernels::{Cpu, Dtype, Kernels, Matrix, RowBuffer, Scratch, Source, WeightFormat, limits};
use serde::Serialize;

use super::{Figures, seconds};
use crate::arguments::Options;
use crate::device;
use crate::failure::Failure;
use crate::model;
use crate::terminal::{DIM, Terminal};

/// Rows of activations: one token, a small batch, a short prompt, a long one.
const ROWS: [usize; 4] = [1, 6, 32, 512];
/// Time for the products of one cell.
const ENOUGH: Duration = Duration::from_millis(50);
/// Fewest products of a cell, the one that is not counted included.
const FEWEST: usize = 3;
/// Longest product that is waited for.
const TOO_LONG: Duration = Duration::from_millis(500);
/// Most bytes of copies; a matrix that is larger alone is there once.
const MOST_COPIES: usize = 1 << 29;

/// The published sizes of GPT-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    Small,
    Medium,
    Large,
    Xl,
}

/// A matrix of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    name: &'static str,
    inputs: usize,
    outputs: usize,
}

impl Size {
    /// The matrices of this size, named as in the checkpoint.
    fn shapes(self) -> [Shape; 5] {
        const VOCABULARY: usize = 50257;
        let c = self.channels();
        [
            Shape { name: "attn.c_attn", inputs: c, outputs: 3 * c },
            Shape { name: "attn.c_proj", inputs: c, outputs: c },
            Shape { name: "mlp.c_fc", inputs: c, outputs: 4 * c },
            Shape { name: "mlp.c_proj", inputs: 4 * c, outputs: c },
            Shape { name: "head", inputs: c, outputs: VOCABULARY },
        ]
    }

    fn channels(self) -> usize {
        match self {
            Self::Small => 768,
            Self::Medium => 1024,
            Self::Large => 1280,
            Self::Xl => 1600,
        }
    }

    fn layers(self) -> usize {
        match self {
            Self::Small => 12,
            Self::Medium => 24,
            Self::Large => 36,
            Self::Xl => 48,
        }
    }

    /// Bytes that decoding one token reads.
    fn bytes_per_token(self, format: WeightFormat) -> usize {
        let bytes = |shape: &Shape| format.bytes(shape.inputs, shape.outputs);
        let [block @ .., head] = &self.shapes();
        self.layers() * block.iter().map(bytes).sum::<usize>() + bytes(head)
    }
}

/// What is to be measured.
struct Plan {
    kernels: Vec<&'static Kernels>,
    shapes: Vec<Shape>,
    rows: Vec<usize>,
    /// Every format, and the bytes that the copies of a matrix in it come to.
    formats: Vec<(WeightFormat, usize)>,
    enough: Duration,
    too_long: Duration,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Cell {
    format: &'static str,
    matrix: &'static str,
    inputs: usize,
    outputs: usize,
    rows: usize,
    kernels: &'static str,
    threads: usize,
    /// Of one product. None where it was left out, and in what follows from it.
    seconds: Option<f64>,
    /// What it would have taken, where it was left out.
    expected_seconds: Option<f64>,
    /// The packed weights, by the time.
    gigabytes_per_second: Option<f64>,
    /// Multiplications and additions, by the time: of floats with `f32` and `bf16`, else of integers.
    gigaoperations_per_second: Option<f64>,
    machine_gigabytes_per_second: f64,
    peak_gigaoperations_per_second: f64,
    bandwidth_share: Option<f64>,
    peak_share: Option<f64>,
}

/// Measures and shows the table, line by line.
pub(super) fn run(json: bool, size: Size, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let mut cpu = model::cpu(options)?;
    terminal.report("Using device:", &device::describe(&cpu, None));
    let kernels = match options.kernels {
        Some(_) => vec![cpu.kernels],
        None => Kernels::available().collect(),
    };
    let plan = Plan {
        kernels,
        shapes: size.shapes().to_vec(),
        rows: ROWS.to_vec(),
        formats: WeightFormat::ALL.map(|format| (format, size.bytes_per_token(format))).to_vec(),
        enough: ENOUGH,
        too_long: TOO_LONG,
    };
    let dim = terminal.output.style(DIM);
    let out = &mut terminal.output;
    if !json {
        let threads = cpu.pool.threads();
        let plural = if threads == 1 { "" } else { "s" };
        let name = size.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        writeln!(out, "matrices of GPT-2 {name}, {threads} thread{plural}")?;
        writeln!(
            out,
            "{dim}GB/s are of weights and next to what this machine reads of them, \
             Gop/s next to what the kernels' instructions give in registers{dim:#}"
        )?;
        writeln!(out)?;
        writeln!(out, "{}", heading())?;
        out.flush()?;
    }
    measure(&plan, &mut cpu, &mut |cell| {
        if json {
            out.json(cell)?;
        } else {
            writeln!(out, "{}", line(cell))?;
            out.flush()?;
        }
        Ok(())
    })
}

fn heading() -> String {
    format!(
        "{:<6} {:<11} {:>12} {:>5} {:<11} {:>12} {:>7} {:>7} {:>8} {:>7}",
        "format", "matrix", "shape", "rows", "kernels", "time", "GB/s", "of read", "Gop/s", "of peak"
    )
}

fn line(cell: &Cell) -> String {
    let Cell { format, matrix, inputs, outputs, rows, kernels, .. } = cell;
    let shape = format!("{inputs} × {outputs}");
    let place = format!("{format:<6} {matrix:<11} {shape:>12} {rows:>5} {kernels:<11}");
    let figures = (cell.seconds, cell.gigabytes_per_second, cell.gigaoperations_per_second);
    let (Some(seconds), Some(bytes), Some(operations)) = figures else {
        return format!("{place} left out: about {:.1} s", cell.expected_seconds.unwrap_or(f64::NAN));
    };
    let percent = |share: Option<f64>| format!("{:.0} %", 100.0 * share.unwrap_or(f64::NAN));
    let (of_read, of_peak) = (percent(cell.bandwidth_share), percent(cell.peak_share));
    let time = format!("{:.1} µs", 1e6 * seconds);
    format!("{place} {time:>12} {bytes:>7.1} {of_read:>7} {operations:>8.1} {of_peak:>7}")
}

/// Measures cell by cell.
fn measure(
    plan: &Plan,
    cpu: &mut Cpu,
    show: &mut dyn FnMut(&Cell) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let size = |shape: &Shape| shape.inputs * shape.outputs;
    let mut peaks = vec![Peaks::default(); plan.kernels.len()];
    let weights = weights(plan.shapes.iter().map(size).max().unwrap_or(0));
    for &(format, footprint) in &plan.formats {
        for shape in &plan.shapes {
            let bytes = &weights[..size(shape) * size_of::<f32>()];
            let source = Source::by_input(bytes, Dtype::F32, shape.inputs, shape.outputs);
            let matrix = Matrix::pack(cpu, source, format);
            let count = copies(matrix.as_bytes().len(), footprint);
            let mut bench = Bench::new(cpu, vec![matrix; count], plan);
            for (&kernels, peaks) in plan.kernels.iter().zip(&mut peaks) {
                cpu.kernels = kernels;
                let machine = bench.read_speed(cpu, plan.enough);
                let peak = peaks.now(cpu, format, plan.enough);
                let mut rate = None;
                for &rows in &plan.rows {
                    let operations = (2 * rows * size(shape)) as f64;
                    let expected = rate.map(|rate| operations / rate);
                    let left_out = expected.filter(|time| *time > plan.too_long.as_secs_f64());
                    let time = left_out.is_none().then(|| bench.product(cpu, rows, plan.enough));
                    rate = time.map(|time| operations / time).or(rate);
                    let by_time = |amount: f64| time.map(|time| amount / time / 1e9);
                    let gigabytes_per_second = by_time(bench.bytes() as f64);
                    let gigaoperations_per_second = by_time(operations);
                    show(&Cell {
                        format: format.name(),
                        matrix: shape.name,
                        inputs: shape.inputs,
                        outputs: shape.outputs,
                        rows,
                        kernels: kernels.name(),
                        threads: cpu.pool.threads(),
                        seconds: time,
                        expected_seconds: left_out,
                        gigabytes_per_second,
                        gigaoperations_per_second,
                        machine_gigabytes_per_second: machine / 1e9,
                        peak_gigaoperations_per_second: peak / 1e9,
                        bandwidth_share: gigabytes_per_second.map(|speed| speed * 1e9 / machine),
                        peak_share: gigaoperations_per_second.map(|speed| speed * 1e9 / peak),
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// Copies of a matrix of `bytes` that come to `footprint`.
fn copies(bytes: usize, footprint: usize) -> usize {
    (footprint.min(MOST_COPIES) / bytes.max(1)).max(1)
}

/// Copies of a matrix, and what they are multiplied with.
struct Bench {
    copies: Vec<Matrix>,
    /// The copy that is next.
    next: usize,
    x: RowBuffer,
    out: RowBuffer,
    scratch: Scratch,
}

impl Bench {
    fn new(cpu: &Cpu, copies: Vec<Matrix>, plan: &Plan) -> Self {
        let matrix = &copies[0];
        let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
        let rows = plan.rows.iter().copied().max().unwrap_or(0);
        let mut x = RowBuffer::new(rows, inputs);
        let mut values = values();
        for row in 0..rows {
            x.row_mut(row).fill_with(&mut values);
        }
        let scratch = Scratch::new(cpu, matrix.format(), rows, inputs, 0);
        Self { next: 0, x, out: RowBuffer::new(rows, outputs), scratch, copies }
    }

    /// Bytes of one copy.
    fn bytes(&self) -> usize {
        self.copies[0].as_bytes().len()
    }

    /// Bytes that are read in a second, going through all copies.
    fn read_speed(&self, cpu: &Cpu, enough: Duration) -> f64 {
        let buffers: Vec<&[u8]> = self.copies.iter().map(Matrix::as_bytes).collect();
        let pass = || {
            std::hint::black_box(limits::read(cpu, &buffers));
        };
        (self.bytes() * buffers.len()) as f64 / time(enough, pass)
    }

    /// The time of one product of some rows.
    fn product(&mut self, cpu: &Cpu, rows: usize, enough: Duration) -> f64 {
        let Self { copies, next, x, out, scratch } = self;
        time(enough, || {
            let matrix = &copies[*next];
            *next = (*next + 1) % copies.len();
            ops::matmul(cpu, x.rows(rows), matrix, Epilogue::default(), out.rows_mut(rows), scratch);
        })
    }
}

/// The median time in seconds of what is done again and again, the first time not counted.
fn time(enough: Duration, mut run: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < FEWEST || begin.elapsed() < enough {
        let start = Instant::now();
        run();
        times.push(seconds(start.elapsed()));
    }
    Figures::of(times.into_iter().skip(1)).median
}

/// The most operations in a second that a row's instructions gave so far, in registers on all threads: that does not
/// move with what else the machine does, as the speed of its memory does.
#[derive(Clone, Copy, Default)]
struct Peaks {
    floats: f64,
    integers: f64,
}

impl Peaks {
    /// Measures once more, for a format.
    fn now(&mut self, cpu: &Cpu, format: WeightFormat, enough: Duration) -> f64 {
        let (x, weights) = ([0.5; limits::ROWS], [0.5; limits::OUTPUTS]);
        let (x_bytes, weight_bytes) = ([[1; 4]; limits::ROWS], [[1; 4]; limits::OUTPUTS]);
        if format.rounds_activations() {
            // Four multiplications and four additions.
            let run = |steps, sums: &mut [_]| limits::dot(cpu, &x_bytes, &weight_bytes, steps, sums);
            raise(&mut self.integers, 8.0 * rate(cpu, enough, 0, run))
        } else {
            let run = |steps, sums: &mut [_]| limits::multiply_add(cpu, &x, &weights, steps, sums);
            raise(&mut self.floats, 2.0 * rate(cpu, enough, 0.0, run))
        }
    }
}

fn raise(most: &mut f64, value: f64) -> f64 {
    *most = most.max(value);
    *most
}

/// Steps of all sums in a second: the best of some tries, each of a twentieth of `enough`.
fn rate<T: Copy>(cpu: &Cpu, enough: Duration, start: T, run: impl Fn(usize, &mut [limits::Sums<T>])) -> f64 {
    const TRIES: usize = 5;
    let mut sums = vec![[[start; limits::OUTPUTS]; limits::ROWS]; 4 * cpu.pool.threads()];
    let mut time = |steps| {
        let begin = Instant::now();
        run(steps, &mut sums);
        begin.elapsed()
    };
    let mut steps = 64;
    while time(steps) < enough / 20 {
        steps *= 2;
    }
    let best = (0..TRIES).map(|_| seconds(time(steps))).fold(f64::INFINITY, f64::min);
    (steps * limits::OUTPUTS * limits::ROWS * 4 * cpu.pool.threads()) as f64 / best
}

/// The bytes of some weights.
fn weights(count: usize) -> Vec<u8> {
    let mut values = values();
    let mut bytes = Vec::with_capacity(count * size_of::<f32>());
    bytes.extend((0..count).flat_map(|_| values().to_le_bytes()));
    bytes
}

/// Numbers from -1 to 1, always the same: none is so small that a processor would take longer with it.
fn values() -> impl FnMut() -> f32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // An odd number of 2^-23: never zero.
        (2 * (state >> 9) + 1) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_those_of_gpt2() {
        let parameters = |size: Size| {
            let [block @ .., head] = &size.shapes();
            let weights = |shape: &Shape| shape.inputs * shape.outputs;
            size.layers() * block.iter().map(weights).sum::<usize>() + weights(head)
        };
        // All parameters but positions, biases and layer norms.
        for (size, millions) in
            [(Size::Small, 123), (Size::Medium, 353), (Size::Large, 772), (Size::Xl, 1554)]
        {
            assert_eq!(parameters(size) / 1_000_000, millions, "{size:?}");
            assert!(size.bytes_per_token(WeightFormat::F32) >= 4 * parameters(size));
        }
    }

    #[test]
    fn copies_come_to_the_footprint_but_there_is_always_one() {
        assert_eq!(copies(10, 35), 3);
        assert_eq!(copies(10, 5), 1);
        assert_eq!(copies(1 << 28, usize::MAX), 2);
        assert_eq!(copies(1 << 30, usize::MAX), 1);
        assert_eq!(copies(0, 0), 1);
    }

    #[test]
    fn there_is_a_cell_for_every_kernel_format_shape_and_number_of_rows() {
        let kernels: Vec<_> = Kernels::available().collect();
        let shape = |name, inputs, outputs| Shape { name, inputs, outputs };
        let mut plan = Plan {
            kernels: kernels.clone(),
            shapes: vec![shape("a", 40, 70), shape("b", 64, 1)],
            rows: vec![1, 7],
            formats: WeightFormat::ALL.map(|format| (format, 100_000)).to_vec(),
            enough: Duration::ZERO,
            too_long: Duration::MAX,
        };
        let cells = |plan: &Plan| {
            let mut cells = Vec::new();
            let mut cpu = Cpu::new(Kernels::detect(), 2);
            let mut show = |cell: &Cell| {
                cells.push(serde_json::to_value(cell).expect("a cell is JSON"));
                // As long as its heading, or what was left out is named.
                assert!(line(cell).chars().count() == heading().len() || cell.seconds.is_none());
                Ok(())
            };
            measure(plan, &mut cpu, &mut show).expect("showing does not fail");
            cells
        };
        let complete = cells(&plan);
        assert_eq!(complete.len(), WeightFormat::ALL.len() * 2 * 2 * kernels.len());
        for cell in &complete {
            for field in ["seconds", "gigabytes_per_second", "bandwidth_share", "peak_share"] {
                assert!(cell[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {cell}");
            }
            assert!(cell["expected_seconds"].is_null(), "{cell}");
        }
        // The first number of rows is always measured: the others are expected from it.
        plan.too_long = Duration::ZERO;
        for cell in cells(&plan) {
            assert_eq!(cell["seconds"].is_null(), cell["rows"] == 7, "{cell}");
            assert_eq!(cell["expected_seconds"].is_null(), cell["rows"] == 1, "{cell}");
            assert_eq!(cell["peak_share"].is_null(), cell["rows"] == 7, "{cell}");
        }
    }

    #[test]
    fn weights_are_never_zero() {
        let mut values = values();
        assert!((0..100_000).map(|_| values().abs()).all(|value| value > 1e-7 && value < 1.0));
    }
}
