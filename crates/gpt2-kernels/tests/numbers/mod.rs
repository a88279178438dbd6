//! Numbers to compute with, ordinary and hostile ones, and what it means that results are the same.

use gpt2_kernels::RowBuffer;

/// A reproducible stream of numbers: SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// Mostly ordinary values; now and then one that breaks careless code.
    pub(crate) fn hostile(&mut self) -> f32 {
        const HOSTILE: [f32; 12] = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            1e-42,
            -1e-45,
            88.4,
            -87.4,
        ];
        let draw = self.next();
        if draw.is_multiple_of(8) {
            HOSTILE[(draw >> 32) as usize % HOSTILE.len()]
        } else {
            30.0 * self.uniform()
        }
    }
}

/// Equal as bits, but that any NaN equals any other: IEEE 754 leaves their payload open.
pub(crate) fn assert_same(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            "{what}: [{i}] is {a:e}, expected {b:e}"
        );
    }
}

/// Rows of values.
pub(crate) fn rows(count: usize, width: usize, mut value: impl FnMut() -> f32) -> RowBuffer {
    let mut rows = RowBuffer::new(count, width);
    for index in 0..count {
        rows.row_mut(index).fill_with(&mut value);
    }
    rows
}
