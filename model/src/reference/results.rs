//! Results of a query, kept as lists. Votes are counted anew each time.

use std::sync::Arc;

use kadence_core::{BootstrapPhase, Item, Operation, Policy, Progress, Query, Quorum, Validator, Validators};
use libp2p::{
    PeerId,
    kad::{BootstrapError, BootstrapOk, GetProvidersOk, GetRecordOk, PeerRecord, QueryResult},
};

/// Threshold at which a request ends before its query does. Waiters are served in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Threshold {
    Items(usize),
    Votes(usize),
    BestVotes(usize),
    End,
}

impl Threshold {
    pub(super) fn of(operation: &Operation, max_items: usize) -> Self {
        match operation {
            Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } => match *policy {
                Policy::First => Self::Items(1),
                Policy::Limit(limit) => Self::Items(limit.min(max_items)),
                Policy::All => Self::End,
                Policy::Best { agree: None } => Self::BestVotes(u32::MAX as usize),
                Policy::Quorum(quorum) => Self::Votes(sources(quorum)),
                Policy::Best { agree: Some(quorum) } => Self::BestVotes(sources(quorum)),
            },
            Operation::PutRecord { .. }
            | Operation::PutRecordTo { .. }
            | Operation::StartProviding { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => Self::End,
        }
    }
}

/// Number of sources that a get with this quorum needs.
pub(super) fn sources(quorum: Quorum) -> usize {
    match quorum {
        Quorum::One => 1,
        Quorum::Majority => 11,
        Quorum::All => 20,
        Quorum::N(n) => n as usize,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anomaly {
    Foreign,
    Rejected,
}

/// Records and providers from distinct sources, in order of arrival.
#[derive(Debug, Default, Clone)]
pub(super) struct QueryResults {
    pub(super) records: Vec<Arc<PeerRecord>>,
    pub(super) providers: Vec<PeerId>,
    /// Number of records that a validator has rejected.
    pub(super) rejected: u32,
    /// For each phase of a bootstrap, whether it succeeded, and its progress.
    pub(super) phases: Vec<(bool, Progress)>,
}

/// Returns whether this kind of result fits this query.
pub(super) fn fits(query: &Query, result: &QueryResult) -> bool {
    matches!(
        (query, result),
        (Query::GetRecord { .. }, QueryResult::GetRecord(_))
            | (Query::PutRecordTo { .. }, QueryResult::PutRecord(_))
            | (Query::GetProviders { .. }, QueryResult::GetProviders(_))
            | (Query::StartProviding { .. }, QueryResult::StartProviding(_))
            | (Query::GetClosestPeers { .. }, QueryResult::GetClosestPeers(_))
            | (Query::Bootstrap, QueryResult::Bootstrap(_))
    )
}

impl QueryResults {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.providers.is_empty() && self.phases.is_empty()
    }

    /// Returns the items so far, which a request that joins late receives.
    pub(super) fn items(&self) -> Vec<Item> {
        let records = self.records.iter().map(|record| Item::Record(Arc::clone(record)));
        records.chain(self.providers.iter().map(|provider| Item::Provider(*provider))).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        let records: usize = self.records.iter().map(|record| record.record.value.len()).sum();
        records + self.providers.len() * size_of::<PeerId>()
    }

    /// Returns the new items of an event, and the anomaly that it shows. Phases of a bootstrap are counted here, all
    /// other items when they are [added](Self::add).
    pub(super) fn new_items(
        &mut self,
        query: &Query,
        result: &QueryResult,
        progress: Progress,
        validators: &Validators,
    ) -> (Vec<Item>, Option<Anomaly>) {
        match (query, result) {
            (Query::GetRecord { key }, QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found)))) => {
                let PeerRecord { peer, record } = found;
                if record.key != *key {
                    return (Vec::new(), Some(Anomaly::Foreign));
                }
                if validators.of(key.as_ref()).is_some_and(|validator| validator.validate(key, &record.value).is_err())
                {
                    return (Vec::new(), Some(Anomaly::Rejected));
                }
                if self.records.iter().any(|known| known.peer == *peer) {
                    return (Vec::new(), None);
                }
                (vec![Item::Record(Arc::new(found.clone()))], None)
            }
            (_, QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key: _, providers }))) => {
                let mut new: Vec<_> = providers.iter().filter(|peer| !self.providers.contains(peer)).copied().collect();
                new.sort();
                (new.into_iter().map(Item::Provider).collect(), None)
            }
            (_, QueryResult::Bootstrap(result)) => {
                let phase = match result {
                    Ok(BootstrapOk { peer: _, num_remaining }) => {
                        BootstrapPhase { ok: true, remaining: Some(*num_remaining) }
                    }
                    Err(BootstrapError::Timeout { peer: _, num_remaining }) => {
                        BootstrapPhase { ok: false, remaining: *num_remaining }
                    }
                };
                self.phases.push((phase.ok, progress));
                (vec![Item::BootstrapPhase(phase)], None)
            }
            _ => (Vec::new(), None),
        }
    }

    pub(super) fn add(&mut self, item: &Item) {
        match item {
            Item::Record(record) => self.records.push(Arc::clone(record)),
            Item::Provider(provider) => self.providers.push(*provider),
            Item::BootstrapPhase(_) => {}
        }
    }

    pub(super) fn satisfies(&self, threshold: Threshold, validator: Option<&dyn Validator>) -> bool {
        match threshold {
            Threshold::Items(needed) => self.records.len() + self.providers.len() >= needed,
            Threshold::Votes(needed) => self.records.iter().any(|record| self.votes(record) >= needed),
            Threshold::BestVotes(needed) => self.best(validator).is_some_and(|best| self.votes(best) >= needed),
            Threshold::End => false,
        }
    }

    /// Returns the number of sources with the same bytes.
    pub(super) fn votes(&self, like: &PeerRecord) -> usize {
        self.records.iter().filter(|record| record.record.value == like.record.value).count()
    }

    /// Returns the first record of the leading value. On a tie, the value that was the first to reach this number of
    /// votes leads.
    pub(super) fn leading(&self) -> Option<&Arc<PeerRecord>> {
        let most = self.records.iter().map(|record| self.votes(record)).max()?;
        // A value reaches its number of votes with its last copy.
        let complete = self.records.iter().enumerate().find(|(at, record)| {
            let later = self.records.iter().skip(at + 1);
            self.votes(record) == most && later.into_iter().all(|other| other.record.value != record.record.value)
        });
        let (_, leading) = complete?;
        self.records.iter().find(|record| record.record.value == leading.record.value)
    }

    /// Returns the first record with the best value.
    pub(super) fn best(&self, validator: Option<&dyn Validator>) -> Option<&Arc<PeerRecord>> {
        let validator = validator?;
        self.records.iter().find(|candidate| {
            self.records.iter().all(|other| {
                let (left, right) = (&candidate.record, &other.record);
                validator.compare(&left.key, &left.value, &right.value).then(left.value.cmp(&right.value)).is_ge()
            })
        })
    }

    /// Returns the first record of each value, the value with the most votes first.
    pub(super) fn candidates(&self) -> Vec<&Arc<PeerRecord>> {
        let mut firsts: Vec<&Arc<PeerRecord>> = Vec::new();
        for record in &self.records {
            if !firsts.iter().any(|first| first.record.value == record.record.value) {
                firsts.push(record);
            }
        }
        firsts.sort_by_key(|first| std::cmp::Reverse(self.votes(first)));
        firsts
    }
}
