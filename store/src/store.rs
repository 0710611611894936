#[cfg(feature = "disk")]
use std::path::Path;
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{self, RecordStore},
    },
};

#[cfg(feature = "disk")]
use crate::StoreOpenError;
use crate::{
    DiskError, InsertError, InsertOutcome, StatsHandle, StoreConfig,
    clock::{Clock, RealClock},
    disk::{Change, Disk, Row},
    policy::{self, Verdict},
    providers::Providers,
    records::Records,
    stats,
};

/// Maximum number of expired records, and of expired providers, that a call which changes the store sweeps. A call adds
/// at most one, so that the sweep keeps up with any load.
const SWEEP: usize = 32;

/// Store of records and providers for a `kad::Behaviour`, in memory or with a file.
///
/// The [front page of the crate](crate) says which of two records of a key stays. Reads are served from memory. With a
/// file, an insertion is written to the file before it takes effect in memory, so that the file has every acknowledged
/// record. A written record survives the end of the process at once, and a power failure once the file was flushed: see
/// [`StoreConfig::flush_within`](field@StoreConfig::flush_within).
///
/// Expired records and providers are never returned. Each insertion removes up to 32 expired records and 32 expired
/// providers.
///
/// ```
/// use kadence_store::{InsertError, InsertOutcome, Store, StoreConfig};
/// use libp2p::{PeerId, kad::Record};
///
/// let mut store = Store::memory(PeerId::random(), StoreConfig::default().max_value_len(5));
/// assert_eq!(store.insert(Record::new(b"key".to_vec(), b"first".to_vec()))?, InsertOutcome::New);
/// let error = store.insert(Record::new(b"key".to_vec(), b"second".to_vec())).unwrap_err();
/// assert!(matches!(error, InsertError::ValueTooLong { len: 6, max: 5 }));
/// # Ok::<(), InsertError>(())
/// ```
#[derive(Debug)]
pub struct Store {
    local_peer: PeerId,
    config: StoreConfig,
    clock: Arc<dyn Clock>,
    records: Records,
    providers: Providers,
    disk: Option<Disk>,
    stats: StatsHandle,
}

impl Store {
    /// Returns an empty store without a file. The content is lost when the store is dropped.
    pub fn memory(local_peer: PeerId, config: StoreConfig) -> Self {
        Self::with_clock(local_peer, config, Arc::new(RealClock))
    }

    /// Opens a store in a file, which is created if there is none.
    ///
    /// The folder of the file has to exist. Next to the file, SQLite keeps two more, with the suffixes `-wal` and
    /// `-shm`, and the store a lock file with the suffix `.lock`. All of them have to be on a local disk.
    ///
    /// The whole file is read and verified by checksums; the time is in proportion to its size. Records and providers
    /// that have expired, that `config` rejects, or that exceed a limit are removed. Records and providers of the node
    /// itself are recognised by `local_peer`: if an earlier run had another peer id, those of that peer id count as
    /// another peer's.
    ///
    /// Dropping the store blocks until its content is on the disk; a failure of that is only logged.
    ///
    /// # Errors
    ///
    /// See [`StoreOpenError`]: the file is in use, of another kind, of a later version, damaged, or cannot be used for
    /// another reason.
    #[cfg(feature = "disk")]
    pub fn open(path: impl AsRef<Path>, local_peer: PeerId, config: StoreConfig) -> Result<Self, StoreOpenError> {
        Self::open_with_clock(path.as_ref(), local_peer, config, Arc::new(RealClock))
    }

