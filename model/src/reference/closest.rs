//! Thorough lookups of the closest peers.
//!
//! When the first lookup has ended in time with somebody, another one looks for those who are closest to the last of them.
//! Whatever becomes of that one, the answer is the twenty of both who are closest to the target.

use std::time::Instant;

use kadence_core::{ClosestPeersAnswer, GetClosestPeersError, Operation, Outcome, Progress, Query, RequestId};
use libp2p::kad::{KBucketKey, PeerInfo, RecordKey};

use super::{LiveQuery, Model, outcomes::QueryEnd, sum};

/// What the first lookup has found.
#[derive(Debug, Clone)]
pub(super) struct First {
    peers: Vec<PeerInfo>,
    progress: Progress,
}

impl Model {
    /// Whether the end of a query is not all that there is to a request, or is the second part of it.
    pub(super) fn goes_on_beside(&mut self, id: RequestId, query: &LiveQuery, ending: &QueryEnd, now: Instant) -> bool {
        let Some(request) = self.request_mut(id) else { return false };
        let Operation::GetClosestPeers { target: _, thorough: true } = request.operation else { return false };
        if request.first.is_some() {
            self.closest_of_both(id, &ending.peers, query.progress, now);
            return true;
        }
        let Some(last) = ending.peers.last().filter(|_| !ending.timed_out) else { return false };
        request.first = Some(First { peers: ending.peers.clone(), progress: query.progress });
        (request.begun, request.second_step) = (true, true);
        self.want(id, Query::GetClosestPeers { target: RecordKey::from(last.peer_id.to_bytes()) }, now);
        true
    }

    pub(super) fn closest_of_both(&mut self, id: RequestId, beside: &[PeerInfo], progress: Progress, now: Instant) {
        let Some(request) = self.request(id) else { return };
        let (Some(first), Operation::GetClosestPeers { target, .. }) = (request.first.clone(), &request.operation)
        else {
            return;
        };
        let mut peers: Vec<PeerInfo> = Vec::new();
        for info in first.peers.iter().chain(beside) {
            if peers.iter().all(|known| known.peer_id != info.peer_id) {
                peers.push(info.clone());
            }
        }
        peers.sort_by_key(|info| KBucketKey::from(info.peer_id).distance(&KBucketKey::new(target.clone())));
        peers.truncate(20);
        let answer = ClosestPeersAnswer::new(peers, sum(first.progress, progress));
        self.end(id, Outcome::GetClosestPeers(Ok(answer)), now);
    }
}

/// A timeout with what the first lookup has found.
pub(super) fn with_first(outcome: Outcome, first: Option<&First>) -> Outcome {
    match (outcome, first) {
        (Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: _, progress })), Some(first)) => {
            let (peers, progress) = (first.peers.clone(), sum(first.progress, progress));
            Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, progress }))
        }
        (outcome, _) => outcome,
    }
}
