//! Every row of the kernel table equals `scalar`, bit for bit; so do any number of threads and any
//! number of rows computed together.

mod numbers;

use std::sync::Arc;

use gpt2_kernels::attention::{self, Batch, CacheBlock, CacheFormat, CacheShape, Layer};
use gpt2_kernels::limits;
use gpt2_kernels::ops::{self, Epilogue};
use gpt2_kernels::{Activation, Cpu, Dtype, Kernels, Matrix, RowBuffer, Scratch, Source, WeightFormat};
use numbers::{Numbers, assert_same, rows};

/// Lengths around the width of a lane and a panel, and GPT-2's own.
const LENGTHS: [usize; 12] = [1, 2, 15, 16, 17, 63, 64, 65, 255, 768, 3072, 50257];

/// Every row of the table at one and at three threads, but for the first: scalar with one thread.
fn machines() -> (Cpu, Vec<Cpu>) {
    let others = Kernels::available().flat_map(|row| [1, 3].map(|threads| Cpu::new(row, threads))).skip(1);
    (Cpu::new(Kernels::by_name("scalar").expect("scalar runs everywhere"), 1), others.collect())
}

/// The bytes of `inputs` × `outputs` weights.
fn weights(inputs: usize, outputs: usize, mut value: impl FnMut() -> f32) -> Vec<u8> {
    (0..inputs * outputs).flat_map(|_| value().to_le_bytes()).collect()
}

fn matrix(cpu: &Cpu, (inputs, outputs): (usize, usize), weights: &[u8], format: WeightFormat) -> Matrix {
    Matrix::pack(cpu, Source::by_input(weights, Dtype::F32, inputs, outputs), format)
}

/// All rows of x times a matrix, in a buffer that held something else before.
fn multiply(cpu: &Cpu, x: &RowBuffer, matrix: &Matrix, epilogue: Epilogue<'_>) -> RowBuffer {
    let count = x.capacity();
    let mut out = rows(count, matrix.outputs(), || 7.0);
    let mut scratch = Scratch::new(cpu, matrix.format(), count, matrix.inputs(), 0);
    ops::matmul(cpu, x.rows(count), matrix, epilogue, out.rows_mut(count), &mut scratch);
    out
}

#[test]
fn this_machine_runs_more_than_the_scalar_row() {
    // On a machine where this fails the other tests compare scalar with itself.
    if cfg!(target_arch = "x86_64") && std::is_x86_feature_detected!("avx2") {
        assert!(Kernels::available().count() > 1);
    }
    let names: Vec<_> = Kernels::available().map(Kernels::name).collect();
    assert_eq!(names[0], "scalar");
    assert_eq!(Kernels::detect().name(), *names.last().unwrap());
}

#[test]
fn packing_is_the_same_on_every_machine() {
    let (scalar, machines) = machines();
    for shape in [(1, 1), (32, 64), (33, 65), (70, 200)] {
        for hostile in [false, true] {
            let mut numbers = Numbers(shape.0 as u64);
            let bytes =
                weights(shape.0, shape.1, || if hostile { numbers.hostile() } else { numbers.uniform() });
            for format in WeightFormat::ALL {
                let expected = matrix(&scalar, shape, &bytes, format);
                for cpu in &machines {
                    let packed = matrix(cpu, shape, &bytes, format);
                    // Not as floats: which NaN it is matters here, for a copy on disk.
                    assert!(packed.as_bytes() == expected.as_bytes(), "{cpu:?} {format:?} {shape:?}");
                }
            }
        }
    }
}

