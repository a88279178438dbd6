//! Any shape, any values: every row of the kernel table equals `scalar`, bit for bit.
//!
//! `conformance.rs` has the shapes and values that are known to matter; here they are drawn. `PROPTEST_CASES` says how
//! many: see CONTRIBUTING.md.

mod numbers;

use std::ops::Range;
use std::sync::Arc;

use gpt2_kernels::attention::{self, Batch, CacheBlock, CacheFormat, CacheShape, Layer};
use gpt2_kernels::ops::{self, Epilogue};
use gpt2_kernels::{Activation, Cpu, Dtype, Kernels, Matrix, RowBuffer, Scratch, Source, WeightFormat};
use half::{bf16, f16};
use numbers::{Numbers, assert_same, rows};
use proptest::prelude::*;

/// What values are like: one in `one_in` is of a kind, the rest is ordinary. One value that is no number spoils a
/// whole row, so kinds are not only drawn together.
#[derive(Clone, Copy, Debug)]
struct Values {
    seed: u64,
    kind: Kind,
    one_in: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ordinary,
    Zero,
    Denormal,
    /// Of any magnitude that is not [`Huge`](Kind::Huge).
    Wide,
    /// Such that sums of a few are infinite.
    Huge,
    /// What breaks careless code.
    Hostile,
    /// Any bits, infinities and all sorts of NaN among them.
    Bits,
}

impl Values {
    fn any() -> impl Strategy<Value = Self> {
        use Kind::{Bits, Denormal, Hostile, Huge, Ordinary, Wide, Zero};
        let kind = prop::sample::select(vec![Ordinary, Zero, Denormal, Wide, Huge, Hostile, Bits]);
        let one_in = prop::sample::select(vec![1000, 100, 10, 2, 1]);
        (any::<u64>(), kind, one_in).prop_map(|(seed, kind, one_in)| Self { seed, kind, one_in })
    }

    /// A stream of such values; another one for each `stream`.
    fn stream(self, stream: u64) -> impl FnMut() -> f32 {
        let mut numbers = Numbers(self.seed ^ (stream << 56));
        move || {
            if !numbers.next().is_multiple_of(self.one_in) {
                return 2.0 * numbers.uniform();
            }
            let bits = (numbers.next() >> 32) as u32;
            let (sign_and_fraction, fraction) = (bits & 0x807f_ffff, bits & 0x007f_ffff);
            match self.kind {
                Kind::Ordinary => numbers.uniform(),
                Kind::Zero => f32::from_bits(bits & 0x8000_0000),
                Kind::Denormal => f32::from_bits(sign_and_fraction),
                Kind::Wide => f32::from_bits(sign_and_fraction | ((fraction % 250) << 23)),
                Kind::Huge => f32::from_bits(sign_and_fraction | ((250 + fraction % 5) << 23)),
                Kind::Hostile => numbers.hostile(),
                Kind::Bits => f32::from_bits(bits),
            }
        }
    }
}

/// Sizes of all kinds: small ones mostly, and those of a part of a model now and then.
fn size(small: Range<usize>, large: Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![9 => small, 1 => large]
}

fn scalar(threads: usize) -> Cpu {
    Cpu::new(Kernels::by_name("scalar").expect("scalar runs everywhere"), threads)
}

/// Every row of the table, scalar included: with more threads than one it has to equal itself.
fn machines(threads: usize) -> Vec<Cpu> {
    Kernels::available().map(|row| Cpu::new(row, threads)).collect()
}

/// The values of a stream in a number format on disk.
fn bytes(dtype: Dtype, count: usize, mut value: impl FnMut() -> f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * dtype.size());
    for _ in 0..count {
        match dtype {
            Dtype::F32 => bytes.extend(value().to_le_bytes()),
            Dtype::F16 => bytes.extend(f16::from_f32(value()).to_le_bytes()),
            Dtype::Bf16 => bytes.extend(bf16::from_f32(value()).to_le_bytes()),
            Dtype::F64 => bytes.extend(f64::from(value()).to_le_bytes()),
        }
    }
    bytes
}

/// Rows that lie `before` columns from the start and `behind` from the end of longer ones, so that their distance and
/// their place in a line of a cache are any.
#[derive(Clone, Copy, Debug)]
struct Inside {
    before: usize,
    behind: usize,
}

impl Inside {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![Just((0, 0)), (0usize..70, 0usize..70)]
            .prop_map(|(before, behind)| Self { before, behind })
    }

    fn rows(self, count: usize, width: usize, value: impl FnMut() -> f32) -> RowBuffer {
        rows(count, self.before + width + self.behind, value)
    }
}

#[derive(Clone, Debug)]
struct Product {
    rows: usize,
    inputs: usize,
    outputs: usize,
    format: WeightFormat,
    source: (Dtype, bool),
    bias: bool,
    activation: Option<Activation>,
    inside: Inside,
    /// How much more the scratch has room for, and for how many threads more.
    spare: (usize, usize, usize),
    threads: usize,
    x: Values,
    weights: Values,
}

