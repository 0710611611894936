//! Reads that have found nothing while a peer that was given up sends its response: their end waits for it.

use std::collections::VecDeque;

use libp2p::{
    PeerId,
    kad::{self, GetRecordError, GetRecordOk, PeerRecord, QueryId, QueryResult, Record},
};
use rustc_hash::FxHashMap;
use web_time::Instant;

use super::{
    PAUSE,
    pending::LONGEST_RESPONSE,
    progress::{Moment, ResponseProgress},
    timer::later,
};

/// Number of ends that wait at a time. Further ones do not.
const MAX_WAITING: usize = 256;

/// Keeps the ends of reads back as long as bytes of a late response arrive. kad does not take a response into a query that
/// has ended, so the record of such a response is reported here.
#[derive(Debug, Default)]
pub(super) struct LateRecords {
    waiting: FxHashMap<QueryId, WaitingEnd>,
    ready: VecDeque<kad::Event>,
}

#[derive(Debug)]
struct WaitingEnd {
    /// kad's last event of the query.
    event: kad::Event,
    late: Vec<LateResponse>,
    due: Instant,
    /// Time at which it waits no longer.
    end: Instant,
}

/// Response of a peer that was given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct LateResponse {
    pub(super) peer: PeerId,
    pub(super) sent: Moment,
    pub(super) seen: Moment,
}

/// Returns the id of the query that an event ends, if it is a read that has found nothing.
pub(super) fn found_nothing(event: &kad::Event) -> Option<QueryId> {
    match event {
        kad::Event::OutboundQueryProgressed {
            id,
            result: QueryResult::GetRecord(Err(GetRecordError::NotFound { .. })),
            step,
            ..
        } if step.last => Some(*id),
        _ => None,
    }
}

impl LateRecords {
    /// Keeps the end of a query back. Returns it if there are too many already.
    pub(super) fn wait(
        &mut self,
        query: QueryId,
        event: kad::Event,
        late: Vec<LateResponse>,
        now: Instant,
    ) -> Option<kad::Event> {
        if self.waiting.len() == MAX_WAITING {
            return Some(event);
        }
        let (due, end) = (later(now, PAUSE), later(now, LONGEST_RESPONSE));
        self.waiting.insert(query, WaitingEnd { event, late, due, end });
        None
    }

    pub(super) fn is_waiting(&self, query: &QueryId) -> bool {
        self.waiting.contains_key(query)
    }

