use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

use libp2p_identity::PeerId;

use super::{SignedAnnouncement, entries_by_peer::EntriesByPeer};
use crate::{ContentId, PackageId, p2p::head::MAX_JUMP};

/// Maximum number of packages in a [`Discovered`] list. They take 20 to 50 MB of memory, depending on the number of
/// their providers.
pub const MAX_DISCOVERED: usize = 10_000;

/// Maximum number of packages of one publisher in a [`Discovered`] list.
pub const MAX_PER_PUBLISHER: usize = 1_000;

/// Maximum number of providers that are kept for a package of a [`Discovered`] list.
pub const MAX_PACKAGE_PROVIDERS: usize = 20;

/// Peer that is reported to have a package: for example, the original sender of an accepted announcement of the
/// package, or a peer that named the package in a search answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageProvider {
    /// Peer id.
    pub peer: PeerId,
    /// Time of the latest [report](Discovered::add_provider) about this peer and package.
    pub seen_at: SystemTime,
}

/// Entry of a [`Discovered`] list: a package that is known from announcements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredPackage {
    /// Announcement with the highest sequence number of those that were added since [`first_seen`](Self::first_seen).
    pub newest: SignedAnnouncement,
    /// Peers that are reported to have the package, at most [`MAX_PACKAGE_PROVIDERS`], in no particular order. Reports
    /// may be false: content has to be verified when it is fetched.
    pub providers: Vec<PackageProvider>,
    /// Time at which the package was added to the list.
    pub first_seen: SystemTime,
    /// Time at which [`newest`](Self::newest) was added to the list. Repetitions do not change it.
    pub last_seen: SystemTime,
    /// Position of the entry in the order of changes of the list: a new or newer announcement gives its entry the next
    /// higher number. See [`Discovered::since`]. This is not the sequence number of the head, which is
    /// [`seq`](Self::seq).
    pub number: u64,
}

impl DiscoveredPackage {
    /// Returns the sequence number of the newest announced head.
    pub fn seq(&self) -> u64 {
        self.newest.announcement().seq
    }
}

/// Relation of an announcement to the newest known one of the same package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The package is not in the list.
    New,
    /// The sequence number is higher than the known one, by at most [`MAX_JUMP`].
    Newer,
    /// The announcement names the known head, with the known sequence number.
    Same,
    /// The sequence number is lower than the known one.
    Older {
        /// Known sequence number.
        known: u64,
    },
    /// The sequence number is the known one, but the head is another. The publisher may have signed two heads: look the
    /// head up in the DHT.
    Conflict {
        /// Hash of the known head.
        known: ContentId,
    },
    /// The sequence number is higher than the known one by more than [`MAX_JUMP`].
    FastForward {
        /// Known sequence number.
        known: u64,
    },
}

/// List of the packages that were announced, for discovery without a lookup. The list is kept in memory only.
///
/// The list holds at most [`MAX_DISCOVERED`] packages. Each entry counts for one peer: the peer that first reported the
/// newest announcement in the entry. If a peer that has fewer entries reports the same announcement later, the entry
/// counts for that peer from then on. In a full list, a further package replaces an entry of the peer with the most
/// entries, where the further package is counted, too: of the entries of that peer, the one that was changed the
/// longest time ago. A peer that floods the list therefore displaces its own entries as soon as it has the most.
///
/// The list holds at most [`MAX_PER_PUBLISHER`] packages of one publisher. A further one replaces the package of the
/// same publisher that was changed the longest time ago, also in a full list.
///
/// # Example
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::SystemTime;
///
/// use kadence_registry::{
///     ContentId, PackageId,
///     p2p::announce::{Announcement, Discovered, Freshness, SignedAnnouncement},
/// };
/// use libp2p_identity::Keypair;
///
/// let key = Keypair::generate_ed25519();
/// let publisher = key.public().to_peer_id();
/// let announcement = Announcement {
///     schema: Announcement::SCHEMA,
///     package: PackageId::new(publisher, "left-pad".parse()?)?,
///     version: "1.0.0".parse()?,
///     seq: 1,
///     head: ContentId::of(b"head"),
///     index: ContentId::of(b"index"),
///     title: "Pads strings".to_owned(),
///     published_at: 1_800_000_000,
/// };
/// let signed = SignedAnnouncement::sign(&key, announcement)?;
///
/// let mut discovered = Discovered::new(1);
/// assert_eq!(discovered.add(&signed, publisher, SystemTime::now()), Freshness::New);
/// assert_eq!(discovered.add(&signed, publisher, SystemTime::now()), Freshness::Same);
/// assert_eq!(discovered.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Discovered {
    epoch: u64,
    capacity: usize,
    per_publisher: usize,
    next_number: u64,
    packages: HashMap<PackageId, Entry>,
    order: BTreeMap<u64, PackageId>,
    /// For each publisher, the [numbers](DiscoveredPackage::number) of the entries of its packages.
    publishers: HashMap<PeerId, BTreeSet<u64>>,
    entries_by_peer: EntriesByPeer,
}

#[derive(Debug)]
struct Entry {
    package: DiscoveredPackage,
    /// Peer for which the entry counts.
    reported_by: PeerId,
}

impl Discovered {
    /// Returns an empty list. `epoch` must differ from the epochs of all earlier lists of this node: a
    /// [`Cursor`](super::Cursor) contains the epoch and is valid for one list only. For example, use the current time
    /// in milliseconds.
    pub fn new(epoch: u64) -> Self {
        Self::with(epoch, MAX_DISCOVERED, MAX_PER_PUBLISHER)
    }

    /// Adds a verified announcement if it is [new or newer](Self::freshness). Returns its freshness before it was
    /// added. `reported_by` is the peer from which this node got the announcement; the peer is not added to the
    /// providers.
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

    /// Adds a peer to the providers of a package, or updates the time of its report. If the package has
    /// [`MAX_PACKAGE_PROVIDERS`] others, the peer replaces the one with the oldest report. A package that is not in the
    /// list is ignored.
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

    /// Compares an announcement with the one of the same package in the list.
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

    /// Returns the entry of a package, or `None` if it is not in the list.
    pub fn get(&self, package: &PackageId) -> Option<&DiscoveredPackage> {
        self.packages.get(package).map(|entry| &entry.package)
    }

    /// Returns the entries with a larger [number](DiscoveredPackage::number), oldest change first. `since(0)` returns
    /// all entries.
    pub fn since(&self, number: u64) -> impl Iterator<Item = &DiscoveredPackage> {
        self.order.range(number.saturating_add(1)..).filter_map(|(_, package)| self.get(package))
    }

    /// Returns copies of all entries, oldest change first.
    pub fn snapshot(&self) -> Vec<DiscoveredPackage> {
        self.since(0).cloned().collect()
    }

    /// Returns whether a package of this publisher is in the list.
    pub fn knows_publisher(&self, publisher: &PeerId) -> bool {
        self.publishers.contains_key(publisher)
    }

    /// Returns the number of packages.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Returns whether the list is empty.
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

    /// Removes an entry if there is no room for a new package.
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

    /// Counts the entry for the peer that has fewer, after a second peer reported it.
    fn reassign(&mut self, id: &PackageId, reported_by: PeerId) {
        let Some(entry) = self.packages.get_mut(id) else { return };
        if self.entries_by_peer.count(&reported_by) < self.entries_by_peer.count(&entry.reported_by) {
            self.entries_by_peer.remove(&entry.reported_by, entry.package.number);
            self.entries_by_peer.add(reported_by, entry.package.number);
            entry.reported_by = reported_by;
        }
    }
}
