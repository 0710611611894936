use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

use libp2p_identity::PeerId;

use super::{SignedAnnouncement, entries_by_peer::EntriesByPeer};
use crate::{ContentId, PackageId, p2p::head::MAX_JUMP};

/// How many packages are known at once: some 20 MB of them.
pub const MAX_DISCOVERED: usize = 10_000;

/// How many of them may be of one publisher: more than the largest publishers of package registries have.
pub const MAX_PER_PUBLISHER: usize = 1_000;

/// How many providers of a package are known: more than are asked at once.
pub const MAX_PACKAGE_PROVIDERS: usize = 20;

/// Somebody who is said to have a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageProvider {
    /// Who.
    pub peer: PeerId,
    /// When that was said last.
    pub seen_at: SystemTime,
}

/// A package that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredPackage {
    /// The newest announcement.
    pub newest: SignedAnnouncement,
    /// Who is said to have it, at most [`MAX_PACKAGE_PROVIDERS`], in no order. A hint: what they serve is verified.
    pub providers: Vec<PackageProvider>,
    /// When the package was first heard of.
    pub first_seen: SystemTime,
    /// When the newest announcement was heard.
    pub last_seen: SystemTime,
    /// Grows with each change of the list: see [`Discovered::since`].
    pub number: u64,
}

impl DiscoveredPackage {
    /// The number of the newest head that was announced.
    pub fn seq(&self) -> u64 {
        self.newest.announcement().seq
    }
}

/// What an announcement is to what is known of its package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing was known of the package.
    New,
    /// It is newer than what was known.
    Newer,
    /// It is what is known.
    Same,
    /// There is a newer one.
    Older {
        /// The number that is known.
        known: u64,
    },
    /// Its number is known, with another head: perhaps the publisher has signed two. Compare with the DHT's.
    Conflict {
        /// The head that is known.
        known: ContentId,
    },
    /// Its number is higher than the publisher can have come to.
    FastForward {
        /// The number that is known.
        known: u64,
    },
}

/// The packages that were announced: what can be found without asking anybody.
///
/// At most [`MAX_DISCOVERED`]. A further one takes the place of the oldest of those that were told by the same peer as most
/// others: who tells of many packages, real ones or not, pushes out what came from itself. If several peers have told of a
/// package, it counts for that one of them who has told least.
#[derive(Debug)]
pub struct Discovered {
    epoch: u64,
    capacity: usize,
    per_publisher: usize,
    next_number: u64,
    packages: HashMap<PackageId, Entry>,
    order: BTreeMap<u64, PackageId>,
    /// The numbers of each publisher's packages.
    publishers: HashMap<PeerId, BTreeSet<u64>>,
    entries_by_peer: EntriesByPeer,
}

#[derive(Debug)]
struct Entry {
    package: DiscoveredPackage,
    /// Whose share it is in.
    reported_by: PeerId,
}

impl Discovered {
    /// Nothing yet. `epoch` is a number that no earlier list of this node had, such as the time of its start: positions in a
    /// catalogue are only good for one list.
    pub fn new(epoch: u64) -> Self {
        Self::with(epoch, MAX_DISCOVERED, MAX_PER_PUBLISHER)
    }

    /// Takes an announcement that was verified, if it is [new or newer](Self::freshness). `reported_by` is who has sent it to us.
    pub fn add(&mut self, announcement: &SignedAnnouncement, reported_by: PeerId, now: SystemTime) -> Freshness {
        let freshness = self.freshness(announcement);
        match freshness {
            Freshness::New => {
                self.make_room(&announcement.announcement().package.publisher(), &reported_by);
                self.insert(announcement.clone(), Vec::new(), reported_by, now, now);
            }
            Freshness::Newer => {
                let earlier = self.remove(&announcement.announcement().package);
                let (providers, first_seen) =
                    earlier.map_or((Vec::new(), now), |entry| (entry.package.providers, entry.package.first_seen));
                self.insert(announcement.clone(), providers, reported_by, first_seen, now);
            }
            Freshness::Same => self.reassign(&announcement.announcement().package, reported_by),
            Freshness::Older { .. } | Freshness::Conflict { .. } | Freshness::FastForward { .. } => {}
        }
        freshness
    }

