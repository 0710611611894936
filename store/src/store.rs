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
    DiskError, Refusal, StatsHandle, StoreConfig,
    clock::{Clock, RealClock},
    disk::{Change, Disk, Row},
    providers::Providers,
    records::Records,
    rules::{self, Verdict},
    stats,
};

/// How many expired records, and as many providers, a call that changes the store sweeps. More than one comes with a
/// call, so that the sweep gains on any load.
const SWEEP: usize = 32;

/// A record store for a `kad::Behaviour`, in memory or with a file.
///
/// What it does with a record is described [for the whole crate](crate). All reading is done in memory; a write is in the
/// file before it is in memory, so that what was acknowledged is in the file. A file survives the process however that
/// ends, and a failure of power if that comes later than [`StoreConfig::flush_within`].
///
/// Expired records and providers are never returned. They are removed by the calls that change the store, some at a time,
/// which takes no look at all others.
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

/// What became of a record that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// There was none under this key.
    New,
    /// It took the place of another one.
    Replaced,
    /// It was there, and now lives longer or is ours.
    Refreshed,
    /// It was there, and nothing has changed.
    Unchanged,
}

impl Store {
    /// A store that ends with the process.
    pub fn memory(local_peer: PeerId, config: StoreConfig) -> Self {
        Self::with_clock(local_peer, config, Arc::new(RealClock))
    }

    /// A store in this file, which is made if there is none. Beside it stand two files of the database and a lock; all
    /// of them have to be on a local disk.
    ///
    /// Everything is read, checked by checksums and by the validators, and brought within the limits: what is invalid by
    /// now, has expired or is too much is removed. If the local peer is another one than before, what the earlier one
    /// published or provided counts as that of others. Reading takes a time in proportion to the file's size.
    ///
    /// Dropping the store waits until everything is on the disk.
    ///
    /// # Errors
    ///
    /// If another store has the file open, or it is no such file, of a later version, damaged, or cannot be used. It is
    /// left as it is in all of these cases.
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

    /// Stores a record, and says what became of it. [`RecordStore::put`] is the same with kad's errors.
    ///
    /// # Errors
    ///
    /// Says why it was refused. Nothing has changed then, but that expired records may have been swept.
    pub fn insert(&mut self, record: Record) -> Result<Stored, Refusal> {
        let now = self.clock.now();
        self.sweep_up_to(now);
        let result = self.try_insert(record, now);
        self.stats.counters().record(&result);
        self.count_what_is_there();
        result
    }

    /// Enters a provider. [`RecordStore::add_provider`] is the same with kad's errors, and without one for a key that has
    /// as many providers as are kept.
    ///
    /// # Errors
    ///
    /// Says why it was refused.
    pub fn insert_provider(&mut self, provider: ProviderRecord) -> Result<(), Refusal> {
        let now = self.clock.now();
        self.sweep_up_to(now);
        let result = self.try_insert_provider(provider, now);
        self.stats.counters().provider(&result);
        self.count_what_is_there();
        result
    }

    /// Removes all that have expired by now, which the calls that change the store do bit by bit. For a node that is
    /// seldom written to; takes a time in proportion to what it removes.
    pub fn sweep(&mut self) {
        let now = self.clock.now();
        while self.sweep_up_to(now) {}
        self.count_what_is_there();
    }

    /// As [`sweep`](Self::sweep), but only some of them, so that a loop may do it bit by bit. Says whether there may be
    /// more.
    pub fn sweep_some(&mut self) -> bool {
        let more = self.sweep_up_to(self.clock.now());
        self.count_what_is_there();
        more
    }