    pub(crate) fn with_clock(local_peer: PeerId, config: StoreConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            local_peer,
            config,
            clock,
            records: Records::new(local_peer),
            providers: Providers::new(local_peer),
            disk: None,
            stats: StatsHandle::default(),
        }
    }

    #[cfg(feature = "disk")]
    pub(crate) fn open_with_clock(
        path: &Path,
        local_peer: PeerId,
        config: StoreConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreOpenError> {
        let (mut disk, contents) = Disk::open(path, clock.clone(), config.flush_within)?;
        let mut store = Self::with_clock(local_peer, config, clock);
        let loaded = store.load(contents);
        disk.write(&store.corrections(&loaded))
            .map_err(|error| StoreOpenError::Disk { path: path.to_owned(), error })?;
        store.disk = Some(disk);
        Ok(store)
    }

    /// Inserts a record, or renews or replaces the stored one of its key. [`RecordStore::put`] does the same with kad's
    /// errors.
    ///
    /// # Errors
    ///
    /// See [`InsertError`]: the record is rejected, the store or the share of the record's publisher is full, or the
    /// file cannot be written. Nothing has changed then, except that expired records and providers may have been
    /// removed.
    pub fn insert(&mut self, record: Record) -> Result<InsertOutcome, InsertError> {
        let now = self.clock.now();
        self.sweep_up_to(now);
        let result = self.try_insert(record, now);
        self.stats.counters().record(&result);
        self.update_gauges();
        result
    }

    /// Inserts a provider of a key, or renews it. At most the first 16 addresses are stored, and none from the one on
    /// with which their total length exceeds 1,024 bytes. A provider with the same addresses is renewed only if
    /// the new expiry is at least 60 seconds later; the local peer is always renewed. [`RecordStore::add_provider`]
    /// does the same with kad's errors, and returns `Ok` instead of [`InsertError::TooManyProviders`].
    ///
    /// # Errors
    ///
    /// See [`InsertError`]: the provider is rejected, the store or the provider's share is full, the key has the
    /// maximum number of providers, or the file cannot be written. Nothing has changed then, except that expired
    /// records and providers may have been removed.
    pub fn insert_provider(&mut self, provider: ProviderRecord) -> Result<(), InsertError> {
        let now = self.clock.now();
        self.sweep_up_to(now);
        let result = self.try_insert_provider(provider, now);
        self.stats.counters().provider(&result);
        self.update_gauges();
        result
    }

    /// Removes all expired records and providers. The time is in proportion to their number. Since each insertion
    /// removes some of them anyway, this is only needed for a store with few insertions.
    pub fn sweep(&mut self) {
        let now = self.clock.now();
        while self.sweep_up_to(now) {}
        self.update_gauges();
    }

    /// Removes up to 32 expired records and 32 expired providers. Returns true if there may be more. It is for an event
    /// loop that [`sweep`](Self::sweep) would block for too long.
    pub fn sweep_some(&mut self) -> bool {
        let more = self.sweep_up_to(self.clock.now());
        self.update_gauges();
        more
    }

    /// Returns the earliest expiry of all records and providers, including expired ones that were not removed yet.
    /// `None` if none of them has an expiry.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.records.next_expiry().into_iter().chain(self.providers.next_expiry()).min()
    }

    /// Blocks until everything that was stored before survives a power failure. Does nothing for a store without a
    /// file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or synced, for example because the disk fails or the file is busy. What was stored
    /// still survives the end of the process.
    pub fn flush(&mut self) -> Result<(), DiskError> {
        self.disk.as_mut().map_or(Ok(()), Disk::flush)
    }

    /// Returns a handle that reads the store's counters, also while a swarm owns the store and after the store was
    /// dropped.
    pub fn stats_handle(&self) -> StatsHandle {
        self.stats.clone()
    }

    fn try_insert(&mut self, mut record: Record, now: Instant) -> Result<InsertOutcome, InsertError> {
        policy::validate_record(&record, now, &self.config)?;
        if !self.records.is_own(&record) {
            record.expires = policy::limit_expiry(record.expires, now, &self.config);
        }
        let stored = self.records.get(&record.key, now);
        let (outcome, record) = match policy::compare_record(stored, &record, self.local_peer, &self.config)? {
            Verdict::Insert => (InsertOutcome::New, record),
            Verdict::Replace => (InsertOutcome::Replaced, record),
            Verdict::Refresh(refreshed) => (InsertOutcome::Refreshed, refreshed),
            Verdict::Unchanged => return Ok(InsertOutcome::Unchanged),
        };
        let victims = self.records.make_room(&record, now, &self.config)?;
        let removals = victims.iter().cloned().map(|key| Change::Remove(Row::Record(key)));
        let changes: Vec<_> = removals.chain([Change::Record(&record)]).collect();
        self.write(&changes).map_err(InsertError::Disk)?;
        stats::add(&self.stats.counters().evicted, victims.len());
        for key in &victims {
            self.records.remove(key);
        }
        self.records.insert(record);
        Ok(outcome)
    }

    fn try_insert_provider(&mut self, mut provider: ProviderRecord, now: Instant) -> Result<(), InsertError> {
        policy::validate_key(&provider.key, &self.config)?;
        if provider.is_expired(now) {
            return Err(InsertError::Expired);
        }
        policy::limit_addresses(&mut provider);
        if provider.provider != self.local_peer {
            provider.expires = policy::limit_expiry(provider.expires, now, &self.config);
        }
        if self.providers.knows(&provider, now) {
            return Ok(());
        }
        let victims = self.providers.make_room(&provider, now, &self.config)?;
        let removals = victims.iter().cloned().map(|(key, peer)| Change::Remove(Row::Provider(key, peer)));
        let changes: Vec<_> = removals.chain([Change::Provider(&provider)]).collect();
        self.write(&changes).map_err(InsertError::Disk)?;
        stats::add(&self.stats.counters().evicted, victims.len());
        for (key, peer) in &victims {
            self.providers.remove(key, peer);
        }
        self.providers.insert(provider);
        Ok(())
    }

    /// Removes some expired records and providers. Returns whether there may be more.
    fn sweep_up_to(&mut self, now: Instant) -> bool {
        let (records, providers) = (self.records.expired(now, SWEEP), self.providers.expired(now, SWEEP));
        let more = records.len() == SWEEP || providers.len() == SWEEP;
        stats::add(&self.stats.counters().expired, records.len() + providers.len());
        for key in &records {
            self.records.remove(key);
        }
        for (key, peer) in &providers {
            self.providers.remove(key, peer);
        }
        let records = records.into_iter().map(Row::Record);
        self.remove_rows(records.chain(providers.into_iter().map(|(key, peer)| Row::Provider(key, peer))).collect());
        more
    }

    /// Inserts the contents of the file. Returns all rows of the file with their expiry, and `None` for expired ones.
    #[cfg(feature = "disk")]
    fn load(&mut self, contents: crate::disk::Contents) -> Vec<Loaded> {
        let now = self.clock.now();
        let crate::disk::Contents { records, providers, expired } = contents;
        let counters = self.stats.clone();
        let counters = counters.counters();
        stats::add(&counters.expired, expired.len());
        let mut loaded: Vec<Loaded> = expired.into_iter().map(|row| (row, None)).collect();
        for record in records {
            loaded.push((Row::Record(record.key.clone()), Some(record.expires)));
            // A rejected record is missing afterwards, and counted below.
            let _rejected = self.try_insert(record, now);
        }
        for provider in providers {
            loaded.push((Row::Provider(provider.key.clone(), provider.provider), Some(provider.expires)));
            let _rejected = self.try_insert_provider(provider, now);
        }
        let live = loaded.iter().filter(|(_, expires)| expires.is_some()).count();
        stats::set(&counters.dropped_at_open, live - self.records.len() - self.providers.len());
        stats::set(&counters.evicted, 0);
        self.update_gauges();
        loaded
    }

    /// Returns the changes that bring the file to the state in memory.
    #[cfg(feature = "disk")]
    fn corrections<'a>(&'a self, loaded: &'a [Loaded]) -> Vec<Change<'a>> {
        let now = self.clock.now();
        let correction = |(row, expires): &'a Loaded| match row {
            Row::Record(key) => match self.records.get(key, now) {
                Some(record) => (Some(record.expires) != *expires).then_some(Change::Record(record)),
                None => Some(Change::Remove(row.clone())),
            },
            Row::Provider(key, peer) => match self.providers.of(key, now).find(|known| known.provider == *peer) {
                Some(provider) => (Some(provider.expires) != *expires).then_some(Change::Provider(provider)),
                None => Some(Change::Remove(row.clone())),
            },
        };
        loaded.iter().filter_map(correction).collect()
    }

    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), DiskError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let started = Instant::now();
        let result = disk.write(changes);
        count_write(&self.stats, started.elapsed(), &result);
        result
    }

    fn remove_rows(&mut self, rows: Vec<Row>) {
        let Some(disk) = &mut self.disk else { return };
        let started = Instant::now();
        let result = disk.remove(rows);
        count_write(&self.stats, started.elapsed(), &result);
    }

    /// Panics unless all indexes agree.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.records.check();
        self.providers.check();
    }

    /// Makes all writes fail, or succeed again.
    #[cfg(all(test, feature = "disk"))]
    pub(crate) fn break_file(&self, broken: bool) {
        if let Some(disk) = &self.disk {
            disk.break_it(broken);
        }
    }

    fn update_gauges(&self) {
        let counters = self.stats.counters();
        stats::set(&counters.records, self.records.len());
        stats::set(&counters.record_bytes, self.records.bytes());
        stats::set(&counters.provider_records, self.providers.len());
        stats::set(&counters.provided_keys, self.providers.keys());
    }
}

