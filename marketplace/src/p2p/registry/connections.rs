//! Connecting with peers that may have content.

use std::{collections::HashMap, sync::Mutex};

use futures::channel::oneshot;
use kadence::Runtime;
use libp2p::{
    Multiaddr, PeerId,
    swarm::{DialError, dial_opts::DialOpts},
};

use super::{Inner, lock};
use crate::p2p::requests::within;

/// Who waits for a connection, which the swarm's events tell of.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<PeerId, Vec<oneshot::Sender<bool>>>>);

impl Connections {
    /// A peer is connected, or cannot be reached.
    pub(super) fn settled(&self, peer: &PeerId, connected: bool) {
        for waiting in lock(&self.0).remove(peer).unwrap_or_default() {
            // Who no longer waits needs no answer.
            let _gone = waiting.send(connected);
        }
    }

    /// Events were missed: all who wait for one of these are told.
    pub(super) fn settle_all(&self, connected: &[PeerId]) {
        connected.iter().for_each(|peer| self.settled(peer, true));
    }

    fn wait(&self, peer: PeerId) -> oneshot::Receiver<bool> {
        let (told, wait) = oneshot::channel();
        let mut waiting = lock(&self.0);
        // Those who have given up since are forgotten here: there are no more than wait at a time.
        waiting.retain(|_, waiting| {
            waiting.retain(|told| !told.is_canceled());
            !waiting.is_empty()
        });
        waiting.entry(peer).or_default().push(told);
        wait
    }
}

/// What a dial came to.
enum Dialled {
    Connected,
    UnderWay,
    /// Without an address, for one reason.
    Failed,
}

impl<R: Runtime> Inner<R> {
    /// Sees to it that there is a connection with a peer: by the addresses that the swarm knows, or by those that the network
    /// knows.
    pub(super) async fn connect(&self, peer: PeerId) -> bool {
        within(&self.runtime, self.config.connect_timeout, self.reach(peer)).await.unwrap_or(false)
    }

    async fn reach(&self, peer: PeerId) -> bool {
        if self.dial_and_wait(peer, Vec::new()).await {
            return true;
        }
        // It has no address here, or an old one.
        match self.client.find_peer(peer).await {
            Ok(found) => self.dial_and_wait(peer, found.addresses).await,
            Err(_) => false,
        }
    }

    async fn dial_and_wait(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        // Before the dial, so that its end is not missed.
        let wait = self.connections.wait(peer);
        match self.dial(peer, addresses).await {
            Dialled::Connected => true,
            Dialled::UnderWay => wait.await.unwrap_or(false),
            Dialled::Failed => false,
        }
    }

    async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Dialled {
        let dial = self.swarm.with(move |swarm| {
            if swarm.is_connected(&peer) {
                return Dialled::Connected;
            }
            match swarm.dial(DialOpts::peer_id(peer).addresses(addresses).extend_addresses_through_behaviour().build())
            {
                // One that somebody else has begun is as good.
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Dialled::UnderWay,
                Err(_) => Dialled::Failed,
            }
        });
        dial.await.unwrap_or(Dialled::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_are_told_and_those_who_have_given_up_are_forgotten() {
        let connections = Connections::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let (first, second) = (connections.wait(one), connections.wait(one));
        drop(connections.wait(other));
        connections.settled(&other, true);
        drop(connections.wait(other));
        let third = connections.wait(one);
        assert_eq!(lock(&connections.0).len(), 1);
        connections.settled(&one, true);
        for wait in [first, second, third] {
            assert_eq!(smol::block_on(wait), Ok(true));
        }
        assert!(lock(&connections.0).is_empty());
    }
}
