//! Weights as they lie in a checkpoint.

use half::{bf16, f16};

use crate::PANEL;

/// A number format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    /// Size of one value in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F64 => 8,
        }
    }

    /// The name in safetensors: `F32`, `F16`, `BF16` or `F64`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F64 => "F64",
        }
    }

    /// Reads a row of little-endian values: exactly, but for `F64`, which is rounded to the nearest.
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
            Self::F64 => {
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *out = f64::from_le_bytes(*value) as f32;
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
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    order: Order,
    /// What the weights of each input are multiplied by.
    factors: Option<&'a [f32]>,
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
        Self { bytes, dtype, inputs, outputs, order, factors: None }
    }

    /// The same weights, those of each input multiplied by a factor.
    ///
    /// # Panics
    /// Panics if there is not one factor for each input.
    #[must_use]
    pub fn scaled(self, factors: &'a [f32]) -> Self {
        assert_eq!(factors.len(), self.inputs, "factors, inputs of the matrix");
        Self { factors: Some(factors), ..self }
    }

    /// Reads the weights from input `k` and output `first` on into the rows of a panel, one for each input;
    /// columns beyond the last output are left as they are.
    pub(crate) fn read(&self, k: usize, first: usize, panel: &mut [[f32; PANEL]]) {
        let &Self { bytes, dtype, inputs, outputs, order, factors } = self;
        let size = dtype.size();
        let width = PANEL.min(outputs - first);
        match order {
            Order::ByInput => {
                for (k, values) in (k..).zip(&mut *panel) {
                    let start = (k * outputs + first) * size;
                    dtype.read_row(&bytes[start..start + width * size], &mut values[..width]);
                }
            }
            Order::ByOutput => {
                // Sixteen inputs at a time: one cache line of the source, a kilobyte of each panel row.
                const STEP: usize = 16;
                let mut line = [0.0f32; STEP];
                for (k, panel) in (k..).step_by(STEP).zip(panel.chunks_mut(STEP)) {
                    for column in 0..width {
                        let start = ((first + column) * inputs + k) * size;
                        dtype.read_row(&bytes[start..start + panel.len() * size], &mut line[..panel.len()]);
                        for (values, &value) in panel.iter_mut().zip(&line) {
                            values[column] = value;
                        }
                    }
                }
            }
        }
        if let Some(factors) = factors {
            for (values, factor) in panel.iter_mut().zip(&factors[k..]) {
                for value in values {
                    *value *= factor;
                }
            }
        }
    }
}
