//! What is expected of outcomes and of the local store: a model that is too simple to be wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kadence::{
    GetProvidersError, GetRecordError, PutAnswer, PutRecordError, Quorum,
    tracker::{Operation, Outcome, OutcomeKind},
};
use libp2p::{
    PeerId,
    kad::{
        PeerRecord, QueryId, Record, RecordKey,
        store::{MemoryStore, RecordStore},
    },
};

use super::{facts::Facts, peers::Said};

/// An accepted request that has not ended.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) streaming: bool,
    pub(super) deadline: Duration,
    /// The items delivered.
    pub(super) items: usize,
    /// Its caller is gone.
    pub(super) cancelled: bool,
    /// The latest query that was started for it; none for one that joined another's.
    pub(super) query: Option<QueryId>,
}

/// What should be in the local store.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Values by key: those that were there, and those of puts that succeeded.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whatever has been in the local store.
    ever: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Keys that an announcement which succeeded has left behind.
    pub(super) provided: BTreeSet<Vec<u8>>,
}

impl Expected {
    /// `announcing`: the keys of the announcements that are under way.
    pub(super) fn check(&self, store: &MemoryStore, announcing: BTreeSet<Vec<u8>>) {
        let records: BTreeMap<_, _> =
            store.records().map(|record| (record.key.to_vec(), record.value.clone())).collect();
        assert_eq!(records, self.records, "records in the local store (left), and expected ones (right)");
        let provided: BTreeSet<_> = store.provided().map(|entry| entry.key.to_vec()).collect();
        let expected: BTreeSet<_> = self.provided.iter().cloned().chain(announcing).collect();
        assert_eq!(provided, expected, "keys that we provide (left), and expected ones (right)");
    }

    /// A record has come into the local store.
    pub(super) fn store(&mut self, record: &Record) {
        self.records.insert(record.key.to_vec(), record.value.clone());
        self.ever.insert((record.key.to_vec(), record.value.clone()));
    }

    /// A record was taken out of the local store.
    pub(super) fn remove(&mut self, key: &RecordKey) {
        self.records.remove(key.as_ref());
    }

    /// What a request that has ended leaves behind.
    fn ended(&mut self, operation: &Operation, outcome: &Outcome) {
        match (operation, outcome) {
            (Operation::PutRecord { record, quorum: _, options: _ }, Outcome::PutRecord(Ok(_))) => {
                self.store(record);
            }
            (Operation::StartProviding { key }, Outcome::StartProviding(Ok(_))) => {
                self.provided.insert(key.to_vec());
            }
            _ => {}
        }
    }

