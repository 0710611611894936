#![expect(missing_docs, reason = "the derived event type has a variant for each field and takes no documentation")]

use kadence_store::Store;
use libp2p::{
    Multiaddr, PeerId, connection_limits, identify, kad, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};

use crate::{ContainsKad, PeerTimeouts};

/// Behaviour of a [`Node`](super::Node): kad and the protocols it needs, and the application's own behaviour `X`.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub struct NodeBehaviour<X: NetworkBehaviour> {
    /// Connection limits. This behaviour comes first, so that a connection above the limits is refused before another
    /// behaviour creates a handler for it.
    pub limits: connection_limits::Behaviour,
    /// The DHT, with timeouts for silent peers, unless [`NodeConfig::peer_timeouts`](super::NodeConfig::peer_timeouts)
    /// is `None`.
    pub kad: PeerTimeouts<Store>,
    /// Exchanges addresses and protocols with peers. A peer that announces the node's kad protocol has the addresses that it
    /// names in the routing table, at most 16 and no others, if the table has room for the peer.
    pub identify: identify::Behaviour,
    /// Answers pings, which some implementations expect, and pings peers. The node closes a connection on which two
    /// pings in a row fail, unless the peer does not support pings.
    pub ping: ping::Behaviour,
    /// The application's own behaviour.
    pub app: X,
}

/// Event of a node's swarm, as [`Node::events`](super::Node::events) yields it.
pub type NodeEvent<X> = SwarmEvent<NodeBehaviourEvent<X>>;

impl<X: NetworkBehaviour> ContainsKad for NodeBehaviour<X> {
    type Store = Store;

    fn kad(&mut self) -> &mut kad::Behaviour<Store> {
        self.kad.kad_mut()
    }

    fn take_incomplete_queries(&mut self) -> Vec<kad::QueryId> {
        self.kad.take_incomplete_queries().collect()
    }

    fn is_transferring(&mut self, query: &kad::QueryId) -> bool {
        self.kad.is_transferring(query)
    }

    fn watch_addresses(&mut self, peer: PeerId) -> bool {
        self.kad.watch_addresses(peer)
    }

    fn unwatch_addresses(&mut self, peer: &PeerId) {
        self.kad.unwatch_addresses(peer);
    }

    fn named_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.kad.named_addresses(peer).cloned().collect()
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