#[test]
fn matmul_equals_scalar_for_every_shape_and_format() {
    let (scalar, machines) = machines();
    let shapes = [
        (0, 5),
        (1, 1),
        (1, 64),
        (15, 63),
        (32, 64),
        (33, 65),
        (64, 16),
        (255, 130),
        (768, 192),
        (3072, 64),
        (3, 50257),
    ];
    for shape in shapes {
        for count in [0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 49] {
            if shape.0 * shape.1 * count > 8_000_000 {
                continue;
            }
            for (format, hostile) in
                WeightFormat::ALL.map(|format| [(format, false), (format, true)]).concat()
            {
                let mut numbers = Numbers((shape.0 * 1000 + shape.1 + count) as u64);
                let mut value = || if hostile { numbers.hostile() } else { numbers.uniform() };
                let x = rows(count, shape.0, &mut value);
                let bytes = weights(shape.0, shape.1, &mut value);
                let bias: Vec<f32> = (0..shape.1).map(|_| value()).collect();
                let packed = matrix(&scalar, shape, &bytes, format);
                let with_both = Epilogue { bias: Some(&bias), activation: Some(Activation::GeluTanh) };
                for epilogue in [Epilogue::default(), with_both] {
                    let expected = multiply(&scalar, &x, &packed, epilogue);
                    for cpu in &machines {
                        let out = multiply(cpu, &x, &packed, epilogue);
                        for row in 0..count {
                            let what = format!("{cpu:?} {format:?} {count} x {shape:?} row {row}");
                            assert_same(out.row(row), expected.row(row), &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_of_a_product_does_not_depend_on_the_others() {
    let cpu = Cpu::new(Kernels::detect(), 2);
    for format in WeightFormat::ALL {
        let mut numbers = Numbers(4);
        let x = rows(50, 300, || numbers.uniform());
        let bytes = weights(300, 130, || numbers.uniform());
        let packed = matrix(&cpu, (300, 130), &bytes, format);
        let expected = multiply(&cpu, &x, &packed, Epilogue::default());
        for count in [1, 2, 6, 7, 12, 49] {
            let some = rows_of(&x, count);
            let out = multiply(&cpu, &some, &packed, Epilogue::default());
            for row in 0..count {
                assert_same(out.row(row), expected.row(row), &format!("{format:?} {count} rows, row {row}"));
            }
        }
    }
}

fn rows_of(x: &RowBuffer, count: usize) -> RowBuffer {
    let mut some = RowBuffer::new(count, x.width());
    (0..count).for_each(|row| some.row_mut(row).copy_from_slice(x.row(row)));
    some
}

#[test]
fn matmul_is_one_chain_of_fma_for_each_output() {
    let mut numbers = Numbers(5);
    let cpu = Cpu::new(Kernels::detect(), 2);
    let x = rows(7, 100, || numbers.uniform());
    let mut numbers = Numbers(6);
    // Sums of a few powers of two, which bf16 holds.
    let values: Vec<f32> = (0..100 * 70).map(|_| (numbers.uniform() * 128.0).round() / 64.0).collect();
    let mut each = values.iter();
    let bytes = weights(100, 70, || *each.next().unwrap());
    let bias: Vec<f32> = (0..70).map(|j| j as f32).collect();
    for format in [WeightFormat::F32, WeightFormat::Bf16] {
        let packed = matrix(&cpu, (100, 70), &bytes, format);
        let out = multiply(&cpu, &x, &packed, Epilogue { bias: Some(&bias), activation: None });
        for row in 0..7 {
            for j in 0..70 {
                let chain = (0..100).fold(bias[j], |sum, k| x.row(row)[k].mul_add(values[k * 70 + j], sum));
                assert_eq!(out.row(row)[j].to_bits(), chain.to_bits());
            }
        }
    }
}

/// Multiplies 32 values by the Walsh-Hadamard matrix, by its definition: the sign of an entry is the parity of the
/// bits that its row and its column have in common.
fn turned(x: &[f32]) -> Vec<f64> {
    let sign = |i: usize, k: usize| if (i & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    (0..32).map(|i| x.iter().enumerate().map(|(k, &x)| sign(i, k) * f64::from(x)).sum()).collect()
}

#[test]
fn integer_products_are_those_of_rounded_and_turned_values() {
    let cpu = Cpu::new(Kernels::detect(), 2);
    let mut numbers = Numbers(8);
    // 70 inputs: two blocks and a part of one.
    let (inputs, outputs) = (70, 66);
    let x = rows(7, inputs, || 3.0 * numbers.uniform());
    let bytes = weights(inputs, outputs, || numbers.uniform());
    for format in [WeightFormat::Int8, WeightFormat::Int6, WeightFormat::Int4] {
        let packed = matrix(&cpu, (inputs, outputs), &bytes, format);
        let out = multiply(&cpu, &x, &packed, Epilogue::default());
        let mut column = vec![0.0; inputs];
        for j in 0..outputs {
            packed.output_row(j, &mut column);
            for row in 0..7 {
                let (mut sum, mut size) = (0.0, 0.0);
                for (x, w) in x.row(row).chunks(32).zip(column.chunks(32)) {
                    let x = turned(x);
                    let largest = x.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
                    for (x, w) in x.iter().zip(turned(w)) {
                        let product = (x * 127.0 / largest).round_ties_even() * largest / 127.0 * w / 32.0;
                        sum += product;
                        size += product.abs();
                    }
                }
                // A value that lies between two integers to the last bit may go either way here.
                let error = (f64::from(out.row(row)[j]) - sum).abs();
                assert!(error <= 1e-3 * size, "{format:?} ({row}, {j}): {error} of {size}");
            }
        }
    }
}

#[test]
fn a_block_with_a_value_that_is_no_number_gives_none() {
    let (scalar, machines) = machines();
    let bytes = weights(64, 64, || 1.0);
    for cpu in machines.iter().chain([&scalar]) {
        for format in WeightFormat::ALL {
            let packed = matrix(cpu, (64, 64), &bytes, format);
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = rows(1, 64, || 1.0);
                x.row_mut(0)[40] = bad;
                let out = multiply(cpu, &x, &packed, Epilogue::default());
                assert!(out.row(0).iter().all(|out| !out.is_finite()), "{cpu:?} {format:?} {bad}");

                let mut bytes = bytes.clone();
                bytes[4 * (40 * 64 + 3)..][..4].copy_from_slice(&bad.to_le_bytes());
                let damaged = matrix(cpu, (64, 64), &bytes, format);
                let out = multiply(cpu, &rows(1, 64, || 1.0), &damaged, Epilogue::default());
                assert!(!out.row(0)[3].is_finite() && out.row(0)[4].is_finite(), "{cpu:?} {format:?} {bad}");
            }
        }
    }
}

#[test]
fn element_wise_kernels_equal_scalar_at_every_length() {
    let (scalar, machines) = machines();
    for width in LENGTHS {
        for hostile in [false, true] {
            let mut numbers = Numbers(width as u64);
            let mut value = || if hostile { numbers.hostile() } else { 5.0 * numbers.uniform() };
            let x = rows(3, width, &mut value);
            let y = rows(3, width, &mut value);
            let (weight, bias) = (y.row(0).to_vec(), y.row(1).to_vec());
            let run = |cpu: &Cpu| {
                let mut results = Vec::new();
                let mut out = RowBuffer::new(3, width);
                ops::layer_norm(cpu, x.rows(3), &weight, &bias, 1e-5, out.rows_mut(3));
                results.push(("layer_norm".to_owned(), out));
                let mut out = x.clone();
                ops::add(cpu, out.rows_mut(3), y.rows(3));
                results.push(("add".to_owned(), out));
                for activation in Activation::ALL {
                    let mut out = x.clone();
                    ops::activate(cpu, activation, out.rows_mut(3));
                    results.push((format!("{activation:?}"), out));
                }
                let sums = (0..3).map(|row| ops::log_sum_exp(cpu, x.row(row)));
                results.push(("log_sum_exp".to_owned(), {
                    let mut out = RowBuffer::new(3, 1);
                    sums.enumerate().for_each(|(row, sum)| out.row_mut(row)[0] = sum);
                    out
                }));
                results
            };
            let expected = run(&scalar);
            for cpu in &machines {
                for ((name, out), (_, expected)) in run(cpu).iter().zip(&expected) {
                    for row in 0..out.capacity() {
                        assert_same(out.row(row), expected.row(row), &format!("{cpu:?} {name} of {width}"));
                    }
                }
            }
        }
    }
}

#[test]
fn layer_norm_and_log_sum_exp_are_right() {
    let cpu = Cpu::new(Kernels::detect(), 1);
    let mut numbers = Numbers(9);
    let x = rows(1, 1000, || 3.0 * numbers.uniform() + 1.0);
    let values: Vec<f64> = x.row(0).iter().map(|&x| f64::from(x)).collect();
    let mean = values.iter().sum::<f64>() / 1000.0;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1000.0;
    let mut out = RowBuffer::new(1, 1000);
    ops::layer_norm(&cpu, x.rows(1), &[2.0; 1000], &[0.5; 1000], 1e-5, out.rows_mut(1));
    for (out, x) in out.row(0).iter().zip(&values) {
        assert!((f64::from(*out) - ((x - mean) / (variance + 1e-5).sqrt() * 2.0 + 0.5)).abs() < 1e-5);
    }
    let expected = values.iter().map(|x| x.exp()).sum::<f64>().ln();
    assert!((f64::from(ops::log_sum_exp(&cpu, x.row(0))) - expected).abs() < 1e-5);
}

/// Runs one layer of attention over `lengths.iter().sum()` tokens, fed in the given pieces.
fn attend(cpu: &Cpu, shape: CacheShape, pieces: &[usize], qkv: &RowBuffer) -> RowBuffer {
    let total: usize = pieces.iter().sum();
    let mut blocks: Vec<_> =
        (0..total.div_ceil(attention::BLOCK)).map(|_| Arc::new(CacheBlock::new(shape))).collect();
    let scratch = Scratch::new(cpu, WeightFormat::F32, 0, shape.head_size, total);
    let mut out = RowBuffer::new(total, shape.channels());
    let layer = Layer { shape, index: shape.layers - 1, scale: 0.3 };
    let mut past = 0;
    for &count in pieces {
        let part = qkv.rows(total).part(past, count, 0, 3 * shape.channels());
        attention::store(cpu.kernels, (count % 2 == 0).then_some(&cpu.pool), layer, &mut blocks, past, part);
        let mut piece = RowBuffer::new(count, shape.channels());
        let mut batch = Batch::default();
        batch.push(past, count);
        attention::attend(cpu, layer, &batch, |_| &blocks, part, &scratch, piece.rows_mut(count));
        for row in 0..count {
            out.row_mut(past + row).copy_from_slice(piece.row(row));
        }
        past += count;
    }
    out
}

#[test]
fn attention_equals_scalar_and_does_not_depend_on_chunks() {
    let (scalar, machines) = machines();
    for (head_size, total) in [(64, 150), (16, 70), (24, 9), (80, 131), (1, 65)] {
        for (format, hostile) in CacheFormat::ALL.map(|format| [(format, false), (format, true)]).concat() {
            let shape = CacheShape { layers: 2, heads: 3, head_size, format };
            let mut numbers = Numbers(head_size as u64);
            let qkv = rows(total, 3 * shape.channels(), || {
                if hostile && numbers.next().is_multiple_of(500) {
                    numbers.hostile()
                } else {
                    numbers.uniform()
                }
            });
            let expected = attend(&scalar, shape, &[total], &qkv);
            let ones = vec![1; total];
            let chunkings = [&[total][..], &[1, total - 1], &[total - 3, 1, 2], &[5, total - 8, 3], &ones];
            for cpu in &machines {
                for pieces in chunkings {
                    let out = attend(cpu, shape, pieces, &qkv);
                    for row in 0..total {
                        let what = format!("{cpu:?} {shape:?}, {} pieces, row {row}", pieces.len());
                        assert_same(out.row(row), expected.row(row), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn attention_is_right() {
    // In eight bits, keys and queries are off by a 254th of their largest magnitude at most, and so are values and
    // weights: with magnitudes up to 2, as here, that comes to less than a tenth.
    attention_is_within(CacheFormat::F32, 1e-5);
    attention_is_within(CacheFormat::F16, 1e-2);
    attention_is_within(CacheFormat::Int8, 0.1);
}

fn attention_is_within(format: CacheFormat, tolerance: f64) {
    let cpu = Cpu::new(Kernels::detect(), 2);
    let shape = CacheShape { layers: 1, heads: 2, head_size: 5, format };
    let mut numbers = Numbers(3);
    let qkv = rows(70, 30, || 2.0 * numbers.uniform());
    let out = attend(&cpu, shape, &[70], &qkv);
    for query in 0..70 {
        for head in 0..2 {
            let part =
                |row: usize, third: usize, d: usize| f64::from(qkv.row(row)[third * 10 + head * 5 + d]);
            let scores: Vec<f64> = (0..=query)
                .map(|key| {
                    (0.3f32 as f64 * (0..5).map(|d| part(query, 0, d) * part(key, 1, d)).sum::<f64>()).exp()
                })
                .collect();
            let sum: f64 = scores.iter().sum();
            for d in 0..5 {
                let value = scores.iter().enumerate().map(|(key, s)| s / sum * part(key, 2, d)).sum::<f64>();
                let error = (f64::from(out.row(query)[head * 5 + d]) - value).abs();
                assert!(error < tolerance, "{format:?}: off by {error}");
            }
        }
    }
}

#[test]
fn what_is_no_number_in_eight_bits_spoils_its_head_from_its_position_on_and_nothing_else() {
    let (scalar, machines) = machines();
    let shape = CacheShape { layers: 1, heads: 2, head_size: 40, format: CacheFormat::Int8 };
    for cpu in machines.iter().chain([&scalar]) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // A key, then a value, of the second head at position 70.
            for third in 1..3 {
                let mut numbers = Numbers(7);
                let mut qkv = rows(100, 3 * shape.channels(), || numbers.uniform());
                qkv.row_mut(70)[third * shape.channels() + 40 + 17] = bad;
                let out = attend(cpu, shape, &[100], &qkv);
                for position in 0..100 {
                    let (first, second) = out.row(position).split_at(40);
                    assert!(first.iter().all(|x| x.is_finite()), "{cpu:?} {bad} {third} {position}");
                    assert!(
                        second.iter().all(|x| x.is_nan() == (position >= 70)),
                        "{cpu:?} {bad} {third} {position}"
                    );
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "must not be shared")]
fn storing_into_a_shared_block_panics() {
    let cpu = Cpu::new(Kernels::detect(), 1);
    let shape = CacheShape { layers: 1, heads: 1, head_size: 4, format: CacheFormat::F16 };
    let mut blocks = vec![Arc::new(CacheBlock::new(shape))];
    let _other = blocks.clone();
    let qkv = RowBuffer::new(1, 12);
    attention::store(
        cpu.kernels,
        Some(&cpu.pool),
        Layer { shape, index: 0, scale: 1.0 },
        &mut blocks,
        0,
        qkv.rows(1),
    );
}

#[test]
fn a_value_that_is_no_number_makes_the_normaliser_nan_whatever_its_sign() {
    let (scalar, machines) = machines();
    for cpu in machines.iter().chain([&scalar]) {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 100];
            x[37] = bad;
            assert!(ops::log_sum_exp(cpu, &x).is_nan(), "{cpu:?} {bad}");
        }
        assert!(ops::log_sum_exp(cpu, &[f32::NEG_INFINITY; 20]).is_nan());
        assert_eq!(ops::log_sum_exp(cpu, &[f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY]), 2.0);
    }
}

#[test]
fn reading_adds_up_every_word_of_every_buffer() {
    let (scalar, machines) = machines();
    let mut numbers = Numbers(1);
    let buffers: Vec<Vec<u8>> = [0, 1, 3, 4, 255, 256, 257, 1 << 20, (3 << 20) + 5]
        .map(|length| (0..length).map(|_| numbers.next() as u8).collect())
        .into();
    let buffers: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
    let expected = buffers.iter().flat_map(|buffer| buffer.chunks(4)).fold(0u32, |sum, word| {
        let mut filled = [0; 4];
        filled[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_le_bytes(filled))
    });
    for cpu in machines.iter().chain([&scalar]) {
        assert_eq!(limits::read(cpu, &buffers), expected, "{cpu:?}");
    }
}

#[test]
fn the_peaks_are_sums_that_every_row_adds_up_alike() {
    let (scalar, machines) = machines();
    let mut numbers = Numbers(3);
    let x = std::array::from_fn(|_| numbers.uniform());
    let weights = std::array::from_fn(|_| numbers.uniform());
    let bytes = std::array::from_fn(|_| numbers.next().to_le_bytes()[..4].try_into().expect("four bytes"));
    let activations: [[i8; 4]; limits::ROWS] =
        std::array::from_fn(|_| std::array::from_fn(|_| numbers.next() as i8));
    let floats: [limits::Sums<f32>; 5] = [[[0; limits::OUTPUTS]; limits::ROWS]; 5]
        .map(|sums| sums.map(|row| row.map(|_: i32| numbers.uniform())));
    let integers = floats.map(|sums| sums.map(|row| row.map(|sum| sum.to_bits() as i32)));
    for steps in [0, 1, 2, 1000] {
        let run = |cpu: &Cpu| {
            let (mut floats, mut integers) = (floats, integers);
            limits::multiply_add(cpu, &x, &weights, steps, &mut floats);
            limits::dot(cpu, &activations, &bytes, steps, &mut integers);
            (floats.map(|sums| sums.map(|row| row.map(f32::to_bits))), integers)
        };
        let expected = run(&scalar);
        for cpu in &machines {
            assert_eq!(run(cpu), expected, "{cpu:?}, {steps} steps");
        }
    }
}
