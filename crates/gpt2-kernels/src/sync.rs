//! What threads share memory with: the standard library's types or, under `--cfg loom`, those of the
//! model checker `loom`, which tries every order of events. `pool.rs` takes them from here.

#[cfg(loom)]
pub(crate) use loom::{
    hint,
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic},
    thread::{self, JoinHandle},
};
#[cfg(not(loom))]
pub(crate) use std::{
    hint,
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic},
    thread::{self, JoinHandle},
};

#[cfg(loom)]
use loom::cell::UnsafeCell;

/// A value that threads take turns at, as they have agreed by other means.
///
/// Loom, which is told of every use, fails where two of them are not ordered.
pub(crate) struct SharedCell<T>(UnsafeCell<T>);

// SAFETY: a reference to the cell gives out no more than pointers, so whoever follows one answers for
// the order; the values may go from thread to thread.
unsafe impl<T: Copy + Send + Sync> Sync for SharedCell<T> {}

impl<T> SharedCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Hands `f` a pointer to read through, which is good until `f` returns.
    pub(crate) fn read<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        self.0.with(f)
    }

    /// Hands `f` a pointer to write through, which is good until `f` returns.
    pub(crate) fn write<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(f)
    }
}

/// The standard library's, with loom's methods.
#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
