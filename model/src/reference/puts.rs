//! Puts, from the end of their lookup.
//!
//! The record is sent to the peers that the lookup found, if there are enough of them for the quorum. If there are too
//! few, or too few acknowledge, the local routing table provides more peers, except for `Quorum::All`. In each round,
//! twice as many peers as acknowledgements are missing are added, and four more, up to 20. If the routing table knows
//! no other peers, or too few, a second lookup starts at the farthest peer so far. After three rounds or 60 peers, no
//! more peers are asked.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use kadence_core::{
    Action, LocalCopy, Outcome, Progress, PutAnswer, PutOptions, PutRecordError, Query, Quorum, RequestId,
};
use libp2p::{
    PeerId,
    kad::{KBucketKey, Record, RecordKey},
};

use super::{
    Awaiting, LiveQuery, LiveRequest, Model, State,
    outcomes::{self, Attempt, QueryEnd},
    sum, without,
};

/// State of a put since its lookup.
#[derive(Debug)]
pub(super) struct Put {
    needed: NonZeroUsize,
    found: usize,
    candidates: Vec<PeerId>,
    pub(super) asked: Vec<PeerId>,
    acknowledged: Vec<PeerId>,
    pub(super) progress: Progress,
    rounds: usize,
    second_lookup: bool,
}

/// Returns the number of peers that have returned the record.
pub(super) fn verified_copies(query: &LiveQuery, record: &Record) -> usize {
    let from_peers = query.results.records.iter().filter(|found| found.peer.is_some());
    from_peers.filter(|found| found.record.value == record.value).count()
}

impl Put {
    /// Returns whether the put sends its record to no further peers once it has sent it to `more`.
    pub(super) fn is_last_round(&self, quorum: Quorum, more: usize) -> bool {
        quorum == Quorum::All || self.rounds == 3 || self.asked.len() + more >= 60
    }

    pub(super) fn missing(&self) -> usize {
        self.needed.get() - self.acknowledged.len()
    }

    /// Returns the results of a failed attempt.
    pub(super) fn into_attempt(self) -> Attempt {
        Attempt { records: Vec::new(), sent_to: self.asked, progress: self.progress }
    }
}

impl Model {
    #[expect(clippy::too_many_arguments, reason = "the parts of the operation, taken apart")]
    pub(super) fn put_query_ended(
        &mut self,
        id: RequestId,
        record: &Arc<Record>,
        quorum: Quorum,
        options: PutOptions,
        query: &LiveQuery,
        query_end: &QueryEnd,
        now: Instant,
    ) {
        let local = self.local;
        let Some(request) = self.request_mut(id) else { return };
        let put = &mut request.put;
        if let (Some(put), Query::GetClosestPeers { .. } | Query::PutRecordTo { .. }) = (&mut *put, &query.query) {
            put.progress = sum(put.progress, query.progress);
        }
        match (&query.query, put) {
            (Query::GetClosestPeers { .. }, put @ None) => {
                let (found, progress) = (without(&query_end.found(), local), query.progress);
                let mut needed = outcomes::needed(quorum, found.len());
                if options.clamp_quorum && needed.get() > found.len() {
                    needed = NonZeroUsize::new(found.len()).unwrap_or(NonZeroUsize::MIN);
                }
                *put = Some(Put {
                    needed,
                    found: found.len(),
                    candidates: found.clone(),
                    asked: Vec::new(),
                    acknowledged: Vec::new(),
                    progress,
                    rounds: 0,
                    second_lookup: false,
                });
                if found.is_empty() {
                    let error = if progress.requests == 0 {
                        PutRecordError::NoKnownPeers
                    } else {
                        PutRecordError::NoResponse { progress }
                    };
                    self.conclude(id, Outcome::PutRecord(Err(error)), None, now);
                } else if found.len() >= needed.get() {
                    self.send(id, record, found, now);
                } else {
                    self.widen(id, record, quorum, now);
                }
            }
            (Query::GetClosestPeers { .. }, Some(put)) => {
                let mut others = [std::mem::take(&mut put.candidates), query_end.found()].concat();
                let distance = |peer: &PeerId| KBucketKey::from(*peer).distance(&KBucketKey::new(record.key.clone()));
                others.retain(|peer| !put.asked.contains(peer));
                let mut others = without(&others, local);
                others.sort_by_key(distance);
                self.send_to_more(id, record, others, now);
            }
            (Query::PutRecordTo { record: _, peers }, Some(put)) => {
                put.candidates.clear();
                put.asked.extend(peers.iter());
                put.acknowledged.extend(outcomes::acknowledged(peers, query_end));
                if put.acknowledged.len() < put.needed.get() {
                    self.widen(id, record, quorum, now);
                } else if options.verify == 0 {
                    self.succeed(id, record, options, 0, now);
                } else {
                    self.attach_alone(id, Query::GetRecord { key: record.key.clone() }, now);
                }
            }
            (Query::GetRecord { .. }, Some(_)) => {
                let verified = verified_copies(query, record);
                self.read_back(id, record, options, verified, query.progress, now);
            }
            _ => unreachable!("a put starts no other queries"),
        }
    }

