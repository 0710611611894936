#![expect(missing_docs, reason = "the derived event type has a variant for each field and takes no documentation")]

use kadence_store::Store;
use libp2p::{
    connection_limits, identify, kad, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};

use crate::{ContainsKad, PeerTimeouts};

/// Behaviour of a [`Node`](super::Node): kad and the protocols it needs, and the application's own behaviour `X`.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub struct NodeBehaviour<X: NetworkBehaviour> {
    /// Connection limits. First, so that a connection above them is refused before another behaviour sees it.
    pub limits: connection_limits::Behaviour,
    /// The DHT, with timeouts for silent peers.
    pub kad: PeerTimeouts<Store>,
    /// Exchanges addresses and protocols with peers. The routing table is filled from them.
    pub identify: identify::Behaviour,
    /// Answers pings, which some implementations expect, and detects dead connections.
    pub ping: ping::Behaviour,
    /// The application's own behaviour.
    pub app: X,
}

/// An event of a node's swarm that belongs to no call.
pub type NodeEvent<X> = SwarmEvent<NodeBehaviourEvent<X>>;

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
