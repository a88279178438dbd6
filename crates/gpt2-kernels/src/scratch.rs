//! Room for what is needed only while something is computed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::matrix::WeightFormat;
use crate::quant::{self, Int8Block, QuantizedBlock};
use crate::{AlignedVec, Cpu, PANEL, attention};

/// Room for products of matrices and for attention, allocated once.
#[derive(Debug)]
pub struct Scratch {
    /// Activations in eight bits, row after row.
    pub(crate) quantized: AlignedVec<QuantizedBlock>,
    threads: Vec<Mutex<Thread>>,
    pub(crate) shares: Shares,
    positions: usize,
}

/// Panels of a product, dealt out to threads: every thread goes through neighbours, so that what it fetches
/// ahead is its own, and helps the others when it has done its share.
#[derive(Debug)]
pub(crate) struct Shares {
    /// For each thread: the next panel of its share.
    next: Box<[Share]>,
}

/// On cache lines of its own, for it is written all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share(AtomicUsize);

impl Shares {
    /// Deals out `count` panels.
    pub(crate) fn deal(&mut self, count: usize) {
        let threads = self.next.len();
        for (thread, share) in self.next.iter_mut().enumerate() {
            *share.0.get_mut() = count * thread / threads;
        }
    }

    /// Takes one of `count` panels: for each of them this may be called once, by any threads.
    pub(crate) fn take(&self, count: usize, thread: usize) -> usize {
        let threads = self.next.len();
        for owner in thread..thread + threads {
            let owner = if owner < threads { owner } else { owner - threads };
            let panel = self.next[owner].0.fetch_add(1, Ordering::Relaxed);
            if panel < count * (owner + 1) / threads {
                return panel;
            }
        }
        unreachable!("there are as many panels as calls")
    }
}

/// What one thread needs.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Weights of two bytes as floats: one piece of a panel.
    pub(crate) wide: AlignedVec<[f32; PANEL]>,
    /// Weights of four and six bits in eight: one piece of a panel.
    pub(crate) expanded: AlignedVec<Int8Block>,
    /// The queries of a group in eight bits, then its weights.
    pub(crate) rounded: AlignedVec<QuantizedBlock>,
    /// Attention scores of a group of queries, then the group's results.
    pub(crate) scores: AlignedVec,
}

/// Inputs of a panel whose weights are widened together, for many rows: 192 KiB of floats.
pub(crate) const WIDE_PIECE: usize = 768;
/// Blocks of inputs whose weights are expanded together: 34 KiB in eight bits.
pub(crate) const INT8_PIECE: usize = 16;

impl Scratch {
    /// Allocates room for products of up to `rows` rows of up to `inputs` values with matrices of a format, and
    /// for attention with heads of up to `inputs` values over up to `positions` positions, on all threads of `cpu`.
    ///
    /// # Panics
    /// Panics if the number of values overflows.
    #[must_use]
    pub fn new(cpu: &Cpu, format: WeightFormat, rows: usize, inputs: usize, positions: usize) -> Self {
        let wide = if format == WeightFormat::Bf16 { WIDE_PIECE } else { 0 };
        let expanded = if format.rounds_activations() { INT8_PIECE } else { 0 };
        let blocks = if format.rounds_activations() {
            rows.checked_mul(inputs.div_ceil(quant::BLOCK))
        } else {
            Some(0)
        };
        let positions = positions.next_multiple_of(attention::BLOCK);
        let thread = || {
            Mutex::new(Thread {
                wide: AlignedVec::zeroed(wide),
                expanded: AlignedVec::zeroed(expanded),
                rounded: AlignedVec::zeroed(
                    attention::QUERIES * positions.max(inputs).div_ceil(quant::BLOCK),
                ),
                scores: AlignedVec::zeroed(attention::QUERIES * (positions + PANEL)),
            })
        };
        Self {
            quantized: AlignedVec::zeroed(blocks.expect("the number of values must fit in usize")),
            threads: (0..cpu.pool.threads()).map(|_| thread()).collect(),
            shares: Shares { next: (0..cpu.pool.threads()).map(|_| Share::default()).collect() },
            positions,
        }
    }

    /// Number of positions that attention has room for.
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    /// Number of threads that have room.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// One thread's room.
    pub(crate) fn thread(&self, thread: usize) -> MutexGuard<'_, Thread> {
        self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