    /// Notes that somebody is said to have a package. The one that was not heard of for the longest time makes room. Nothing
    /// happens if the package is not known.
    pub fn add_provider(&mut self, package: &PackageId, peer: PeerId, now: SystemTime) {
        let Some(entry) = self.packages.get_mut(package) else { return };
        let providers = &mut entry.package.providers;
        providers.retain(|provider| provider.peer != peer);
        if providers.len() >= MAX_PACKAGE_PROVIDERS
            && let Some(oldest) =
                providers.iter().enumerate().min_by_key(|(_, provider)| provider.seen_at).map(|(place, _)| place)
        {
            providers.swap_remove(oldest);
        }
        providers.push(PackageProvider { peer, seen_at: now });
    }

    /// What the announcement is to what is known.
    pub fn freshness(&self, announcement: &SignedAnnouncement) -> Freshness {
        let offered = announcement.announcement();
        let Some(entry) = self.packages.get(&offered.package) else { return Freshness::New };
        let known = entry.package.newest.announcement();
        if offered.seq < known.seq {
            Freshness::Older { known: known.seq }
        } else if offered.seq > known.seq.saturating_add(MAX_JUMP) {
            Freshness::FastForward { known: known.seq }
        } else if offered.seq > known.seq {
            Freshness::Newer
        } else if offered.head == known.head {
            Freshness::Same
        } else {
            Freshness::Conflict { known: known.head }
        }
    }

    /// What is known of a package.
    pub fn get(&self, package: &PackageId) -> Option<&DiscoveredPackage> {
        self.packages.get(package).map(|entry| &entry.package)
    }

    /// What was added or renewed after this number, in order. All of it after 0.
    pub fn since(&self, number: u64) -> impl Iterator<Item = &DiscoveredPackage> {
        self.order.range(number.saturating_add(1)..).filter_map(|(_, package)| self.get(package))
    }

    /// A copy of everything, the longest known first.
    pub fn snapshot(&self) -> Vec<DiscoveredPackage> {
        self.since(0).cloned().collect()
    }

    /// Whether a package of this publisher is known.
    pub fn knows_publisher(&self, publisher: &PeerId) -> bool {
        self.publishers.contains_key(publisher)
    }

    /// How many packages are known.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    pub(super) fn with(epoch: u64, capacity: usize, per_publisher: usize) -> Self {
        Self {
            epoch,
            capacity,
            per_publisher,
            next_number: 1,
            packages: HashMap::new(),
            order: BTreeMap::new(),
            publishers: HashMap::new(),
            entries_by_peer: EntriesByPeer::default(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// For a package that is not known yet.
    fn make_room(&mut self, publisher: &PeerId, reported_by: &PeerId) {
        let own = self.publishers.get(publisher).filter(|numbers| numbers.len() >= self.per_publisher);
        let dropped = match own {
            Some(numbers) => numbers.first().copied(),
            None if self.packages.len() >= self.capacity => self.entries_by_peer.evict_for(reported_by),
            None => None,
        };
        if let Some(package) = dropped.and_then(|number| self.order.get(&number).cloned()) {
            self.remove(&package);
        }
    }

    fn insert(
        &mut self,
        newest: SignedAnnouncement,
        providers: Vec<PackageProvider>,
        reported_by: PeerId,
        first_seen: SystemTime,
        last_seen: SystemTime,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let id = newest.announcement().package.clone();
        self.order.insert(number, id.clone());
        self.publishers.entry(id.publisher()).or_default().insert(number);
        self.entries_by_peer.add(reported_by, number);
        let package = DiscoveredPackage { newest, providers, first_seen, last_seen, number };
        self.packages.insert(id, Entry { package, reported_by });
    }

    fn remove(&mut self, id: &PackageId) -> Option<Entry> {
        let entry = self.packages.remove(id)?;
        let number = entry.package.number;
        self.order.remove(&number);
        self.entries_by_peer.remove(&entry.reported_by, number);
        if let Some(numbers) = self.publishers.get_mut(&id.publisher()) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.publishers.remove(&id.publisher());
            }
        }
        Some(entry)
    }

    /// Somebody else has told it, too.
    fn reassign(&mut self, id: &PackageId, reported_by: PeerId) {
        let Some(entry) = self.packages.get_mut(id) else { return };
        if self.entries_by_peer.count(&reported_by) < self.entries_by_peer.count(&entry.reported_by) {
            self.entries_by_peer.remove(&entry.reported_by, entry.package.number);
            self.entries_by_peer.add(reported_by, entry.package.number);
            entry.reported_by = reported_by;
        }
    }
}