fn product() -> impl Strategy<Value = Product> {
    let shape = (size(0..14, 14..110), size(0..200, 500..1700), size(0..200, 500..900));
    let shape = shape.prop_map(|(rows, inputs, outputs)| {
        // `scalar` takes its time: at most a million products.
        let outputs = outputs.min(1_000_000 / (rows * inputs).max(1));
        (rows, inputs, outputs)
    });
    let format = prop::sample::select(WeightFormat::ALL.to_vec());
    let source = (prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64]), any::<bool>());
    let activation = prop::option::of(prop::sample::select(Activation::ALL.to_vec()));
    let how = (format, source, any::<bool>(), activation);
    let room = (Inside::any(), (0usize..3, 0usize..40, 0usize..2), 1usize..4);
    (shape, how, room, Values::any(), Values::any()).prop_map(|(shape, how, room, x, weights)| Product {
        rows: shape.0,
        inputs: shape.1,
        outputs: shape.2,
        format: how.0,
        source: how.1,
        bias: how.2,
        activation: how.3,
        inside: room.0,
        spare: room.1,
        threads: room.2,
        x,
        weights,
    })
}

impl Product {
    /// Packs the weights and multiplies twice with the same scratch.
    fn compute(&self, cpu: &Cpu) -> (Matrix, RowBuffer) {
        let &Self { rows: count, inputs, outputs, format, .. } = self;
        let (dtype, by_input) = self.source;
        let weights = bytes(dtype, inputs * outputs, self.weights.stream(0));
        let source = if by_input { Source::by_input } else { Source::by_output };
        let matrix = Matrix::pack(cpu, source(&weights, dtype, inputs, outputs), format);
        let mut bias = self.weights.stream(1);
        let bias: Option<Vec<f32>> = self.bias.then(|| (0..outputs).map(|_| bias()).collect());
        let epilogue = Epilogue { bias: bias.as_deref(), activation: self.activation };

        let (more_rows, more_inputs, more_threads) = self.spare;
        let roomy = Cpu::new(cpu.kernels, cpu.pool.threads() + more_threads);
        let mut scratch = Scratch::new(&roomy, format, count + more_rows, inputs + more_inputs, 0);
        // Whatever was there before must not matter: neither in the scratch nor in the output.
        let mut out = rows(count, outputs, || f32::NAN);
        for stream in [1, 0] {
            let x = self.inside.rows(count, inputs, self.x.stream(stream));
            let x = x.rows(count).part(0, count, self.inside.before, inputs);
            ops::matmul(cpu, x, &matrix, epilogue, out.rows_mut(count), &mut scratch);
        }
        (matrix, out)
    }
}

#[derive(Clone, Debug)]
struct Attention {
    shape: CacheShape,
    /// For each sequence: how many positions are stored before, and how many are new.
    sequences: Vec<(usize, usize)>,
    scale: f32,
    inside: Inside,
    spare: usize,
    threads: usize,
    qkv: Values,
}

fn attention_of_a_batch() -> impl Strategy<Value = Attention> {
    let format = prop::sample::select(CacheFormat::ALL.to_vec());
    let shape = (1usize..3, 1usize..4, size(1..40, 40..140), format)
        .prop_map(|(layers, heads, head_size, format)| CacheShape { layers, heads, head_size, format });
    let sequence = (size(0..10, 10..200), size(0..10, 10..80));
    let scale = prop_oneof![4 => Just(0.125), 1 => -2.0f32..2.0, 1 => any::<f32>()];
    let room = (Inside::any(), 0usize..100, 1usize..4);
    (shape, prop::collection::vec(sequence, 0..5), scale, room, Values::any()).prop_map(
        |(shape, sequences, scale, (inside, spare, threads), qkv)| Attention {
            shape,
            sequences,
            scale,
            inside,
            spare,
            threads,
            qkv,
        },
    )
}

impl Attention {
    /// Attends, and gives each head's weights of the last query of the last sequence as well.
    fn compute(&self, cpu: &Cpu) -> (RowBuffer, Vec<f32>) {
        let shape = self.shape;
        let (width, before) = (3 * shape.channels(), self.inside.before);
        let layer = Layer { shape, index: shape.layers - 1, scale: self.scale };
        let mut batch = Batch::default();
        for &(past, count) in &self.sequences {
            batch.push(past, count);
        }
        let new = self.inside.rows(batch.rows(), width, self.qkv.stream(0));
        let new = new.rows(batch.rows()).part(0, batch.rows(), before, width);
        let mut first = 0;
        let caches: Vec<Vec<Arc<CacheBlock>>> = (1..)
            .zip(&self.sequences)
            .map(|(stream, &(past, count))| {
                let blocks = (past + count).div_ceil(attention::BLOCK);
                let mut blocks: Vec<_> = (0..blocks).map(|_| Arc::new(CacheBlock::new(shape))).collect();
                let old = rows(past, width, self.qkv.stream(stream));
                attention::store(cpu.kernels, Some(&cpu.pool), layer, &mut blocks, 0, old.rows(past));
                attention::store(
                    cpu.kernels,
                    None,
                    layer,
                    &mut blocks,
                    past,
                    new.part(first, count, 0, width),
                );
                first += count;
                blocks
            })
            .collect();
        let longest = self.sequences.iter().map(|(past, count)| past + count).max().unwrap_or(0);
        let scratch = Scratch::new(cpu, WeightFormat::F32, 0, shape.head_size, longest + self.spare);
        let mut out = rows(batch.rows(), shape.channels(), || f32::NAN);
        let cache = |index: usize| &caches[index][..];
        attention::attend(cpu, layer, &batch, cache, new, &scratch, out.rows_mut(batch.rows()));

        let mut weights = Vec::new();
        if let Some(&(past, count)) = self.sequences.last().filter(|(_, count)| *count > 0) {
            for head in 0..shape.heads {
                let query = new.part(batch.rows() - 1, 1, head * shape.head_size, shape.head_size);
                let mut of_head = vec![0.0; past + count];
                attention::weights(cpu, layer, head, &caches[caches.len() - 1], query, &mut of_head);
                weights.extend(of_head);
            }
        }
        (out, weights)
    }
}

