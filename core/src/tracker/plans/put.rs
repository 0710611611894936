//! Puts: a lookup, the store at the peers found, further peers if too few acknowledge, reading back, the local copy.
//!
//! ```text
//!   lookup ──► store ──► read back ──► local copy ──► done
//!      │ too few │ too few
//!      ▼         ▼
//!   local peers, then one lookup beyond the edge ──► store at them
//! ```

use std::{collections::BTreeSet, mem, num::NonZeroUsize, sync::Arc};

use libp2p::{
    PeerId,
    kad::{KBucketKey, PeerInfo, Record, RecordKey, store},
};

use super::{Next, count, needed, not_started};
use crate::{
    LocalCopy, OperationKind, Outcome, Progress, PutAnswer, PutOptions, PutRecordError, Query, Quorum,
    REPLICATION_FACTOR,
    tracker::{
        results::{QueryEnd, QueryResults, distinct, without},
        scheduler::{Job, Threshold},
    },
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

#[derive(Debug, Clone)]
pub(in crate::tracker) struct Put {
    record: Arc<Record>,
    quorum: Quorum,
    options: PutOptions,
    /// `None` until the first lookup has ended. Boxed, because many puts wait for theirs.
    sending: Option<Box<Sending>>,
}

/// State of a put after its first lookup.
#[derive(Debug, Clone)]
struct Sending {
    /// Number of peers that must acknowledge.
    needed: NonZeroUsize,
    /// Number of peers that the first lookup found.
    found: usize,
    /// Peers to ask, while they are too few.
    waiting: Vec<PeerId>,
    /// Peers that the record was sent to in completed rounds.
    asked: Vec<PeerId>,
    acknowledged: Vec<PeerId>,
    /// Number of peers that returned the record.
    verified: usize,
    /// Of all completed steps.
    progress: Progress,
    rounds: u8,
    looked_further: bool,
}

impl Put {
    pub(super) fn new(record: Arc<Record>, quorum: Quorum, options: PutOptions) -> Self {
        Self { record, quorum, options, sending: None }
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    pub(super) fn first(&self) -> Next {
        match self.options.local_copy {
            LocalCopy::First => Next::StoreLocal(Arc::clone(&self.record)),
            LocalCopy::OnSuccess => Next::Query(self.lookup()),
        }
    }

    fn lookup(&self) -> Job {
        Job::Query(Query::GetClosestPeers { target: self.record.key.clone() })
    }

    pub(super) fn threshold(&self, job: &Job) -> Threshold {
        match (job, &self.sending) {
            (Job::ReadBack(_), _) => Threshold::Copies(count(self.options.verify)),
            (Job::Query(Query::PutRecordTo { record: _, peers }), Some(sending)) => Threshold::Acknowledgements {
                needed: count(sending.missing()),
                can_widen: self.can_widen(sending, sending.asked.len().saturating_add(peers.len())),
            },
            (Job::Query(_), _) => Threshold::End,
        }
    }

    pub(super) fn on_ended(&mut self, results: &QueryResults, end: &QueryEnd, progress: Progress) -> Next {
        match (results, end) {
            (_, QueryEnd::NotStarted(error)) => Next::Done(not_started(OperationKind::PutRecord, error.clone())),
            // kad's own timeout only means that fewer peers were found.
            (_, QueryEnd::ClosestPeers { peers, timed_out: _ }) => self.lookup_ended(peers, progress),
            (QueryResults::Put { asked }, QueryEnd::Stored { acknowledged }) => {
                self.store_ended(asked, acknowledged, progress)
            }
            (results, _) => self.read_back_ended(results.available().copies, progress),
        }
    }

    fn lookup_ended(&mut self, peers: &[PeerInfo], progress: Progress) -> Next {
        let found = distinct(peers.iter().map(|info| info.peer_id));
        if let Some(sending) = &mut self.sending {
            sending.progress = sending.progress.merge(progress);
            let target = KBucketKey::new(self.record.key.clone());
            let waiting = mem::take(&mut sending.waiting);
            let mut further = sending.not_asked(waiting.into_iter().chain(found));
            further.sort_by_cached_key(|peer| KBucketKey::from(*peer).distance(&target));
            return self.send_further(further);
        }
        if found.is_empty() {
            let error = if progress.requests == 0 {
                PutRecordError::NoKnownPeers
            } else {
                PutRecordError::NoResponse { progress }
            };
            self.sending = Some(Box::new(Sending::new(NonZeroUsize::MIN, 0, progress)));
            return failed(error);
        }
        let mut needed = needed(self.quorum, found.len());
        if self.options.clamp_quorum {
            needed = NonZeroUsize::new(found.len()).map_or(needed, |found| needed.min(found));
        }
        let mut sending = Box::new(Sending::new(needed, found.len(), progress));
        if needed.get() <= found.len() {
            self.sending = Some(sending);
            self.send(found)
        } else {
            sending.waiting = found;
            self.sending = Some(sending);
            self.widen()
        }
    }

    fn store_ended(&mut self, asked: &[PeerId], acknowledged: &[PeerId], progress: Progress) -> Next {
        if let Some(sending) = &mut self.sending {
            sending.asked.extend(asked);
            sending.acknowledged.extend(acknowledged);
            sending.progress = sending.progress.merge(progress);
            if sending.acknowledged.len() < sending.needed.get() {
                return self.widen();
            }
        }
        if self.options.verify > 0 { Next::Further(Job::ReadBack(Arc::clone(&self.record))) } else { self.succeed() }
    }

    fn read_back_ended(&mut self, copies: usize, progress: Progress) -> Next {
        let needed = self.options.verify;
        if let Some(sending) = &mut self.sending {
            sending.progress = sending.progress.merge(progress);
            sending.verified = copies;
            if copies < needed {
                let acknowledged = sending.acknowledged.clone();
                return failed(PutRecordError::NotVerified { acknowledged, verified: copies, needed });
            }
        }
        self.succeed()
    }

    /// Stores the record locally, unless it already is, and then ends the put.
    fn succeed(&self) -> Next {
        match self.options.local_copy {
            LocalCopy::First => Next::Done(self.answer()),
            LocalCopy::OnSuccess => Next::StoreLocal(Arc::clone(&self.record)),
        }
    }

    fn answer(&self) -> Outcome {
        Outcome::PutRecord(match &self.sending {
            Some(sending) => Ok(PutAnswer {
                acknowledged: sending.acknowledged.clone(),
                unacknowledged: without(&sending.asked, &sending.acknowledged),
                verified: sending.verified,
                progress: sending.progress,
            }),
            // Unreachable: a put succeeds after it was sent.
            None => Err(PutRecordError::Timeout { sent_to: Vec::new(), progress: Progress::default() }),
        })
    }

    pub(in crate::tracker) fn on_stored(&mut self, result: Result<(), store::Error>) -> Next {
        match (&self.sending, result) {
            (None, Ok(())) => Next::Query(self.lookup()),
            (Some(_), Ok(())) => Next::Done(self.answer()),
            (sending, Err(error)) => {
                let acknowledged = sending.as_ref().map(|sending| sending.acknowledged.clone()).unwrap_or_default();
                failed(PutRecordError::Store { error, acknowledged })
            }
        }
    }

    /// Looks for further peers after too few were found or have acknowledged, if that may help.
    fn widen(&self) -> Next {
        match &self.sending {
            Some(sending) if self.can_widen(sending, sending.asked.len()) => Next::LocalPeers(self.record.key.clone()),
            Some(_) | None => self.fail(),
        }
    }

    /// Returns whether the put may go on with further peers after it has asked this number.
    fn can_widen(&self, sending: &Sending, asked: usize) -> bool {
        // `All` means the peers that were found.
        self.quorum != Quorum::All && sending.rounds < ROUNDS && asked < MOST_ASKED
    }

    pub(in crate::tracker) fn on_local_peers(&mut self, peers: Vec<PeerId>) -> Next {
        let Some(sending) = &mut self.sending else { return self.fail() };
        let waiting = mem::take(&mut sending.waiting);
        let further = sending.not_asked(waiting.into_iter().chain(peers));
        self.send_further(further)
    }

    /// Sends the record to further peers, or looks for them beyond the farthest one known. Before anything has been
    /// sent, there must be enough for the quorum.
    fn send_further(&mut self, mut further: Vec<PeerId>) -> Next {
        let Some(sending) = &mut self.sending else { return self.fail() };
        let missing = sending.missing();
        let nothing_sent = sending.asked.is_empty();
        if further.is_empty() || (nothing_sent && further.len() < missing) {
            let edge = further.last().or(sending.asked.last()).copied();
            sending.waiting = further;
            return match edge.filter(|_| !sending.looked_further) {
                Some(edge) => {
                    sending.looked_further = true;
                    Next::Further(Job::Query(Query::GetClosestPeers { target: RecordKey::from(edge.to_bytes()) }))
                }
                None => self.fail(),
            };
        }
        let most = if nothing_sent {
            // The peers that the lookup found have just answered.
            missing.max(sending.found.saturating_add(further_for(missing.saturating_sub(sending.found))))
        } else {
            further_for(missing)
        };
        further.truncate(most);
        self.send(further)
    }

    fn send(&mut self, peers: Vec<PeerId>) -> Next {
        if let Some(sending) = &mut self.sending {
            sending.rounds += 1;
        }
        Next::Further(Job::Query(Query::PutRecordTo { record: Arc::clone(&self.record), peers: peers.into() }))
    }

    fn fail(&self) -> Next {
        let Some(Sending { needed, waiting, asked, acknowledged, .. }) = self.sending.as_deref() else {
            // Unreachable: only a put that has found peers fails here.
            return failed(PutRecordError::NoKnownPeers);
        };
        let (needed, asked) = (*needed, asked.len());
        failed(if asked == 0 {
            PutRecordError::InsufficientPeers { found: waiting.len(), needed }
        } else {
            PutRecordError::QuorumFailed { acknowledged: acknowledged.clone(), needed, asked }
        })
    }

    /// Returns the error at the deadline. `results` are those of a query that has started.
    pub(super) fn timeout(&self, results: Option<&QueryResults>, progress: Progress) -> PutRecordError {
        let (mut sent_to, before) = match &self.sending {
            Some(sending) => (sending.asked.clone(), sending.progress),
            None => (Vec::new(), Progress::default()),
        };
        if let Some(QueryResults::Put { asked }) = results {
            sent_to.extend(asked.iter());
        }
        PutRecordError::Timeout { sent_to, progress: before.merge(progress) }
    }

    /// Ends an attempt. Returns the peers that the record was sent to, and the progress of all steps, unless it ended
    /// in its first lookup.
    pub(super) fn restart(&mut self) -> Option<(Vec<PeerId>, Progress)> {
        self.sending.take().map(|sending| (sending.asked, sending.progress))
    }
}

fn failed(error: PutRecordError) -> Next {
    Next::Done(Outcome::PutRecord(Err(error)))
}

impl Sending {
    fn new(needed: NonZeroUsize, found: usize, progress: Progress) -> Self {
        Self {
            needed,
            found,
            waiting: Vec::new(),
            asked: Vec::new(),
            acknowledged: Vec::new(),
            verified: 0,
            progress,
            rounds: 0,
            looked_further: false,
        }
    }

    /// Returns the number of acknowledgements that are missing.
    fn missing(&self) -> usize {
        self.needed.get().saturating_sub(self.acknowledged.len())
    }

    /// Returns the given peers that were not asked, each once, in their order.
    fn not_asked(&self, peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
        let asked: BTreeSet<_> = self.asked.iter().collect();
        distinct(peers.filter(|peer| !asked.contains(peer)))
    }
}
