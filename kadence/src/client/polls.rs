//! Calls that are awaited where nobody polls the driver: in the turn of the loop that polls it.
//!
//! The driver ends a call at its deadline, if it is polled. In a loop that awaits a call after an event of the driver, it is
//! not, and neither the call nor its deadline would ever come. Each call therefore looks at the driver's polls when it is
//! polled itself. It has no timer of its own as long as these go on.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use web_time::Instant;

use super::connection::Connection;
use crate::{Alarm, deadline_after};

/// Time between a message that makes a living driver poll, and the look whether it has.
const PATIENCE: Duration = Duration::from_millis(100);

/// Lowest bit of the count: nothing wakes the driver, and its owner has to poll it.
const IS_DUE: u64 = 1;

/// Number of times that a driver was polled.
#[derive(Debug)]
pub(crate) struct Polls(AtomicU64);

impl Default for Polls {
    fn default() -> Self {
        // Nothing wakes a driver that was never polled.
        Self(AtomicU64::new(IS_DUE))
    }
}

impl Polls {
    /// Notes that a poll begins. Only the driver does so.
    pub(crate) fn begin(&self) {
        let number = self.0.load(Ordering::Relaxed) / 2;
        self.0.store(number.wrapping_add(1).wrapping_mul(2), Ordering::Relaxed);
    }

    /// Notes that a poll has returned an event, or that the driver was woken and not polled.
    pub(crate) fn is_due(&self) {
        self.0.fetch_or(IS_DUE, Ordering::Relaxed);
    }

    /// Returns the number of polls, and whether the next one is due.
    fn get(&self) -> (u64, bool) {
        let polls = self.0.load(Ordering::Relaxed);
        (polls / 2, polls % 2 == IS_DUE)
    }
}

/// Looks of a call that waits.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Time of the first look, and the driver's polls at the last one.
    last: Option<(Instant, u64)>,
    /// Set while nobody seems to poll the driver.
    alarm: Option<Box<Alarm>>,
    /// The driver was sent a message after the last look.
    is_asked: bool,
}