#[derive(Clone, Debug)]
struct ElementWise {
    count: usize,
    width: usize,
    inside: Inside,
    epsilon: f32,
    threads: usize,
    x: Values,
    y: Values,
}

fn element_wise() -> impl Strategy<Value = ElementWise> {
    let epsilon = prop_oneof![3 => Just(1e-5), 1 => Just(0.0), 1 => any::<f32>()];
    let size = (0usize..40, size(0..200, 200..3100), Inside::any());
    (size, epsilon, 1usize..4, Values::any(), Values::any()).prop_map(
        |((count, width, inside), epsilon, threads, x, y)| ElementWise {
            count,
            width,
            inside,
            epsilon,
            threads,
            x,
            y,
        },
    )
}

impl ElementWise {
    /// Every operation and what it gives.
    fn compute(&self, cpu: &Cpu) -> Vec<(String, RowBuffer)> {
        let &Self { count, width, inside, .. } = self;
        let x = inside.rows(count, width, self.x.stream(0));
        let x = x.rows(count).part(0, count, inside.before, width);
        let y = inside.rows(count, width, self.y.stream(0));
        let y = y.rows(count).part(0, count, inside.before, width);
        let mut results = Vec::new();

        let mut parameters = self.y.stream(1);
        let mut parameters = || -> Vec<f32> { (0..width).map(|_| parameters()).collect() };
        let (weight, bias) = (parameters(), parameters());
        let mut out = rows(count, width, || f32::NAN);
        ops::layer_norm(cpu, x, &weight, &bias, self.epsilon, out.rows_mut(count));
        results.push(("layer_norm".to_owned(), out));

        let copy = || {
            let mut copy = RowBuffer::new(count, width);
            (0..count).for_each(|row| copy.row_mut(row).copy_from_slice(x.row(row)));
            copy
        };
        let mut out = copy();
        ops::add(cpu, out.rows_mut(count), y);
        results.push(("add".to_owned(), out));
        for activation in Activation::ALL {
            let mut out = copy();
            ops::activate(cpu, activation, out.rows_mut(count));
            results.push((format!("{activation:?}"), out));
        }
        let mut out = RowBuffer::new(count, 1);
        (0..count).for_each(|row| out.row_mut(row)[0] = ops::log_sum_exp(cpu, x.row(row)));
        results.push(("log_sum_exp".to_owned(), out));
        results
    }
}

fn assert_same_rows(a: &RowBuffer, b: &RowBuffer, what: &str) {
    for row in 0..b.capacity() {
        assert_same(a.row(row), b.row(row), &format!("{what}, row {row}"));
    }
}

proptest! {
    #[test]
    fn products_of_any_shape_equal_scalar(product in product()) {
        let (packed, expected) = product.compute(&scalar(1));
        for cpu in machines(product.threads) {
            let (matrix, out) = product.compute(&cpu);
            // Not as floats: which NaN it is matters here, for a copy on disk.
            prop_assert!(matrix.as_bytes() == packed.as_bytes(), "{:?}: packed weights", cpu);
            assert_same_rows(&out, &expected, &format!("{cpu:?}"));
        }
    }

    #[test]
    fn attention_in_any_batch_equals_scalar(attention in attention_of_a_batch()) {
        let (expected, expected_weights) = attention.compute(&scalar(1));
        for cpu in machines(attention.threads) {
            let (out, weights) = attention.compute(&cpu);
            assert_same_rows(&out, &expected, &format!("{cpu:?}"));
            assert_same(&weights, &expected_weights, &format!("{cpu:?}: weights"));
        }
    }

    #[test]
    fn element_wise_kernels_of_any_width_equal_scalar(operations in element_wise()) {
        let expected = operations.compute(&scalar(1));
        for cpu in machines(operations.threads) {
            for ((name, out), (_, expected)) in operations.compute(&cpu).iter().zip(&expected) {
                assert_same_rows(out, expected, &format!("{cpu:?} {name}"));
            }
        }
    }
}
