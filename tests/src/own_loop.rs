use std::fmt;

use futures::{FutureExt, StreamExt, pin_mut, select};
use kadence::{Client, Driver, Runtime, SwarmHandle};
use libp2p::{
    kad::{self, store::MemoryStore},
    swarm::SwarmEvent,
};

use crate::Contact;

/// Behaviour of an [`OwnLoop`].
pub type BareKad = kad::Behaviour<MemoryStore>;

/// Application with its own event loop around a bare `kad::Behaviour`. Nothing happens unless the test polls the
/// driver.
pub struct OwnLoop<R: Runtime> {
    /// Peer id and listen address.
    pub contact: Contact,
    /// Client of the driver.
    pub client: Client,
    /// Handle to the driven swarm.
    pub swarm: SwarmHandle<BareKad>,
    /// Driver: a stream of the swarm's events.
    pub driver: Driver<BareKad, R>,
}

impl<R: Runtime> OwnLoop<R> {
    /// Adds a contact to the routing table.
    pub fn add_contact(&mut self, contact: &Contact) {
        self.driver.swarm_mut().behaviour_mut().add_address(&contact.peer, contact.address.clone());
    }

    /// Runs the loop until `work` ends. Returns its result and the events that the driver has yielded.
    pub async fn run_until<T>(&mut self, work: impl Future<Output = T>) -> (T, Vec<SwarmEvent<kad::Event>>) {
        let work = work.fuse();
        pin_mut!(work);
        let mut events = Vec::new();
        loop {
            select! {
                result = work => return (result, events),
                event = self.driver.select_next_some() => events.push(event),
            }
        }
    }
}

impl<R: Runtime> fmt::Debug for OwnLoop<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLoop").field("contact", &self.contact).finish_non_exhaustive()
    }
}
