//! Thorough lookups of the closest peers: a second query finds peers that the first one missed.
//!
//! ```text
//!   lookup of the target ──► lookup of the farthest found ──► the closest of both: outcome
//!      │ no peer found, or timed out by kad
//!      ▼
//!   outcome
//! ```
//!
//! Every peer asked names the 20 peers closest to the target that it knows, including silent ones, and so no peer names
//! the next closer ones. These are close to the farthest peer found, so a query for that peer finds them.

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

/// Result of the first of the two queries: at least one peer.
#[derive(Debug)]
pub(super) struct Closest {
    peers: Vec<PeerInfo>,
    progress: Progress,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Handles the end of one of the two queries.
    pub(super) fn thorough_lookup_ended(
        &mut self,
        id: RequestId,
        results: &QueryResults,
        end: &QueryEnd,
        progress: Progress,
        now: Time,
    ) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if let QueryEnd::ClosestPeers { peers, timed_out } = end {
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
        let outcome = policy::ended(&request.operation, results, end, progress);
        self.conclude(id, outcome, Some((results, progress)), now);
    }

    /// Ends the request after its second query, with at least the peers of the first.
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
    /// Adds the peers of the first query to a timeout during the second.
    pub(super) fn complete(&self, outcome: &mut Outcome) {
        if let Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, progress })) = outcome {
            peers.clone_from(&self.peers);
            *progress = progress.merge(self.progress);
        }
    }
}
