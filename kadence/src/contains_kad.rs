use libp2p::{
    Multiaddr, PeerId,
    kad::{self, store::RecordStore},
    swarm::NetworkBehaviour,
};
use libp2p_kad_timeouts::PeerTimeouts;

/// Access to the `kad::Behaviour` inside a swarm's behaviour.
///
/// `kad::Behaviour`, [`PeerTimeouts`] and the `NodeBehaviour` of a node implement this trait. For a behaviour with
/// `#[derive(NetworkBehaviour)]`, implement it as below. The derive macro generates the event type, here
/// `MyBehaviourEvent`.
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
/// If a behaviour contains two `kad::Behaviour`s, [`kad`](Self::kad) returns one of the two, and
/// [`try_into_kad`](Self::try_into_kad) must return the events of the other one as `Err`. Both count their query ids
/// from the same number, so the driver cannot tell their events apart.
pub trait ContainsKad: NetworkBehaviour {
    /// Record store of the `kad::Behaviour`.
    type Store: RecordStore + Send + 'static;

    /// Returns the `kad::Behaviour`, the same one at every call.
    fn kad(&mut self) -> &mut kad::Behaviour<Self::Store>;

    /// Returns the queries for which a connected peer was given up since the last call. If such a query finds nothing,
    /// the result is inconclusive. The default returns none; a behaviour that contains [`PeerTimeouts`] calls the same
    /// method of that field.
    fn take_incomplete_queries(&mut self) -> Vec<kad::QueryId> {
        Vec::new()
    }

    /// Returns whether bytes of a query go to or come from a peer: a query that waits for a large value on a slow link
    /// has not stalled. The default returns `false`; a behaviour that contains [`PeerTimeouts`] calls the same method of
    /// that field.
    fn is_transferring(&mut self, _query: &kad::QueryId) -> bool {
        false
    }

    /// Collects the addresses that other peers name for a peer, for [`named_addresses`](Self::named_addresses). Returns
    /// whether it does. The default returns `false`; a behaviour that contains [`PeerTimeouts`] calls the same method of
    /// that field, and also in the next two methods.
    fn watch_addresses(&mut self, _peer: PeerId) -> bool {
        false
    }

    /// Ends one call of [`watch_addresses`](Self::watch_addresses) that returned `true`.
    fn unwatch_addresses(&mut self, _peer: &PeerId) {}

    /// Returns the addresses that other peers have named for a watched peer.
    fn named_addresses(&self, _peer: &PeerId) -> Vec<Multiaddr> {
        Vec::new()
    }

    /// Extracts the event of the `kad::Behaviour` from an event of this behaviour.
    ///
    /// # Errors
    ///
    /// Returns an event that is not from the `kad::Behaviour`, unchanged.
    fn try_into_kad(event: Self::ToSwarm) -> Result<kad::Event, Self::ToSwarm>;

    /// Converts a kad event into an event of this behaviour, as the reverse of [`try_into_kad`](Self::try_into_kad).
    /// The driver yields each kad event that it does not consume in this form.
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

    fn take_incomplete_queries(&mut self) -> Vec<kad::QueryId> {
        Self::take_incomplete_queries(self).collect()
    }

    fn is_transferring(&mut self, query: &kad::QueryId) -> bool {
        Self::is_transferring(self, query)
    }

    fn watch_addresses(&mut self, peer: PeerId) -> bool {
        Self::watch_addresses(self, peer)
    }

    fn unwatch_addresses(&mut self, peer: &PeerId) {
        Self::unwatch_addresses(self, peer);
    }

    fn named_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        Self::named_addresses(self, peer).cloned().collect()
    }

    fn try_into_kad(event: kad::Event) -> Result<kad::Event, kad::Event> {
        Ok(event)
    }

    fn from_kad(event: kad::Event) -> kad::Event {
        event
    }
}
