//! A put's way: its lookup, the store at those who were found, further peers where too few acknowledge, reading back,
//! the local copy.
//!
//! ```text
//!   lookup ──► store ──► read back ──► local copy ──► outcome
//!      │ too few │ too few
//!      ▼         ▼
//!   local peers, then one lookup beyond the edge ──► store at them
//! ```

use std::{collections::BTreeSet, fmt, hash::Hash, mem, num::NonZeroUsize, sync::Arc};

use libp2p::{
    PeerId,
    kad::{KBucketKey, PeerInfo, Record, RecordKey, store},
};

use super::{
    QueryTracker, policy,
    results::{QueryEnd, QueryResults, distinct},
    state::{LiveRequest, Phase, waiter},
    time::Time,
};
use crate::{
    Action, Item, LocalCopy, Operation, Outcome, Progress, PutAnswer, PutOptions, PutRecordError, Query, Quorum,
    REPLICATION_FACTOR, RequestId, StepId,
};

/// How often a put sends its record to further peers at most, the first time included. In a trial with half of the peers
/// silent, the second time was enough where anything was.
const ROUNDS: u8 = 3;

/// To how many peers a put may have sent its record before it asks no further ones: three times the replication factor.
const MOST_ASKED: usize = 3 * REPLICATION_FACTOR;

/// How many peers are asked in a further round at most: the replication factor.
const MOST_FURTHER: usize = REPLICATION_FACTOR;

/// How many are asked for so many that are missing: with half of the peers silent, all the missing ones are among them
/// nearly always, and a round more would take longer than these few requests.
fn further_for(missing: usize) -> usize {
    missing.saturating_mul(2).saturating_add(4).min(MOST_FURTHER)
}

/// A put that is past its first lookup.
#[derive(Debug)]
pub(super) struct Put {
    /// How many have to acknowledge.
    needed: NonZeroUsize,
    /// How many peers the first lookup has found.
    found: usize,
    /// Who is to be asked, for as long as these are too few.
    waiting: Vec<PeerId>,
    /// Whom the record was sent to in the rounds that are over.
    pub(super) asked: Vec<PeerId>,
    acknowledged: Vec<PeerId>,
    /// Of all steps that are over.
    pub(super) progress: Progress,
    rounds: u8,
    looked_further: bool,
    /// How many peers have given the record back.
    given_back: usize,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// A query of a put has ended.
    pub(super) fn put_query_ended(
        &mut self,
        id: RequestId,
        findings: &QueryResults,
        ending: &QueryEnd,
        progress: Progress,
        now: Time,
    ) {
        match (findings, ending) {
            // kad's own timeout only means that fewer peers were found.
            (_, QueryEnd::ClosestPeers { peers, timed_out: _ }) => self.put_lookup_ended(id, peers, progress, now),
            (QueryResults::Put { asked }, QueryEnd::Stored { acknowledged }) => {
                self.put_store_ended(id, asked, acknowledged, progress, now);
            }
            (QueryResults::Records(_), _) => self.put_read_back(id, progress, now),
            _ => {}
        }
    }

    fn put_lookup_ended(&mut self, id: RequestId, peers: &[PeerInfo], progress: Progress, now: Time) {
        let found = distinct(peers.iter().map(|info| info.peer_id));
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Operation::PutRecord { record, quorum, options } = &request.operation else { return };
        if let Some(put) = &mut request.put {
            put.progress = put.progress.merge(progress);
            let target = KBucketKey::new(record.key.clone());
            let waiting = mem::take(&mut put.waiting);
            let mut further = put.not_asked(waiting.into_iter().chain(found));
            further.sort_by_cached_key(|peer| KBucketKey::from(*peer).distance(&target));
            self.put_further(id, further, now);
            return;
        }
        if found.is_empty() {
            let error = if progress.requests == 0 {
                PutRecordError::NoKnownPeers
            } else {
                PutRecordError::NoResponse { progress }
            };
            request.put = Some(Box::new(Put::new(NonZeroUsize::MIN, 0, progress)));
            self.conclude(id, Outcome::PutRecord(Err(error)), None, now);
            return;
        }
        let mut needed = policy::needed(*quorum, found.len());
        if options.clamp_quorum {
            needed = NonZeroUsize::new(found.len()).map_or(needed, |found| needed.min(found));
        }
        let mut put = Put::new(needed, found.len(), progress);
        if needed.get() <= found.len() {
            request.put = Some(Box::new(put));
            self.put_send(id, found, now);
        } else {
            put.waiting = found;
            request.put = Some(Box::new(put));
            self.put_widen(id, now);
        }
    }

