//! Threads that wait for work and share it by tasks.
//!
//! ```text
//! caller   lock · publish job · claim tasks, run them, report · wait for the reports of all · unlock
//! worker           claim tasks, run them, report · spin a while · sleep · claim tasks, …
//! ```
//! Tasks are claimed one by one, so an uneven split evens out. Which thread runs a task never
//! changes a result: every task writes its own outputs.
//!
//! Two counters carry the proof. `unclaimed` is how many tasks nobody has claimed, `unfinished` how
//! many nobody has reported. Who has claimed a task and not reported it may use the job, and nobody
//! else: `run` stays until `unfinished` is zero, and only then is there another job. A worker that
//! sleeps, or has lost its core, has no claim and is not waited for; when it comes back it claims
//! from the job of that moment, or finds nothing. `tests/loom.rs` has a model checker try every order.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::sync::{Arc, Condvar, JoinHandle, Mutex, MutexGuard, SharedCell, hint, thread};

/// Looks for a task before a worker sleeps. A look takes as long as `spin_loop`, between 10 and 50 ns
/// on today's processors: at least half a millisecond, which is more than a program does between two
/// forward passes, and at most a few, so that it uses no CPU soon after the last.
const SPINS: u32 = if cfg!(loom) { 1 } else { 50_000 };

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
    watched: Watched,
    /// Tasks that nobody has reported: those unclaimed, and those being run.
    unfinished: AtomicUsize,
    /// Written by a caller that has the lock while `unfinished` is zero, read by those with a claim.
    job: SharedCell<Job>,
    /// The first panic in a task of this job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether some worker sleeps, or is about to; written by who holds `bed`.
    asleep: AtomicBool,
    bed: Mutex<()>,
    alarm: Condvar,
}

/// What idle workers look at all the time, apart from what a caller writes before it publishes a job:
/// two cache lines, for processors fetch them in pairs.
#[repr(align(128))]
struct Watched {
    /// Tasks that nobody has claimed; going up from zero is what publishes a job.
    unclaimed: AtomicUsize,
    /// Whether the workers are to return.
    ending: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job {
    /// The lifetime is that of `Pool::run`'s argument; `run` returns only when nobody uses it.
    task: Task<'static>,
    tasks: usize,
}

/// A task that was claimed: how many were unclaimed just before.
struct Claim(usize);

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
            watched: Watched { unclaimed: AtomicUsize::new(0), ending: AtomicBool::new(false) },
            unfinished: AtomicUsize::new(0),
            job: SharedCell::new(Job { task: &|_, _| (), tasks: 0 }),
            panic: Mutex::new(None),
            asleep: AtomicBool::new(false),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
        });
        let mut pool = Self { shared, caller: Mutex::new(()), workers: Vec::with_capacity(threads - 1) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("gpt2-{worker}"));
            pool.workers.push(thread.spawn(move || shared.serve(worker))?);
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
    /// A panic in a task is carried to the caller once all threads are done; tasks that were not
    /// begun by then are left out. A task must not call `run` on the pool it runs on: it would wait
    /// for itself.
    pub fn run(&self, tasks: usize, task: impl Fn(usize, usize) + Sync) {
        // Thread 0 is the caller's, whether there are workers or not: one caller at a time.
        let caller = lock(&self.caller);
        if self.workers.is_empty() || tasks <= 1 {
            return (0..tasks).for_each(|index| task(index, 0));
        }
        let task: Task<'_> = &task;
        // SAFETY: threads with a claim alone use the reference, `Shared::run` returns when there are
        // none left, and it returns: `work` catches the panics of tasks, and nothing else panics.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        self.shared.run(Job { task, tasks });
        let panic = lock(&self.shared.panic).take();
        drop(caller);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.watched.ending.store(true, Ordering::Relaxed);
        self.shared.wake();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so it ends well; if not, there is nothing to mend.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Publishes a job, takes part in it, and returns when no thread has a claim any more.
    ///
    /// One caller at a time.
    fn run(&self, job: Job) {
        // SAFETY: the last job has no unfinished tasks, which this caller or the one before it saw,
        // so nobody has a claim and nobody reads; nobody else writes, for there is one caller.
        self.job.write(|place| unsafe { *place = job });
        self.unfinished.store(job.tasks, Ordering::Relaxed);
        // The first task is the caller's claim. Release: who claims another sees the job, and
        // `unfinished` as it is for this job.
        self.watched.unclaimed.store(job.tasks - 1, Ordering::Release);
        self.wake();
        self.work(Claim(job.tasks), 0);
        let mut spins = 0;
        // Acquire: what the tasks wrote is visible from here on, and all reads of the job are over.
        while self.unfinished.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
    }

    /// The life of a worker.
    fn serve(&self, thread: usize) {
        let mut spins = 0;
        while !self.watched.ending.load(Ordering::Relaxed) {
            if let Some(claim) = self.claim() {
                self.work(claim, thread);
                spins = 0;
            } else if spins < SPINS {
                pause(&mut spins);
            } else {
                self.sleep();
                spins = 0;
            }
        }
    }

    fn claim(&self) -> Option<Claim> {
        // Acquire: sees what `run` wrote before it published these tasks.
        let before =
            self.watched.unclaimed.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| n.checked_sub(1));
        before.ok().map(Claim)
    }

    /// Runs the task of a claim, then others until none is left, and reports them.
    ///
    /// A panic ends the job early and is kept for the caller.
    fn work(&self, Claim(mut left): Claim, thread: usize) {
        // SAFETY: this thread has a claim that it has not reported, so `run` does not return before
        // it does, and nobody writes.
        let Job { task, tasks } = self.job.read(|job| unsafe { *job });
        let mut done = 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                task(tasks - left, thread);
                let Some(Claim(before)) = self.claim() else { break };
                left = before;
                done += 1;
            }
        }));
        if let Err(panic) = outcome {
            // All that are left are claimed at once, and reported without having been run.
            done += self.watched.unclaimed.swap(0, Ordering::Relaxed);
            let mut kept = lock(&self.panic);
            if kept.is_none() {
                *kept = Some(panic);
            } else {
                // Dropping it could panic, here, where nothing catches it and others still use the task.
                std::mem::forget(panic);
            }
        }
        // Release: what the tasks wrote is visible to who sees this report, or a later one.
        self.unfinished.fetch_sub(done, Ordering::Release);
    }

    /// Sleeps until woken, unless there is something to do; may return for no reason.
    fn sleep(&self) {
        let bed = lock(&self.bed);
        self.asleep.store(true, Ordering::Relaxed);
        // With the fence in `wake`: either this sees what there is to do, or `wake` sees the sleeper.
        fence(Ordering::SeqCst);
        if self.watched.unclaimed.load(Ordering::Relaxed) == 0 && !self.watched.ending.load(Ordering::Relaxed)
        {
            drop(self.alarm.wait(bed));
        }
    }

    /// Wakes the workers that sleep, after there is something to do.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // Who has the lock knows that nobody is on the way from a last look to the wait.
            let bed = lock(&self.bed);
            self.asleep.store(false, Ordering::Relaxed);
            drop(bed);
            self.alarm.notify_all();
        }
    }
}

/// Waits for a moment, and counts it.
fn pause(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(1024) {
        // Whoever this thread waits for may be waiting for the core.
        thread::yield_now();
    }
    hint::spin_loop();
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

#[cfg(all(test, not(loom)))]
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
