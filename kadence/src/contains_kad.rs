use libp2p::{
    kad::{self, store::RecordStore},
    swarm::NetworkBehaviour,
};
use libp2p_kad_timeouts::PeerTimeouts;

/// Access to the `kad::Behaviour` inside a swarm's behaviour.
///
/// `kad::Behaviour` and [`PeerTimeouts`] implement it. For a behaviour with `#[derive(NetworkBehaviour)]`, implement it
/// like this: The derive macro generates the event type, here `MyBehaviourEvent`.
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
/// A behaviour with two `kad::Behaviour`s chooses one of them. [`try_into_kad`](Self::try_into_kad) must not return the
/// events of the other one, because both count their query ids from the same number.
pub trait ContainsKad: NetworkBehaviour {
    /// Record store of the `kad::Behaviour`.
    type Store: RecordStore + Send + 'static;

    /// Returns the `kad::Behaviour`.
    fn kad(&mut self) -> &mut kad::Behaviour<Self::Store>;

    /// Returns the kad event that an event of the whole behaviour contains.
    ///
    /// # Errors
    ///
    /// Returns any other event unchanged.
    fn try_into_kad(event: Self::ToSwarm) -> Result<kad::Event, Self::ToSwarm>;

    /// Converts a kad event back, as the reverse of [`try_into_kad`](Self::try_into_kad). The driver uses it to yield
    /// kad events of queries that are not its own.
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
