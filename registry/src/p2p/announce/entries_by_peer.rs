//! Counts of the entries that each peer reported, so that the peer with the most makes room.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

/// Numbers of the entries that each peer reported. Older entries have smaller numbers.
#[derive(Debug, Default)]
pub(super) struct EntriesByPeer {
    by_peer: BTreeMap<PeerId, BTreeSet<u64>>,
}

impl EntriesByPeer {
    pub(super) fn add(&mut self, peer: PeerId, number: u64) {
        self.by_peer.entry(peer).or_default().insert(number);
    }

    pub(super) fn remove(&mut self, peer: &PeerId, number: u64) {
        if let Some(numbers) = self.by_peer.get_mut(peer) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_peer.remove(peer);
            }
        }
    }

    pub(super) fn count(&self, peer: &PeerId) -> usize {
        self.by_peer.get(peer).map_or(0, BTreeSet::len)
    }

    /// Returns the entry that makes room for one of `newcomer`: the oldest of the peer that would have the most.
    pub(super) fn evict_for(&self, newcomer: &PeerId) -> Option<u64> {
        let with_new = |peer: &PeerId, numbers: &BTreeSet<u64>| numbers.len() + usize::from(peer == newcomer);
        let (_, numbers) = self.by_peer.iter().max_by_key(|(peer, numbers)| with_new(peer, numbers))?;
        numbers.first().copied()
    }
}
