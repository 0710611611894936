//! Thorough lookups of the closest peers.
//!
//! If the first lookup ends in time and finds peers, a second lookup starts at the farthest of them. The answer is the
//! 20 peers closest to the target that both have found, also if the second one fails.

use std::time::Instant;

use kadence_core::{
    Certainty, ClosestPeersAnswer, GetClosestPeersError, Operation, Outcome, Progress, Query, RequestId,
};
use libp2p::kad::{KBucketKey, PeerInfo, RecordKey};

use super::{
    LiveQuery, Model,
    outcomes::{self, QueryEnd},
    sum,
};

/// Result of the first lookup.
#[derive(Debug, Clone)]
pub(super) struct FirstLookup {
    peers: Vec<PeerInfo>,
    progress: Progress,
    certainty: Certainty,
}

impl Model {
    /// Continues a thorough lookup whose query has ended. Returns `false` if the request is to end with this query.
    pub(super) fn continue_thorough_lookup(
        &mut self,
        id: RequestId,
        query: &LiveQuery,
        query_end: &QueryEnd,
        now: Instant,
    ) -> bool {
        let Some(request) = self.request_mut(id) else { return false };
        let Operation::GetClosestPeers { target: _, thorough: true } = request.operation else { return false };
        if request.first_lookup.is_some() {
            let certainty = match query_end.timed_out {
                true => Certainty::Inconclusive,
                false => outcomes::certainty(query_end, query.progress),
            };
            self.finish_thorough_lookup(id, &query_end.peers, query.progress, certainty, now);
            return true;
        }
        let Some(last) = query_end.peers.last().filter(|_| !query_end.timed_out) else { return false };
        let (progress, certainty) = (query.progress, outcomes::certainty(query_end, query.progress));
        request.first_lookup = Some(FirstLookup { peers: query_end.peers.clone(), progress, certainty });
        (request.past_first_step, request.second_step) = (true, true);
        self.attach(id, Query::GetClosestPeers { target: RecordKey::from(last.peer_id.to_bytes()) }, now);
        true
    }

    pub(super) fn finish_thorough_lookup(
        &mut self,
        id: RequestId,
        second: &[PeerInfo],
        progress: Progress,
        certainty: Certainty,
        now: Instant,
    ) {
        let Some(request) = self.request(id) else { return };
        let (Some(first), Operation::GetClosestPeers { target, .. }) =
            (request.first_lookup.clone(), &request.operation)
        else {
            return;
        };
        let mut peers: Vec<PeerInfo> = Vec::new();
        for info in first.peers.iter().chain(second) {
            if peers.iter().all(|known| known.peer_id != info.peer_id) {
                peers.push(info.clone());
            }
        }
        peers.sort_by_key(|info| KBucketKey::from(info.peer_id).distance(&KBucketKey::new(target.clone())));
        peers.truncate(20);
        let mut answer = ClosestPeersAnswer::new(peers, sum(first.progress, progress));
        if first.certainty == certainty {
            answer.certainty = certainty;
        }
        self.end(id, Outcome::GetClosestPeers(Ok(answer)), now);
    }
}

/// Adds the peers of the first lookup to a timeout.
pub(super) fn with_first_lookup(outcome: Outcome, first: Option<&FirstLookup>) -> Outcome {
    match (outcome, first) {
        (Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: _, progress })), Some(first)) => {
            let (peers, progress) = (first.peers.clone().into(), sum(first.progress, progress));
            Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, progress }))
        }
        (outcome, _) => outcome,
    }
}
