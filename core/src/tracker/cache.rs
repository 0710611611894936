//! The cache of answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::Hash,
};

use libp2p::kad::RecordKey;

use super::{
    QueryTracker,
    policy::{self, first_query},
    results::{QueryEnd, QueryResults},
    state::{LiveQuery, SharedQuery, Work},
    time::Time,
};
use crate::{Action, Cache, Certainty, Operation, Outcome, Progress, Query, RequestId, RequestOptions, StepId};

/// Bytes that an entry counts for besides its key and its items: the entry itself, and its nodes in two trees.
const ENTRY: usize = 320;

/// Bytes that a record counts for besides its key and its value: itself, its source, and a vote.
const RECORD: usize = 320;

/// Bytes of a peer id.
const PEER: usize = 80;

/// The latest answer to each read, within the limits.
#[derive(Debug)]
pub(super) struct Answers {
    limits: Cache,
    entries: BTreeMap<SharedQuery, Entry>,
    /// Order in which entries are removed when the cache is full.
    by_expiry: BTreeSet<(Time, SharedQuery)>,
    bytes: usize,
    /// Running reads whose answers may be cached: those during which no local write to their key has happened.
    reads: BTreeSet<(SharedQuery, StepId)>,
}

#[derive(Debug)]
struct Entry {
    findings: QueryResults,
    progress: Progress,
    /// End of the query, if these are all of its items.
    ending: Option<QueryEnd>,
    since: Time,
    expires: Time,
    bytes: usize,
}

impl Answers {
    pub(super) fn new(limits: Cache) -> Self {
        Self { limits, entries: BTreeMap::new(), by_expiry: BTreeSet::new(), bytes: 0, reads: BTreeSet::new() }
    }

    /// Notes that a query has started.
    pub(super) fn read_began(&mut self, query: &Query, step: StepId) {
        if let (Query::GetRecord { key: _ } | Query::GetProviders { key: _ }, Some(flight)) =
            (query, SharedQuery::of(query))
        {
            self.reads.insert((flight, step));
        }
    }

    /// Notes that a query has given its slot back.
    pub(super) fn read_over(&mut self, flight: &SharedQuery, step: StepId) {
        self.reads.remove(&(flight.clone(), step));
    }

    /// Removes the entries under a key, and excludes the reads of it that are running: both may date from before a
    /// write.
    fn written(&mut self, key: &RecordKey) {
        for flight in SharedQuery::reads(key) {
            self.remove(&flight);
            let of_flight = (flight.clone(), StepId(0))..=(flight, StepId(u64::MAX));
            let stale: Vec<_> = self.reads.range(of_flight).cloned().collect();
            stale.iter().for_each(|read| {
                self.reads.remove(read);
            });
        }
    }

    fn get(&mut self, flight: &SharedQuery, now: Time) -> Option<&mut Entry> {
        if self.entries.get(flight)?.expires <= now {
            self.remove(flight);
        }
        self.entries.get_mut(flight)
    }

