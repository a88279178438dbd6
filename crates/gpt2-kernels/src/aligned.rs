//! A fixed-length buffer of `f32` that starts on a cache line.
//!
//! Kernels load whole lines of 64 bytes: a buffer that starts on one never splits a load. Large
//! buffers start on a huge page and ask the system for huge pages: weights are read from end to
//! end for every token, and with pages of 4 KiB the translation of addresses would cost part of
//! the bandwidth.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// A zeroed, 64-byte aligned `[f32]` on the heap.
pub struct AlignedVec {
    /// The first float, aligned.
    start: NonNull<f32>,
    length: usize,
    /// What the allocator gave, which is not aligned.
    allocation: NonNull<u8>,
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
            return Self { start: NonNull::dangling(), length, allocation: NonNull::dangling() };
        }
        let layout = Self::layout(length);
        // SAFETY: `layout` has a size above zero.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(allocation) else { handle_alloc_error(layout) };
        let alignment = Self::alignment(length);
        let offset = allocation.as_ptr().align_offset(alignment);
        // SAFETY: the layout has `alignment` bytes to spare, and `offset` is less than that.
        let start = unsafe { allocation.add(offset) };
        if alignment == HUGE_PAGE {
            ask_for_huge_pages(start.as_ptr(), layout.size() - offset);
        }
        Self { start: start.cast(), length, allocation }
    }

    fn alignment(length: usize) -> usize {
        if length >= HUGE_PAGE / size_of::<f32>() { HUGE_PAGE } else { CACHE_LINE }
    }

    /// Asks for no more alignment than an `f32` has: an allocator gives zeroed memory of that kind
    /// straight from the system, untouched, so that the threads that fill it are the first to touch it.
    fn layout(length: usize) -> Layout {
        length
            .checked_mul(size_of::<f32>())
            .and_then(|bytes| bytes.checked_add(Self::alignment(length)))
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<f32>()).ok())
            .expect("a buffer's size in bytes must fit in isize")
    }
}

/// Advises the system to back a fresh allocation with huge pages; it may as well not.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(start: *mut u8, bytes: usize) {
    const MADV_HUGEPAGE: i32 = 14;
    unsafe extern "C" {
        fn madvise(start: *mut u8, bytes: usize, advice: i32) -> i32;
    }
    // SAFETY: the range is a live allocation of ours that starts on a page, and this advice changes
    // no contents. Failure is harmless: the pages stay small.
    unsafe { madvise(start, bytes, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_start: *mut u8, _bytes: usize) {}

impl Drop for AlignedVec {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, and freed once, here.
            unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.length)) }
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
        for length in [0, 1, 15, 16, 17, 4097, HUGE_PAGE] {
            let mut buffer = AlignedVec::zeroed(length);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|&x| x == 0.0));
            if length > 0 {
                assert_eq!(buffer.as_ptr().addr() % CACHE_LINE, 0);
                buffer[length - 1] = 2.0;
                let copy = buffer.clone();
                buffer[length - 1] = 3.0;
                assert_eq!(copy[length - 1], 2.0);
            }
        }
    }
}
