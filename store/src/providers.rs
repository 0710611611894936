//! Providers in memory, from which all reads are served.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use libp2p::{
    PeerId,
    kad::{KBucketDistance, KBucketKey, ProviderRecord, RecordKey},
};

use crate::{InsertError, StoreConfig, policy::is_worth_a_write};

/// Key and peer of a provider.
pub(crate) type Name = (RecordKey, PeerId);

#[derive(Debug)]
pub(crate) struct Providers {
    local_peer: PeerId,
    local_key: KBucketKey<PeerId>,
    by_key: HashMap<RecordKey, Vec<ProviderRecord>>,
    len: usize,
    by_expiry: BTreeMap<(Instant, KBucketDistance, PeerId), RecordKey>,
    /// Keys that the local peer does not provide.
    evictable: BTreeMap<KBucketDistance, RecordKey>,
    /// Keys that the local peer provides.
    own: BTreeMap<KBucketDistance, RecordKey>,
    /// Keys by provider, without the local peer.
    shares: HashMap<PeerId, BTreeMap<KBucketDistance, RecordKey>>,
}

impl Providers {
    pub(crate) fn new(local_peer: PeerId) -> Self {
        Self {
            local_peer,
            local_key: KBucketKey::from(local_peer),
            by_key: HashMap::new(),
            len: 0,
            by_expiry: BTreeMap::new(),
            evictable: BTreeMap::new(),
            own: BTreeMap::new(),
            shares: HashMap::new(),
        }
    }

    /// Inserts a provider at the end of the key's list, or renews it in its place.
    pub(crate) fn insert(&mut self, provider: ProviderRecord) {
        let distance = self.distance(&provider.key);
        let (key, peer) = (provider.key.clone(), provider.provider);
        if let Some(expires) = provider.expires {
            self.by_expiry.insert((expires, distance, peer), key.clone());
        }
        let list = self.by_key.entry(key.clone()).or_default();
        if let Some(known) = list.iter_mut().find(|known| known.provider == peer) {
            if let Some(expires) = known.expires.filter(|expires| Some(*expires) != provider.expires) {
                self.by_expiry.remove(&(expires, distance, peer));
            }
            *known = provider;
            return;
        }
        list.push(provider);
        self.len += 1;
        if peer == self.local_peer {
            self.evictable.remove(&distance);
            self.own.insert(distance, key);
        } else {
            if !self.own.contains_key(&distance) {
                self.evictable.insert(distance, key.clone());
            }
            self.shares.entry(peer).or_default().insert(distance, key);
        }
    }

    pub(crate) fn remove(&mut self, key: &RecordKey, peer: &PeerId) -> bool {
        let Some(list) = self.by_key.get_mut(key) else { return false };
        let Some(place) = list.iter().position(|provider| provider.provider == *peer) else { return false };
        let provider = list.remove(place);
        let is_empty = list.is_empty();
        if is_empty {
            self.by_key.remove(key);
        }
        self.len -= 1;
        let distance = self.distance(key);
        if let Some(expires) = provider.expires {
            self.by_expiry.remove(&(expires, distance, *peer));
        }
        if *peer == self.local_peer {
            self.own.remove(&distance);
            self.evictable.insert(distance, key.clone());
        } else if let Some(share) = self.shares.get_mut(peer) {
            share.remove(&distance);
            if share.is_empty() {
                self.shares.remove(peer);
            }
        }
        if is_empty {
            self.evictable.remove(&distance);
        }
        true
    }

    /// Returns the providers of a key, in the order of their first insertion.
    pub(crate) fn of(&self, key: &RecordKey, now: Instant) -> impl Iterator<Item = &ProviderRecord> {
        self.by_key.get(key).into_iter().flatten().filter(move |provider| !provider.is_expired(now))
    }

    /// Returns the provider records of the local peer.
    pub(crate) fn own(&self, now: Instant) -> impl Iterator<Item = &ProviderRecord> {
        let record = move |key| self.of(key, now).find(|provider| provider.provider == self.local_peer);
        self.own.values().filter_map(record)
    }

