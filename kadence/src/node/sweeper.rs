use std::{
    task::Context,
    time::{Duration, Instant},
};

use kadence_store::Store;

use crate::{Alarm, Runtime};

/// Minimum time between two sweeps. Expired records are never returned, and every call that changes the store sweeps,
/// too: this only frees memory and disk of a store that is seldom changed.
const PAUSE: Duration = Duration::from_secs(60);

/// Removes expired records from a store that is seldom changed. Sets no timer while nothing expires.
pub(super) struct Sweeper {
    alarm: Alarm,
    not_before: Instant,
}

impl Sweeper {
    pub(super) fn new(runtime: &impl Runtime) -> Self {
        Self { alarm: Alarm::new(runtime), not_before: runtime.now() + PAUSE }
    }

    /// Sweeps some records, if it is time. Returns whether it has to be polled again before the task sleeps.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, store: &mut Store) -> bool {
        let Some(expiry) = store.next_expiry() else {
            self.alarm.stop();
            return false;
        };
        // An expiry mostly moves later, as records are renewed. The timer is then left alone, and set again when it has
        // elapsed.
        let due = expiry.max(self.not_before);
        if self.alarm.deadline().is_none_or(|set| due < set) {
            self.alarm.set(due);
        }
        if self.alarm.poll(cx).is_pending() {
            return false;
        }
        let now = self.alarm.now();
        if due <= now && !store.sweep_some() {
            self.not_before = now + PAUSE;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use kadence_store::StoreConfig;
    use libp2p::{
        PeerId,
        kad::{Record, store::RecordStore},
    };

    use super::*;
    use crate::alarm::tests::TestRuntime;

    /// Polls until there is nothing to do, as a node's loop does.
    fn poll(sweeper: &mut Sweeper, store: &mut Store) {
        while sweeper.poll(&mut Context::from_waker(noop_waker_ref()), store) {}
    }

    fn short_lived(number: u32) -> Record {
        let expires = Some(Instant::now() + Duration::from_millis(1));
        Record { expires, ..Record::new(number.to_be_bytes().to_vec(), Vec::new()) }
    }

    fn wait_until_all_have_expired(until: Instant) {
        while Instant::now() <= until {
            std::thread::yield_now();
        }
    }

    #[test]
    fn no_timer_is_set_while_nothing_expires() {
        let (runtime, local_peer) = (TestRuntime::new(), PeerId::random());
        let mut store = Store::memory(local_peer, StoreConfig::default());
        let mut sweeper = Sweeper::new(&runtime);
        poll(&mut sweeper, &mut store);
        store.put(Record { publisher: Some(local_peer), ..Record::new(vec![1], vec![2]) }).unwrap();
        runtime.pass(10 * PAUSE);
        poll(&mut sweeper, &mut store);
        assert_eq!(runtime.timer_sets(), 0);
    }

    #[test]
    fn all_expired_records_are_swept_once_a_minute() {
        let runtime = TestRuntime::new();
        let mut store = Store::memory(PeerId::random(), StoreConfig::default());
        let mut sweeper = Sweeper::new(&runtime);
        for times in 1..=2 {
            for number in 0..100 {
                store.put(short_lived(number)).unwrap();
            }
            wait_until_all_have_expired(Instant::now() + Duration::from_millis(1));
            poll(&mut sweeper, &mut store);
            let (left, resets) = (store.stats_handle().read().records, runtime.timer_sets());
            assert!(left > 0, "swept at once");
            runtime.pass(PAUSE);
            poll(&mut sweeper, &mut store);
            assert_eq!(store.stats_handle().read().records, 0);
            assert!(
                (times..=times * 5).contains(&resets) && runtime.timer_sets() < resets + 5,
                "the timer was set in a loop"
            );
        }
    }
}
