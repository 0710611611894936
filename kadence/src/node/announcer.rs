use std::{
    collections::{HashMap, HashSet, VecDeque},
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

use super::jitter::between;
use crate::{Alarm, Runtime, alarm::deadline_after};

/// Maximum number of announcements that run at the same time: enough that a few silent peers do not hold up the others,
/// and few compared to the 32 queries of callers, because no caller waits for announcements.
const MAX_RUNNING: usize = 4;

/// Maximum delay of the first round after the first peer; the minimum is half of it. The routing table fills meanwhile,
/// and nodes that start together do not announce together.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Maximum delay before failed announcements are repeated. The delay doubles up to here.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Announces the node's own records and providers when the first peer of the network comes: those that were in the store
/// at the start, and those that calls have left there while the node was alone. kad does so as well, but only after 12
/// hours (providers) and 22 hours (records), which a node that is restarted every day never reaches.
///
/// An announcement is repeated until a peer has taken it, or the record or provider is no longer the node's own. The
/// queries are kad's own, from the store, and not calls: a shutdown does not wait for them, and they do not restore
/// what the application removes meanwhile.
pub(super) struct Announcer {
    local_peer_id: PeerId,
    waiting: VecDeque<OwnEntry>,
    running: Vec<Announcement>,
    /// To be repeated in the next round.
    failed: Vec<OwnEntry>,
    /// Entries that a peer has taken, so that a node whose last connection comes and goes does not announce all of them
    /// each time.
    taken: HashMap<OwnEntry, u64>,
    in_round: bool,
    wait: Duration,
    alarm: Alarm,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum OwnEntry {
    Record(RecordKey),
    Provider(RecordKey),
}

struct Announcement {
    query: QueryId,
    own: OwnEntry,
    /// Announced value of a record.
    value: Option<Vec<u8>>,
}

impl Announcer {
    pub(super) fn new(local_peer_id: PeerId, runtime: &impl Runtime) -> Self {
        Self {
            local_peer_id,
            waiting: VecDeque::new(),
            running: Vec::new(),
            failed: Vec::new(),
            taken: HashMap::new(),
            in_round: false,
            wait: FIRST_WAIT,
            alarm: Alarm::new(runtime),
        }
    }

    /// Starts a round for all own entries that no peer has taken: the first peer of the network has come.
    pub(super) fn begin(&mut self, store: &Store) {
        let running: HashSet<_> = self.running.iter().map(|announcement| &announcement.own).collect();
        let own = own_entries(store, self.local_peer_id);
        let is_due = |(own, value): &(OwnEntry, u64)| self.taken.get(own) != Some(value) && !running.contains(own);
        self.waiting = own.filter(is_due).map(|(own, _)| own).collect();
        self.failed.clear();
        if !self.waiting.is_empty() {
            self.wait = FIRST_WAIT;
            self.set_alarm();
        }
    }

    /// Notes that the last peer of the network is gone. Entries that are removed and added again meanwhile are new ones.
    pub(super) fn alone(&mut self, store: &Store) {
        if !self.taken.is_empty() {
            let own: HashSet<_> = own_entries(store, self.local_peer_id).map(|(own, _)| own).collect();
            self.taken.retain(|taken, _| own.contains(taken));
        }
    }

    /// Starts announcements. Returns whether kad has to be polled before the task sleeps.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, kad: &mut kad::Behaviour<Store>) -> bool {
        self.in_round |= self.alarm.poll(cx).is_ready();
        if !self.in_round {
            return false;
        }
        let mut started = false;
        while self.running.len() < MAX_RUNNING
            && let Some(own) = self.waiting.pop_front()
        {
            match start(&own, self.local_peer_id, kad) {
                Ok(Some(announcement)) => {
                    self.running.push(announcement);
                    started = true;
                }
                // It is no longer the node's own.
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(?own, %error, "cannot start an announcement");
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

    /// Takes an event of a query. Returns `false` if the query is not an announcement.
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
            if !was_taken(result, stats) {
                tracing::debug!(?own, "no peer took an announcement: it is repeated later");
                self.failed.push(own);
            } else if let (OwnEntry::Record(key), Some(value)) = (&own, &value)
                && own_record(store, key, self.local_peer_id).is_some_and(|record| record.value != *value)
            {
                // The record was replaced meanwhile, and the old one may have reached some peers last.
                self.waiting.push_back(own);
            } else {
                self.taken.insert(own, value.as_deref().map_or(0, hash_of));
            }
        }
        true
    }

    fn set_alarm(&mut self) {
        self.alarm
            .set(deadline_after(self.alarm.now(), between(self.wait / 2, self.wait, self.local_peer_id.to_bytes())));
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

/// Starts an announcement, unless the record or provider is no longer the node's own. kad puts it into the store again,
/// which changes nothing.
fn start(
    own: &OwnEntry,
    local_peer_id: PeerId,
    kad: &mut kad::Behaviour<Store>,
) -> Result<Option<Announcement>, store::Error> {
    let (query, value) = match own {
        OwnEntry::Record(key) => {
            let Some(record) = own_record(kad.store_mut(), key, local_peer_id) else { return Ok(None) };
            let value = record.value.clone();
            // With a quorum of all, kad waits for each peer. Success needs only one.
            (kad.put_record(record, Quorum::All)?, Some(value))
        }
        OwnEntry::Provider(key) => {
            if !kad.store_mut().providers(key).iter().any(|entry| entry.provider == local_peer_id) {
                return Ok(None);
            }
            (kad.start_providing(key.clone())?, None)
        }
    };
    Ok(Some(Announcement { query, own: own.clone(), value }))
}

/// Returns the local peer's own records and providers, each with a hash of its value.
fn own_entries(store: &Store, local_peer_id: PeerId) -> impl Iterator<Item = (OwnEntry, u64)> {
    let records = store.records().filter(move |record| record.publisher == Some(local_peer_id));
    let records = records.map(|record| (OwnEntry::Record(record.key.clone()), hash_of(&record.value)));
    records.chain(store.provided().map(|provider| (OwnEntry::Provider(provider.key.clone()), 0)))
}

fn hash_of(value: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

fn own_record(store: &Store, key: &RecordKey, local_peer_id: PeerId) -> Option<Record> {
    store.get(key).filter(|record| record.publisher == Some(local_peer_id)).map(|record| record.into_owned())
}

/// Returns whether a peer has taken an announcement.
fn was_taken(result: &QueryResult, stats: &QueryStats) -> bool {
    match result {
        QueryResult::PutRecord(Ok(_)) => true,
        QueryResult::PutRecord(Err(
            PutRecordError::QuorumFailed { key: _, success, quorum: _ }
            | PutRecordError::Timeout { key: _, success, quorum: _ },
        )) => !success.is_empty(),
        // Providers are not acknowledged. A response to the lookup is the only evidence.
        QueryResult::StartProviding(result) => result.is_ok() && stats.num_successes() > 0,
        QueryResult::Bootstrap(_)
        | QueryResult::GetClosestPeers(_)
        | QueryResult::GetProviders(_)
        | QueryResult::RepublishProvider(_)
        | QueryResult::GetRecord(_)
        | QueryResult::RepublishRecord(_) => false,
    }
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
        /// Returns a node with a number of own records, and one of another peer.
        fn new(records: u8) -> Self {
            let (runtime, local_peer) = (TestRuntime::new(), PeerId::random());
            let mut store = Store::memory(local_peer, StoreConfig::default());
            for number in 0..records {
                store.put(own(local_peer, number, "old")).unwrap();
            }
            store.put(own(PeerId::random(), u8::MAX, "of another")).unwrap();
            let announcer = Announcer::new(local_peer, &runtime);
            Self { runtime, local_peer, kad: kad::Behaviour::new(local_peer, store), announcer }
        }

        /// A first peer comes.
        fn begin(&mut self) {
            self.announcer.begin(self.kad.store_mut());
        }

        /// The last peer goes.
        fn end_of_network(&mut self) {
            self.announcer.alone(self.kad.store_mut());
        }

        /// A first peer comes and takes the only announcement.
        fn announces_one(&mut self) {
            self.begin();
            self.runtime.pass(FIRST_WAIT);
            let running = self.poll();
            assert_eq!(running.len(), 1);
            self.end(running[0], true);
        }

        /// Polls as a node's loop does, and returns the running announcements.
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
    fn without_a_peer_or_own_records_nothing_is_announced_and_no_timer_is_set() {
        let mut bed = Bed::new(1);
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.timer_sets(), 0);
        bed.begin();
        assert!(bed.poll().is_empty());
        bed.runtime.pass(FIRST_WAIT);
        assert_eq!(bed.poll().len(), 1);

        let mut bed = Bed::new(0);
        bed.begin();
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.timer_sets(), 0);
    }

    #[test]
    fn a_few_are_announced_at_a_time_and_each_once() {
        let mut bed = Bed::new(10);
        bed.begin();
        bed.runtime.pass(FIRST_WAIT);
        for told in 0..10 {
            let running = bed.poll();
            assert_eq!(running.len(), MAX_RUNNING.min(10 - told));
            bed.end(running[0], true);
        }
        let resets = bed.runtime.timer_sets();
        assert!(bed.poll().is_empty());
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.timer_sets(), resets);
    }

    #[test]
    fn an_announcement_that_no_peer_took_is_repeated_at_growing_intervals() {
        let mut bed = Bed::new(1);
        bed.begin();
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
    fn a_record_that_is_replaced_during_its_announcement_is_announced_again() {
        let mut bed = Bed::new(1);
        bed.begin();
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
    fn a_record_that_was_removed_or_replaced_by_another_publisher_is_not_announced() {
        let mut bed = Bed::new(2);
        let store = bed.kad.store_mut();
        store.remove(&RecordKey::from(vec![0]));
        store.remove(&RecordKey::from(vec![1]));
        store.put(own(PeerId::random(), 1, "theirs")).unwrap();
        bed.begin();
        bed.runtime.pass(FIRST_WAIT);
        assert!(bed.poll().is_empty());
    }

    #[test]
    fn entries_that_were_added_while_the_node_was_alone_are_announced_and_the_others_are_not_again() {
        let mut bed = Bed::new(1);
        bed.begin();
        bed.runtime.pass(FIRST_WAIT);
        let running = bed.poll();
        bed.end(running[0], true);
        assert!(bed.poll().is_empty());
        bed.end_of_network();
        bed.kad.store_mut().put(own(bed.local_peer, 7, "added alone")).unwrap();
        bed.announces_one();
        // Another value is another record.
        bed.end_of_network();
        bed.kad.store_mut().put(own(bed.local_peer, 7, "changed alone")).unwrap();
        bed.announces_one();
        // One that goes is forgotten.
        bed.kad.store_mut().remove(&RecordKey::from(vec![0]));
        bed.end_of_network();
        bed.kad.store_mut().put(own(bed.local_peer, 0, "again")).unwrap();
        bed.begin();
        bed.runtime.pass(FIRST_WAIT);
        assert_eq!(bed.poll().len(), 1);
    }

    #[test]
    fn an_event_of_another_query_is_not_taken() {
        let mut bed = Bed::new(1);
        let other = bed.kad.get_closest_peers(PeerId::random());
        let result = QueryResult::PutRecord(Ok(PutRecordOk { key: RecordKey::from(vec![0]) }));
        assert!(!bed.announcer.handle(other, &result, &QueryStats::empty(), true, bed.kad.store_mut()));
    }
}
