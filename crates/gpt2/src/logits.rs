//! Scores of every token of the vocabulary, for the positions that were asked for.

use gpt2_kernels::{RowBuffer, Rows, RowsMut};

/// The logits of one forward pass: a row of V for every wanted position, in the order of the steps.
///
/// Borrowed from the [`Workspace`](crate::workspace::Workspace); processors change them in place.
#[derive(Debug)]
pub struct Logits<'a> {
    rows: RowsMut<'a>,
}

impl<'a> Logits<'a> {
    pub(crate) fn new(buffer: &'a mut RowBuffer, count: usize) -> Self {
        Self { rows: buffer.rows_mut(count) }
    }

    /// Number of rows: of positions that were wanted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.count()
    }

    /// The scores at one of the wanted positions. (V)
    ///
    /// # Panics
    /// Panics if there is no such row, here and in [`row_mut`](Self::row_mut).
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        self.rows.as_rows().row(index)
    }

    /// The scores at one of the wanted positions, to be changed. (V)
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        self.rows.row_mut(index)
    }

    /// All rows. (M, V)
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        self.rows.as_rows()
    }
}

/// Returns the index of the largest score, the first of several. NaN is never largest.
///
/// # Panics
/// Panics if there are no scores.
#[must_use]
pub fn argmax(scores: &[f32]) -> usize {
    assert!(!scores.is_empty(), "argmax of nothing");
    // Most stretches hold nothing larger, which takes no branch for each score to find out.
    let mut best = 0;
    let mut highest = f32::NEG_INFINITY;
    for (stretch, scores) in scores.chunks(STRETCH).enumerate() {
        if largest(scores) > highest {
            for (index, &score) in scores.iter().enumerate() {
                if score > highest {
                    (best, highest) = (stretch * STRETCH + index, score);
                }
            }
        }
    }
    best
}

/// Scores that are looked through at once.
pub(crate) const STRETCH: usize = 64;

/// The largest of a stretch of scores, `-inf` if there is none. NaN is never largest.
pub(crate) fn largest(stretch: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 8];
    for scores in stretch.chunks(lanes.len()) {
        for (lane, &score) in lanes.iter_mut().zip(scores) {
            *lane = larger(*lane, score);
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_of_equals_and_passes_over_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN]), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY]), 0);
        for (length, best) in [(64, 63), (65, 64), (1000, 0), (1000, 777), (50257, 50256)] {
            let mut scores = vec![-1.0; length];
            scores[best] = 2.0;
            scores[length - 1] = 2.0;
            assert_eq!(argmax(&scores), best);
        }
    }
}
