//! Weights, packed once for every instruction set alike.
//!
//! A matrix of `inputs` × `outputs` is cut into panels of [`PANEL`] outputs:
//! ```text
//! panel 0: k = 0 [w(0,0) … w(0,63)]  k = 1 [w(1,0) … w(1,63)]  …  k = inputs-1
//! panel 1: k = 0 [w(0,64) … w(0,127)] …
//! ```
//! so that a product reads one panel from its start to its end. The last panel is filled up with zeros.

use half::{bf16, f16};

use crate::{AlignedVec, Cpu, PANEL, ops::Disjoint};

/// A number format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
}

impl Dtype {
    /// Size of one value in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in safetensors: `F32`, `F16` or `BF16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// Reads a row of little-endian values; exact.
    ///
    /// # Panics
    /// Panics if `bytes` does not hold exactly `out.len()` values.
    #[inline(always)]
    pub fn read_row(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * self.size(), "bytes of a row of {} values", out.len());
        match self {
            Self::F32 => {
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*value);
                }
            }
            Self::F16 => {
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f16::from_le_bytes(*value).to_f32();
                }
            }
            Self::Bf16 => {
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = bf16::from_le_bytes(*value).to_f32();
                }
            }
        }
    }
}

/// Weights as they lie in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
    inputs: usize,
    outputs: usize,
    order: Order,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// `[inputs][outputs]`
    ByInput,
    /// `[outputs][inputs]`
    ByOutput,
}

impl<'a> Source<'a> {
    /// Describes weights stored `[inputs][outputs]`, as GPT-2's `Conv1D` stores them.
    ///
    /// # Panics
    /// Panics if the number of bytes is not that of `inputs * outputs` values, here and in
    /// [`by_output`](Self::by_output).
    #[must_use]
    pub fn by_input(bytes: &'a [u8], dtype: Dtype, inputs: usize, outputs: usize) -> Self {
        Self::new(bytes, dtype, inputs, outputs, Order::ByInput)
    }

    /// Describes weights stored `[outputs][inputs]`, as an embedding that serves as a head.
    #[must_use]
    pub fn by_output(bytes: &'a [u8], dtype: Dtype, inputs: usize, outputs: usize) -> Self {
        Self::new(bytes, dtype, inputs, outputs, Order::ByOutput)
    }

    fn new(bytes: &'a [u8], dtype: Dtype, inputs: usize, outputs: usize, order: Order) -> Self {
        let expected = inputs.checked_mul(outputs).and_then(|values| values.checked_mul(dtype.size()));
        assert_eq!(
            Some(bytes.len()),
            expected,
            "bytes of a matrix of {inputs} inputs and {outputs} outputs in {dtype:?}"
        );
        Self { bytes, dtype, inputs, outputs, order }
    }
}

/// A packed matrix of `inputs` × `outputs` weights.
#[derive(Clone, Debug)]
pub struct Matrix {
    data: AlignedVec,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    /// Packs weights, the panels in parallel.
    #[must_use]
    pub fn pack(cpu: &Cpu, source: Source<'_>) -> Self {
        let (inputs, outputs) = (source.inputs, source.outputs);
        let length = outputs.div_ceil(PANEL).checked_mul(inputs).and_then(|rows| rows.checked_mul(PANEL));
        let length = length.expect("the number of weights must fit in usize");
        let mut data = AlignedVec::zeroed(length);
        if inputs > 0 {
            let panels = Disjoint::new(&mut data);
            cpu.pool.run(outputs.div_ceil(PANEL), |panel, _| {
                // SAFETY: panels do not overlap, and each is one task's.
                let values = unsafe { panels.slice(panel * inputs * PANEL, inputs * PANEL) };
                pack_panel(&source, panel * PANEL, values.as_chunks_mut::<PANEL>().0);
            });
        }
        Self { data, inputs, outputs }
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

    /// Bytes that one product reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    /// Copies the weights of one output: with an embedding packed by output, one token's row.
    ///
    /// # Panics
    /// Panics if there is no such output or `out` is not [`inputs`](Self::inputs) long.
    pub fn output_row(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs, "output {output} of {}", self.outputs);
        assert_eq!(out.len(), self.inputs, "length of a row of weights");
        for (out, weights) in out.iter_mut().zip(self.panel(output / PANEL)) {
            *out = weights[output % PANEL];
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    pub(crate) fn panel(&self, index: usize) -> &[[f32; PANEL]] {
        let size = self.inputs * PANEL;
        self.data[index * size..][..size].as_chunks::<PANEL>().0
    }
}

/// Fills the panel that starts at output `first`; columns beyond the last output stay zero.
fn pack_panel(source: &Source<'_>, first: usize, panel: &mut [[f32; PANEL]]) {
    let &Source { bytes, dtype, inputs, outputs, order } = source;
    let size = dtype.size();
    let width = PANEL.min(outputs - first);
    match order {
        Order::ByInput => {
            for (k, values) in panel.iter_mut().enumerate() {
                let start = (k * outputs + first) * size;
                dtype.read_row(&bytes[start..start + width * size], &mut values[..width]);
            }
        }
        Order::ByOutput => {
            // Sixteen inputs at a time: one cache line of the source, a kilobyte of each panel row.
            const STEP: usize = 16;
            let mut line = [0.0f32; STEP];
            for k in (0..inputs).step_by(STEP) {
                let count = STEP.min(inputs - k);
                for column in 0..width {
                    let start = ((first + column) * inputs + k) * size;
                    dtype.read_row(&bytes[start..start + count * size], &mut line[..count]);
                    for (values, &value) in panel[k..k + count].iter_mut().zip(&line) {
                        values[column] = value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kernels;

    #[test]
    fn packing_keeps_every_weight_in_both_orders_and_all_formats() {
        let cpu = Cpu::new(Kernels::detect(), 2);
        for (inputs, outputs) in [(0, 5), (5, 0), (1, 1), (3, 63), (16, 64), (17, 65), (40, 130)] {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                // Small integers are exact in every format.
                let value = |k: usize, j: usize| ((k * 31 + j * 7) % 251) as f32 - 125.0;
                let bytes = |value: f32| match dtype {
                    Dtype::F32 => value.to_le_bytes().to_vec(),
                    Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                    Dtype::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
                };
                let by_input: Vec<u8> =
                    (0..inputs).flat_map(|k| (0..outputs).flat_map(move |j| bytes(value(k, j)))).collect();
                let by_output: Vec<u8> =
                    (0..outputs).flat_map(|j| (0..inputs).flat_map(move |k| bytes(value(k, j)))).collect();
                let a = Matrix::pack(&cpu, Source::by_input(&by_input, dtype, inputs, outputs));
                let b = Matrix::pack(&cpu, Source::by_output(&by_output, dtype, inputs, outputs));
                assert_eq!(&*a.data, &*b.data);
                let mut row = vec![0.0; inputs];
                for j in 0..outputs {
                    a.output_row(j, &mut row);
                    let expected: Vec<f32> = (0..inputs).map(|k| value(k, j)).collect();
                    assert_eq!(row, expected, "output {j} of {inputs} x {outputs} in {dtype:?}");
                }
            }
        }
    }
}
