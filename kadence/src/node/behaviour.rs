#![expect(missing_docs, reason = "the derived event type has a variant for each field and takes no documentation")]

use kadence_store::Store;
use libp2p::{connection_limits, identify, kad, ping, swarm::NetworkBehaviour};

use crate::{ContainsKad, PeerTimeouts};

/// What a [`Node`](super::Node) runs: kad and what it needs, beside the application's own behaviour `X`.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub struct NodeBehaviour<X: NetworkBehaviour> {
    /// First, so that a connection over the limits is refused before any other behaviour hears of it.
    pub limits: connection_limits::Behaviour,
    /// The DHT, which gives silent peers up.
    pub kad: PeerTimeouts<Store>,
    /// Tells peers our addresses and protocols, and us theirs, from where the routing table is filled.
    pub identify: identify::Behaviour,
    /// Answers pings, which some implementations expect, and finds the connections that are dead.
    pub ping: ping::Behaviour,
    /// The application's own.
    pub app: X,
}

impl<X: NetworkBehaviour> ContainsKad for NodeBehaviour<X> {
    type Store = Store;

    fn kad(&mut self) -> &mut kad::Behaviour<Store> {
        self.kad.kad_mut()
    }

    fn try_into_kad(event: Self::ToSwarm) -> Result<kad::Event, Self::ToSwarm> {
        match event {
            NodeBehaviourEvent::Kad(event) => Ok(event),
            other => Err(other),
        }
    }

    fn from_kad(event: kad::Event) -> Self::ToSwarm {
        NodeBehaviourEvent::Kad(event)
    }
}
