//! Puts: a lookup, the store at the peers found, further peers if too few acknowledge, reading back, the local copy.
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

/// Maximum number of rounds in which a put sends its record, the first included. In a trial with half of the peers
/// silent, the second was enough wherever any was.
const ROUNDS: u8 = 3;

/// Number of peers asked from which on a put starts no further round.
const MOST_ASKED: usize = 3 * REPLICATION_FACTOR;

/// Maximum number of peers asked in a further round.
const MOST_FURTHER: usize = REPLICATION_FACTOR;

/// Returns the number of peers to ask for `missing` acknowledgements. With half of the peers silent, these nearly
/// always suffice; one more round would take longer than a few more requests.
fn further_for(missing: usize) -> usize {
    missing.saturating_mul(2).saturating_add(4).min(MOST_FURTHER)
}

/// State of a put after its first lookup.
#[derive(Debug)]
pub(super) struct Put {
    /// Number of peers that must acknowledge.
    needed: NonZeroUsize,
    /// Number of peers that the first lookup found.
    found: usize,
    /// Peers to ask, while they are too few.
    waiting: Vec<PeerId>,
    /// Peers that the record was sent to in completed rounds.
    pub(super) asked: Vec<PeerId>,
    acknowledged: Vec<PeerId>,
    /// Of all completed steps.
    pub(super) progress: Progress,
    rounds: u8,
    looked_further: bool,
    /// Number of peers that returned the record.
    given_back: usize,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Handles the end of a put's query.
    pub(super) fn put_query_ended(
        &mut self,
        id: RequestId,
        results: &QueryResults,
        end: &QueryEnd,
        progress: Progress,
        now: Time,
    ) {
        match (results, end) {
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
            // Not shared: a read that started before the store proves nothing about it.
            self.attach_alone(id, Query::GetRecord { key: record.key.clone() }, now);
        } else {
            self.put_succeeded(id, 0, now);
        }
    }

    /// Counts an item for a put that reads back, and ends the reading once enough peers have returned the record. Such
    /// a query is never shared.
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

    /// Ends the reading back of a put before its query ends.
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

    /// Stores the record locally, unless it already is, and then ends the put with its answer.
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

    /// Looks for further peers after too few were found or have acknowledged, if that may help.
    fn put_widen(&mut self, id: RequestId, now: Time) {
        let Some((record, quorum, _)) = self.put_of(id) else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(put) = &request.put else { return };
        // `All` means the peers that were found.
        if quorum == Quorum::All || put.rounds >= ROUNDS || put.asked.len() >= MOST_ASKED {
            self.put_failed(id, now);
            return;
        }
        request.begun = true;
        request.second_step = true;
        request.phase = Phase::Choosing;
        self.actions.push_back(Action::LocalPeers { request: id, target: record.key.clone() });
    }

    /// Handles the answer to [`Action::LocalPeers`].
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

    /// Sends the record to further peers, or looks for them beyond the farthest one known. Before anything has been
    /// sent, there must be enough for the quorum.
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
            // The peers that the lookup found have just answered.
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

    /// Handles the answer to [`Action::StoreLocal`].
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

    /// Returns the outcome of a put at its deadline, after its first query has started.
    pub(super) fn put_timeout(&self, request: &LiveRequest) -> Outcome {
        let (mut sent_to, mut progress) = match &request.put {
            Some(put) => (put.asked.clone(), put.progress),
            None => (Vec::new(), Progress::default()),
        };
        if let Phase::Attached { step } = &request.phase
            && let Some(query) = self.queries.get(step)
        {
            progress = progress.merge(query.progress());
            // A query that waits for a slot has sent nothing.
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

    /// Returns the number of acknowledgements that are missing.
    pub(super) fn missing(&self) -> usize {
        self.needed.get().saturating_sub(self.acknowledged.len())
    }

    /// Returns the given peers that were not asked, each once, in their order.
    fn not_asked(&self, peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
        let asked: BTreeSet<_> = self.asked.iter().collect();
        distinct(peers.filter(|peer| !asked.contains(peer)))
    }
}
