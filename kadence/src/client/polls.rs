//! Calls that are awaited where nobody polls the driver: in the turn of the loop that polls it.
//!
//! The driver ends a call at its deadline, if it is polled. In a loop that awaits a call after an event of the driver, it is
//! not, and neither the call nor its deadline would ever come. Each call therefore looks at the driver's polls twice, before and
//! after other tasks had a turn, and then whenever it is polled. It has no timer of its own as long as the driver's polls go on.
//!
//! Not noticed is an owner that stops polling later, for a call in another task that nothing wakes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use web_time::Instant;

use super::connection::Connection;
use crate::{Alarm, deadline_after};

/// Time between a message that makes an idle driver poll, and the look whether it has.
const PATIENCE: Duration = Duration::from_millis(100);

/// Lowest bit of the count: nothing wakes the driver, as after an event that it has returned. Its owner has to poll it.
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

    /// Notes that a poll has returned an event. Only the driver does so.
    pub(crate) fn set_due(&self) {
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
    /// Returns `Ready` if `timeout` has passed since the first look, the driver was asked to poll, and has not polled for
    /// [`PATIENCE`] since.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection, timeout: Duration) -> Poll<()> {
        let (polls, is_due) = connection.polls().get();
        let Some((since, last)) = &mut self.last else {
            self.last = Some((connection.clock().now(), polls));
            // Look again when the tasks that the message has woken had their turn. The driver may be part of this task.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let since = *since;
        let Some(alarm) = &mut self.alarm else {
            let goes_on = *last != polls && !is_due;
            *last = polls;
            if goes_on {
                return Poll::Pending;
            }
            let mut alarm = Box::new(connection.clock().alarm());
            alarm.set(deadline_after(since, timeout));
            self.alarm = Some(alarm);
            return self.poll(cx, connection, timeout);
        };
        while let Some(due) = alarm.deadline()
            && alarm.poll(cx).is_ready()
        {
            let now = alarm.now();
            // If this look is late, the machine was held up, and the driver with it.
            let is_late = now.saturating_duration_since(due) > PATIENCE / 2;
            if self.is_asked && *last == polls && !is_late {
                return Poll::Ready(());
            }
            // A driver that is only idle polls now. One that was asked and has polled ends the call itself.
            self.is_asked = !self.is_asked || *last == polls;
            if self.is_asked {
                connection.wake_driver();
                *last = polls;
            }
            alarm.set(deadline_after(now, PATIENCE));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Waker};

    use futures::task::noop_waker_ref;
    use libp2p::PeerId;

    use super::*;
    use crate::{
        Clock,
        alarm::tests::{TestRuntime, Wakes},
        client::connection::DriverChannels,
    };

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
                self.driver.polls.set_due();
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
        assert_eq!(Bed::new().gives_up_within(2 * TIMEOUT, false), Some(TIMEOUT + PATIENCE));
    }

    #[test]
    fn a_call_whose_message_wakes_another_task_looks_again_by_itself() {
        let mut bed = Bed::new();
        bed.poll_driver(false);
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert!(bed.watch.poll(&mut cx, &bed.connection, TIMEOUT).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(bed.watch.poll(&mut cx, &bed.connection, TIMEOUT).is_pending());
        assert!(bed.watch.alarm.is_some());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_call_after_an_event_of_the_driver_gives_up_at_its_deadline() {
        let mut bed = Bed::new();
        bed.poll_driver(true);
        assert_eq!(bed.gives_up_within(2 * TIMEOUT, false), Some(TIMEOUT + PATIENCE));
    }

    #[test]
    fn a_call_whose_task_was_woken_for_the_driver_gives_up_at_its_deadline() {
        let mut bed = Bed::new();
        bed.poll_driver(false);
        // The message has woken the task, which polls the call again.
        assert!(!bed.gives_up() && !bed.gives_up());
        assert_eq!(bed.gives_up_within(2 * TIMEOUT, false), Some(TIMEOUT + PATIENCE));
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
    fn with_a_timeout_of_any_length_the_driver_has_time_to_poll() {
        for timeout in [Duration::ZERO, Duration::from_millis(1), TIMEOUT, Duration::MAX] {
            let mut bed = Bed::new();
            let cx = &mut Context::from_waker(noop_waker_ref());
            let step = PATIENCE / 4;
            let mut given_up = None;
            for steps in 0..1000_u32 {
                if bed.watch.poll(cx, &bed.connection, timeout).is_ready() {
                    given_up = Some(step * steps);
                    break;
                }
                bed.runtime.pass(step);
            }
            match given_up {
                None => assert_eq!(timeout, Duration::MAX),
                Some(after) => assert!((timeout + PATIENCE..timeout + 2 * PATIENCE).contains(&after), "{after:?}"),
            }
        }
    }

    #[test]
    fn a_call_on_a_machine_that_was_held_up_asks_again() {
        let mut bed = Bed::new();
        assert_eq!(bed.gives_up_within(TIMEOUT + Duration::from_millis(50), false), None);
        // The driver was held up, too.
        bed.runtime.pass(10 * PATIENCE);
        assert!(!bed.gives_up());
        assert_eq!(bed.gives_up_within(TIMEOUT, false), Some(PATIENCE));
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
