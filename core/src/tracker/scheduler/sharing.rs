//! Sharing: the queries that another request may still join.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
};

use libp2p::kad::RecordKey;

use super::query::Job;
use crate::{OperationKind, Query, StepId};

/// Identity of a query that requests may share. Ordered rather than hashed, because peers may influence the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedQuery {
    kind: OperationKind,
    key: RecordKey,
}

impl SharedQuery {
    /// `None` for queries that are never shared.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let Job::Query(query) = job else { return None };
        match query {
            Query::GetRecord { key } | Query::GetProviders { key } => {
                Some(Self { kind: query.kind(), key: key.clone() })
            }
            Query::GetClosestPeers { target } => Some(Self { kind: query.kind(), key: target.clone() }),
            Query::PutRecordTo { record: _, peers: _ } | Query::StartProviding { key: _ } | Query::Bootstrap => None,
        }
    }

    /// Returns the reads of a key.
    pub(super) fn reads(key: &RecordKey) -> [Self; 2] {
        [OperationKind::GetRecord, OperationKind::GetProviders].map(|kind| Self { kind, key: key.clone() })
    }
}

impl Ord for SharedQuery {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.key.as_ref().cmp(other.key.as_ref()))
    }
}

impl PartialOrd for SharedQuery {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// At most one query of each kind and key.
#[derive(Debug, Clone, Default)]
pub(super) struct Sharing {
    steps: BTreeMap<SharedQuery, StepId>,
}

impl Sharing {
    pub(super) fn get(&self, shared: &SharedQuery) -> Option<StepId> {
        self.steps.get(shared).copied()
    }

    /// Returns the query that is offered if `may_join` accepts it; otherwise offers `new` to later requests in its
    /// place.
    pub(super) fn join_or_offer(
        &mut self,
        shared: SharedQuery,
        new: StepId,
        may_join: impl FnOnce(StepId) -> bool,
    ) -> StepId {
        match self.steps.entry(shared) {
            Entry::Occupied(offered) if may_join(*offered.get()) => *offered.get(),
            Entry::Occupied(mut offered) => {
                offered.insert(new);
                new
            }
            Entry::Vacant(free) => *free.insert(new),
        }
    }

    /// Excludes a query, unless another one is offered in its place.
    pub(super) fn exclude(&mut self, job: &Job, step: StepId) {
        if let Some(shared) = SharedQuery::of(job)
            && let Entry::Occupied(offered) = self.steps.entry(shared)
            && *offered.get() == step
        {
            offered.remove();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}
