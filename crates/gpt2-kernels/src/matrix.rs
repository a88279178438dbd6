//! Weights, packed once for every instruction set alike.
//!
//! A matrix of `inputs` × `outputs` is cut into panels of [`PANEL`] outputs, so that a product reads one
//! panel from its start to its end. The last panel is filled up with zeros.
//! ```text
//! f32, bf16   panel 0: k = 0 [w(0,0) … w(0,63)]  k = 1 [w(1,0) … w(1,63)]  …  k = inputs-1
//!             panel 1: k = 0 [w(0,64) … w(0,127)] …
//! int8, int4  panel 0: block of k = 0 … 31, block of k = 32 … 63, …: see `quant.rs`
//! ```

use half::bf16;

use crate::aligned::Plain;
use crate::ops::Disjoint;
use crate::quant::{self, Block, Int4Block, Int6Block, Int8Block, Part};
use crate::scalar::Weight;
use crate::{AlignedVec, Cpu, PANEL, Source};

/// How weights are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE single precision.
    F32,
    /// The upper half of an `f32`; products are computed in `f32`.
    Bf16,
    /// Eight bits and a scale for every 32 weights: 8.5 bits. Activations are rounded to eight bits as well.
    Int8,
    /// Six bits and a scale for every 32 weights: 6.5 bits. Activations as for eight.
    Int6,
    /// Four bits and a scale for every 32 weights: 4.5 bits. Activations as for eight.
    Int4,
}

impl WeightFormat {
    /// All formats, largest first.
    pub const ALL: [Self; 5] = [Self::F32, Self::Bf16, Self::Int8, Self::Int6, Self::Int4];

    /// The name: `f32`, `bf16`, `int8`, `int6` or `int4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int6 => "int6",
            Self::Int4 => "int4",
        }
    }

    /// Whether x is rounded as well before it is multiplied.
    #[must_use]
    pub fn rounds_activations(self) -> bool {
        matches!(self, Self::Int8 | Self::Int6 | Self::Int4)
    }

    /// Bytes that a matrix takes in this format, saturating.
    #[must_use]
    pub fn bytes(self, inputs: usize, outputs: usize) -> usize {
        let panel = match self {
            Self::F32 => inputs.saturating_mul(size_of::<[f32; PANEL]>()),
            Self::Bf16 => inputs.saturating_mul(size_of::<[bf16; PANEL]>()),
            Self::Int8 => inputs.div_ceil(quant::BLOCK).saturating_mul(size_of::<Int8Block>()),
            Self::Int6 => inputs.div_ceil(quant::BLOCK).saturating_mul(size_of::<Int6Block>()),
            Self::Int4 => inputs.div_ceil(quant::BLOCK).saturating_mul(size_of::<Int4Block>()),
        };
        panel.saturating_mul(outputs.div_ceil(PANEL))
    }
}

/// A packed matrix of `inputs` × `outputs` weights.
#[derive(Clone, Debug)]
pub struct Matrix {
    panels: Panels,
    inputs: usize,
    outputs: usize,
}

/// The panels of a matrix, one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Panels {
    F32(AlignedVec<[f32; PANEL]>),
    Bf16(AlignedVec<[bf16; PANEL]>),
    Int8(AlignedVec<Int8Block>),
    Int6(AlignedVec<Int6Block>),
    Int4(AlignedVec<Int4Block>),
}

impl Matrix {
    /// Packs weights into a format, the panels in parallel.
    ///
    /// # Panics
    /// Panics if the number of weights overflows.
    #[must_use]
    pub fn pack(cpu: &Cpu, source: Source<'_>, format: WeightFormat) -> Self {
        let mut matrix = Self::zeroed(format, source.inputs, source.outputs);
        match &mut matrix.panels {
            Panels::F32(data) => pack(cpu, &source, data, source.inputs, |first, panel| {
                source.read(0, first, panel);
            }),
            Panels::Bf16(data) => pack(cpu, &source, data, source.inputs, |first, panel| {
                let mut part: Part = [[0.0; PANEL]; quant::BLOCK];
                for (index, rows) in panel.chunks_mut(quant::BLOCK).enumerate() {
                    source.read(index * quant::BLOCK, first, &mut part[..rows.len()]);
                    for (row, weights) in rows.iter_mut().zip(&part) {
                        *row = weights.map(bf16::from_f32);
                    }
                }
            }),
            Panels::Int8(data) => pack_blocks(cpu, &source, data, |part, block| {
                // SAFETY: the machine has this row's instructions, for the table gives out no other.
                unsafe { (cpu.kernels.pack_int8)(part, block) }
            }),
            Panels::Int6(data) => pack_blocks(cpu, &source, data, |part, block| {
                // SAFETY: as above.
                unsafe { (cpu.kernels.pack_int6)(part, block) }
            }),
            Panels::Int4(data) => pack_blocks(cpu, &source, data, |part, block| {
                // SAFETY: as above.
                unsafe { (cpu.kernels.pack_int4)(part, block) }
            }),
        }
        matrix
    }

