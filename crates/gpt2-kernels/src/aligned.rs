//! A fixed-length buffer of numbers that starts on a cache line.
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

/// Values that are nothing but bytes: any pattern of bits is one, and all zeros are a zero.
///
/// # Safety
/// The type must be `Copy`, have no padding and no invalid patterns, and be aligned to no more than a cache line.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: numbers have neither padding nor invalid patterns.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: a transparent wrapper of `u16`.
unsafe impl Plain for half::f16 {}
// SAFETY: a transparent wrapper of `u16`.
unsafe impl Plain for half::bf16 {}
// SAFETY: an array has no padding between its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A zeroed, 64-byte aligned `[T]` on the heap.
pub struct AlignedVec<T: Plain = f32> {
    /// The first value, aligned.
    start: NonNull<T>,
    length: usize,
    /// What the allocator gave, which is not aligned.
    allocation: NonNull<u8>,
}

// SAFETY: the buffer is owned and `Plain` values are `Send`; no other pointer to it exists.
unsafe impl<T: Plain> Send for AlignedVec<T> {}
// SAFETY: shared access gives `&[T]` only, and `Plain` values are `Sync`.
unsafe impl<T: Plain> Sync for AlignedVec<T> {}

impl<T: Plain> AlignedVec<T> {
    /// Allocates `length` zeros.
    ///
    /// # Panics
    /// Panics if the size in bytes overflows `isize`; aborts when memory runs out.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        const { assert!(align_of::<T>() <= CACHE_LINE && size_of::<T>() > 0) };
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

    /// The values as the bytes they are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Plain` values have no padding, so all bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), size_of_val::<[T]>(self)) }
    }

    /// The values as bytes, to be written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        let bytes = size_of_val::<[T]>(self);
        // SAFETY: as above; and any bytes that are written are valid values.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), bytes) }
    }

    fn alignment(length: usize) -> usize {
        if length >= HUGE_PAGE / size_of::<T>() { HUGE_PAGE } else { CACHE_LINE }
    }

    /// Asks for no more alignment than an `f32` has: an allocator gives zeroed memory of that kind
    /// straight from the system, untouched, so that the threads that fill it are the first to touch it.
    fn layout(length: usize) -> Layout {
        length
            .checked_mul(size_of::<T>())
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

impl<T: Plain> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, and freed once, here.
            unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.length)) }
        }
    }
}

impl<T: Plain> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` is aligned and holds `length` initialised values, owned by `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Plain> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T: Plain> Clone for AlignedVec<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.length);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Plain> std::fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedVec({} bytes)", self.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_aligned_and_cloned_by_value() {
        for length in [0, 1, 15, 16, 17, 4097, HUGE_PAGE] {
            let mut buffer: AlignedVec = AlignedVec::zeroed(length);
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
