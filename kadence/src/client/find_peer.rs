use std::collections::BTreeSet;

use kadence_core::{Certainty, GetClosestPeersError, Progress};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    kad::{KBucketKey, PeerInfo},
};
use thiserror::Error;

use crate::{Client, ContainsKad, DriverClosedError};

/// Where a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPeer {
    /// The peer.
    pub peer: PeerId,
    /// Its addresses, each once: first those that the own routing table has, which identify or earlier lookups put there,
    /// then those by which the lookup has reached it. Whether any of them works, only a dial can tell.
    pub addresses: Vec<Multiaddr>,
    /// Whether it has answered just now, in the lookup.
    pub answered: bool,
}

/// Why a peer was not found.
#[derive(Debug, Clone, Error)]
pub enum FindPeerError {
    /// Neither the routing table nor the lookup knows an address of it. A peer that only asks and does not serve is on
    /// nobody's table.
    #[error("the peer was not found ({} of {} peers answered: {certainty})", progress.successes, progress.requests)]
    NotFound {
        /// The peers closest to it that answered.
        closest_peers: Vec<PeerInfo>,
        /// Whether enough peers answered for this to mean something.
        certainty: Certainty,
        /// How many peers were asked and answered.
        progress: Progress,
    },
    /// The lookup has failed, and the routing table does not know the peer.
    #[error("the lookup has failed")]
    Lookup(#[from] GetClosestPeersError),
    /// The driver is gone.
    #[error(transparent)]
    DriverClosedError(#[from] DriverClosedError),
}

pub(crate) async fn find_peer(client: &Client, peer: PeerId) -> Result<FoundPeer, FindPeerError> {
    let lookup = client.get_closest_peers(peer).await;
    // Afterwards, because the lookup may have connected us with it.
    let mut addresses = client.addresses_of(peer).await?;
    let mut answered = false;
    let heard = match &lookup {
        Ok(answer) => answer.peers.as_slice(),
        Err(GetClosestPeersError::Timeout { peers, progress: _ }) => peers,
        Err(_) => &[],
    };
    if let Some(info) = heard.iter().find(|info| info.peer_id == peer) {
        answered = true;
        let mut known: BTreeSet<_> = addresses.iter().cloned().collect();
        addresses.extend(info.addrs.iter().filter(|address| known.insert((*address).clone())).cloned());
    }
    if !addresses.is_empty() {
        return Ok(FoundPeer { peer, addresses, answered });
    }
    let answer = lookup?;
    let certainty = answer.progress.certainty();
    Err(FindPeerError::NotFound { closest_peers: answer.peers, certainty, progress: answer.progress })
}

/// What the routing table has.
pub(crate) fn addresses<B: ContainsKad>(swarm: &mut Swarm<B>, peer: PeerId) -> Vec<Multiaddr> {
    let key = KBucketKey::from(peer);
    let Some(bucket) = swarm.behaviour_mut().kad().kbucket(peer) else { return Vec::new() };
    bucket
        .iter()
        .filter(|entry| *entry.node.key == key)
        .flat_map(|entry| entry.node.value.iter().cloned().collect::<Vec<_>>())
        .collect()
}