    /// Makes room for a matrix, all of whose bytes are zero, for [`as_bytes_mut`](Self::as_bytes_mut) to fill.
    ///
    /// Large matrices take no memory before they are written: the threads that fill them touch them first.
    ///
    /// # Panics
    /// Panics if the number of weights overflows.
    #[must_use]
    pub fn zeroed(format: WeightFormat, inputs: usize, outputs: usize) -> Self {
        let length = |rows: usize| {
            outputs.div_ceil(PANEL).checked_mul(rows).expect("the number of weights must fit in usize")
        };
        let blocks = inputs.div_ceil(quant::BLOCK);
        let panels = match format {
            WeightFormat::F32 => Panels::F32(AlignedVec::zeroed(length(inputs))),
            WeightFormat::Bf16 => Panels::Bf16(AlignedVec::zeroed(length(inputs))),
            WeightFormat::Int8 => Panels::Int8(AlignedVec::zeroed(length(blocks))),
            WeightFormat::Int6 => Panels::Int6(AlignedVec::zeroed(length(blocks))),
            WeightFormat::Int4 => Panels::Int4(AlignedVec::zeroed(length(blocks))),
        };
        Self { panels, inputs, outputs }
    }

    /// Number of inputs: the length of a row of x.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How the weights are held.
    #[must_use]
    pub fn format(&self) -> WeightFormat {
        match self.panels {
            Panels::F32(_) => WeightFormat::F32,
            Panels::Bf16(_) => WeightFormat::Bf16,
            Panels::Int8(_) => WeightFormat::Int8,
            Panels::Int6(_) => WeightFormat::Int6,
            Panels::Int4(_) => WeightFormat::Int4,
        }
    }

    /// The packed weights; their number is the number of bytes that one product reads.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.panels {
            Panels::F32(data) => data.as_bytes(),
            Panels::Bf16(data) => data.as_bytes(),
            Panels::Int8(data) => data.as_bytes(),
            Panels::Int6(data) => data.as_bytes(),
            Panels::Int4(data) => data.as_bytes(),
        }
    }

    /// The packed weights, to be written: what [`as_bytes`](Self::as_bytes) gave for a matrix of the same format and
    /// sizes makes this one equal to it.
    ///
    /// The layout is the same for every instruction set; numbers in it have the byte order of the machine. Any bytes
    /// are weights, though not such that every product with them has the same bits everywhere: that is promised for
    /// weights that were packed.
    #[must_use]
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.panels {
            Panels::F32(data) => data.as_bytes_mut(),
            Panels::Bf16(data) => data.as_bytes_mut(),
            Panels::Int8(data) => data.as_bytes_mut(),
            Panels::Int6(data) => data.as_bytes_mut(),
            Panels::Int4(data) => data.as_bytes_mut(),
        }
    }

    /// Copies the weights of one output: with an embedding packed by output, one token's row.
    ///
    /// # Panics
    /// Panics if there is no such output or `out` is not [`inputs`](Self::inputs) long.
    pub fn output_row(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs, "output {output} of {}", self.outputs);
        assert_eq!(out.len(), self.inputs, "length of a row of weights");
        let (panel, column) = (output / PANEL, output % PANEL);
        match &self.panels {
            Panels::F32(data) => copy_column(self.panel(data, panel), column, out),
            Panels::Bf16(data) => copy_column(self.panel(data, panel), column, out),
            Panels::Int8(data) => copy_blocks(self.panel(data, panel), column, out),
            Panels::Int6(data) => copy_blocks(self.panel(data, panel), column, out),
            Panels::Int4(data) => copy_blocks(self.panel(data, panel), column, out),
        }
    }

    pub(crate) fn panels(&self) -> &Panels {
        &self.panels
    }

    /// One panel of this matrix's data.
    pub(crate) fn panel<'a, W: Plain>(&self, data: &'a AlignedVec<W>, index: usize) -> &'a [W] {
        let size = data.len() / self.outputs.div_ceil(PANEL).max(1);
        &data[index * size..][..size]
    }
}

/// Fills panels of `size` elements in parallel; `fill` gets the first output of each.
fn pack<W: Plain>(
    cpu: &Cpu,
    source: &Source<'_>,
    data: &mut AlignedVec<W>,
    size: usize,
    fill: impl Fn(usize, &mut [W]) + Sync,
) {
    let panels = if size == 0 { 0 } else { source.outputs.div_ceil(PANEL) };
    let target = Disjoint::new(data);
    cpu.pool.run(panels, |panel, _| {
        // SAFETY: panels do not overlap, and each is one task's.
        fill(panel * PANEL, unsafe { target.slice(panel * size, size) });
    });
}

