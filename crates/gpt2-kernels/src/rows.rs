//! Rows of activations: `count` rows of `width` floats, `stride` apart.
//!
//! ```text
//! row 0  x x x x x x x x x x . . . . . .   width: what has a meaning
//! row 1  x x x x x x x x x x . . . . . .   stride: width rounded up to whole panels, so that
//! row 2  x x x x x x x x x x . . . . . .           kernels write nothing else, an odd number of them
//! ```
//! Rows that lie a multiple of 4 KiB apart, or half of one, would compete for the same few lines of a cache when a
//! panel of many is written. An odd number of panels spreads them over all lines.

use crate::{AlignedVec, PANEL};

/// Rows that can be read.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    count: usize,
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// Number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Distance between the starts of two rows.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The values of one row.
    ///
    /// # Panics
    /// Panics if there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        assert!(index < self.count, "row {index} of {}", self.count);
        &self.data[index * self.stride..][..self.width]
    }

    /// Part of these rows: `count` of them from row `first` on, `width` columns from `column` on.
    ///
    /// # Panics
    /// Panics if the part reaches outside.
    #[must_use]
    pub fn part(&self, first: usize, count: usize, column: usize, width: usize) -> Rows<'a> {
        assert!(first + count <= self.count, "rows {first}..{} of {}", first + count, self.count);
        assert!(column + width <= self.width, "columns {column}..{} of {}", column + width, self.width);
        let data = if count == 0 { &[] } else { &self.data[first * self.stride + column..] };
        Rows { data, count, width, stride: self.stride }
    }

    /// From the first value of the first row to at least the last value of the last.
    pub(crate) fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// Rows that can be written; every row is followed by padding up to a whole panel.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    count: usize,
    width: usize,
    stride: usize,
}

impl RowsMut<'_> {
    /// Number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Distance between the starts of two rows: a multiple of [`PANEL`].
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The values of one row.
    ///
    /// # Panics
    /// Panics if there is no such row.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.count, "row {index} of {}", self.count);
        &mut self.data[index * self.stride..][..self.width]
    }

    /// The same rows, to be read.
    #[must_use]
    pub fn as_rows(&self) -> Rows<'_> {
        Rows { data: self.data, count: self.count, width: self.width, stride: self.stride }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }
}

/// An owned buffer for up to `capacity` rows.
#[derive(Clone, Debug)]
pub struct RowBuffer {
    data: AlignedVec,
    capacity: usize,
    width: usize,
    stride: usize,
}

impl RowBuffer {
    /// Allocates `capacity` rows of `width` zeros.
    ///
    /// # Panics
    /// Panics if the number of values overflows.
    #[must_use]
    pub fn new(capacity: usize, width: usize) -> Self {
        let stride = (width.div_ceil(PANEL) | 1) * PANEL;
        let length =
            capacity.checked_mul(stride).expect("the number of values of a buffer must fit in usize");
        Self { data: AlignedVec::zeroed(length), capacity, width, stride }
    }

    /// Number of rows it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The first `count` rows.
    ///
    /// # Panics
    /// Panics if `count` exceeds the capacity, here and in [`rows_mut`](Self::rows_mut).
    #[must_use]
    pub fn rows(&self, count: usize) -> Rows<'_> {
        assert!(count <= self.capacity, "{count} rows of {}", self.capacity);
        Rows { data: &self.data[..count * self.stride], count, width: self.width, stride: self.stride }
    }

    /// The first `count` rows, to be written.
    pub fn rows_mut(&mut self, count: usize) -> RowsMut<'_> {
        assert!(count <= self.capacity, "{count} rows of {}", self.capacity);
        let data = &mut self.data[..count * self.stride];
        RowsMut { data, count, width: self.width, stride: self.stride }
    }

    /// One row.
    ///
    /// # Panics
    /// Panics if there is no such row, here and in [`row_mut`](Self::row_mut).
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        self.rows(index + 1).row(index)
    }

    /// One row, to be written.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.capacity, "row {index} of {}", self.capacity);
        &mut self.data[index * self.stride..][..self.width]
    }
}
