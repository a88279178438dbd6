//! What the machine gives at most: the speed of a product is measured against these.
//!
//! There is no clock here: whoever calls knows how long it took.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Cpu;
use crate::ops::Disjoint;

/// Rows of x that are multiplied together.
pub const ROWS: usize = 6;
/// Outputs of each: with six rows, as many sums as twelve of the widest registers hold. So many are under way at
/// once that none waits for the one before it.
pub const OUTPUTS: usize = 32;
/// The sums of rows and outputs.
pub type Sums<T> = [[T; OUTPUTS]; ROWS];

/// Multiplies and adds floats that stay where they are, `steps` times: `sum = fma(x[row], weights[output], sum)`.
/// The elements of `sums` are shared out to the threads; each takes `2 * ROWS * OUTPUTS * steps` operations.
///
/// ```
/// # use gpt2_kernels::{Cpu, Kernels, limits};
/// let cpu = Cpu::new(Kernels::detect(), 2);
/// let mut sums = [[[1.0; limits::OUTPUTS]; limits::ROWS]; 2];
/// limits::multiply_add(&cpu, &[3.0; limits::ROWS], &[2.0; limits::OUTPUTS], 10, &mut sums);
/// assert_eq!(sums[1][5][31], 61.0);
/// ```
pub fn multiply_add(
    cpu: &Cpu,
    x: &[f32; ROWS],
    weights: &[f32; OUTPUTS],
    steps: usize,
    sums: &mut [Sums<f32>],
) {
    each(cpu, sums, |sums| {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        unsafe { (cpu.kernels.peak_fma)(x, weights, steps, sums) }
    });
}

/// The same with integers: `sum` takes the dot product of four weights and four activations, wrapping.
/// Each element of `sums` takes `8 * ROWS * OUTPUTS * steps` operations.
pub fn dot(
    cpu: &Cpu,
    x: &[[i8; 4]; ROWS],
    weights: &[[u8; 4]; OUTPUTS],
    steps: usize,
    sums: &mut [Sums<i32>],
) {
    each(cpu, sums, |sums| {
        // SAFETY: as above.
        unsafe { (cpu.kernels.peak_dot)(x, weights, steps, sums) }
    });
}

/// Calls `f` with every element, each a task.
fn each<T: Send>(cpu: &Cpu, elements: &mut [T], f: impl Fn(&mut T) + Sync) {
    let count = elements.len();
    let target = Disjoint::new(elements);
    cpu.pool.run(count, |task, _| {
        // SAFETY: elements do not overlap, and each is one task's.
        unsafe { target.slice(task, 1) }.iter_mut().for_each(&f);
    });
}

/// Reads buffers from end to end, in order, with all threads as fast as they can. Returns the sum of their 32-bit
/// words, the last of each filled up with zeros, so that nothing can be left out.
///
/// ```
/// # use gpt2_kernels::{Cpu, Kernels, limits};
/// let cpu = Cpu::new(Kernels::detect(), 2);
/// assert_eq!(limits::read(&cpu, &[&[1, 0, 0, 0, 2], &[3]]), 6);
/// ```
#[must_use]
pub fn read(cpu: &Cpu, buffers: &[&[u8]]) -> u32 {
    /// One megabyte.
    const PART: usize = 1 << 20;
    let parts: Vec<&[u8]> = buffers.iter().flat_map(|buffer| buffer.chunks(PART)).collect();
    let sum = AtomicU32::new(0);
    cpu.pool.run(parts.len(), |task, _| {
        // SAFETY: the machine has this row's instructions, for the table gives out no other.
        let part = unsafe { (cpu.kernels.read)(parts[task]) };
        sum.fetch_add(part, Ordering::Relaxed);
    });
    sum.into_inner()
}
