use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use web_time::Instant;

use futures_timer::Delay;

/// Clock and timer of a [`PeerTimeouts`](crate::PeerTimeouts). [`SystemTimer`] works with every runtime.
///
/// A timer has at most one deadline. At the deadline the timer must wake the task that has called
/// [`poll_elapsed`](Self::poll_elapsed) last, if that call came after the deadline was set.
pub trait DeadlineTimer: Send + 'static {
    /// Returns the current time, with which all deadlines are compared.
    fn now(&self) -> Instant;

    /// Sets the deadline, in place of an earlier one. The caller then calls [`poll_elapsed`](Self::poll_elapsed), so
    /// that its task is woken.
    fn set(&mut self, deadline: Instant);

    /// Removes the deadline. The task may still be woken at the time of the removed deadline, by some timers even if
    /// [`poll_elapsed`](Self::poll_elapsed) has been called since.
    fn stop(&mut self);

    /// Returns `Ready`, and removes the deadline, if the deadline has passed. If it has not passed, returns `Pending`,
    /// and the calling task is woken at the deadline. Without a deadline, returns `Pending` and requests no wake-up.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Adds a span to a point in time without overflow: spans above thirty years are cut to thirty years.
pub(crate) fn later(now: Instant, span: Duration) -> Instant {
    now + span.min(Duration::from_secs(30 * 365 * 24 * 60 * 60))
}

/// The clock of the system, and a timer that works with every runtime: that of `futures-timer`, which libp2p's own
/// protocols use.
#[derive(Debug, Default)]
pub struct SystemTimer {
    deadline: Option<Instant>,
    /// Created with the first deadline. It also runs for a deadline that was removed; that wakes the task once in vain.
    delay: Option<Delay>,
}

impl DeadlineTimer for SystemTimer {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn set(&mut self, deadline: Instant) {
        let span = deadline.saturating_duration_since(Instant::now());
        match &mut self.delay {
            Some(delay) => delay.reset(span),
            None => self.delay = Some(Delay::new(span)),
        }
        self.deadline = Some(deadline);
    }

    fn stop(&mut self) {
        self.deadline = None;
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(deadline), Some(delay)) = (self.deadline, &mut self.delay) else { return Poll::Pending };
        loop {
            // The clock decides, the delay only wakes: it may be early or late.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.deadline = None;
                return Poll::Ready(());
            }
            if Pin::new(&mut *delay).poll(cx).is_pending() {
                return Poll::Pending;
            }
            delay.reset(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        task::{Wake, Waker},
    };

    use super::*;

    /// Upper bound for anything that has to happen.
    const DEADLINE: Duration = Duration::from_secs(30);
    const HOUR: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(20);

    /// A task that can wait to be woken.
    struct Task(mpsc::Sender<()>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            let _gone = self.0.send(());
        }
    }

    fn task() -> (Waker, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel();
        (Arc::new(Task(sender)).into(), receiver)
    }

    fn poll(timer: &mut SystemTimer, waker: &Waker) -> Poll<()> {
        timer.poll_elapsed(&mut Context::from_waker(waker))
    }

    /// Polls at each wake-up until the timer has elapsed.
    fn wait(timer: &mut SystemTimer, waker: &Waker, woken: &mpsc::Receiver<()>) -> Instant {
        while poll(timer, waker).is_pending() {
            woken.recv_timeout(DEADLINE).expect("the task is woken at the deadline");
        }
        Instant::now()
    }

    #[test]
    fn a_deadline_elapses_once_and_not_early() {
        let ((waker, woken), mut timer) = (task(), SystemTimer::default());
        assert!(poll(&mut timer, &waker).is_pending(), "there is no deadline");
        for _ in 0..3 {
            let deadline = timer.now() + SHORT;
            timer.set(deadline);
            assert!(wait(&mut timer, &waker, &woken) >= deadline);
            assert!(poll(&mut timer, &waker).is_pending(), "it is removed");
        }
    }

    #[test]
    fn a_deadline_that_has_passed_elapses_at_once() {
        let ((waker, _woken), mut timer) = (task(), SystemTimer::default());
        timer.set(Instant::now());
        assert!(poll(&mut timer, &waker).is_ready());
    }

    #[test]
    fn an_earlier_deadline_wakes_earlier() {
        let ((waker, woken), mut timer) = (task(), SystemTimer::default());
        timer.set(timer.now() + HOUR);
        assert!(poll(&mut timer, &waker).is_pending());
        timer.set(timer.now() + SHORT);
        wait(&mut timer, &waker, &woken);
    }

    #[test]
    fn a_later_deadline_replaces_an_earlier_one() {
        let ((waker, woken), mut timer) = (task(), SystemTimer::default());
        timer.set(timer.now());
        let deadline = timer.now() + SHORT;
        timer.set(deadline);
        assert!(wait(&mut timer, &waker, &woken) >= deadline);
    }

    #[test]
    fn a_stopped_timer_never_elapses_and_can_be_set_again() {
        let ((waker, woken), mut timer) = (task(), SystemTimer::default());
        timer.set(timer.now() + SHORT);
        assert!(poll(&mut timer, &waker).is_pending());
        timer.stop();
        // The delay of the removed deadline wakes the task in vain.
        woken.recv_timeout(DEADLINE).unwrap();
        assert!(poll(&mut timer, &waker).is_pending());
        let deadline = timer.now() + SHORT;
        timer.set(deadline);
        assert!(wait(&mut timer, &waker, &woken) >= deadline);
    }

    /// A spurious wake-up looks the same.
    #[test]
    fn a_delay_that_is_early_is_set_again() {
        let ((waker, woken), mut timer) = (task(), SystemTimer::default());
        let deadline = timer.now() + 5 * SHORT;
        timer.set(deadline);
        timer.delay = Some(Delay::new(Duration::ZERO));
        assert!(wait(&mut timer, &waker, &woken) >= deadline);
        assert!(woken.try_iter().count() < 5, "the task is woken in a loop");
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let (mut timer, (first, _first_woken), (second, woken)) = (SystemTimer::default(), task(), task());
        timer.set(timer.now() + SHORT);
        assert!(poll(&mut timer, &first).is_pending());
        wait(&mut timer, &second, &woken);
    }

    #[test]
    fn spans_beyond_the_clock_do_not_overflow() {
        assert!(later(Instant::now(), Duration::MAX) > Instant::now() + 1000 * HOUR);
    }
}
