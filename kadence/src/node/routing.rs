//! The routing table, as the node reads and changes it.

use std::collections::HashMap;

use kadence_core::REPLICATION_FACTOR;
use kadence_store::Store;
use libp2p::{Multiaddr, PeerId, kad};

use super::config::KnownPeer;
pub(super) use crate::driver::addresses_of;

/// Adds the addresses of a peer to those that the table has.
pub(super) fn add(kad: &mut kad::Behaviour<Store>, peer: &KnownPeer) {
    for address in &peer.addresses {
        kad.add_address(&peer.id, address.clone());
    }
}

/// Gives a peer these addresses and no others, if there are any, and if the table has the peer or room for it. The first
/// one is the best: it comes first unless the first one so far is still among them.
pub(super) fn set_addresses(kad: &mut kad::Behaviour<Store>, peer: PeerId, addresses: &[Multiaddr]) {
    let addresses = addresses.iter().filter_map(|address| address.clone().with_p2p(peer).ok());
    let addresses: Vec<_> = addresses.collect();
    if addresses.is_empty() {
        return;
    }
    // A peer that waits for room is not known, and keeps its place in the queue.
    let known = addresses_of(kad, peer).unwrap_or_default();
    if known.first().is_some_and(|first| !addresses.contains(first)) {
        // kad adds an address at the end, and never removes the last one.
        kad.remove_peer(&peer);
    } else {
        for old in known.iter().filter(|known| !addresses.contains(known)) {
            kad.remove_address(&peer, old);
        }
    }
    for address in addresses {
        kad.add_address(&peer, address);
    }
}

/// Gives the room that a removed peer has left to connected ones that wait for it: kad lets them in only after a minute.
pub(super) fn fill_bucket(
    kad: &mut kad::Behaviour<Store>,
    removed: PeerId,
    connected: &HashMap<PeerId, Vec<Multiaddr>>,
) {
    let Some(range) = kad.kbucket(removed).map(|bucket| bucket.range()) else { return };
    for (peer, addresses) in connected {
        if kad.kbucket(*peer).is_some_and(|bucket| bucket.range() == range) && addresses_of(kad, *peer).is_none() {
            kad.remove_peer(peer);
            set_addresses(kad, *peer, addresses);
        }
    }
}

/// Returns the number of peers in the table, and an estimate of the number of nodes in the network. A table with few peers
/// has all of a small network. In a larger one, the closest buckets have all nodes that are as close as that, and show how
/// densely the key space is settled.
pub(super) fn network_size(kad: &mut kad::Behaviour<Store>) -> (usize, usize) {
    let (mut peers, mut by_distance) = (0_usize, 0);
    // The closest bucket comes first.
    for bucket in kad.kbuckets() {
        peers += bucket.num_entries();
        if by_distance == 0
            && peers >= REPLICATION_FACTOR
            && let Some(bits) = bucket.range().1.ilog2()
        {
            // As many peers are as close as this everywhere in the key space.
            by_distance = peers.saturating_mul(1 << u32::from(u8::MAX).saturating_sub(bits).min(31));
        }
    }
    (peers, peers.saturating_add(1).max(by_distance))
}

#[cfg(test)]
mod tests {
    use kadence_store::StoreConfig;

    use super::*;

    fn kad_of(local_peer_id: PeerId) -> kad::Behaviour<Store> {
        kad::Behaviour::new(local_peer_id, Store::memory(local_peer_id, StoreConfig::default()))
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn addresses_that_are_no_longer_named_go_and_the_first_one_stays_first() {
        let (mut kad, peer) = (kad_of(PeerId::random()), PeerId::random());
        let with_id =
            |ports: &[u16]| ports.iter().map(|port| address(*port).with_p2p(peer).unwrap()).collect::<Vec<_>>();
        assert_eq!(addresses_of(&mut kad, peer), None);
        for ports in [&[1, 2, 3][..], &[1, 3, 4], &[4, 1], &[4], &[5, 6]] {
            let addresses: Vec<_> = ports.iter().copied().map(address).collect();
            set_addresses(&mut kad, peer, &addresses);
            let mut kept = addresses_of(&mut kad, peer).unwrap();
            kept.sort();
            assert_eq!(
                kept,
                with_id(&{
                    let mut ports = ports.to_vec();
                    ports.sort();
                    ports
                })
            );
        }
        assert_eq!(addresses_of(&mut kad, peer).unwrap()[0], with_id(&[5])[0], "the first one was new");
        set_addresses(&mut kad, peer, &[]);
        assert_eq!(addresses_of(&mut kad, peer).unwrap().len(), 2, "a peer that names nothing");
    }

    #[test]
    fn a_connected_peer_takes_the_room_of_a_removed_one() {
        let local = PeerId::random();
        let mut kad = kad_of(local);
        let full = std::iter::from_fn(|| Some(PeerId::random()))
            .find(|peer| kad.add_address(peer, address(1)) == kad::RoutingUpdate::Failed);
        let waiting = full.unwrap();
        let connected = HashMap::from([(waiting, vec![address(2)])]);
        let neighbour = {
            let bucket = kad.kbucket(waiting).unwrap();
            *bucket.iter().next().unwrap().node.key.preimage()
        };
        kad.remove_peer(&neighbour);
        fill_bucket(&mut kad, neighbour, &connected);
        assert!(addresses_of(&mut kad, waiting).is_some());
    }

    #[test]
    fn a_small_network_is_counted_and_a_large_one_is_estimated() {
        let local = PeerId::random();
        let mut kad = kad_of(local);
        assert_eq!(network_size(&mut kad), (0, 1));
        for size in [5, 5000] {
            for _ in 0..size {
                kad.add_address(&PeerId::random(), address(1));
            }
            let (peers, estimate) = network_size(&mut kad);
            assert!((1..=size + 5).contains(&peers));
            assert!((size / 4..size * 4).contains(&estimate), "{estimate} instead of {size}");
        }
    }
}