/// A row of the file and its expiry; `None` if it had expired.
#[cfg(feature = "disk")]
type Loaded = (Row, Option<Option<Instant>>);

fn count_write(stats: &StatsHandle, took: Duration, result: &Result<(), DiskError>) {
    stats.counters().wrote(took);
    if result.is_err() {
        stats::one(&stats.counters().disk_errors);
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = Box<dyn Iterator<Item = Cow<'a, ProviderRecord>> + 'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.records.get(key, self.clock.now()).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> store::Result<()> {
        self.insert(record).map(drop).map_err(|error| error.of_record())
    }

    fn remove(&mut self, key: &RecordKey) {
        if self.records.remove(key) {
            self.remove_rows(vec![Row::Record(key.clone())]);
            self.update_gauges();
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        Box::new(self.records.iter(self.clock.now()).map(Cow::Borrowed))
    }

    fn add_provider(&mut self, provider: ProviderRecord) -> store::Result<()> {
        match self.insert_provider(provider) {
            Ok(()) | Err(InsertError::TooManyProviders) => Ok(()),
            Err(_) => Err(store::Error::MaxProvidedKeys),
        }
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.of(key, self.clock.now()).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        Box::new(self.providers.own(self.clock.now()).map(Cow::Borrowed))
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if self.providers.remove(key, provider) {
            self.remove_rows(vec![Row::Provider(key.clone(), *provider)]);
            self.update_gauges();
        }
    }
}
