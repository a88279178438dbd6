//! A fixed-length buffer of `f32` that starts on a cache line.
//!
//! Kernels load whole lines of 64 bytes: a buffer that starts on one never splits a load.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const ALIGNMENT: usize = 64;

/// A zeroed, 64-byte aligned `[f32]` on the heap.
pub struct AlignedVec {
    start: NonNull<f32>,
    length: usize,
}

// SAFETY: the buffer is owned and `f32` is `Send`; no other pointer to it exists.
unsafe impl Send for AlignedVec {}
// SAFETY: shared access gives `&[f32]` only, and `f32` is `Sync`.
unsafe impl Sync for AlignedVec {}

impl AlignedVec {
    /// Allocates `length` zeros.
    ///
    /// # Panics
    /// Panics if the size in bytes overflows `isize`; aborts when memory runs out.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        if length == 0 {
            return Self { start: NonNull::dangling(), length };
        }
        let layout = Self::layout(length);
        // SAFETY: `layout` has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start.cast::<f32>()) else { handle_alloc_error(layout) };
        Self { start, length }
    }

    fn layout(length: usize) -> Layout {
        Layout::array::<f32>(length)
            .and_then(|layout| layout.align_to(ALIGNMENT))
            .expect("a buffer's size in bytes must fit in isize")
    }
}

impl Drop for AlignedVec {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, and freed once, here.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.length)) }
        }
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is aligned and holds `length` initialised floats, owned by `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Clone for AlignedVec {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.length);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::fmt::Debug for AlignedVec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedVec({} floats)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_aligned_and_cloned_by_value() {
        for length in [0, 1, 15, 16, 17, 4097] {
            let mut buffer = AlignedVec::zeroed(length);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|&x| x == 0.0));
            if length > 0 {
                assert_eq!(buffer.as_ptr().addr() % ALIGNMENT, 0);
                buffer[length - 1] = 2.0;
                let copy = buffer.clone();
                buffer[length - 1] = 3.0;
                assert_eq!(copy[length - 1], 2.0);
            }
        }
    }
}
