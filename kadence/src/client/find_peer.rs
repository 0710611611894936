use std::{collections::BTreeSet, sync::Arc};

use kadence_core::{Certainty, ClosestPeersAnswer, GetClosestPeersError, Progress, RequestError};
use libp2p::{Multiaddr, PeerId, kad::PeerInfo};
use thiserror::Error;

use super::connection::LocatedPeer;

/// Answer of [`Client::find_peer`](crate::Client::find_peer): addresses of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundPeer {
    /// The peer that was looked up.
    pub peer: PeerId,
    /// Addresses of the peer, at least one, without duplicates, each with the peer id at the end. The addresses in the local
    /// routing table come first, then those that other peers named during the lookup: the latest 16 in a swarm with
    /// [`PeerTimeouts`](crate::PeerTimeouts), such as a ready-made node, and otherwise only if
    /// [`answered`](Self::answered) is true. Not every address need work: only a dial shows whether one does, and a peer
    /// can name any address.
    pub addresses: Vec<Multiaddr>,
    /// True if the lookup ended before the deadline of the call and the peer answered one of the lookup's requests.
    pub answered: bool,
}

/// Error of [`Client::find_peer`](crate::Client::find_peer).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum FindPeerError {
    /// The lookup ended without an error, and neither its result nor the local routing table has an address of the
    /// peer. The result contains only peers that answered. A lookup does not find peers in kad's client mode, because
    /// other peers do not keep those in their routing tables.
    #[error("peer was not found ({} of {} peers answered: {certainty})", progress.successes, progress.requests)]
    NotFound {
        /// Peers that answered the lookup, at most 20, the closest to the wanted peer first.
        closest_peers: Arc<[PeerInfo]>,
        /// Conclusive if enough peers answered, by the rules of [`Certainty`].
        certainty: Certainty,
        /// Requests and answers of the lookup.
        progress: Progress,
    },
    /// The lookup failed without an address of the peer, and the local routing table has none either. A failure for a
    /// reason common to all operations is a [`Request`](Self::Request) instead.
    #[error("lookup failed")]
    Lookup(#[source] GetClosestPeersError),
    /// The request failed for a reason common to all operations, and the local routing table has no address of the
    /// peer. [`RequestError::Invalid`] and [`RequestError::Shutdown`] are returned even if the routing table has an
    /// address.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<GetClosestPeersError> for FindPeerError {
    fn from(error: GetClosestPeersError) -> Self {
        match error {
            GetClosestPeersError::Request(error) => Self::Request(error),
            error => Self::Lookup(error),
        }
    }
}

/// Combines the answer or error of a lookup with the addresses in the routing table.
/// These were read after the lookup, which may have connected us to the peer.
pub(super) fn found_peer(
    lookup: Result<ClosestPeersAnswer, GetClosestPeersError>,
    located: LocatedPeer,
) -> Result<FoundPeer, FindPeerError> {
    if let Err(GetClosestPeersError::Request(error @ (RequestError::Invalid(_) | RequestError::Shutdown))) = lookup {
        return Err(FindPeerError::Request(error));
    }
    let LocatedPeer { peer, addresses: located } = located;
    let answering = match &lookup {
        Ok(ClosestPeersAnswer { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }) => &**peers,
        Err(_) => &[],
    };
    let info = answering.iter().find(|info| info.peer_id == peer);
    let (mut known, answered) = (BTreeSet::new(), info.iter().flat_map(|info| info.addrs.iter().cloned()));
    let all = located.into_iter().chain(answered).filter_map(|address| address.with_p2p(peer).ok());
    let addresses: Vec<_> = all.filter(|address| known.insert(address.clone())).collect();
    if !addresses.is_empty() {
        return Ok(FoundPeer { peer, addresses, answered: info.is_some() });
    }
    let ClosestPeersAnswer { peers: closest_peers, certainty, progress, .. } = lookup?;
    Err(FindPeerError::NotFound { closest_peers, certainty, progress })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn located(peer: PeerId, ports: &[u16]) -> LocatedPeer {
        LocatedPeer { peer, addresses: ports.iter().copied().map(address).collect() }
    }

    fn info(peer_id: PeerId, ports: &[u16]) -> PeerInfo {
        PeerInfo { peer_id, addrs: ports.iter().copied().map(address).collect() }
    }

    const PROGRESS: Progress = Progress { requests: 1, successes: 1, failures: 0 };

    #[test]
    fn addresses_of_the_table_come_first_and_each_address_once() {
        let peer = PeerId::random();
        let timeout = GetClosestPeersError::Timeout { peers: vec![info(peer, &[2, 3])].into(), progress: PROGRESS };
        let found = found_peer(Err(timeout), located(peer, &[1, 2])).unwrap();
        assert_eq!(
            found,
            FoundPeer {
                peer,
                addresses: [1, 2, 3].map(|port| address(port).with_p2p(peer).unwrap()).to_vec(),
                answered: true
            }
        );
    }

    #[test]
    fn a_failed_lookup_is_an_error_only_without_a_known_address() {
        let peer = PeerId::random();
        for error in [
            GetClosestPeersError::NoKnownPeers,
            GetClosestPeersError::NoResponse { progress: PROGRESS },
            RequestError::Overloaded.into(),
        ] {
            let found = found_peer(Err(error.clone()), located(peer, &[1])).unwrap();
            assert_eq!(found, FoundPeer { peer, addresses: vec![address(1).with_p2p(peer).unwrap()], answered: false });
            found_peer(Err(error), located(peer, &[])).unwrap_err();
        }
    }

    #[test]
    fn a_lookup_that_ends_without_an_address_names_the_closest_peers() {
        let other = info(PeerId::random(), &[1]);
        let mut answer = ClosestPeersAnswer::new(vec![other.clone()], PROGRESS);
        answer.certainty = Certainty::Conclusive;
        match found_peer(Ok(answer), located(PeerId::random(), &[])) {
            Err(FindPeerError::NotFound { closest_peers, certainty: Certainty::Conclusive, progress: PROGRESS }) => {
                assert_eq!(*closest_peers, [other]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn after_a_shutdown_a_known_address_is_not_returned() {
        let shutdown = Err(RequestError::Shutdown.into());
        let error = found_peer(shutdown, located(PeerId::random(), &[1])).unwrap_err();
        assert!(matches!(error, FindPeerError::Request(RequestError::Shutdown)), "{error:?}");
    }
}