    /// Replaces the entry of the same read, which is removed even if the new one is not cached.
    fn insert(&mut self, flight: SharedQuery, entry: Entry, now: Time) {
        self.remove(&flight);
        if entry.expires <= now || entry.bytes > self.limits.max_bytes {
            return;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.by_expiry.insert((entry.expires, flight.clone()));
        self.entries.insert(flight, entry);
        while self.bytes > self.limits.max_bytes
            && let Some((_, first)) = self.by_expiry.first().cloned()
        {
            self.remove(&first);
        }
    }

    fn remove(&mut self, flight: &SharedQuery) {
        if let Some(entry) = self.entries.remove(flight) {
            self.by_expiry.remove(&(entry.expires, flight.clone()));
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

impl Entry {
    /// Returns the outcome of a request that this entry answers.
    fn outcome(&self, operation: &Operation, max_items: usize) -> Option<Outcome> {
        if self.findings.offer().satisfies(policy::need(operation, max_items)) {
            return Some(policy::satisfied(operation, &self.findings, self.progress));
        }
        let outcome = policy::ended(operation, &self.findings, self.ending.as_ref()?, self.progress);
        Some(outcome).filter(Outcome::is_found_out)
    }
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Returns the outcome of a read that the cache answers, and delivers its items.
    pub(super) fn cached(
        &mut self,
        id: RequestId,
        operation: &Operation,
        options: RequestOptions,
        now: Time,
    ) -> Option<Outcome> {
        let cache = self.cache.as_mut().filter(|_| !options.fresh)?;
        let (Operation::GetRecord { key, policy: _ } | Operation::GetProviders { key, policy: _ }) = operation else {
            return None;
        };
        let max_items = self.config.max_items;
        let found = cache.get(&SharedQuery::of(&first_query(operation))?, now).and_then(|entry| {
            if policy::votes(operation) {
                entry.findings.count_votes(key, &self.config.validators);
            }
            let outcome = entry.outcome(operation, max_items)?;
            Some((entry, outcome))
        });
        let Some((entry, outcome)) = found else {
            self.stats.cache_misses += 1;
            return None;
        };
        self.stats.cache_hits += 1;
        if options.streaming {
            let actions = &mut self.actions;
            let deliver = &mut |item| actions.push_back(Action::Item { request: id, item });
            entry.findings.replay(policy::need(operation, max_items).at_most(), deliver);
        }
        Some(outcome.kept_for(now.since(entry.since)))
    }

    /// Returns whether the answer of a query may be cached.
    pub(super) fn keeps(&self, step: StepId) -> bool {
        let Some(cache) = &self.cache else { return false };
        let flight = self.queries.get(&step).and_then(|query| SharedQuery::of(&query.query));
        flight.is_some_and(|flight| cache.reads.contains(&(flight, step)))
    }

    /// Caches the items of a running query, which have satisfied a request.
    pub(super) fn keep_so_far(&mut self, step: StepId, now: Time) {
        if self.keeps(step)
            && let Some(LiveQuery { query, work: Some(work), .. }) = self.queries.get(&step).map(|query| &**query)
        {
            let Work { findings, progress, .. } = &**work;
            let (items, progress, flight) = (findings.items(), *progress, SharedQuery::of(query));
            self.keep(flight, items, None, progress, now);
        }
    }

    /// Caches the items of a query that kad has ended, if enough peers answered for them to be all that exist.
    pub(super) fn keep_all(
        &mut self,
        query: &Query,
        findings: &QueryResults,
        ending: &QueryEnd,
        progress: Progress,
        now: Time,
    ) {
        if let (
            QueryEnd::Read { closest_peers, without: _, timed_out: false, finished_early: false },
            Certainty::Conclusive,
        ) = (ending, progress.certainty())
        {
            if findings.is_doubtful() {
                return;
            }
            let closest_peers = closest_peers.clone();
            let ending = QueryEnd::Read { closest_peers, without: Vec::new(), timed_out: false, finished_early: false };
            self.keep(SharedQuery::of(query), findings.items(), Some(ending), progress, now);
        }
    }

    fn keep(
        &mut self,
        flight: Option<SharedQuery>,
        items: Option<QueryResults>,
        ending: Option<QueryEnd>,
        progress: Progress,
        now: Time,
    ) {
        let (Some(cache), Some(flight), Some(findings)) = (&mut self.cache, flight, items) else { return };
        let Cache { max_bytes: _, max_age, max_age_not_found } = cache.limits;
        let latest = now.after(if findings.has_items() { max_age } else { max_age_not_found });
        let records = findings.records();
        let own = records.iter().filter_map(|record| record.record.expires).min();
        let expires = own.map_or(latest, |at| latest.min(self.clock.time(at)));
        let closest = match &ending {
            Some(QueryEnd::Read { closest_peers, .. }) => closest_peers.len(),
            Some(_) | None => 0,
        };
        let key = flight.key().as_ref().len();
        let peers = closest.saturating_add(findings.offer().items.saturating_sub(records.len()));
        let bytes = records
            .iter()
            .map(|record| RECORD.saturating_add(key).saturating_add(record.record.value.len()))
            .fold(ENTRY.saturating_add(key), usize::saturating_add)
            .saturating_add(peers.saturating_mul(PEER));
        cache.insert(flight, Entry { findings, progress, ending, since: now, expires, bytes }, now);
    }

    /// Removes the entries under the key that an operation writes to.
    pub(super) fn drop_cached_by(&mut self, operation: &Operation) {
        match operation {
            Operation::PutRecord { record, .. } | Operation::PutRecordTo { record, .. } => {
                self.drop_cached(&record.key);
            }
            Operation::StartProviding { key } => self.drop_cached(key),
            Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => {}
        }
    }

    /// Removes the entries under a key, and excludes the reads of it that are running.
    pub(super) fn drop_cached(&mut self, key: &RecordKey) {
        if let Some(cache) = &mut self.cache {
            cache.written(key);
        }
    }
}
