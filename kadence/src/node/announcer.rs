use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    task::Context,
    time::Duration,
};

use kadence_store::Store;
use libp2p::{
    PeerId,
    kad::{
        self, PutRecordError, QueryId, QueryResult, QueryStats, Quorum, Record, RecordKey,
        store::{self, RecordStore},
    },
};
use rustc_hash::FxHasher;

use crate::{Alarm, Runtime, alarm::deadline_after};

/// How many announcements run at once: enough that a few silent peers do not hold up the others, and few beside the 32
/// of the callers, since nobody waits for these.
const AT_ONCE: usize = 4;

/// How long the first round waits after the first peer, at most; half of it at least. The time is for the routing table,
/// and that nodes which start together do not announce together.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait before those that failed are tried again. It doubles up to here.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Tells the network again what was the node's own in its store at the start. kad does so itself, but for the first time
/// after 12 hours (providers) and 22 (records), and a node that is started again each day would never come to that.
///
/// It goes on until each was told to somebody, and is the node's own no more otherwise. These queries are kad's own
/// ("publish what is in the store"), and not calls: no shutdown has to wait for them, and what the application removes
/// meanwhile is not put back into the store by them.
pub(super) struct Announcer {
    local_peer: PeerId,
    waiting: VecDeque<Own>,
    running: Vec<Announcement>,
    /// For the next round.
    failed: Vec<Own>,
    in_round: bool,
    wait: Duration,
    alarm: Alarm,
}

#[derive(Debug, Clone)]
enum Own {
    Record(RecordKey),
    Provider(RecordKey),
}

struct Announcement {
    query: QueryId,
    own: Own,
    /// What was told, of a record.
    value: Option<Vec<u8>>,
}

impl Announcer {
    /// What is the local peer's own in this store, to be told from [`begin`](Self::begin) on.
    pub(super) fn new(store: &Store, local_peer: PeerId, runtime: &impl Runtime) -> Self {
        let records = store.records().filter(|record| record.publisher == Some(local_peer));
        let records = records.map(|record| Own::Record(record.key.clone()));
        let providers = store.provided().map(|provider| Own::Provider(provider.key.clone()));
        Self {
            local_peer,
            waiting: records.chain(providers).collect(),
            running: Vec::new(),
            failed: Vec::new(),
            in_round: false,
            wait: FIRST_WAIT,
            alarm: Alarm::new(runtime),
        }
    }

    /// There is somebody to tell.
    pub(super) fn begin(&mut self) {
        if !self.waiting.is_empty() {
            self.set_alarm();
        }
    }

