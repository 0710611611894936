//! Thorough lookups of the closest peers: a second query finds peers that the first one missed.
//!
//! ```text
//!   lookup of the target ──► lookup of the farthest found ──► the closest of both: done
//!      │ no peer found, or timed out by kad
//!      ▼
//!     done
//! ```
//!
//! Every peer asked names the 20 peers closest to the target that it knows, including silent ones, and so no peer names
//! the next closer ones. These are close to the farthest peer found, so a query for that peer finds them.

use std::{collections::BTreeSet, sync::Arc};

use libp2p::kad::{KBucketKey, PeerInfo, RecordKey};

use super::{Ended, Next, closest_peers, not_started};
use crate::{
    Certainty, ClosestPeersAnswer, GetClosestPeersError, OperationKind, Outcome, Progress, Query, REPLICATION_FACTOR,
    tracker::{results::QueryEnd, scheduler::Job},
};

#[derive(Debug, Clone)]
pub(in crate::tracker) struct Thorough {
    target: RecordKey,
    /// Result of the first query: at least one peer.
    first: Option<Box<ClosestPeersAnswer>>,
}

impl Thorough {
    pub(super) fn new(target: RecordKey) -> Self {
        Self { target, first: None }
    }

    pub(super) fn target(&self) -> &RecordKey {
        &self.target
    }

    pub(super) fn on_ended(&mut self, ended: &Ended<'_>, end: &QueryEnd) -> Next {
        let Ended { progress, certainty, .. } = *ended;
        match (self.first.take(), end) {
            (Some(first), QueryEnd::ClosestPeers { peers, timed_out }) => {
                let certainty = if *timed_out { Certainty::Inconclusive } else { certainty };
                Next::Done(self.both(&first, peers, progress, certainty))
            }
            // The first query's peers are an answer without those of the second.
            (Some(first), _) => Next::Done(self.both(&first, &[], progress, Certainty::Inconclusive)),
            (None, QueryEnd::NotStarted(error)) => {
                Next::Done(not_started(OperationKind::GetClosestPeers, error.clone()))
            }
            (None, QueryEnd::ClosestPeers { peers, timed_out }) => {
                if let (Some(farthest), false) = (peers.last(), *timed_out) {
                    let target = RecordKey::from(farthest.peer_id.to_bytes());
                    let answer = ClosestPeersAnswer { peers: peers.as_slice().into(), certainty, progress };
                    self.first = Some(Box::new(answer));
                    return Next::Further(Job::Query(Query::GetClosestPeers { target }));
                }
                Next::Done(Outcome::GetClosestPeers(closest_peers(peers, *timed_out, progress, certainty)))
            }
            // Unreachable: both queries look up peers.
            (None, _) => Next::Done(Outcome::GetClosestPeers(Err(self.timeout(progress)))),
        }
    }

    fn both(
        &self,
        first: &ClosestPeersAnswer,
        peers: &[PeerInfo],
        progress: Progress,
        certainty: Certainty,
    ) -> Outcome {
        let target = KBucketKey::new(self.target.clone());
        let mut seen = BTreeSet::new();
        let mut all: Vec<_> =
            first.peers.iter().chain(peers).filter(|info| seen.insert(info.peer_id)).cloned().collect();
        all.sort_by_cached_key(|info| KBucketKey::from(info.peer_id).distance(&target));
        all.truncate(REPLICATION_FACTOR);
        Outcome::GetClosestPeers(Ok(ClosestPeersAnswer {
            peers: all.into(),
            certainty: first.certainty.max(certainty),
            progress: first.progress.merge(progress),
        }))
    }

    /// Returns the error at the deadline: during the second query it names the peers of the first.
    pub(super) fn timeout(&self, progress: Progress) -> GetClosestPeersError {
        match &self.first {
            Some(first) => GetClosestPeersError::Timeout {
                peers: Arc::clone(&first.peers),
                progress: progress.merge(first.progress),
            },
            None => GetClosestPeersError::Timeout { peers: Arc::default(), progress },
        }
    }
}