impl Watch {
    /// Returns `Ready` if `timeout` has passed since the first look and nobody polls the driver.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection, timeout: Duration) -> Poll<()> {
        let (polls, is_due) = connection.polls().get();
        let Some((since, last)) = &mut self.last else {
            self.last = Some((connection.clock().now(), polls));
            return if is_due { self.poll(cx, connection, timeout) } else { Poll::Pending };
        };
        let since = *since;
        let Some(alarm) = &mut self.alarm else {
            let goes_on = *last != polls && !is_due;
            *last = polls;
            if goes_on {
                return Poll::Pending;
            }
            let mut alarm = Box::new(connection.clock().alarm());
            alarm.set(deadline_after(since, timeout.saturating_sub(PATIENCE)));
            self.alarm = Some(alarm);
            return self.poll(cx, connection, timeout);
        };
        while alarm.poll(cx).is_ready() {
            if !self.is_asked {
                // A driver that waits for messages polls now.
                connection.wake_driver();
                (self.is_asked, *last) = (true, polls);
                alarm.set(deadline_after(alarm.now(), PATIENCE.min(timeout)));
            } else if *last == polls {
                return Poll::Ready(());
            } else {
                // It was late, and it ends the call.
                self.is_asked = false;
                alarm.set(deadline_after(alarm.now(), PATIENCE));
            }
        }
        Poll::Pending
    }

    /// Notes the end of the call. Its message has woken the driver; if that was not polled, the next message wakes nobody.
    pub(crate) fn end(&self, connection: &Connection) {
        let (polls, _) = connection.polls().get();
        if self.last.is_some_and(|(_, last)| last == polls) {
            connection.polls().is_due();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::task::noop_waker_ref;
    use libp2p::PeerId;

    use super::*;
    use crate::{Clock, alarm::tests::TestRuntime, client::connection::DriverChannels};

    const TIMEOUT: Duration = Duration::from_secs(10);

    struct Bed {
        runtime: TestRuntime,
        connection: Connection,
        driver: DriverChannels,
        watch: Watch,
    }

    impl Bed {
        fn new() -> Self {
            let runtime = TestRuntime::new();
            let (connection, driver) = Connection::new(PeerId::random(), 1, Clock::new(&runtime), TIMEOUT);
            Self { runtime, connection, driver, watch: Watch::default() }
        }

        /// The driver is polled, and returns an event or nothing.
        fn poll_driver(&self, yields: bool) {
            self.driver.polls.begin();
            while self.driver.cancellations.try_recv().is_ok() {}
            if yields {
                self.driver.polls.is_due();
            }
        }

        fn gives_up(&mut self) -> bool {
            self.watch.poll(&mut Context::from_waker(noop_waker_ref()), &self.connection, TIMEOUT).is_ready()
        }

        /// Polls the call every 50 ms. Returns the time at which it gives up.
        fn gives_up_within(&mut self, span: Duration, drives: bool) -> Option<Duration> {
            let step = Duration::from_millis(50);
            let mut passed = Duration::ZERO;
            while passed < span {
                if self.gives_up() {
                    return Some(passed);
                }
                self.runtime.pass(step);
                passed += step;
                if drives && self.driver.cancellations.try_recv().is_ok() {
                    self.poll_driver(false);
                }
            }
            None
        }
    }

    #[test]
    fn a_call_before_the_first_poll_of_the_driver_gives_up_at_its_deadline() {
        assert_eq!(Bed::new().gives_up_within(2 * TIMEOUT, false), Some(TIMEOUT));
    }

    #[test]
    fn a_call_after_an_event_of_the_driver_gives_up_at_its_deadline() {
        let mut bed = Bed::new();
        bed.poll_driver(true);
        assert_eq!(bed.gives_up_within(2 * TIMEOUT, false), Some(TIMEOUT));
    }

    #[test]
    fn a_call_whose_task_was_woken_for_the_driver_gives_up_at_its_deadline() {
        let mut bed = Bed::new();
        bed.poll_driver(false);
        // The message has woken the task, which polls the call again.
        assert!(!bed.gives_up() && !bed.gives_up());
        assert_eq!(bed.gives_up_within(2 * TIMEOUT, false), Some(TIMEOUT));
    }

    #[test]
    fn a_call_after_one_that_was_given_up_gives_up_though_nothing_wakes_its_task() {
        let mut bed = Bed::new();
        bed.poll_driver(false);
        assert!(!bed.gives_up());
        std::mem::take(&mut bed.watch).end(&bed.connection);
        assert!(!bed.gives_up());
        assert!(bed.watch.alarm.is_some());
        // The end of a call that the driver has answered says nothing.
        bed.poll_driver(false);
        std::mem::take(&mut bed.watch).end(&bed.connection);
        assert!(!bed.gives_up());
        assert!(bed.watch.alarm.is_none());
    }

    #[test]
    fn a_call_beside_a_driver_that_is_polled_has_no_alarm() {
        let mut bed = Bed::new();
        bed.poll_driver(false);
        for _ in 0..100 {
            assert!(!bed.gives_up());
            bed.runtime.pass(TIMEOUT);
            bed.poll_driver(false);
        }
        assert!(bed.watch.alarm.is_none());
    }

    #[test]
    fn a_driver_that_waits_for_messages_is_asked_before_a_call_gives_up() {
        let mut bed = Bed::new();
        bed.poll_driver(true);
        // In a task of its own, it has nothing to do until it is woken.
        assert!(!bed.gives_up());
        bed.poll_driver(false);
        assert_eq!(bed.gives_up_within(3 * TIMEOUT, true), None);
        // And then it is not polled any more.
        assert!(bed.gives_up_within(TIMEOUT, false).is_some());
    }

    #[test]
    fn a_timeout_of_any_length_is_a_deadline() {
        for timeout in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
            let mut bed = Bed::new();
            bed.poll_driver(true);
            let cx = &mut Context::from_waker(noop_waker_ref());
            let mut polls = (0..4).map(|_| {
                bed.runtime.pass(timeout.min(PATIENCE));
                bed.watch.poll(cx, &bed.connection, timeout).is_ready()
            });
            assert_eq!(polls.any(|gives_up| gives_up), timeout < Duration::MAX);
        }
    }

    #[test]
    fn polls_are_shared_by_the_client_and_the_driver() {
        let bed = Bed::new();
        assert!(std::ptr::eq(bed.connection.polls(), Arc::as_ptr(&bed.driver.polls)));
        bed.poll_driver(true);
        bed.poll_driver(true);
        assert_eq!(bed.connection.polls().get(), (2, true));
        bed.poll_driver(false);
        assert_eq!(bed.connection.polls().get(), (3, false));
    }
}
