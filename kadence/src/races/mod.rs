//! Races between callers and the driver, in orders that a checker chooses: `cargo xtask races`.
//!
//! The driver, its swarm and its tracker are the real ones. The checker, `shuttle`, runs one thread at a time and
//! decides at each lock, channel operation and wake-up which one goes on. If all threads wait for each other, the test
//! fails. A failed test prints its schedule; `KADENCE_SCHEDULE=... cargo xtask races TEST` runs it again.
//!
//! What is not of this crate is interleaved only where a task waits: replies and the end of a task
//! (`futures::channel::oneshot`), the abort of a task (`futures::future::Abortable`), and everything in libp2p.

pub(crate) mod channel;
mod driver;
mod response;

use std::sync::Arc;

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
};

/// Number of schedules of each test, at least 2. Half of them are chosen uniformly; the other half change the running thread only
/// a few times each, which finds faults that need one rare order.
const SCHEDULES: usize = 4_000;

/// Number of threads and of changes between them that a schedule of the second half chooses: a fault that needs this many
/// steps in one order is found with a known probability (Burckhardt et al., 2010).
const DEPTH: usize = 3;

/// Bytes of stack of each thread: a poll of a swarm needs more than the checker grants by itself.
const STACK: usize = 1 << 20;

/// Runs a test in many schedules, or in the one that the environment names.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    if let Ok(schedule) = std::env::var("KADENCE_SCHEDULE") {
        run(ReplayScheduler::new_from_encoded(&schedule), &test);
        return;
    }
    let schedules = match std::env::var("KADENCE_SCHEDULES") {
        Ok(number) => number.parse().expect("KADENCE_SCHEDULES is a number"),
        Err(_unset) => SCHEDULES,
    };
    let half: usize = schedules / 2;
    let ran = run(RandomScheduler::new(half), &test) + run(PctScheduler::new(DEPTH, schedules - half), &test);
    assert!(half > 0 && ran == schedules, "{ran} of {schedules} schedules were run");
    println!("{ran} schedules");
}

/// Returns the number of schedules that were run.
fn run(scheduler: impl Scheduler + 'static, test: &Arc<impl Fn() + Send + Sync + 'static>) -> usize {
    let mut config = Config::new();
    config.stack_size = STACK;
    let test = Arc::clone(test);
    Runner::new(scheduler, config).run(move || test())
}
