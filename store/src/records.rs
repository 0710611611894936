//! Records in memory, from which all reads are served.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use libp2p::{
    PeerId,
    kad::{KBucketDistance, KBucketKey, Record, RecordKey},
};

use crate::{InsertError, StoreConfig};

/// Maximum number of records that one insertion evicts, so that the work of a call is bounded. A large record that
/// would need more small ones to be evicted is not stored.
pub(crate) const MAX_EVICTIONS: usize = 64;

/// Records by key, with indexes. A distance identifies its key: it is the distance of a SHA-256 hash.
#[derive(Debug)]
pub(crate) struct Records {
    local_peer: PeerId,
    local_key: KBucketKey<PeerId>,
    /// Peers choose the keys: the hash of this map has to be seeded, and nothing depends on its order.
    by_key: HashMap<RecordKey, Entry>,
    bytes: usize,
    by_expiry: BTreeMap<(Instant, KBucketDistance), RecordKey>,
    /// All but own records.
    evictable: BTreeMap<KBucketDistance, RecordKey>,
    shares: HashMap<Option<PeerId>, Share>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    distance: KBucketDistance,
}

/// Records of one publisher.
#[derive(Debug, Default)]
struct Share {
    distances: BTreeSet<KBucketDistance>,
    bytes: usize,
}

/// Records to evict for a new one, and the totals without them.
#[derive(Debug)]
struct Room {
    victims: Vec<RecordKey>,
    records: usize,
    bytes: usize,
}

impl Records {
    pub(crate) fn new(local_peer: PeerId) -> Self {
        Self {
            local_peer,
            local_key: KBucketKey::from(local_peer),
            by_key: HashMap::new(),
            bytes: 0,
            by_expiry: BTreeMap::new(),
            evictable: BTreeMap::new(),
            shares: HashMap::new(),
        }
    }

    /// Inserts a record, in place of an earlier one of its key.
    pub(crate) fn insert(&mut self, record: Record) {
        let distance = self.distance(&record.key);
        self.remove(&record.key);
        let bytes = size(&record);
        self.bytes += bytes;
        if let Some(expires) = record.expires {
            self.by_expiry.insert((expires, distance), record.key.clone());
        }
        if !self.is_own(&record) {
            self.evictable.insert(distance, record.key.clone());
            let share = self.shares.entry(record.publisher).or_default();
            share.distances.insert(distance);
            share.bytes += bytes;
        }
        self.by_key.insert(record.key.clone(), Entry { record, distance });
    }

    pub(crate) fn remove(&mut self, key: &RecordKey) -> bool {
        let Some(Entry { record, distance }) = self.by_key.remove(key) else { return false };
        let bytes = size(&record);
        self.bytes -= bytes;
        if let Some(expires) = record.expires {
            self.by_expiry.remove(&(expires, distance));
        }
        self.evictable.remove(&distance);
        if let Some(share) = self.shares.get_mut(&record.publisher)
            && share.distances.remove(&distance)
        {
            share.bytes -= bytes;
            if share.distances.is_empty() {
                self.shares.remove(&record.publisher);
            }
        }
        true
    }

    pub(crate) fn get(&self, key: &RecordKey, now: Instant) -> Option<&Record> {
        self.by_key.get(key).map(|entry| &entry.record).filter(|record| !record.is_expired(now))
    }

    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = &Record> {
        self.by_key.values().map(|entry| &entry.record).filter(move |record| !record.is_expired(now))
    }

    /// Returns some expired records, the earliest first.
    pub(crate) fn expired(&self, now: Instant, at_most: usize) -> Vec<RecordKey> {
        self.past(now).take(at_most).cloned().collect()
    }