    /// Notes the response of a peer, with its record if it has one, or that there will be none. The end of the query comes with
    /// the first record, or when no response is awaited any more.
    pub(super) fn responded(&mut self, query: QueryId, peer: PeerId, record: Option<&Record>) {
        let Some(waiting) = self.waiting.get_mut(&query) else { return };
        waiting.late.retain(|late| late.peer != peer);
        if record.is_none() && !waiting.late.is_empty() {
            return;
        }
        let Some(WaitingEnd { event, .. }) = self.waiting.remove(&query) else { return };
        match (record, event) {
            (Some(record), kad::Event::OutboundQueryProgressed { id, stats, step, .. }) => {
                let record = PeerRecord { peer: Some(peer), record: record.clone() };
                let none = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: Default::default() };
                for (more, result) in [GetRecordOk::FoundRecord(record), none].into_iter().enumerate() {
                    let mut step = step;
                    step.last = more == 1;
                    step.count = step.count.saturating_add(more);
                    let result = QueryResult::GetRecord(Ok(result));
                    self.ready.push_back(kad::Event::OutboundQueryProgressed { id, result, stats, step });
                }
            }
            (_, event) => self.ready.push_back(event),
        }
    }

    /// Ends the queries whose late peers have sent nothing for [`PAUSE`].
    pub(super) fn handle_timeout(&mut self, now: Instant, progress: &ResponseProgress) {
        let ready = &mut self.ready;
        self.waiting.retain(|_, waiting| {
            if waiting.due > now {
                return true;
            }
            waiting.late.retain_mut(|late| {
                let seen = std::mem::replace(&mut late.seen, progress.now());
                progress.has_moved(&late.peer, late.sent, seen)
            });
            waiting.due = later(now, PAUSE);
            let has_life = !waiting.late.is_empty() && now < waiting.end;
            if !has_life {
                ready.push_back(waiting.event.clone());
            }
            has_life
        });
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// Returns the next event to report.
    pub(super) fn pop(&mut self) -> Option<kad::Event> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use libp2p::kad::{Behaviour, ProgressStep, QueryStats, RecordKey, store::MemoryStore};

    use super::{super::progress::Receiving, *};

    fn ids(count: usize) -> Vec<QueryId> {
        let id = PeerId::random();
        let mut kad = Behaviour::new(id, MemoryStore::new(id));
        (0..count).map(|_| kad.get_record(RecordKey::new(b"file"))).collect()
    }

    fn not_found(id: QueryId) -> kad::Event {
        let error = GetRecordError::NotFound { key: RecordKey::new(b"file"), closest_peers: Vec::new() };
        kad::Event::OutboundQueryProgressed {
            id,
            result: QueryResult::GetRecord(Err(error)),
            stats: QueryStats::empty(),
            step: ProgressStep { count: NonZeroUsize::MIN, last: true },
        }
    }

    /// Returns the results that are reported for a query, each with whether it is the last.
    fn reported(records: &mut LateRecords, of: QueryId) -> Vec<(Result<Option<PeerRecord>, ()>, bool)> {
        let events = std::iter::from_fn(|| records.pop());
        let result = |event| match event {
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::GetRecord(result), step, .. } => {
                assert_eq!(id, of);
                let result = match result {
                    Ok(GetRecordOk::FoundRecord(record)) => Ok(Some(record)),
                    Ok(GetRecordOk::FinishedWithNoAdditionalRecord { .. }) => Ok(None),
                    Err(_) => Err(()),
                };
                (result, step.last)
            }
            event => panic!("{event:?}"),
        };
        events.map(result).collect()
    }

    fn late(peer: PeerId) -> LateResponse {
        LateResponse { peer, sent: Moment::default(), seen: Moment::default() }
    }

    #[test]
    fn a_record_that_comes_late_ends_its_query() {
        let (mut records, query, now) = (LateRecords::default(), ids(1)[0], Instant::now());
        let [holder, other] = [PeerId::random(), PeerId::random()];
        assert_eq!(found_nothing(&not_found(query)), Some(query));
        assert!(records.wait(query, not_found(query), vec![late(other), late(holder)], now).is_none());
        assert!(records.is_waiting(&query));
        records.responded(query, other, None);
        assert_eq!(reported(&mut records, query), []);
        let record = Record::new(b"file".to_vec(), b"contents".to_vec());
        records.responded(query, holder, Some(&record));
        let found = PeerRecord { peer: Some(holder), record };
        assert_eq!(reported(&mut records, query), [(Ok(Some(found)), false), (Ok(None), true)]);
        assert!(!records.is_waiting(&query) && records.next_deadline().is_none());
    }

    #[test]
    fn a_query_ends_as_it_did_when_the_last_late_response_has_no_record() {
        let (mut records, query, peer) = (LateRecords::default(), ids(1)[0], PeerId::random());
        records.wait(query, not_found(query), vec![late(peer)], Instant::now());
        records.responded(query, peer, None);
        assert_eq!(reported(&mut records, query), [(Err(()), true)]);
    }

    #[test]
    fn a_query_waits_only_while_bytes_arrive() {
        let (mut records, query, peer) = (LateRecords::default(), ids(1)[0], PeerId::random());
        let (progress, mut now) = (ResponseProgress::default(), Instant::now());
        let response = Receiving::begin(peer, progress.clone());
        records.wait(query, not_found(query), vec![late(peer)], now);
        for _ in 0..5 {
            response.moved();
            now += PAUSE;
            assert_eq!(records.next_deadline(), Some(now));
            records.handle_timeout(now, &progress);
            assert_eq!(reported(&mut records, query), []);
        }
        records.handle_timeout(now + PAUSE, &progress);
        assert_eq!(reported(&mut records, query), [(Err(()), true)]);
        assert_eq!(records.next_deadline(), None);
    }

    #[test]
    fn a_peer_that_sends_byte_by_byte_does_not_keep_a_query_for_ever() {
        let (mut records, query, peer) = (LateRecords::default(), ids(1)[0], PeerId::random());
        let (progress, now) = (ResponseProgress::default(), Instant::now());
        let response = Receiving::begin(peer, progress.clone());
        records.wait(query, not_found(query), vec![late(peer)], now);
        let ended = (1..60).find(|second| {
            response.moved();
            records.handle_timeout(now + *second * PAUSE, &progress);
            !records.is_waiting(&query)
        });
        assert_eq!(ended, Some(15));
    }

    #[test]
    fn only_so_many_queries_wait() {
        let (mut records, now) = (LateRecords::default(), Instant::now());
        let ids = ids(MAX_WAITING + 1);
        for id in &ids[..MAX_WAITING] {
            assert!(records.wait(*id, not_found(*id), vec![late(PeerId::random())], now).is_none());
        }
        let id = ids[MAX_WAITING];
        assert!(records.wait(id, not_found(id), vec![late(PeerId::random())], now).is_some());
    }
}
