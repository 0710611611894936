//! Puts, from their lookup on.
//!
//! The record goes to those whom the lookup has found, if these are as many as have to acknowledge it. If they are not, or
//! too few acknowledge, the own routing table names others, unless all were meant: twice as many as the quorum lacks, and
//! four, but at most twenty; before anything was sent, those who were found beside them. Where it knows nobody else, or too few, one
//! further lookup begins at the farthest peer so far. After three rounds, or sixty peers, nobody else is asked.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use kadence_core::{
    Action, LocalCopy, Outcome, Progress, PutAnswer, PutOptions, PutRecordError, Query, Quorum, RequestId,
};
use libp2p::{
    PeerId,
    kad::{KBucketKey, Record, RecordKey},
};

use super::{
    LiveQuery, LiveRequest, Model, Place, State,
    outcomes::{self, QueryEnd},
    sum, without,
};

/// What a put has done since its lookup.
#[derive(Debug)]
pub(super) struct Put {
    needed: NonZeroUsize,
    found: usize,
    waiting: Vec<PeerId>,
    pub(super) asked: Vec<PeerId>,
    acknowledged: Vec<PeerId>,
    pub(super) progress: Progress,
    rounds: usize,
    looked_further: bool,
}

/// How many peers have given the record back.
pub(super) fn given_back(query: &LiveQuery, record: &Record) -> usize {
    let from_peers = query.found.records.iter().filter(|found| found.peer.is_some());
    from_peers.filter(|found| found.record.value == record.value).count()
}

impl Put {
    pub(super) fn missing(&self) -> usize {
        self.needed.get() - self.acknowledged.len()
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
        ending: &QueryEnd,
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
                let (found, progress) = (without(&ending.found(), local), query.progress);
                let mut needed = outcomes::needed(quorum, found.len());
                if options.clamp_quorum && needed.get() > found.len() {
                    needed = NonZeroUsize::new(found.len()).unwrap_or(NonZeroUsize::MIN);
                }
                *put = Some(Put {
                    needed,
                    found: found.len(),
                    waiting: found.clone(),
                    asked: Vec::new(),
                    acknowledged: Vec::new(),
                    progress,
                    rounds: 0,
                    looked_further: false,
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
                let mut others = [std::mem::take(&mut put.waiting), ending.found()].concat();
                let distance = |peer: &PeerId| KBucketKey::from(*peer).distance(&KBucketKey::new(record.key.clone()));
                others.retain(|peer| !put.asked.contains(peer));
                let mut others = without(&others, local);
                others.sort_by_key(distance);
                self.go_on(id, record, others, now);
            }
            (Query::PutRecordTo { record: _, peers }, Some(put)) => {
                put.waiting.clear();
                put.asked.extend(peers.iter());
                put.acknowledged.extend(outcomes::acknowledged(peers, ending));
                if put.acknowledged.len() < put.needed.get() {
                    self.widen(id, record, quorum, now);
                } else if options.verify == 0 {
                    self.succeed(id, record, options, 0, now);
                } else {
                    self.want_alone(id, Query::GetRecord { key: record.key.clone() }, now);
                }
            }
            (Query::GetRecord { .. }, Some(_)) => {
                let verified = given_back(query, record);
                self.read_back(id, record, options, verified, query.progress, now);
            }
            _ => unreachable!("a put has no other queries"),
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
            Some(LiveRequest { place: Place::LocalPeers, operation, put: Some(put), .. }) => {
                let kadence_core::Operation::PutRecord { record, .. } = operation else {
                    unreachable!("only puts choose")
                };
                let record = Arc::clone(record);
                let mut others = [std::mem::take(&mut put.waiting), peers.to_vec()].concat();
                others.retain(|peer| !put.asked.contains(peer));
                let others = without(&others, local);
                self.go_on(id, &record, others, now);
            }
            _ => self.view.unknown_inputs += 1,
        }
        self.settle(now);
    }

    fn go_on(&mut self, id: RequestId, record: &Arc<Record>, others: Vec<PeerId>, now: Instant) {
        let Some(put) = self.request_mut(id).and_then(|request| request.put.as_mut()) else { return };
        let lacks = put.needed.get() - put.acknowledged.len();
        let first = put.asked.is_empty();
        if first && others.len() >= lacks {
            let beside = (2 * lacks.saturating_sub(put.found) + 4).min(20);
            let others = others.into_iter().take(lacks.max(put.found + beside)).collect();
            self.send(id, record, others, now);
        } else if !first && !others.is_empty() {
            let others = others.into_iter().take((2 * lacks + 4).min(20)).collect();
            self.send(id, record, others, now);
        } else if put.looked_further {
            put.waiting = others;
            self.put_failed(id, now);
        } else {
            let farthest = *others.last().or(put.asked.last()).unwrap_or_else(|| unreachable!("somebody was found"));
            put.looked_further = true;
            put.waiting = others;
            self.want(id, Query::GetClosestPeers { target: RecordKey::from(farthest.to_bytes()) }, now);
        }
    }

    fn send(&mut self, id: RequestId, record: &Arc<Record>, peers: Vec<PeerId>, now: Instant) {
        let Some(request) = self.request_mut(id) else { return };
        (request.begun, request.second_step) = (true, true);
        if let Some(put) = &mut request.put {
            put.rounds += 1;
        }
        self.want(id, Query::PutRecordTo { record: Arc::clone(record), peers: peers.into() }, now);
    }

    fn widen(&mut self, id: RequestId, record: &Record, quorum: Quorum, now: Instant) {
        let Some(request) = self.request_mut(id) else { return };
        if request.put.as_ref().is_some_and(|put| put.rounds == 3 || put.asked.len() >= 60) || quorum == Quorum::All {
            self.put_failed(id, now);
            return;
        }
        (request.begun, request.second_step) = (true, true);
        request.place = Place::LocalPeers;
        self.give(Action::LocalPeers { request: id, target: record.key.clone() });
    }

    fn put_failed(&mut self, id: RequestId, now: Instant) {
        let Some(put) = self.request(id).and_then(|request| request.put.as_ref()) else { return };
        let error = if put.asked.is_empty() {
            PutRecordError::InsufficientPeers { found: put.waiting.len(), needed: put.needed }
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
            request.place = Place::LocalStore(Some(answer));
            self.give(Action::StoreLocal { request: id, record: Arc::clone(record) });
        }
    }

    /// At its deadline, with whom it was sent to, those of the query that is under way last.
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
