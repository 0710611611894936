#![expect(missing_docs, reason = "the derive does not document the variants of the event that it makes")]

use kadence::ContainsKad;
use libp2p::{
    identify,
    kad::{self, store::MemoryStore},
    swarm::NetworkBehaviour,
};

/// Behaviour of an ordinary application.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub struct Behaviour {
    /// The DHT.
    pub kad: kad::Behaviour<MemoryStore>,
    /// Exchanges listen addresses with connected peers.
    pub identify: identify::Behaviour,
}

impl ContainsKad for Behaviour {
    type Store = MemoryStore;

    fn kad(&mut self) -> &mut kad::Behaviour<MemoryStore> {
        &mut self.kad
    }

    fn try_into_kad(event: BehaviourEvent) -> Result<kad::Event, BehaviourEvent> {
        match event {
            BehaviourEvent::Kad(event) => Ok(event),
            event @ BehaviourEvent::Identify(_) => Err(event),
        }
    }

    fn from_kad(event: kad::Event) -> BehaviourEvent {
        BehaviourEvent::Kad(event)
    }
}