    /// Returns the records to evict for a new one: expired ones, then the farthest, and never own ones.
    pub(crate) fn make_room(
        &self,
        record: &Record,
        now: Instant,
        limits: &StoreConfig,
    ) -> Result<Vec<RecordKey>, InsertError> {
        let distance = self.distance(&record.key);
        let bytes = size(record);
        let old = self.by_key.get(&record.key).map(|entry| &entry.record);
        let mut room = Room {
            victims: Vec::new(),
            records: self.by_key.len() - usize::from(old.is_some()),
            bytes: self.bytes - old.map_or(0, size),
        };
        let own = self.is_own(record);
        if !own {
            self.make_room_in_share(&mut room, record, distance, limits)?;
        }
        let fits = |room: &Room| {
            room.records < limits.max_records && room.bytes.saturating_add(bytes) <= limits.max_total_bytes
        };
        let expired = self.past(now).map(|key| (None, key));
        let farthest = self.evictable.iter().rev().map(|(distance, key)| (Some(*distance), key));
        for (candidate, key) in expired.chain(farthest) {
            if fits(&room) {
                break;
            }
            if *key == record.key || room.victims.contains(key) {
                continue;
            }
            let closer = candidate.is_some_and(|candidate| candidate <= distance);
            if (closer && !own) || !self.take(&mut room, key) {
                return Err(InsertError::Full);
            }
        }
        if fits(&room) { Ok(room.victims) } else { Err(InsertError::Full) }
    }

    fn make_room_in_share(
        &self,
        room: &mut Room,
        record: &Record,
        distance: KBucketDistance,
        limits: &StoreConfig,
    ) -> Result<(), InsertError> {
        let Some(share) = self.shares.get(&record.publisher) else {
            return if limits.max_records_per_publisher > 0 && size(record) <= limits.max_bytes_per_publisher {
                Ok(())
            } else {
                Err(InsertError::ShareFull)
            };
        };
        let old = self.by_key.get(&record.key).filter(|old| old.record.publisher == record.publisher);
        let mut records = share.distances.len() - usize::from(old.is_some());
        let mut bytes = share.bytes - old.map_or(0, |old| size(&old.record)) + size(record);
        let mut farthest = share.distances.iter().rev();
        while records >= limits.max_records_per_publisher || bytes > limits.max_bytes_per_publisher {
            let candidate = farthest.next().ok_or(InsertError::ShareFull)?;
            if *candidate == distance {
                continue;
            }
            let key = self.evictable.get(candidate).filter(|_| *candidate > distance).ok_or(InsertError::ShareFull)?;
            records -= 1;
            bytes -= self.by_key.get(key).map_or(0, |entry| size(&entry.record));
            if !self.take(room, key) {
                return Err(InsertError::ShareFull);
            }
        }
        Ok(())
    }

    /// Adds a record to those to evict. Returns `false` if their number has reached the limit.
    fn take(&self, room: &mut Room, key: &RecordKey) -> bool {
        if room.victims.len() >= MAX_EVICTIONS {
            return false;
        }
        room.victims.push(key.clone());
        room.records -= 1;
        room.bytes -= self.by_key.get(key).map_or(0, |entry| size(&entry.record));
        true
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.keys().next().map(|(expires, _)| *expires)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_own(&self, record: &Record) -> bool {
        record.publisher == Some(self.local_peer)
    }

    fn past(&self, now: Instant) -> impl Iterator<Item = &RecordKey> {
        self.by_expiry.iter().take_while(move |((expires, _), _)| *expires <= now).map(|(_, key)| key)
    }

    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        self.local_key.distance(&KBucketKey::new(key.clone()))
    }

    /// Panics unless all indexes agree.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let entries = || self.by_key.values().map(|entry| (&entry.record, entry.distance));
        assert_eq!(self.bytes, entries().map(|(record, _)| size(record)).sum::<usize>());
        assert_eq!(self.by_expiry.len(), entries().filter(|(record, _)| record.expires.is_some()).count());
        for (record, distance) in entries() {
            assert_eq!(distance, self.distance(&record.key));
            assert!(record.expires.is_none_or(|at| self.by_expiry.get(&(at, distance)) == Some(&record.key)));
            let shared = self.shares.get(&record.publisher).is_some_and(|share| share.distances.contains(&distance));
            assert_eq!(shared, !self.is_own(record));
            assert_eq!(self.evictable.contains_key(&distance), !self.is_own(record));
        }
        assert_eq!(self.evictable.len(), self.shares.values().map(|share| share.distances.len()).sum::<usize>());
        let others = entries().filter(|(record, _)| !self.is_own(record));
        assert_eq!(
            others.map(|(record, _)| size(record)).sum::<usize>(),
            self.shares.values().map(|share| share.bytes).sum::<usize>()
        );
        assert!(self.shares.values().all(|share| !share.distances.is_empty()));
    }
}

/// Returns the length of a record's key and value, in bytes.
pub(crate) fn size(record: &Record) -> usize {
    record.key.as_ref().len() + record.value.len()
}