    pub(crate) fn expired(&self, now: Instant, at_most: usize) -> Vec<Name> {
        let past = self.by_expiry.iter().take_while(|((expires, ..), _)| *expires <= now);
        past.take(at_most).map(|((_, _, peer), key)| (key.clone(), *peer)).collect()
    }

    /// Returns whether a provider is stored with the same addresses, and with an expiry that is not worth a write.
    pub(crate) fn knows(&self, new: &ProviderRecord, now: Instant) -> bool {
        self.of(&new.key, now).any(|known| {
            known.provider == new.provider
                && known.addresses == new.addresses
                && (known.expires == new.expires
                    || (new.provider != self.local_peer && !is_worth_a_write(known.expires, new.expires)))
        })
    }

    /// Returns the providers to evict for a new one.
    pub(crate) fn make_room(
        &self,
        new: &ProviderRecord,
        now: Instant,
        limits: &StoreConfig,
    ) -> Result<Vec<Name>, InsertError> {
        let list = self.by_key.get(&new.key).map_or(&[][..], Vec::as_slice);
        let own = new.provider == self.local_peer;
        let distance = self.distance(&new.key);
        let mut victims = Vec::new();
        if list.iter().any(|known| known.provider == new.provider) {
            return Ok(victims);
        }
        victims.extend(list.iter().filter(|known| known.is_expired(now)).map(name));
        let mut keys = self.by_key.len() + usize::from(list.is_empty());
        if list.len() - victims.len() >= limits.max_providers_per_key {
            match list.iter().rfind(|known| !known.is_expired(now)) {
                // The last one gives way to the local peer.
                Some(last) if own => victims.push(name(last)),
                _ => return Err(InsertError::TooManyProviders),
            }
        }
        let share = self.shares.get(&new.provider);
        if !own && share.map_or(0, BTreeMap::len) >= limits.max_keys_per_provider {
            let farthest = share.and_then(BTreeMap::last_key_value);
            let (_, key) = farthest.filter(|(far, _)| **far > distance).ok_or(InsertError::ShareFull)?;
            victims.push((key.clone(), new.provider));
            keys -= usize::from(self.by_key.get(key).is_some_and(|list| list.len() == 1));
        }
        let mut farthest = self.evictable.iter().rev().filter(|(far, _)| **far != distance);
        while keys > limits.max_provided_keys || self.len + 1 - victims.len() > limits.max_provider_records {
            let (far, key) = farthest.next().ok_or(InsertError::Full)?;
            if *far < distance && !own {
                return Err(InsertError::Full);
            }
            let list = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
            let others: Vec<_> = list.iter().map(name).filter(|name| !victims.contains(name)).collect();
            // If all providers of this key are victims already, the key was counted before.
            keys -= usize::from(!others.is_empty());
            victims.extend(others);
        }
        Ok(victims)
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.keys().next().map(|(expires, ..)| *expires)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn keys(&self) -> usize {
        self.by_key.len()
    }

    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        self.local_key.distance(&KBucketKey::new(key.clone()))
    }

    /// Panics unless all indexes agree.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let all = || self.by_key.values().flatten();
        assert_eq!(self.len, all().count());
        assert_eq!(self.by_expiry.len(), all().filter(|provider| provider.expires.is_some()).count());
        let own = all().filter(|provider| provider.provider == self.local_peer).count();
        assert_eq!((self.own.len(), self.evictable.len()), (own, self.by_key.len() - own));
        assert_eq!(self.shares.values().map(BTreeMap::len).sum::<usize>(), self.len - own);
        for (key, list) in &self.by_key {
            let distance = self.distance(key);
            let own = list.iter().any(|provider| provider.provider == self.local_peer);
            assert_eq!(self.own.contains_key(&distance), own);
            assert_eq!(self.evictable.contains_key(&distance), !own);
            for known in list {
                let at = |at| self.by_expiry.get(&(at, distance, known.provider));
                assert!(known.expires.is_none_or(|expires| at(expires) == Some(key)));
            }
        }
    }
}

fn name(provider: &ProviderRecord) -> Name {
    (provider.key.clone(), provider.provider)
}
