//! The pool under a model checker: `loom` runs each test once for every order of events that can differ,
//! stale reads of atomics included, and fails on a data race, a deadlock or an assertion.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p gpt2-kernels --release --test loom
//! ```
//! Without `--cfg loom` there is nothing here. Workers look once more before they sleep, so a job finds
//! them starting, looking, on the way to sleep, asleep, and at work on the last one. The smallest tests try
//! every order; the others those with at most so many changes of thread that nothing asks for, which keeps
//! all of them to seconds. `LOOM_MAX_PREEMPTIONS` sets another bound for all.

#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use gpt2_kernels::Pool;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};

/// Runs `test` in every order with at most `preemptions` changes of thread that nothing asked for.
fn model(preemptions: impl Into<Option<usize>>, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions.into());
    builder.check(test);
}

/// Outputs of tasks. Loom fails where two uses of one are not ordered.
struct Outputs(Vec<UnsafeCell<u32>>);

// SAFETY: loom checks every use, which is what these are for.
unsafe impl Sync for Outputs {}

impl Outputs {
    fn new(tasks: usize) -> Self {
        Self((0..tasks).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, task: usize) {
        // SAFETY: the pointer is good inside the closure, and loom checks that no other use is at the same time.
        self.0[task].with_mut(|output| unsafe { *output += 1 });
    }

    fn get(&self, task: usize) -> u32 {
        // SAFETY: as above.
        self.0[task].with(|output| unsafe { *output })
    }
}

/// One job: every task has run exactly once when `run` returns, and what it wrote is visible.
fn run_once(pool: &Pool, tasks: usize) {
    let outputs = Outputs::new(tasks);
    pool.run(tasks, |task, thread| {
        assert!(thread < pool.threads());
        outputs.add(task);
    });
    for task in 0..tasks {
        assert_eq!(outputs.get(task), 1, "task {task}");
    }
}

#[test]
fn every_task_runs_once_and_is_visible() {
    model(None, || run_once(&Pool::new(2), 2));
    model(None, || run_once(&Pool::new(2), 3));
    model(2, || run_once(&Pool::new(3), 3));
}

#[test]
fn jobs_follow_one_another() {
    model(4, || {
        let pool = Pool::new(2);
        run_once(&pool, 2);
        run_once(&pool, 3);
    });
    model(1, || {
        let pool = Pool::new(3);
        run_once(&pool, 2);
        run_once(&pool, 2);
    });
}

#[test]
fn a_pool_without_a_job_ends() {
    model(None, || drop(Pool::new(2)));
    model(3, || drop(Pool::new(3)));
}

/// A job of two tasks, the first of which ends only when the second has run: by another thread.
fn meet(pool: &Pool) {
    let (met, meeting) = (Mutex::new(false), Condvar::new());
    pool.run(2, |task, _| {
        let mut met = met.lock().expect("no panics");
        if task == 0 {
            while !*met {
                met = meeting.wait(met).expect("no panics");
            }
        } else {
            *met = true;
            meeting.notify_all();
        }
    });
}

#[test]
fn workers_wake_for_a_job_wherever_it_finds_them() {
    model(None, || meet(&Pool::new(2)));
    model(3, || {
        let pool = Pool::new(2);
        meet(&pool);
        meet(&pool);
    });
}

#[test]
fn no_two_tasks_have_the_same_thread_number_at_once() {
    model(None, || {
        let pool = Pool::new(2);
        let scratch = Outputs::new(2);
        pool.run(3, |_, thread| scratch.add(thread));
        assert_eq!(scratch.get(0) + scratch.get(1), 3);
    });
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    for panicking in 0..2 {
        model(2, move || {
            let pool = Pool::new(2);
            let outputs = Outputs::new(3);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(3, |task, _| {
                    outputs.add(task);
                    if task == panicking {
                        // Unlike `panic!`, prints nothing.
                        resume_unwind(Box::new(task));
                    }
                });
            }));
            let payload = result.expect_err("the panic reaches the caller");
            assert_eq!(payload.downcast_ref(), Some(&panicking));
            assert!((0..3).all(|task| outputs.get(task) <= 1));
            run_once(&pool, 2);
        });
    }
}

#[test]
fn callers_take_turns() {
    model(2, || {
        let pool = Arc::new(Pool::new(2));
        let other = {
            let pool = Arc::clone(&pool);
            loom::thread::spawn(move || run_once(&pool, 2))
        };
        run_once(&pool, 2);
        other.join().expect("no panics");
    });
}
