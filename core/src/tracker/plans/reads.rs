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

/// Answers of one query for the requests that one event ends, computed once for any number of them. An event brings at
/// most one record, so all of them have the same records.
#[derive(Debug, Default)]
pub(in crate::tracker) struct Memo {
    first: Option<Selection>,
    best: Option<Selection>,
    top: Option<Selection>,
    candidates: Option<Arc<[Candidate]>>,
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
    let first_of = |n: usize| Selection::new(first, records.get(..n).unwrap_or(records));
    let selection = match policy {
        Policy::First => memo.first.get_or_insert_with(|| first_of(1)),
        Policy::Limit(limit) => memo.first.get_or_insert_with(|| first_of(limit)),
        Policy::All => memo.first.get_or_insert_with(|| first_of(records.len())),
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
    // Only a request that has joined wants fewer than there are.
    let providers = match providers.get(..wanted) {
        Some(some) if wanted < providers.len() => some.into(),
        _ => found.list(),
    };
    Ok(ProvidersAnswer { providers, progress })
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
