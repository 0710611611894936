//! Reads: the results that satisfy a policy, and its answer.

use std::sync::Arc;

use libp2p::{PeerId, kad::PeerRecord};

use super::{Ended, count};
use crate::{
    Candidate, Certainty, GetProvidersError, GetRecordError, Policy, ProvidersAnswer, RecordAnswer,
    tracker::{
        results::{Providers, QueryEnd, Records},
        scheduler::Threshold,
    },
};

/// Answers of one query at one moment, computed once for any number of requests that wait for it.
#[derive(Debug, Default)]
pub(in crate::tracker) struct Memo {
    /// Number of items of the query that the answers are made of.
    items: usize,
    /// The first record, with the number of records in the answer.
    first: Option<(usize, Selection)>,
    best: Option<Selection>,
    top: Option<Selection>,
    candidates: Option<Arc<[Candidate]>>,
    /// The first providers, with their number.
    providers: Option<(usize, Arc<[PeerId]>)>,
    /// Number of peers that a read repair is under way to.
    pub(in crate::tracker) repairing: Option<usize>,
}

/// One of several records, and its relation to the others.
#[derive(Debug, Clone)]
struct Selection {
    record: Arc<PeerRecord>,
    others: Arc<[Arc<PeerRecord>]>,
    agreeing: usize,
    dissenting: usize,
}

impl Memo {
    /// Forgets the answers if the query has found more since.
    pub(in crate::tracker) fn at(&mut self, items: usize) {
        if self.items != items {
            *self = Self { items, ..Self::default() };
        }
    }
}

/// Returns the threshold that satisfies a policy before its query's end.
pub(super) fn threshold(policy: Policy, max_items: usize) -> Threshold {
    match policy {
        Policy::First => Threshold::Items(1),
        Policy::Limit(limit) => Threshold::Items(count(limit.min(max_items))),
        Policy::All => Threshold::End,
        Policy::Quorum(quorum) => Threshold::Votes(count(quorum.of_sources())),
        Policy::Best { agree: Some(quorum) } => Threshold::BestVotes(count(quorum.of_sources())),
        Policy::Best { agree: None } => Threshold::BestVotes(u32::MAX),
    }
}

/// Returns the result of a get.
pub(super) fn record(
    policy: Policy,
    found: &Records,
    ended: &Ended<'_>,
    memo: &mut Memo,
) -> Result<RecordAnswer, GetRecordError> {
    let Ended { results: _, progress, end, certainty } = *ended;
    let records = found.records.as_slice();
    if let QueryEnd::Read { timed_out: true, .. } = end {
        return Err(GetRecordError::Timeout { found: found.list(), progress });
    }
    let Some(first) = records.first() else {
        return Err(if progress.requests == 0 {
            GetRecordError::NoKnownPeers
        } else if progress.successes == 0 {
            GetRecordError::NoResponse { progress }
        } else {
            GetRecordError::NotFound {
                closest_peers: closest_peers(end),
                certainty: if found.rejected > 0 { Certainty::Inconclusive } else { certainty },
                rejected: found.rejected,
                progress,
            }
        });
    };
    let selection = match policy {
        Policy::First => memo.first_of(records, 1, first),
        Policy::Limit(limit) => memo.first_of(records, limit.min(records.len()), first),
        Policy::All => memo.first_of(records, records.len(), first),
        Policy::Best { agree: _ } => {
            memo.best.get_or_insert_with(|| Selection::new(found.best().unwrap_or(first), records))
        }
        Policy::Quorum(_) if matches!(end, QueryEnd::Satisfied) => {
            memo.top.get_or_insert_with(|| Selection::new(found.top().unwrap_or(first), records))
        }
        Policy::Quorum(quorum) => {
            let needed = quorum.of_sources();
            let candidates = memo.candidates.get_or_insert_with(|| found.candidates().into());
            return Err(match &**candidates {
                [candidate] => GetRecordError::QuorumNotReached { candidate: candidate.clone(), needed },
                _ => GetRecordError::Conflict { candidates: Arc::clone(candidates), needed },
            });
        }
    };
    let Selection { record, others, agreeing, dissenting } = selection.clone();
    Ok(RecordAnswer { record, others, agreeing, dissenting, repairing: 0, progress })
}

/// Returns the result of a provider lookup.
pub(super) fn providers(
    policy: Policy,
    found: &Providers,
    ended: &Ended<'_>,
    memo: &mut Memo,
) -> Result<ProvidersAnswer, GetProvidersError> {
    let Ended { results: _, progress, end, certainty } = *ended;
    let providers = found.providers.as_slice();
    if let QueryEnd::Read { timed_out: true, .. } = end {
        return Err(GetProvidersError::Timeout { found: found.list(), progress });
    }
    if providers.is_empty() {
        return Err(if progress.requests == 0 {
            GetProvidersError::NoKnownPeers
        } else if progress.successes == 0 {
            GetProvidersError::NoResponse { progress }
        } else {
            GetProvidersError::NotFound { closest_peers: closest_peers(end), certainty, progress }
        });
    }
    let wanted = match policy {
        Policy::First => 1,
        Policy::Limit(limit) => limit.min(providers.len()),
        Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => providers.len(),
    };
    let providers = if wanted == providers.len() { found.list() } else { memo.some_of(providers, wanted) };
    Ok(ProvidersAnswer { providers, progress })
}

impl Memo {
    /// Selects the first of the first `n` records.
    fn first_of(&mut self, records: &[Arc<PeerRecord>], n: usize, first: &Arc<PeerRecord>) -> &Selection {
        if self.first.as_ref().is_some_and(|(computed_for, _)| *computed_for != n) {
            self.first = None;
        }
        let select = || (n, Selection::new(first, records.get(..n).unwrap_or(records)));
        &self.first.get_or_insert_with(select).1
    }

    fn some_of(&mut self, providers: &[PeerId], n: usize) -> Arc<[PeerId]> {
        match &self.providers {
            Some((computed_for, some)) if *computed_for == n => Arc::clone(some),
            _ => {
                let some: Arc<[_]> = providers.get(..n).unwrap_or(providers).into();
                self.providers = Some((n, Arc::clone(&some)));
                some
            }
        }
    }
}

impl Selection {
    fn new(record: &Arc<PeerRecord>, records: &[Arc<PeerRecord>]) -> Self {
        let agreeing = records.iter().filter(|other| other.record.value == record.record.value).count();
        let others = if records.len() > 1 {
            records.iter().filter(|other| !Arc::ptr_eq(other, record)).cloned().collect()
        } else {
            Arc::default()
        };
        let dissenting = records.len().saturating_sub(agreeing);
        Self { record: Arc::clone(record), others, agreeing, dissenting }
    }
}

fn closest_peers(end: &QueryEnd) -> Arc<[PeerId]> {
    match end {
        QueryEnd::Read { closest_peers, .. } => Arc::clone(closest_peers),
        QueryEnd::Satisfied
        | QueryEnd::Full
        | QueryEnd::NotStarted(_)
        | QueryEnd::ClosestPeers { .. }
        | QueryEnd::Stored { .. }
        | QueryEnd::Announced { .. }
        | QueryEnd::Bootstrapped => Arc::default(),
    }
}
