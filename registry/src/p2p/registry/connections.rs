//! Connections to peers that may have content.

use std::{collections::HashMap, sync::Mutex, time::SystemTime};

use futures::channel::oneshot;
use kadence::{Alarm, Runtime};
use libp2p::{
    Multiaddr, PeerId,
    swarm::{DialError, dial_opts::DialOpts},
};

use super::{Inner, lock};

/// Calls that wait for a connection, by peer.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<PeerId, Vec<oneshot::Sender<bool>>>>);

impl Connections {
    /// Ends the waiting for a peer, which is connected or cannot be reached.
    pub(super) fn resolve(&self, peer: &PeerId, connected: bool) {
        for waiting in lock(&self.0).remove(peer).unwrap_or_default() {
            // Fails if the call was dropped.
            let _gone = waiting.send(connected);
        }
    }

    /// Returns the peers that calls are waiting for.
    fn awaited(&self) -> Vec<PeerId> {
        lock(&self.0).keys().copied().collect()
    }

    pub(super) fn wait(&self, peer: PeerId) -> oneshot::Receiver<bool> {
        let (sender, wait) = oneshot::channel();
        let mut waiting = lock(&self.0);
        // Removes the entries of dropped calls, so that the map is never larger than the number of waiting calls.
        waiting.retain(|_, waiting| {
            waiting.retain(|sender| !sender.is_canceled());
            !waiting.is_empty()
        });
        waiting.entry(peer).or_default().push(sender);
        wait
    }
}

/// Result of starting a dial.
enum Dialled {
    Connected,
    UnderWay,
    NoAddress,
    Failed,
}

impl<R: Runtime> Inner<R> {
    /// Connects to a peer, by the addresses that the swarm knows or else those that a lookup finds. Returns whether it
    /// is connected.
    pub(super) async fn connect(&self, peer: PeerId) -> bool {
        Alarm::new(&self.runtime).within(self.config.connect_timeout, self.reach(peer)).await.unwrap_or(false)
    }

    /// Checks the awaited connections after events were lost: otherwise calls would wait until their timeout.
    pub(super) async fn resync_connections(&self) {
        let awaited = self.connections.awaited();
        let connected = self
            .swarm
            .with(move |swarm| awaited.into_iter().filter(|peer| swarm.is_connected(peer)).collect::<Vec<_>>());
        for peer in connected.await.unwrap_or_default() {
            self.connections.resolve(&peer, true);
        }
    }

    /// Returns the connected peers, best reputation first. Empty after the node has stopped.
    pub(super) async fn connected(&self) -> Vec<PeerId> {
        let connected = self.swarm.with(|swarm| swarm.connected_peers().copied().collect::<Vec<_>>()).await;
        self.reputation.order(&connected.unwrap_or_default(), SystemTime::now())
    }

    async fn reach(&self, peer: PeerId) -> bool {
        // Registered before the dial, so that its end is not missed.
        let wait = self.connections.wait(peer);
        match self.dial(peer, Vec::new()).await {
            Dialled::Connected => return true,
            // If the known addresses fail, they may be outdated.
            Dialled::UnderWay => {
                if wait.await.unwrap_or(false) {
                    return true;
                }
            }
            Dialled::NoAddress => {}
            Dialled::Failed => return false,
        }
        let Ok(found) = self.client.find_peer(peer).await else { return false };
        let wait = self.connections.wait(peer);
        match self.dial(peer, found.addresses).await {
            Dialled::Connected => true,
            Dialled::UnderWay => wait.await.unwrap_or(false),
            Dialled::NoAddress | Dialled::Failed => false,
        }
    }

    async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Dialled {
        let dial = self.swarm.with(move |swarm| {
            if swarm.is_connected(&peer) {
                return Dialled::Connected;
            }
            match swarm.dial(DialOpts::peer_id(peer).addresses(addresses).extend_addresses_through_behaviour().build())
            {
                // A dial that is in progress already serves as well.
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Dialled::UnderWay,
                Err(DialError::NoAddresses) => Dialled::NoAddress,
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
    fn all_waiting_calls_are_answered_and_dropped_ones_are_removed() {
        let connections = Connections::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let (first, second) = (connections.wait(one), connections.wait(one));
        drop(connections.wait(other));
        connections.resolve(&other, true);
        drop(connections.wait(other));
        let third = connections.wait(one);
        assert_eq!(lock(&connections.0).len(), 1);
        connections.resolve(&one, true);
        for wait in [first, second, third] {
            assert_eq!(smol::block_on(wait), Ok(true));
        }
        assert!(lock(&connections.0).is_empty());
    }
}
