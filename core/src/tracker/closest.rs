//! Thorough lookups of the closest peers: two of them, the second one beside the first.
//!
//! ```text
//!   lookup of the target ──► lookup of the farthest found ──► the closest of both: outcome
//!      │ nobody found, or timed out by kad
//!      ▼
//!   outcome
//! ```
//!
//! Whoever is asked names the twenty that it knows to be closest to the target, silent ones among them, and nobody names
//! those that come next. These are close to the farthest that was found, so that a lookup of that one comes by them.

use std::{collections::BTreeSet, fmt, hash::Hash};

use libp2p::kad::{KBucketKey, PeerInfo, RecordKey};

use super::{
    QueryTracker, policy,
    results::{QueryEnd, QueryResults},
    time::Time,
};
use crate::{
    ClosestPeersAnswer, GetClosestPeersError, Operation, Outcome, Progress, Query, REPLICATION_FACTOR, RequestId,
};

/// What the first of the two lookups has found: somebody.
#[derive(Debug)]
pub(super) struct Closest {
    peers: Vec<PeerInfo>,
    progress: Progress,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// One of the two lookups of a request has ended.
    pub(super) fn thorough_lookup_ended(
        &mut self,
        id: RequestId,
        findings: &QueryResults,
        ending: &QueryEnd,
        progress: Progress,
        now: Time,
    ) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if let QueryEnd::ClosestPeers { peers, timed_out } = ending {
            if request.closest.is_some() {
                self.looked_beside(id, peers, progress, now);
                return;
            }
            if let (Some(farthest), false) = (peers.last(), *timed_out) {
                let target = RecordKey::from(farthest.peer_id.to_bytes());
                request.closest = Some(Box::new(Closest { peers: peers.clone(), progress }));
                request.begun = true;
                request.second_step = true;
                self.attach(id, Query::GetClosestPeers { target }, now);
                return;
            }
        }
        let outcome = policy::ended(&request.operation, findings, ending, progress);
        self.conclude(id, outcome, Some((findings, progress)), now);
    }

    /// The second lookup is over, whatever it has found: the first has found enough for an answer.
    pub(super) fn looked_beside(&mut self, id: RequestId, peers: &[PeerInfo], progress: Progress, now: Time) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let (Some(first), Operation::GetClosestPeers { target, thorough: _ }) =
            (request.closest.take(), &request.operation)
        else {
            return;
        };
        let target = KBucketKey::new(target.clone());
        let mut seen = BTreeSet::new();
        let mut all = first.peers;
        all.extend_from_slice(peers);
        all.retain(|info| seen.insert(info.peer_id));
        all.sort_by_cached_key(|info| KBucketKey::from(info.peer_id).distance(&target));
        all.truncate(REPLICATION_FACTOR);
        let answer = ClosestPeersAnswer { peers: all, progress: first.progress.merge(progress) };
        self.end(id, Outcome::GetClosestPeers(Ok(answer)), now);
    }
}

impl Closest {
    /// Adds to a deadline's outcome in the second lookup what the first one has found.
    pub(super) fn complete(&self, outcome: &mut Outcome) {
        if let Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, progress })) = outcome {
            peers.clone_from(&self.peers);
            *progress = progress.merge(self.progress);
        }
    }
}