/// Fills panels of blocks, which may reach beyond the last input: there weights are zero.
fn pack_blocks<W: Plain>(
    cpu: &Cpu,
    source: &Source<'_>,
    data: &mut AlignedVec<W>,
    fill: impl Fn(&Part, &mut W) + Sync,
) {
    pack(cpu, source, data, source.inputs.div_ceil(quant::BLOCK), |first, panel| {
        for (index, block) in panel.iter_mut().enumerate() {
            let mut part: Part = [[0.0; PANEL]; quant::BLOCK];
            let k = index * quant::BLOCK;
            source.read(k, first, &mut part[..quant::BLOCK.min(source.inputs - k)]);
            fill(&part, block);
        }
    });
}

fn copy_column<W: Weight>(panel: &[[W; PANEL]], column: usize, out: &mut [f32]) {
    for (out, weights) in out.iter_mut().zip(panel) {
        *out = weights[column].value();
    }
}

fn copy_blocks<W: Block>(panel: &[W], column: usize, out: &mut [f32]) {
    let mut values = [0.0; quant::BLOCK];
    for (block, out) in panel.iter().zip(out.chunks_mut(quant::BLOCK)) {
        block.output(column, &mut values);
        out.copy_from_slice(&values[..out.len()]);
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::{Dtype, Kernels};

    fn bytes_of(value: f32, dtype: Dtype) -> Vec<u8> {
        match dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        }
    }

    #[test]
    fn packed_bytes_make_the_matrix_again() {
        let cpu = Cpu::new(Kernels::detect(), 1);
        let (inputs, outputs) = (40, 70);
        let weights: Vec<u8> = (0..inputs * outputs).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
        for format in WeightFormat::ALL {
            let packed = Matrix::pack(&cpu, Source::by_input(&weights, Dtype::F32, inputs, outputs), format);
            let mut copy = Matrix::zeroed(format, inputs, outputs);
            copy.as_bytes_mut().copy_from_slice(packed.as_bytes());
            let (mut expected, mut found) = (vec![0.0; inputs], vec![0.0; inputs]);
            for output in 0..outputs {
                packed.output_row(output, &mut expected);
                copy.output_row(output, &mut found);
                assert_eq!(expected, found, "output {output} in {format:?}");
            }
        }
    }

    #[test]
    fn packing_keeps_every_weight_in_both_orders_and_all_formats() {
        let cpu = Cpu::new(Kernels::detect(), 2);
        for (inputs, outputs) in [(0, 5), (5, 0), (1, 1), (3, 63), (16, 64), (33, 65), (40, 130)] {
            for (dtype, format) in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64]
                .iter()
                .flat_map(|dtype| WeightFormat::ALL.map(|format| (*dtype, format)))
            {
                // Small integers are exact in every format of the disk, and in f32 and bf16.
                let value = |k: usize, j: usize| ((k * 31 + j * 7) % 251) as f32 - 125.0;
                let by_input: Vec<u8> = (0..inputs)
                    .flat_map(|k| (0..outputs).flat_map(move |j| bytes_of(value(k, j), dtype)))
                    .collect();
                let by_output: Vec<u8> = (0..outputs)
                    .flat_map(|j| (0..inputs).flat_map(move |k| bytes_of(value(k, j), dtype)))
                    .collect();
                let a = Matrix::pack(&cpu, Source::by_input(&by_input, dtype, inputs, outputs), format);
                let b = Matrix::pack(&cpu, Source::by_output(&by_output, dtype, inputs, outputs), format);
                assert_eq!(a.as_bytes(), b.as_bytes());
                assert_eq!(a.as_bytes().len(), format.bytes(inputs, outputs));
                let mut row = vec![0.0; inputs];
                let (mut errors, mut squares) = (0.0, 0.0);
                for j in 0..outputs {
                    a.output_row(j, &mut row);
                    for (k, weight) in row.iter().enumerate() {
                        errors += (weight - value(k, j)).powi(2);
                        squares += value(k, j).powi(2);
                    }
                }
                let bound = match format {
                    WeightFormat::F32 | WeightFormat::Bf16 => 0.0,
                    WeightFormat::Int8 => 1e-4,
                    WeightFormat::Int6 => 1e-3,
                    WeightFormat::Int4 => 1e-2,
                };
                assert!(
                    errors <= bound * squares,
                    "{inputs} x {outputs}, {dtype:?} {format:?}: {errors} of {squares}"
                );
            }
        }
    }
}