    fn put_store_ended(
        &mut self,
        id: RequestId,
        asked: &[PeerId],
        acknowledged: &[PeerId],
        progress: Progress,
        now: Time,
    ) {
        let Some(put) = self.requests.get_mut(&id).and_then(|request| request.put.as_mut()) else { return };
        put.asked.extend(asked);
        put.acknowledged.extend(acknowledged);
        put.progress = put.progress.merge(progress);
        if put.acknowledged.len() < put.needed.get() {
            self.put_widen(id, now);
            return;
        }
        let Some((record, _, options)) = self.put_of(id) else { return };
        if options.verify > 0 {
            // What others have been reading since before the store says nothing about it.
            self.attach_alone(id, Query::GetRecord { key: record.key.clone() }, now);
        } else {
            self.put_succeeded(id, 0, now);
        }
    }

    /// A query has found an item. If a put reads back, which it does for itself alone, its record may have been given back
    /// by as many peers as are asked for.
    pub(super) fn read_back(&mut self, step: StepId, item: &Item, now: Time) {
        let Some(id) = self.queries.get(&step).and_then(|query| query.waiters.first()) else { return };
        let Some(LiveRequest { operation: Operation::PutRecord { record, options, .. }, put: Some(put), .. }) =
            self.requests.get_mut(&id).map(|request| &mut **request)
        else {
            return;
        };
        let Item::Record(found) = item else { return };
        if found.peer.is_some() && found.record.value == record.value {
            put.given_back += 1;
        }
        if put.given_back >= options.verify {
            self.end_read_back(id, step, now);
        }
    }

    /// A put waits no longer for the query with which it reads back.
    pub(super) fn end_read_back(&mut self, id: RequestId, step: StepId, now: Time) {
        let Some(request) = self.requests.get(&id) else { return };
        let progress = self.queries.get(&step).map_or_else(Progress::default, |query| query.progress());
        let (waiter, priority) = (waiter(id, request, self.config.max_items), request.priority);
        self.detach(waiter, priority, step, now);
        self.put_read_back(id, progress, now);
    }

    fn put_read_back(&mut self, id: RequestId, progress: Progress, now: Time) {
        let Some((_, _, options)) = self.put_of(id) else { return };
        let Some(put) = self.requests.get_mut(&id).and_then(|request| request.put.as_mut()) else { return };
        put.progress = put.progress.merge(progress);
        let verified = put.given_back;
        if verified >= options.verify {
            self.put_succeeded(id, verified, now);
        } else {
            let acknowledged = put.acknowledged.clone();
            let error = PutRecordError::NotVerified { acknowledged, verified, needed: options.verify };
            self.conclude(id, Outcome::PutRecord(Err(error)), None, now);
        }
    }

    /// The record goes into the local store, if it is not there already, and then this is the answer.
    fn put_succeeded(&mut self, id: RequestId, verified: usize, now: Time) {
        let Some((record, _, options)) = self.put_of(id) else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(put) = &request.put else { return };
        let answer = PutAnswer {
            acknowledged: put.acknowledged.clone(),
            unacknowledged: policy::without(&put.asked, &put.acknowledged),
            verified,
            progress: put.progress,
        };
        match options.local_copy {
            LocalCopy::First => self.end(id, Outcome::PutRecord(Ok(answer)), now),
            LocalCopy::OnSuccess => {
                request.phase = Phase::Storing { answer: Some(Box::new(answer)) };
                self.actions.push_back(Action::StoreLocal { request: id, record });
            }
        }
    }

    /// Too few have acknowledged, or were found: others are looked for, if that may help.
    fn put_widen(&mut self, id: RequestId, now: Time) {
        let Some((record, quorum, _)) = self.put_of(id) else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(put) = &request.put else { return };
        // `All` are those who were found.
        if quorum == Quorum::All || put.rounds >= ROUNDS || put.asked.len() >= MOST_ASKED {
            self.put_failed(id, now);
            return;
        }
        request.begun = true;
        request.second_step = true;
        request.phase = Phase::Choosing;
        self.actions.push_back(Action::LocalPeers { request: id, target: record.key.clone() });
    }

    /// The answer to [`Action::LocalPeers`].
    pub(super) fn local_peers(&mut self, id: RequestId, peers: Vec<PeerId>, now: Time) {
        let local = self.local_peer;
        let Some(LiveRequest { phase: Phase::Choosing, put: Some(put), .. }) =
            self.requests.get_mut(&id).map(|request| &mut **request)
        else {
            self.stats.unknown_inputs += 1;
            return;
        };
        let others = peers.into_iter().filter(|peer| *peer != local);
        let waiting = mem::take(&mut put.waiting);
        let further = put.not_asked(waiting.into_iter().chain(others));
        self.put_further(id, further, now);
    }

