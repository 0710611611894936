use std::fmt;

use futures::{FutureExt, StreamExt, pin_mut, select};
use kadence::{Client, Driver, Runtime, SwarmHandle};
use libp2p::{
    kad::{self, store::MemoryStore},
    swarm::SwarmEvent,
};

use crate::Contact;

/// The whole behaviour of an [`OwnLoop`].
pub type BareKad = kad::Behaviour<MemoryStore>;

/// An application with a loop of its own around a bare `kad::Behaviour`: nothing happens unless the test polls the
/// driver.
pub struct OwnLoop<R: Runtime> {
    /// Who it is and where it listens.
    pub contact: Contact,
    /// Its client.
    pub client: Client,
    /// Its swarm, from elsewhere.
    pub swarm: SwarmHandle<BareKad>,
    /// The driver, a stream of the swarm's events.
    pub driver: Driver<BareKad, R>,
}

impl<R: Runtime> OwnLoop<R> {
    /// Puts a contact into the routing table.
    pub fn meets(&mut self, contact: &Contact) {
        self.driver.swarm_mut().behaviour_mut().add_address(&contact.peer, contact.address.clone());
    }

    /// Runs the loop until `work` is done, and returns what it returned with the events that the driver has yielded.
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
