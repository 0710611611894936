//! Addresses that responses name for peers that somebody looks for.

use std::collections::{HashMap, VecDeque};

use libp2p::{Multiaddr, PeerId};

/// Maximum number of peers whose addresses are collected.
const MAX_PEERS: usize = 1024;

/// Maximum number of addresses that are collected for a peer: the latest ones. Peers can name any number.
const MAX_ADDRESSES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct WatchedPeers {
    peers: HashMap<PeerId, Watched>,
    /// Peers with addresses that have not been taken.
    named: Vec<PeerId>,
}

#[derive(Debug, Default)]
struct Watched {
    watchers: usize,
    /// The oldest first.
    addresses: VecDeque<Multiaddr>,
    /// Number of the last addresses that have not been taken.
    new: usize,
}

impl WatchedPeers {
    /// Adds a watcher of a peer. Returns `false` if there is no room for the peer.
    pub(super) fn insert(&mut self, peer: PeerId) -> bool {
        let has_room = self.peers.len() < MAX_PEERS || self.peers.contains_key(&peer);
        if has_room {
            self.peers.entry(peer).or_default().watchers += 1;
        }
        has_room
    }

    /// Removes a watcher of a peer.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        let Some(watched) = self.peers.get_mut(peer) else { return };
        watched.watchers -= 1;
        if watched.watchers == 0 {
            self.peers.remove(peer);
            self.named.retain(|named| named != peer);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Notes addresses that a response names for a peer.
    pub(super) fn named(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        let Some(watched) = self.peers.get_mut(peer) else { return };
        let had_new = watched.new > 0;
        for address in addresses {
            if watched.addresses.contains(address) {
                continue;
            }
            if watched.addresses.len() == MAX_ADDRESSES {
                watched.addresses.pop_front();
            }
            watched.addresses.push_back(address.clone());
            watched.new = (watched.new + 1).min(MAX_ADDRESSES);
        }
        if !had_new && watched.new > 0 {
            self.named.push(*peer);
        }
    }

    /// Returns the addresses that were named for a peer since it is watched.
    pub(super) fn addresses(&self, peer: &PeerId) -> impl Iterator<Item = &Multiaddr> {
        self.peers.get(peer).into_iter().flat_map(|watched| &watched.addresses)
    }

    /// Returns the addresses that were named since the last call.
    pub(super) fn take(&mut self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let named = std::mem::take(&mut self.named);
        let taken = named.into_iter().filter_map(|peer| {
            let watched = self.peers.get_mut(&peer)?;
            let known = watched.addresses.len() - std::mem::take(&mut watched.new);
            Some((peer, watched.addresses.iter().skip(known).cloned().collect()))
        });
        taken.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: usize) -> Multiaddr {
        format!("/memory/{port}").parse().unwrap()
    }

    fn addresses(watched: &WatchedPeers, peer: &PeerId) -> Vec<Multiaddr> {
        watched.addresses(peer).cloned().collect()
    }

    #[test]
    fn addresses_of_watched_peers_are_taken_once() {
        let (mut watched, peer, other) = (WatchedPeers::default(), PeerId::random(), PeerId::random());
        watched.named(&peer, &[address(1)]);
        assert!(watched.take().is_empty());
        assert!(watched.insert(peer));
        watched.named(&other, &[address(1)]);
        watched.named(&peer, &[address(1), address(2)]);
        watched.named(&peer, &[address(2)]);
        assert_eq!(watched.take(), [(peer, vec![address(1), address(2)])]);
        assert!(watched.take().is_empty());
        watched.named(&peer, &[address(2)]);
        assert!(watched.take().is_empty());
        watched.named(&peer, &[address(3)]);
        assert_eq!(watched.take(), [(peer, vec![address(3)])]);
        assert_eq!(addresses(&watched, &peer), [address(1), address(2), address(3)]);
        watched.named(&peer, &[address(4)]);
        watched.remove(&peer);
        assert!(watched.is_empty());
        assert!(watched.take().is_empty());
    }

    #[test]
    fn a_peer_is_watched_until_its_last_watcher_ends() {
        let (mut watched, peer) = (WatchedPeers::default(), PeerId::random());
        assert!(watched.insert(peer) && watched.insert(peer));
        watched.remove(&peer);
        watched.named(&peer, &[address(1)]);
        assert_eq!(addresses(&watched, &peer), [address(1)]);
        watched.remove(&peer);
        watched.remove(&peer);
        assert!(addresses(&watched, &peer).is_empty());
    }

    #[test]
    fn what_peers_name_is_bounded() {
        let (mut watched, peer) = (WatchedPeers::default(), PeerId::random());
        assert!((0..MAX_PEERS - 1).all(|_| watched.insert(PeerId::random())));
        assert!(watched.insert(peer));
        assert!(watched.insert(peer));
        assert!(!watched.insert(PeerId::random()));
        watched.named(&peer, &(0..100).map(address).collect::<Vec<_>>());
        assert_eq!(addresses(&watched, &peer), (84..100).map(address).collect::<Vec<_>>());
        assert_eq!(watched.take()[0].1.len(), MAX_ADDRESSES);
    }
}