    /// Judges an outcome, and takes note of it.
    pub(super) fn judge(&mut self, call: &Call, outcome: &Outcome, now: Duration, said: &Said, facts: &Facts) {
        assert_eq!(outcome.kind(), call.operation.kind(), "the outcome is of another operation");
        let kind = OutcomeKind::of(outcome);
        assert_eq!(call.cancelled, kind == OutcomeKind::Cancelled, "cancelled, or not: {outcome:?}");
        if outcome.is_ok() {
            assert!(now < call.deadline, "an answer after the deadline");
        }
        if kind == OutcomeKind::ExpiredInQueue {
            assert!(now >= call.deadline && call.query.is_none(), "it had not begun, and had time: {call:?}");
        }
        match (&call.operation, outcome) {
            (Operation::GetRecord { key, policy: _ }, Outcome::GetRecord(result)) => match result {
                Ok(answer) => {
                    let sources: BTreeSet<_> = answer.iter().map(|found| found.peer).collect();
                    assert_eq!(sources.len(), answer.iter().count(), "a source is named twice");
                    for found in answer.iter() {
                        assert_eq!(found.record.key, *key, "a record under another key");
                        assert!(self.was_there(said, found), "nobody sent {found:?}");
                    }
                    assert!(!call.streaming || call.items >= sources.len(), "an item was not delivered");
                }
                Err(GetRecordError::Timeout { found, progress: _ }) => {
                    assert!(found.iter().all(|found| self.was_there(said, found)), "nobody sent it");
                }
                Err(_) => {}
            },
            (Operation::GetProviders { key, policy: _ }, Outcome::GetProviders(result)) => {
                let (Ok(kadence::ProvidersAnswer { providers, .. })
                | Err(GetProvidersError::Timeout { found: providers, progress: _ })) = result
                else {
                    return;
                };
                let distinct: BTreeSet<_> = providers.iter().copied().collect();
                assert_eq!(distinct.len(), providers.len(), "a provider is named twice");
                for provider in distinct {
                    assert!(said.provides(key.as_ref(), provider), "nobody named {provider}");
                }
            }
            (Operation::PutRecord { record, quorum, options: _ }, Outcome::PutRecord(result))
            | (Operation::PutRecordTo { record, peers: _, quorum }, Outcome::PutRecordTo(result)) => {
                judge_put(record, *quorum, result.as_ref(), said);
            }
            (Operation::GetClosestPeers { target: _, thorough: _ }, Outcome::GetClosestPeers(result)) => {
                if let Ok(answer) = result {
                    assert!(!answer.peers.is_empty(), "an empty answer is none");
                    assert!(
                        answer.peers.iter().all(|peer| said.answered.contains(&peer.peer_id)),
                        "a peer is named that has not answered: {answer:?}"
                    );
                }
            }
            (Operation::Bootstrap, Outcome::Bootstrap(result)) => {
                if let Ok(answer) = result {
                    let phases = facts.bootstrap(call.query.expect("a bootstrap has a query"));
                    assert_eq!((answer.phases, answer.failed), (phases.done, phases.failed), "phases, failed ones");
                }
            }
            (Operation::StartProviding { key: _ }, Outcome::StartProviding(result)) => {
                if let Ok(answer) = result {
                    assert_ne!(answer.progress.successes, 0, "nobody was told");
                }
            }
            (operation, outcome) => unreachable!("{operation:?} ended as {outcome:?}"),
        }
        self.ended(&call.operation, outcome);
    }

    fn was_there(&self, said: &Said, found: &PeerRecord) -> bool {
        let PeerRecord { peer, record } = found;
        let (key, value) = (record.key.to_vec(), record.value.clone());
        match *peer {
            Some(peer) => said.records.contains(&(peer, key, value)),
            None => self.ever.contains(&(key, value)),
        }
    }
}

fn judge_put(record: &Record, quorum: Quorum, result: Result<&PutAnswer, &PutRecordError>, said: &Said) {
    let (acknowledged, asked) = match result {
        Ok(answer @ PutAnswer { acknowledged, .. }) => (acknowledged, answer.asked()),
        Err(PutRecordError::QuorumFailed { acknowledged, needed, asked }) => {
            assert!(acknowledged.len() < needed.get(), "{} of {needed} were enough", acknowledged.len());
            (acknowledged, *asked)
        }
        Err(_) => return,
    };
    let distinct: BTreeSet<_> = acknowledged.iter().copied().collect();
    assert_eq!(distinct.len(), acknowledged.len(), "a peer acknowledged twice");
    for peer in distinct {
        assert!(
            said.stored.contains(&(peer, record.key.to_vec(), record.value.clone())),
            "{peer} did not acknowledge the record"
        );
    }
    if result.is_err() {
        return;
    }
    let needed = match quorum {
        // Of those whom the lookup had found; more may have been asked since.
        Quorum::One | Quorum::Majority => 1,
        Quorum::All => asked,
        Quorum::N(n) => n as usize,
    };
    assert!(acknowledged.len() >= needed, "{} of {asked}, needed {needed}", acknowledged.len());
}

impl Said {
    fn provides(&self, key: &[u8], provider: PeerId) -> bool {
        self.providers.contains(&(key.to_vec(), provider))
    }
}