    /// Sends the record to further peers, or looks for them beyond the farthest known. Before anything was sent, they have
    /// to be as many as the quorum.
    fn put_further(&mut self, id: RequestId, mut further: Vec<PeerId>, now: Time) {
        let Some(put) = self.requests.get_mut(&id).and_then(|request| request.put.as_mut()) else { return };
        let missing = put.missing();
        let nothing_sent = put.asked.is_empty();
        if further.is_empty() || (nothing_sent && further.len() < missing) {
            let edge = further.last().or(put.asked.last()).copied();
            match edge.filter(|_| !put.looked_further) {
                Some(edge) => {
                    put.looked_further = true;
                    put.waiting = further;
                    self.attach(id, Query::GetClosestPeers { target: RecordKey::from(edge.to_bytes()) }, now);
                }
                None => {
                    put.waiting = further;
                    self.put_failed(id, now);
                }
            }
            return;
        }
        let most = if nothing_sent {
            // Those who were found have answered a moment ago.
            missing.max(put.found.saturating_add(further_for(missing.saturating_sub(put.found))))
        } else {
            further_for(missing)
        };
        further.truncate(most);
        self.put_send(id, further, now);
    }

    fn put_send(&mut self, id: RequestId, peers: Vec<PeerId>, now: Time) {
        let Some((record, ..)) = self.put_of(id) else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.begun = true;
        request.second_step = true;
        if let Some(put) = &mut request.put {
            put.rounds += 1;
        }
        self.attach(id, Query::PutRecordTo { record, peers: peers.into() }, now);
    }

    fn put_failed(&mut self, id: RequestId, now: Time) {
        let Some(put) = self.requests.get(&id).and_then(|request| request.put.as_ref()) else { return };
        let needed = put.needed;
        let error = if put.asked.is_empty() {
            PutRecordError::InsufficientPeers { found: put.waiting.len(), needed }
        } else {
            let (acknowledged, asked) = (put.acknowledged.clone(), put.asked.len());
            PutRecordError::QuorumFailed { acknowledged, needed, asked }
        };
        self.conclude(id, Outcome::PutRecord(Err(error)), None, now);
    }

    /// The answer to [`Action::StoreLocal`].
    pub(super) fn stored(&mut self, id: RequestId, result: Result<(), store::Error>, now: Time) {
        let Some(LiveRequest { phase: Phase::Storing { answer }, operation, .. }) =
            self.requests.get_mut(&id).map(|request| &mut **request)
        else {
            self.stats.unknown_inputs += 1;
            return;
        };
        match (answer.take(), result) {
            (None, Ok(())) => {
                let query = policy::first_query(operation);
                self.attach(id, query, now);
            }
            (Some(answer), Ok(())) => self.end(id, Outcome::PutRecord(Ok(*answer)), now),
            (answer, Err(error)) => {
                let acknowledged = answer.map(|answer| answer.acknowledged).unwrap_or_default();
                self.end(id, Outcome::PutRecord(Err(PutRecordError::Store { error, acknowledged })), now);
            }
        }
    }

    /// The outcome of a put at its deadline, once its first query has started.
    pub(super) fn put_timeout(&self, request: &LiveRequest) -> Outcome {
        let (mut sent_to, mut progress) = match &request.put {
            Some(put) => (put.asked.clone(), put.progress),
            None => (Vec::new(), Progress::default()),
        };
        if let Phase::Attached { step } = &request.phase
            && let Some(query) = self.queries.get(step)
        {
            progress = progress.merge(query.progress());
            // One that waits for a slot was sent to nobody.
            if let (Query::PutRecordTo { record: _, peers }, Some(_)) = (&query.query, &query.work) {
                sent_to.extend(peers.iter());
            }
        }
        Outcome::PutRecord(Err(PutRecordError::Timeout { sent_to, progress }))
    }

    fn put_of(&self, id: RequestId) -> Option<(Arc<Record>, Quorum, PutOptions)> {
        match &self.requests.get(&id)?.operation {
            Operation::PutRecord { record, quorum, options } => Some((Arc::clone(record), *quorum, *options)),
            _ => None,
        }
    }
}

impl Put {
    fn new(needed: NonZeroUsize, found: usize, progress: Progress) -> Self {
        Self {
            needed,
            found,
            waiting: Vec::new(),
            asked: Vec::new(),
            acknowledged: Vec::new(),
            progress,
            rounds: 0,
            looked_further: false,
            given_back: 0,
        }
    }

    /// How many still have to acknowledge.
    pub(super) fn missing(&self) -> usize {
        self.needed.get().saturating_sub(self.acknowledged.len())
    }

    /// Those of these peers who were not asked, each once, in their order.
    fn not_asked(&self, peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
        let asked: BTreeSet<_> = self.asked.iter().collect();
        distinct(peers.filter(|peer| !asked.contains(peer)))
    }
}
