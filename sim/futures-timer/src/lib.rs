//! The interface of the crate `futures-timer`, in virtual time. All timers of libp2p are of that crate, so a world that
//! has this one in its place decides when they elapse.
//!
//! Each thread may have a [`schedule`] of its own. Without one, a [`Delay`] panics at its first poll.

pub mod schedule;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::schedule::Key;

/// Future that completes after a duration of virtual time.
pub struct Delay {
    /// Nanoseconds since the start of the world.
    at: u64,
    /// Entry of the schedule, and the waker that it has. A task polls most of its delays each time that it runs, and then
    /// mostly with the same waker.
    entry: Option<(Key, Waker)>,
}

impl Delay {
    /// Creates a delay that begins now.
    pub fn new(span: Duration) -> Self {
        Self { at: schedule::after(span), entry: None }
    }

    /// Begins the delay anew.
    pub fn reset(&mut self, span: Duration) {
        self.cancel();
        self.at = schedule::after(span);
    }

    fn cancel(&mut self) {
        if let Some((key, _)) = self.entry.take() {
            schedule::cancel(key);
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if schedule::now_or_panic() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        if !self.entry.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            let before = self.entry.take().map(|(key, _)| key);
            self.entry = Some((schedule::wake_at(self.at, before, cx.waker()), cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").field("at", &Duration::from_nanos(self.at)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        pin::pin,
        rc::Rc,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Relaxed)
        }
    }

    const SECOND: u64 = 1_000_000_000;

    /// Runs a test in virtual time.
    fn in_virtual_time(test: impl FnOnce()) {
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                schedule::end();
            }
        }
        let end = End;
        schedule::begin();
        test();
        drop(end);
        assert_eq!(schedule::now(), None);
        assert_eq!(schedule::next(), None);
    }

    fn poll(delay: Pin<&mut Delay>, count: &Arc<Count>) -> bool {
        delay.poll(&mut Context::from_waker(&Waker::from(Arc::clone(count)))).is_ready()
    }

    #[test]
    fn a_delay_wakes_its_task_once_at_its_time() {
        in_virtual_time(|| {
            let count = Arc::default();
            let mut delay = pin!(Delay::new(Duration::from_secs(2)));
            // However often it is polled.
            assert!((0..3).all(|_| !poll(delay.as_mut(), &count)));
            assert!(!schedule::advance(2 * SECOND - 1));
            assert!(!poll(delay.as_mut(), &count));
            assert_eq!((count.get(), schedule::now()), (0, Some(2 * SECOND - 1)));
            assert!(schedule::advance(5 * SECOND));
            assert_eq!((count.get(), schedule::now()), (1, Some(2 * SECOND)));
            assert!(poll(delay.as_mut(), &count));
            assert_eq!(schedule::next(), None);
        });
    }

    #[test]
    fn the_task_that_polled_a_delay_last_is_woken() {
        in_virtual_time(|| {
            let (first, second) = (Arc::default(), Arc::default());
            let mut delay = pin!(Delay::new(Duration::from_secs(1)));
            assert!(!poll(delay.as_mut(), &first) && !poll(delay.as_mut(), &second));
            assert!(schedule::advance(SECOND));
            assert_eq!((first.get(), second.get()), (0, 1));
        });
    }

    #[test]
    fn a_delay_that_is_dropped_or_begun_anew_does_not_wake_at_its_old_time() {
        in_virtual_time(|| {
            let count = Arc::default();
            let mut dropped = Box::pin(Delay::new(Duration::from_secs(1)));
            let mut anew = Delay::new(Duration::from_secs(1));
            assert!(!poll(dropped.as_mut(), &count) && !poll(Pin::new(&mut anew), &count));
            drop(dropped);
            anew.reset(Duration::from_secs(3));
            assert_eq!(schedule::next(), None);
            assert!(!poll(Pin::new(&mut anew), &count));
            assert_eq!(schedule::next(), Some(3 * SECOND));
            assert!(schedule::advance(3 * SECOND));
            assert_eq!(count.get(), 1);
        });
    }

    #[test]
    fn calls_of_one_time_run_in_order_by_the_wall_clock_of_their_caller() {
        in_virtual_time(|| {
            let ran = Rc::new(RefCell::new(Vec::new()));
            for (name, at, offset) in [("late", 2, 7), ("first", 1, 5), ("second", 1, 6)] {
                let (ran, before) = (Rc::clone(&ran), schedule::set_wall_offset(offset));
                schedule::call_at(at, move || ran.borrow_mut().push((name, schedule::wall_offset())));
                schedule::set_wall_offset(before);
            }
            while schedule::advance(10) {}
            assert_eq!(*ran.borrow(), [("first", 5), ("second", 6), ("late", 7)]);
            assert_eq!(schedule::wall_offset(), 0);
        });
    }

    #[test]
    #[should_panic(expected = "without virtual time")]
    fn a_delay_panics_without_virtual_time() {
        poll(pin!(Delay::new(Duration::from_secs(1))), &Arc::default());
    }

    #[test]
    fn delays_that_are_owned_by_entries_are_dropped_at_the_end() {
        let kept = Rc::new(());
        in_virtual_time(|| {
            let count = Arc::default();
            let mut owned = Box::pin(Delay::new(Duration::from_secs(9)));
            assert!(!poll(owned.as_mut(), &count));
            let kept = Rc::clone(&kept);
            schedule::call_at(1, move || drop((owned, kept)));
        });
        assert_eq!(Rc::strong_count(&kept), 1);
    }
}