    /// When the next record or provider expires, or the earliest that has and is not yet swept; `None` if none ever does.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.records.next_expiry().into_iter().chain(self.providers.next_expiry()).min()
    }

    /// Waits until everything that was stored is on the disk, also if the power fails. In memory, does nothing.
    ///
    /// # Errors
    ///
    /// If that is not known; everything still survives the end of the process.
    pub fn flush(&mut self) -> Result<(), DiskError> {
        self.disk.as_mut().map_or(Ok(()), Disk::flush)
    }

    /// Reads the counters when the store is in a swarm.
    pub fn stats_handle(&self) -> StatsHandle {
        self.stats.clone()
    }

    fn try_insert(&mut self, mut record: Record, now: Instant) -> Result<Stored, Refusal> {
        rules::admit(&record, now, &self.config)?;
        if !self.records.is_ours(&record) {
            record.expires = rules::clamp(record.expires, now, &self.config);
        }
        let stored = self.records.get(&record.key, now);
        let (outcome, record) = match rules::judge(stored, &record, self.local_peer, &self.config)? {
            Verdict::Insert => (Stored::New, record),
            Verdict::Replace => (Stored::Replaced, record),
            Verdict::Refresh(refreshed) => (Stored::Refreshed, refreshed),
            Verdict::Unchanged => return Ok(Stored::Unchanged),
        };
        let victims = self.records.make_room(&record, now, &self.config)?;
        let removals = victims.iter().cloned().map(|key| Change::Remove(Row::Record(key)));
        let changes: Vec<_> = removals.chain([Change::Record(&record)]).collect();
        self.write(&changes).map_err(Refusal::Disk)?;
        stats::add(&self.stats.counters().evicted, victims.len());
        for key in &victims {
            self.records.remove(key);
        }
        self.records.insert(record);
        Ok(outcome)
    }

    fn try_insert_provider(&mut self, mut provider: ProviderRecord, now: Instant) -> Result<(), Refusal> {
        rules::admit_key(&provider.key, &self.config)?;
        if provider.is_expired(now) {
            return Err(Refusal::Expired);
        }
        rules::cut_addresses(&mut provider);
        if provider.provider != self.local_peer {
            provider.expires = rules::clamp(provider.expires, now, &self.config);
        }
        if self.providers.knows(&provider, now) {
            return Ok(());
        }
        let victims = self.providers.make_room(&provider, now, &self.config)?;
        let removals = victims.iter().cloned().map(|(key, peer)| Change::Remove(Row::Provider(key, peer)));
        let changes: Vec<_> = removals.chain([Change::Provider(&provider)]).collect();
        self.write(&changes).map_err(Refusal::Disk)?;
        stats::add(&self.stats.counters().evicted, victims.len());
        for (key, peer) in &victims {
            self.providers.remove(key, peer);
        }
        self.providers.insert(provider);
        Ok(())
    }

    /// Whether there may be more.
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

    /// Takes in what was in the file. Gives back what there was, with its expiry, and `None` for what had expired.
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
            // What is refused is missing afterwards.
            let _refused = self.try_insert(record, now);
        }
        for provider in providers {
            loaded.push((Row::Provider(provider.key.clone(), provider.provider), Some(provider.expires)));
            let _refused = self.try_insert_provider(provider, now);
        }
        let live = loaded.iter().filter(|(_, expires)| expires.is_some()).count();
        stats::set(&counters.dropped_at_open, live - self.records.len() - self.providers.len());
        stats::set(&counters.evicted, 0);
        self.count_what_is_there();
        loaded
    }

    /// What has to change in the file so that it has what is in memory.
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

    /// Whether all indexes say the same.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.records.check();
        self.providers.check();
    }

    /// From now on no write succeeds, or every one again.
    #[cfg(all(test, feature = "disk"))]
    pub(crate) fn break_file(&self, broken: bool) {
        if let Some(disk) = &self.disk {
            disk.break_it(broken);
        }
    }

    fn count_what_is_there(&self) {
        let counters = self.stats.counters();
        stats::set(&counters.records, self.records.len());
        stats::set(&counters.record_bytes, self.records.bytes());
        stats::set(&counters.provider_records, self.providers.len());
        stats::set(&counters.provided_keys, self.providers.keys());
    }
}

/// What was in the file, and until when; `None` if that has passed.
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
        self.insert(record).map(drop).map_err(|refusal| refusal.of_record())
    }

    fn remove(&mut self, key: &RecordKey) {
        if self.records.remove(key) {
            self.remove_rows(vec![Row::Record(key.clone())]);
            self.count_what_is_there();
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        Box::new(self.records.iter(self.clock.now()).map(Cow::Borrowed))
    }

    fn add_provider(&mut self, provider: ProviderRecord) -> store::Result<()> {
        match self.insert_provider(provider) {
            Ok(()) | Err(Refusal::KeyFull) => Ok(()),
            Err(_) => Err(store::Error::MaxProvidedKeys),
        }
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.of(key, self.clock.now()).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        Box::new(self.providers.ours(self.clock.now()).map(Cow::Borrowed))
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if self.providers.remove(key, provider) {
            self.remove_rows(vec![Row::Provider(key.clone(), *provider)]);
            self.count_what_is_there();
        }
    }
}
