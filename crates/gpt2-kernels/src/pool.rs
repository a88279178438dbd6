//! Threads that wait for work and share it by tasks.
//!
//! ```text
//! caller   lock · publish job · claim tasks … · wait until every worker is done · unlock
//! worker                 see job · claim tasks … · report done · spin a while · sleep
//! ```
//! Tasks are claimed one by one from a counter, so an uneven split evens out. Which thread runs a
//! task never changes a result: every task writes its own outputs.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Checks of the job counter before a worker sleeps: longer than the gaps between two operations
/// of a forward pass, short enough that an idle program uses no CPU.
const SPINS: u32 = 20_000;

/// A task: called with its index and the index of the thread that runs it.
type Task<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A fixed number of threads, the caller's included.
///
/// May be used from many threads; jobs of different callers run one after the other.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held by the caller whose job is running.
    caller: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Number of jobs published so far; a change tells the workers that there is a new one.
    published: AtomicUsize,
    job: Mutex<Job>,
    next_task: AtomicUsize,
    /// Workers that have not finished the current job.
    busy: AtomicUsize,
    /// Workers that sleep, or are about to.
    sleeping: AtomicUsize,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
enum Job {
    None,
    /// The lifetime is that of `Pool::run`'s argument; `run` returns only when no worker uses it.
    Run {
        task: Task<'static>,
        tasks: usize,
    },
    Exit,
}

impl Pool {
    /// Starts `threads - 1` workers.
    ///
    /// # Panics
    /// Panics if `threads` is zero or the system cannot start that many.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::try_new(threads).expect("the system must be able to start a thread")
    }

    /// Starts `threads - 1` workers, where the system may not be able to start that many.
    ///
    /// # Errors
    /// If a thread cannot be started; those that were have ended then.
    ///
    /// # Panics
    /// Panics if `threads` is zero.
    pub fn try_new(threads: usize) -> io::Result<Self> {
        assert!(threads > 0, "a pool needs at least one thread");
        let shared = Arc::new(Shared {
            published: AtomicUsize::new(0),
            job: Mutex::new(Job::None),
            next_task: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, caller: Mutex::new(()), workers: Vec::with_capacity(threads - 1) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("gpt2-{worker}"));
            pool.workers.push(thread.spawn(move || shared.work(worker))?);
        }
        Ok(pool)
    }

    /// Number of threads that share the work, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(index, thread)` for every index below `tasks` and returns when all are done.
    ///
    /// Threads are numbered from 0; no two tasks with the same thread number run at once.
    ///
    /// # Panics
    /// A panic in a task is carried to the caller once all threads are done. A task must not
    /// call `run` on the pool it runs on: it would wait for itself.
    pub fn run(&self, tasks: usize, task: impl Fn(usize, usize) + Sync) {
        if self.workers.is_empty() || tasks <= 1 {
            // Thread 0 is the caller's: another caller may be in the same position, so the lock.
            let _caller = lock(&self.caller);
            return (0..tasks).for_each(|index| task(index, 0));
        }
        let caller = lock(&self.caller);
        let task: Task<'_> = &task;
        // SAFETY: workers use the reference between `publish` and the end of `wait_for_workers`
        // only, and this function leaves neither early: `claim` catches panics.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        self.shared.busy.store(self.workers.len(), Ordering::Relaxed);
        self.shared.next_task.store(0, Ordering::Relaxed);
        self.shared.publish(Job::Run { task, tasks });
        self.shared.claim(task, tasks, 0);
        self.shared.wait_for_workers();
        let panic = lock(&self.shared.panic).take();
        drop(caller);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.publish(Job::Exit);
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so it ends well; if not, there is nothing to mend.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn publish(&self, job: Job) {
        *lock(&self.job) = job;
        // Sequentially consistent, as are the accesses in `wait`: either this sees the sleeper, or
        // the sleeper sees the new job before it sleeps.
        self.published.fetch_add(1, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            // The lock makes sure that a sleeper is either before its last look or inside its wait.
            drop(lock(&self.job));
            self.wake.notify_all();
        }
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait(seen);
            let job = *lock(&self.job);
            match job {
                Job::Run { task, tasks } => {
                    self.claim(task, tasks, worker);
                    // Release: what the tasks wrote is visible to who sees `busy` go down.
                    self.busy.fetch_sub(1, Ordering::Release);
                }
                Job::None => {}
                Job::Exit => return,
            }
        }
    }

    /// Waits until more jobs than `seen` were published; spins first, then sleeps.
    fn wait(&self, seen: usize) -> usize {
        for _ in 0..SPINS {
            let published = self.published.load(Ordering::Acquire);
            if published != seen {
                return published;
            }
            std::hint::spin_loop();
        }
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let mut job = lock(&self.job);
        let published = loop {
            let published = self.published.load(Ordering::SeqCst);
            if published != seen {
                break published;
            }
            job = self.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
        };
        drop(job);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        published
    }

    /// Runs tasks until none is left; a panic ends the job early and is kept for the caller.
    fn claim(&self, task: Task<'_>, tasks: usize, thread: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next_task.fetch_add(1, Ordering::Relaxed);
                if index >= tasks {
                    break;
                }
                task(index, thread);
            }
        }));
        if let Err(panic) = outcome {
            self.next_task.store(tasks, Ordering::Relaxed);
            let mut kept = lock(&self.panic);
            if kept.is_none() {
                *kept = Some(panic);
            } else {
                // Dropping it could panic, here, where nothing catches it and others still use the task.
                std::mem::forget(panic);
            }
        }
    }

    fn wait_for_workers(&self) {
        let mut spins = 0u32;
        while self.busy.load(Ordering::Acquire) > 0 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(1024) {
                // The worker may have lost its core to someone else.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Locks; what a mutex here guards is valid also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_exactly_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let runs: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, |index, thread| {
                    assert!(thread < threads);
                    runs[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, |index, _| assert!(index != 57, "task 57"));
        }));
        assert!(result.is_err());
        let count = AtomicU32::new(0);
        pool.run(10, |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 10);
    }

    #[test]
    fn panics_whose_payloads_panic_when_dropped_are_survived() {
        struct Grenade;
        impl Drop for Grenade {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let pool = Pool::new(3);
        for _ in 0..50 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(3, |_, _| std::panic::panic_any(Grenade));
            }));
            std::mem::forget(result.expect_err("the first panic reaches the caller"));
        }
        let count = AtomicU32::new(0);
        pool.run(10, |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 10);
    }

    #[test]
    fn many_callers_share_one_pool() {
        let pool = Pool::new(2);
        let count = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(5, |_, _| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * 200 * 5);
    }
}
