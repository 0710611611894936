//! The part of the crate `blocking` that Kadence uses, in virtual time: what blocks runs in the thread of the world, after all
//! tasks that can go on, and takes no time.
//!
//! In a thread without virtual time it runs at once.

use async_task::Runnable;
use futures_timer::schedule;

pub use async_task::Task;

/// Runs a closure that blocks. If the task is dropped before it has begun, it does not run.
pub fn unblock<T, F>(work: F) -> Task<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (runnable, task) = async_task::spawn(async move { work() }, run_soon);
    runnable.schedule();
    task
}

fn run_soon(runnable: Runnable) {
    // A task of this kind never has to run again.
    let run = move || {
        let _woken = runnable.run();
    };
    match schedule::now() {
        Some(now) => schedule::call_at(now, run),
        None => run(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn work_waits_for_its_turn_and_is_not_begun_for_nobody() {
        schedule::begin();
        let mut cx = Context::from_waker(Waker::noop());
        let mut task = pin!(unblock(|| 7));
        assert_eq!(task.as_mut().poll(&mut cx), Poll::Pending);
        assert!(schedule::advance(0));
        assert_eq!(task.as_mut().poll(&mut cx), Poll::Ready(7));

        let has_run = Arc::new(AtomicBool::new(false));
        let ran = Arc::clone(&has_run);
        drop(unblock(move || ran.store(true, Relaxed)));
        schedule::advance(0);
        assert!(!has_run.load(Relaxed));
        schedule::end();
        let mut outside = pin!(unblock(|| 8));
        assert_eq!(outside.as_mut().poll(&mut cx), Poll::Ready(8));
    }
}
