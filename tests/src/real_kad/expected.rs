//! Expected outcomes and contents of the local store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kadence::{
    GetProvidersError, GetRecordError, PutAnswer, PutRecordError, Quorum, StartProvidingError,
    tracker::{Operation, Outcome, OutcomeKind},
};
use libp2p::{
    PeerId,
    kad::{
        PeerRecord, QueryId, Record, RecordKey,
        store::{MemoryStore, RecordStore},
    },
};

use super::{kad_events::KadEvents, peers::AnswerLog};

/// Accepted request without an outcome.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) streaming: bool,
    pub(super) deadline: Duration,
    /// Number of items delivered.
    pub(super) items: usize,
    /// The caller has cancelled it.
    pub(super) cancelled: bool,
    /// Latest query that was started for it. `None` for a request that joined another's query.
    pub(super) query: Option<QueryId>,
}

/// Expected contents of the local store.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Values by key: initial records, and those of successful puts.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Key and value of every record that has been in the local store.
    ever: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Keys that successful announcements have added.
    pub(super) provided: BTreeSet<Vec<u8>>,
}

impl Expected {
    /// Compares the local store. `announcing`: keys of the running announcements.
    pub(super) fn check(&self, store: &MemoryStore, announcing: BTreeSet<Vec<u8>>) {
        let records: BTreeMap<_, _> =
            store.records().map(|record| (record.key.to_vec(), record.value.clone())).collect();
        assert_eq!(records, self.records, "records in the local store (left), and expected ones (right)");
        let provided: BTreeSet<_> = store.provided().map(|entry| entry.key.to_vec()).collect();
        let expected: BTreeSet<_> = self.provided.iter().cloned().chain(announcing).collect();
        assert_eq!(provided, expected, "keys that we provide (left), and expected ones (right)");
    }

    /// Adds a record to the expected contents.
    pub(super) fn store(&mut self, record: &Record) {
        self.records.insert(record.key.to_vec(), record.value.clone());
        self.ever.insert((record.key.to_vec(), record.value.clone()));
    }

    /// Removes a record from the expected contents.
    pub(super) fn remove(&mut self, key: &RecordKey) {
        self.records.remove(key.as_ref());
    }

    /// Updates the expected contents after a request has ended.
    fn ended(&mut self, operation: &Operation, outcome: &Outcome) {
        match (operation, outcome) {
            (Operation::PutRecord { record, quorum: _, options: _ }, Outcome::PutRecord(Ok(_))) => {
                self.store(record);
            }
            (Operation::StartProviding { key }, Outcome::StartProviding(result))
                if result.as_ref().err().is_none_or(StartProvidingError::keeps_local_entry) =>
            {
                self.provided.insert(key.to_vec());
            }
            _ => {}
        }
    }

    /// Checks an outcome and updates the expected contents.
    pub(super) fn check_outcome(
        &mut self,
        call: &Call,
        outcome: &Outcome,
        now: Duration,
        answer_log: &AnswerLog,
        kad_events: &KadEvents,
    ) {
        assert_eq!(outcome.kind(), call.operation.kind(), "the outcome is of another operation");
        let kind = OutcomeKind::of(outcome);
        assert_eq!(
            call.cancelled,
            kind == OutcomeKind::Cancelled,
            "the outcome does not fit the call's cancellation: {outcome:?}"
        );
        if outcome.is_ok() {
            assert!(now < call.deadline, "an answer after the deadline");
        }
        if kind == OutcomeKind::ExpiredInQueue {
            assert!(
                now >= call.deadline && call.query.is_none(),
                "expired in the queue although it had started or had time left: {call:?}"
            );
        }
        match (&call.operation, outcome) {
            (Operation::GetRecord { key, policy: _ }, Outcome::GetRecord(result)) => match result {
                Ok(answer) => {
                    let sources: BTreeSet<_> = answer.iter().map(|found| found.peer).collect();
                    assert_eq!(sources.len(), answer.iter().count(), "a source is named twice");
                    for found in answer.iter() {
                        assert_eq!(found.record.key, *key, "a record under another key");
                        assert!(self.is_genuine(answer_log, found), "no peer sent {found:?}");
                    }
                    assert!(!call.streaming || call.items >= sources.len(), "an item was not delivered");
                }
                Err(GetRecordError::Timeout { found, progress: _ }) => {
                    assert!(
                        found.iter().all(|found| self.is_genuine(answer_log, found)),
                        "no peer sent one of the records"
                    );
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
                    assert!(answer_log.provides(key.as_ref(), provider), "no peer named {provider}");
                }
            }
            (Operation::PutRecord { record, quorum, options: _ }, Outcome::PutRecord(result))
            | (Operation::PutRecordTo { record, peers: _, quorum }, Outcome::PutRecordTo(result)) => {
                check_put(record, *quorum, result.as_ref(), answer_log);
            }
            (Operation::GetClosestPeers { target: _, thorough: _ }, Outcome::GetClosestPeers(result)) => {
                if let Ok(answer) = result {
                    assert!(!answer.peers.is_empty(), "an answer names at least one peer");
                    assert!(
                        answer.peers.iter().all(|peer| answer_log.answered.contains(&peer.peer_id)),
                        "the answer names a peer that has not answered: {answer:?}"
                    );
                }
            }
            (Operation::Bootstrap, Outcome::Bootstrap(result)) => {
                if let Ok(answer) = result {
                    let phases = kad_events.bootstrap(call.query.expect("a bootstrap has a query"));
                    assert_eq!(
                        (answer.phases, answer.failed),
                        (phases.done, phases.failed),
                        "phases and failed phases"
                    );
                }
            }
            (Operation::StartProviding { key: _ }, Outcome::StartProviding(result)) => {
                if let Ok(answer) = result {
                    assert_ne!(answer.progress.successes, 0, "no peer was told");
                }
            }
            (operation, outcome) => unreachable!("{operation:?} ended as {outcome:?}"),
        }
        self.ended(&call.operation, outcome);
    }

    fn is_genuine(&self, answer_log: &AnswerLog, found: &PeerRecord) -> bool {
        let PeerRecord { peer, record } = found;
        let (key, value) = (record.key.to_vec(), record.value.clone());
        match *peer {
            Some(peer) => answer_log.records.contains(&(peer, key, value)),
            None => self.ever.contains(&(key, value)),
        }
    }
}

fn check_put(record: &Record, quorum: Quorum, result: Result<&PutAnswer, &PutRecordError>, answer_log: &AnswerLog) {
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
            answer_log.stored.contains(&(peer, record.key.to_vec(), record.value.clone())),
            "{peer} did not acknowledge the record"
        );
    }
    if result.is_err() {
        return;
    }
    let needed = match quorum {
        // Relative to the peers that the lookup found; more peers may have been asked since.
        Quorum::One | Quorum::Majority => 1,
        Quorum::All => asked,
        Quorum::N(n) => n as usize,
    };
    assert!(acknowledged.len() >= needed, "{} of {asked}, needed {needed}", acknowledged.len());
}

impl AnswerLog {
    fn provides(&self, key: &[u8], provider: PeerId) -> bool {
        self.providers.contains(&(key.to_vec(), provider))
    }
}
