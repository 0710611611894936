use libp2p::{
    kad::{self, store::RecordStore},
    swarm::NetworkBehaviour,
};
use libp2p_kad_timeouts::PeerTimeouts;

/// Says where kad is in a behaviour.
///
/// A bare `kad::Behaviour` has it already. For a behaviour of your own with `#[derive(NetworkBehaviour)]` it is these
/// lines, in which the event type is the one that the derive makes:
///
/// ```
/// use kadence::{ContainsKad, libp2p::{kad, ping, swarm::NetworkBehaviour}};
/// # use kadence::libp2p;
///
/// #[derive(NetworkBehaviour)]
/// # #[behaviour(prelude = "libp2p::swarm::derive_prelude")]
/// struct MyBehaviour {
///     kad: kad::Behaviour<kad::store::MemoryStore>,
///     ping: ping::Behaviour,
/// }
///
/// impl ContainsKad for MyBehaviour {
///     type Store = kad::store::MemoryStore;
///
///     fn kad(&mut self) -> &mut kad::Behaviour<Self::Store> {
///         &mut self.kad
///     }
///
///     fn try_into_kad(event: MyBehaviourEvent) -> Result<kad::Event, MyBehaviourEvent> {
///         match event {
///             MyBehaviourEvent::Kad(event) => Ok(event),
///             other => Err(other),
///         }
///     }
///
///     fn from_kad(event: kad::Event) -> MyBehaviourEvent {
///         MyBehaviourEvent::Kad(event)
///     }
/// }
/// ```
///
/// A behaviour with two kads names one of them: the other's events, whose ids may be the same, must not come out of
/// [`try_into_kad`](Self::try_into_kad).
pub trait ContainsKad: NetworkBehaviour {
    /// The store of that kad.
    type Store: RecordStore + Send + 'static;

    /// The kad whose queries are driven.
    fn kad(&mut self) -> &mut kad::Behaviour<Self::Store>;

    /// The kad event inside an event of the whole behaviour.
    ///
    /// # Errors
    ///
    /// Gives back every other event as it was.
    fn try_into_kad(event: Self::ToSwarm) -> Result<kad::Event, Self::ToSwarm>;

    /// The reverse of [`try_into_kad`](Self::try_into_kad), for kad events that are not ours.
    fn from_kad(event: kad::Event) -> Self::ToSwarm;
}

impl<S: RecordStore + Send + 'static> ContainsKad for kad::Behaviour<S> {
    type Store = S;

    fn kad(&mut self) -> &mut kad::Behaviour<S> {
        self
    }

    fn try_into_kad(event: kad::Event) -> Result<kad::Event, kad::Event> {
        Ok(event)
    }

    fn from_kad(event: kad::Event) -> kad::Event {
        event
    }
}

impl<S: RecordStore + Send + 'static> ContainsKad for PeerTimeouts<S> {
    type Store = S;

    fn kad(&mut self) -> &mut kad::Behaviour<S> {
        self.kad_mut()
    }

    fn try_into_kad(event: kad::Event) -> Result<kad::Event, kad::Event> {
        Ok(event)
    }

    fn from_kad(event: kad::Event) -> kad::Event {
        event
    }
}