    /// Starts what may be started. True if kad has to be polled before the task sleeps.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, kad: &mut kad::Behaviour<Store>) -> bool {
        self.in_round |= self.alarm.poll(cx).is_ready();
        if !self.in_round {
            return false;
        }
        let mut started = false;
        while self.running.len() < AT_ONCE
            && let Some(own) = self.waiting.pop_front()
        {
            match start(&own, self.local_peer, kad) {
                Ok(Some(announcement)) => {
                    self.running.push(announcement);
                    started = true;
                }
                // It is our own no more.
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(?own, %error, "cannot be announced again");
                    self.failed.push(own);
                }
            }
        }
        if self.running.is_empty() {
            self.in_round = false;
            if !self.failed.is_empty() {
                self.waiting.extend(self.failed.drain(..));
                self.set_alarm();
                return true;
            }
        }
        started
    }

    /// Takes an event of a query; false if it is not of one of these.
    pub(super) fn handle(
        &mut self,
        id: QueryId,
        result: &QueryResult,
        stats: &QueryStats,
        last: bool,
        store: &Store,
    ) -> bool {
        let Some(place) = self.running.iter().position(|announcement| announcement.query == id) else { return false };
        if last {
            let Announcement { query: _, own, value } = self.running.swap_remove(place);
            if !was_told(result, stats) {
                tracing::debug!(?own, "nobody took it; it is announced again later");
                self.failed.push(own);
            } else if let (Own::Record(key), Some(value)) = (&own, value)
                && own_record(store, key, self.local_peer).is_some_and(|record| record.value != value)
            {
                // It was replaced while the network was told of the old one, which may have come last at some peers.
                self.waiting.push_back(own);
            }
        }
        true
    }

    fn set_alarm(&mut self) {
        self.alarm.set(deadline_after(self.alarm.now(), jittered(self.wait, self.local_peer)));
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

/// Nothing if it is not ours any more. kad puts into the store what it has from there, which changes nothing.
fn start(own: &Own, local_peer: PeerId, kad: &mut kad::Behaviour<Store>) -> Result<Option<Announcement>, store::Error> {
    let (query, value) = match own {
        Own::Record(key) => {
            let Some(record) = own_record(kad.store_mut(), key, local_peer) else { return Ok(None) };
            let value = record.value.clone();
            // All, so that kad waits for each: the quorum of the answer is not looked at.
            (kad.put_record(record, Quorum::All)?, Some(value))
        }
        Own::Provider(key) => {
            if !kad.store_mut().providers(key).iter().any(|entry| entry.provider == local_peer) {
                return Ok(None);
            }
            (kad.start_providing(key.clone())?, None)
        }
    };
    Ok(Some(Announcement { query, own: own.clone(), value }))
}

fn own_record(store: &Store, key: &RecordKey, local_peer: PeerId) -> Option<Record> {
    store.get(key).filter(|record| record.publisher == Some(local_peer)).map(|record| record.into_owned())
}

/// Whether anybody has heard of it.
fn was_told(result: &QueryResult, stats: &QueryStats) -> bool {
    match result {
        QueryResult::PutRecord(Ok(_)) => true,
        QueryResult::PutRecord(Err(
            PutRecordError::QuorumFailed { key: _, success, quorum: _ }
            | PutRecordError::Timeout { key: _, success, quorum: _ },
        )) => !success.is_empty(),
        // It is not acknowledged: that somebody answered the lookup is all that can be known.
        QueryResult::StartProviding(result) => result.is_ok() && stats.num_successes() > 0,
        QueryResult::Bootstrap(_)
        | QueryResult::GetClosestPeers(_)
        | QueryResult::GetProviders(_)
        | QueryResult::RepublishProvider(_)
        | QueryResult::GetRecord(_)
        | QueryResult::RepublishRecord(_) => false,
    }
}

/// Between the half and the whole of a span, another part of it for each peer.
fn jittered(span: Duration, peer: PeerId) -> Duration {
    let mut hasher = FxHasher::default();
    (peer.to_bytes(), span).hash(&mut hasher);
    let part = (hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
    span.mul_f64(0.5 + 0.5 * part)
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use kadence_store::StoreConfig;
    use libp2p::kad::PutRecordOk;

    use super::*;
    use crate::alarm::tests::TestRuntime;

    struct Bed {
        runtime: TestRuntime,
        local_peer: PeerId,
        kad: kad::Behaviour<Store>,
        announcer: Announcer,
    }

    impl Bed {
        /// With so many records of its own, and one of another's.
        fn new(records: u8) -> Self {
            let (runtime, local_peer) = (TestRuntime::new(), PeerId::random());
            let mut store = Store::memory(local_peer, StoreConfig::default());
            for number in 0..records {
                store.put(own(local_peer, number, "old")).unwrap();
            }
            store.put(own(PeerId::random(), u8::MAX, "of another")).unwrap();
            let announcer = Announcer::new(&store, local_peer, &runtime);
            Self { runtime, local_peer, kad: kad::Behaviour::new(local_peer, store), announcer }
        }

        /// As a node's loop does. Says which are being announced.
        fn poll(&mut self) -> Vec<QueryId> {
            let cx = &mut Context::from_waker(noop_waker_ref());
            while self.announcer.poll(cx, &mut self.kad) {}
            self.announcer.running.iter().map(|announcement| announcement.query).collect()
        }

        fn end(&mut self, query: QueryId, success: bool) {
            let key = RecordKey::new(b"not looked at");
            let result = if success {
                Ok(PutRecordOk { key })
            } else {
                let quorum = std::num::NonZeroUsize::MIN;
                Err(PutRecordError::QuorumFailed { key, success: Vec::new(), quorum })
            };
            let result = QueryResult::PutRecord(result);
            assert!(self.announcer.handle(query, &result, &QueryStats::empty(), true, self.kad.store_mut()));
        }
    }

    fn own(publisher: PeerId, number: u8, value: &str) -> Record {
        Record { publisher: Some(publisher), ..Record::new(vec![number], value.as_bytes().to_vec()) }
    }

    #[test]
    fn nothing_is_told_and_no_timer_set_before_there_is_a_peer_and_without_anything_to_tell() {
        let mut bed = Bed::new(1);
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.resets(), 0);
        bed.announcer.begin();
        assert!(bed.poll().is_empty());
        bed.runtime.pass(FIRST_WAIT);
        assert_eq!(bed.poll().len(), 1);

        let mut bed = Bed::new(0);
        bed.announcer.begin();
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.resets(), 0);
    }

    #[test]
    fn a_few_are_told_at_a_time_until_all_are_and_each_once() {
        let mut bed = Bed::new(10);
        bed.announcer.begin();
        bed.runtime.pass(FIRST_WAIT);
        for told in 0..10 {
            let running = bed.poll();
            assert_eq!(running.len(), AT_ONCE.min(10 - told));
            bed.end(running[0], true);
        }
        let resets = bed.runtime.resets();
        assert!(bed.poll().is_empty());
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.resets(), resets);
    }

    #[test]
    fn what_nobody_took_is_told_again_and_again_at_growing_intervals() {
        let mut bed = Bed::new(1);
        bed.announcer.begin();
        let mut wait = FIRST_WAIT;
        for _ in 0..20 {
            bed.runtime.pass(wait / 2 - Duration::from_millis(1));
            assert!(bed.poll().is_empty(), "before {wait:?}");
            bed.runtime.pass(wait / 2 + Duration::from_millis(1));
            let running = bed.poll();
            bed.end(running[0], false);
            assert!(bed.poll().is_empty());
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    #[test]
    fn what_is_replaced_while_it_is_told_is_told_again() {
        let mut bed = Bed::new(1);
        bed.announcer.begin();
        bed.runtime.pass(FIRST_WAIT);
        let running = bed.poll();
        let new = own(bed.local_peer, 0, "new");
        bed.kad.store_mut().put(new).unwrap();
        bed.end(running[0], true);
        let again = bed.poll();
        assert_eq!(again.len(), 1);
        assert_ne!(again, running);
        bed.end(again[0], true);
        assert!(bed.poll().is_empty());
    }

    #[test]
    fn what_was_replaced_by_another_publisher_or_removed_is_told_no_more() {
        let mut bed = Bed::new(2);
        let store = bed.kad.store_mut();
        store.remove(&RecordKey::from(vec![0]));
        store.remove(&RecordKey::from(vec![1]));
        store.put(own(PeerId::random(), 1, "theirs")).unwrap();
        bed.announcer.begin();
        bed.runtime.pass(FIRST_WAIT);
        assert!(bed.poll().is_empty());
    }

    #[test]
    fn an_event_of_another_query_is_left_alone() {
        let mut bed = Bed::new(1);
        let other = bed.kad.get_closest_peers(PeerId::random());
        let result = QueryResult::PutRecord(Ok(PutRecordOk { key: RecordKey::from(vec![0]) }));
        assert!(!bed.announcer.handle(other, &result, &QueryStats::empty(), true, bed.kad.store_mut()));
    }

    #[test]
    fn waits_differ_from_peer_to_peer_and_are_never_longer_than_said() {
        let waits: Vec<_> = (0..100).map(|_| jittered(FIRST_WAIT, PeerId::random())).collect();
        assert!(waits.iter().all(|wait| (FIRST_WAIT / 2..=FIRST_WAIT).contains(wait)), "{waits:?}");
        let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*longest - *shortest > FIRST_WAIT / 4, "{waits:?}");
    }
}