    pub(super) fn read_back(
        &mut self,
        id: RequestId,
        record: &Arc<Record>,
        options: PutOptions,
        verified: usize,
        progress: Progress,
        now: Instant,
    ) {
        let Some(put) = self.request_mut(id).and_then(|request| request.put.as_mut()) else { return };
        put.progress = sum(put.progress, progress);
        let acknowledged = put.acknowledged.clone();
        if verified < options.verify {
            let error = PutRecordError::NotVerified { acknowledged, verified, needed: options.verify };
            self.conclude(id, Outcome::PutRecord(Err(error)), None, now);
        } else {
            self.succeed(id, record, options, verified, now);
        }
    }

    /// `QueryTracker::handle_local_peers`.
    pub fn local_peers(&mut self, id: RequestId, peers: &[PeerId], now: Instant) {
        let now = self.clock(now);
        let local = self.local;
        match self.request_mut(id) {
            Some(LiveRequest { awaiting: Awaiting::LocalPeers, operation, put: Some(put), .. }) => {
                let kadence_core::Operation::PutRecord { record, .. } = operation else {
                    unreachable!("only puts ask for local peers")
                };
                let record = Arc::clone(record);
                let mut others = [std::mem::take(&mut put.candidates), peers.to_vec()].concat();
                others.retain(|peer| !put.asked.contains(peer));
                let others = without(&others, local);
                self.send_to_more(id, &record, others, now);
            }
            _ => self.counters.unknown_inputs += 1,
        }
        self.process_due(now);
    }

    fn send_to_more(&mut self, id: RequestId, record: &Arc<Record>, others: Vec<PeerId>, now: Instant) {
        let Some(put) = self.request_mut(id).and_then(|request| request.put.as_mut()) else { return };
        let lacks = put.needed.get() - put.acknowledged.len();
        let first = put.asked.is_empty();
        if first && others.len() >= lacks {
            let extra = (2 * lacks.saturating_sub(put.found) + 4).min(20);
            let others = others.into_iter().take(lacks.max(put.found + extra)).collect();
            self.send(id, record, others, now);
        } else if !first && !others.is_empty() {
            let others = others.into_iter().take((2 * lacks + 4).min(20)).collect();
            self.send(id, record, others, now);
        } else if put.second_lookup {
            put.candidates = others;
            self.put_failed(id, now);
        } else {
            let farthest =
                *others.last().or(put.asked.last()).unwrap_or_else(|| unreachable!("the lookup has found a peer"));
            put.second_lookup = true;
            put.candidates = others;
            self.attach(id, Query::GetClosestPeers { target: RecordKey::from(farthest.to_bytes()) }, now);
        }
    }

    fn send(&mut self, id: RequestId, record: &Arc<Record>, peers: Vec<PeerId>, now: Instant) {
        let Some(request) = self.request_mut(id) else { return };
        (request.past_first_step, request.second_step) = (true, true);
        if let Some(put) = &mut request.put {
            put.rounds += 1;
        }
        self.attach(id, Query::PutRecordTo { record: Arc::clone(record), peers: peers.into() }, now);
    }

    fn widen(&mut self, id: RequestId, record: &Record, quorum: Quorum, now: Instant) {
        let Some(request) = self.request_mut(id) else { return };
        if request.put.as_ref().is_some_and(|put| put.is_last_round(quorum, 0)) {
            self.put_failed(id, now);
            return;
        }
        (request.past_first_step, request.second_step) = (true, true);
        request.awaiting = Awaiting::LocalPeers;
        self.push_action(Action::LocalPeers { request: id, target: record.key.clone() });
    }

    fn put_failed(&mut self, id: RequestId, now: Instant) {
        let Some(put) = self.request(id).and_then(|request| request.put.as_ref()) else { return };
        let error = if put.asked.is_empty() {
            PutRecordError::InsufficientPeers { found: put.candidates.len(), needed: put.needed }
        } else {
            PutRecordError::QuorumFailed {
                acknowledged: put.acknowledged.clone(),
                needed: put.needed,
                asked: put.asked.len(),
            }
        };
        self.conclude(id, Outcome::PutRecord(Err(error)), None, now);
    }

    fn succeed(&mut self, id: RequestId, record: &Arc<Record>, options: PutOptions, verified: usize, now: Instant) {
        let Some(request) = self.request_mut(id) else { return };
        let Some(put) = &request.put else { return };
        let unacknowledged = put.asked.iter().filter(|peer| !put.acknowledged.contains(peer)).copied().collect();
        let mut answer = PutAnswer::new(put.acknowledged.clone(), unacknowledged, put.progress);
        answer.verified = verified;
        if options.local_copy == LocalCopy::First {
            self.end(id, Outcome::PutRecord(Ok(answer)), now);
        } else {
            request.awaiting = Awaiting::LocalStore(Some(answer));
            self.push_action(Action::StoreLocal { request: id, record: Arc::clone(record) });
        }
    }

    /// Returns the outcome at the deadline. `sent_to` includes the peers of the query that is running, last.
    pub(super) fn put_timeout(&self, request: &LiveRequest, query: Option<&LiveQuery>) -> Outcome {
        let (mut sent_to, mut progress) =
            request.put.as_ref().map_or_else(Default::default, |put| (put.asked.clone(), put.progress));
        if let Some(query) = query.filter(|query| !matches!(query.state, State::Waiting(_))) {
            progress = sum(progress, query.progress);
            if let Query::PutRecordTo { record: _, peers } = &query.query {
                sent_to.extend(peers.iter());
            }
        }
        Outcome::PutRecord(Err(PutRecordError::Timeout { sent_to, progress }))
    }
}
