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
    results: QueryResults,
    progress: Progress,
    /// End of the query, if these are all of its items.
    end: Option<QueryEnd>,
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
        if let (Query::GetRecord { key: _ } | Query::GetProviders { key: _ }, Some(shared_query)) =
            (query, SharedQuery::of(query))
        {
            self.reads.insert((shared_query, step));
        }
    }

    /// Notes that a query has given its slot back.
    pub(super) fn read_over(&mut self, shared_query: &SharedQuery, step: StepId) {
        self.reads.remove(&(shared_query.clone(), step));
    }

    /// Removes the entries under a key, and excludes the reads of it that are running: both may date from before a
    /// write.
    fn written(&mut self, key: &RecordKey) {
        for shared_query in SharedQuery::reads(key) {
            self.remove(&shared_query);
            let of_query = (shared_query.clone(), StepId(0))..=(shared_query, StepId(u64::MAX));
            let stale: Vec<_> = self.reads.range(of_query).cloned().collect();
            stale.iter().for_each(|read| {
                self.reads.remove(read);
            });
        }
    }

    fn get(&mut self, shared_query: &SharedQuery, now: Time) -> Option<&mut Entry> {
        if self.entries.get(shared_query)?.expires <= now {
            self.remove(shared_query);
        }
        self.entries.get_mut(shared_query)
    }

    /// Replaces the entry of the same read, which is removed even if the new one is not cached.
    fn insert(&mut self, shared_query: SharedQuery, entry: Entry, now: Time) {
        self.remove(&shared_query);
        if entry.expires <= now || entry.bytes > self.limits.max_bytes {
            return;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.by_expiry.insert((entry.expires, shared_query.clone()));
        self.entries.insert(shared_query, entry);
        while self.bytes > self.limits.max_bytes
            && let Some((_, first)) = self.by_expiry.first().cloned()
        {
            self.remove(&first);
        }
    }

    fn remove(&mut self, shared_query: &SharedQuery) {
        if let Some(entry) = self.entries.remove(shared_query) {
            self.by_expiry.remove(&(entry.expires, shared_query.clone()));
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

impl Entry {
    /// Returns the outcome of a request that this entry answers.
    fn outcome(&self, operation: &Operation, max_items: usize) -> Option<Outcome> {
        if self.results.available().satisfies(policy::threshold(operation, max_items)) {
            return Some(policy::satisfied(operation, &self.results, self.progress));
        }
        let outcome = policy::ended(operation, &self.results, self.end.as_ref()?, self.progress);
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
                entry.results.count_votes(key, &self.config.validators);
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
            entry.results.replay(policy::threshold(operation, max_items).at_most(), deliver);
        }
        Some(outcome.kept_for(now.since(entry.since)))
    }

    /// Returns whether the answer of a query may be cached.
    pub(super) fn keeps(&self, step: StepId) -> bool {
        let Some(cache) = &self.cache else { return false };
        let shared_query = self.queries.get(&step).and_then(|query| SharedQuery::of(&query.query));
        shared_query.is_some_and(|shared_query| cache.reads.contains(&(shared_query, step)))
    }

    /// Caches the items of a running query, which have satisfied a request.
    pub(super) fn keep_so_far(&mut self, step: StepId, now: Time) {
        if self.keeps(step)
            && let Some(LiveQuery { query, work: Some(work), .. }) = self.queries.get(&step).map(|query| &**query)
        {
            let Work { results, progress, .. } = &**work;
            let (items, progress, shared_query) = (results.items(), *progress, SharedQuery::of(query));
            self.keep(shared_query, items, None, progress, now);
        }
    }

    /// Caches the items of a query that kad has ended, if enough peers answered for them to be all that exist.
    pub(super) fn keep_all(
        &mut self,
        query: &Query,
        results: &QueryResults,
        end: &QueryEnd,
        progress: Progress,
        now: Time,
    ) {
        if let (
            QueryEnd::Read { closest_peers, without: _, timed_out: false, finished_early: false },
            Certainty::Conclusive,
        ) = (end, progress.certainty())
        {
            if results.is_doubtful() {
                return;
            }
            let closest_peers = closest_peers.clone();
            let end = QueryEnd::Read { closest_peers, without: Vec::new(), timed_out: false, finished_early: false };
            self.keep(SharedQuery::of(query), results.items(), Some(end), progress, now);
        }
    }

    fn keep(
        &mut self,
        shared_query: Option<SharedQuery>,
        items: Option<QueryResults>,
        end: Option<QueryEnd>,
        progress: Progress,
        now: Time,
    ) {
        let (Some(cache), Some(shared_query), Some(results)) = (&mut self.cache, shared_query, items) else { return };
        let Cache { max_bytes: _, max_age, max_age_not_found } = cache.limits;
        let latest = now.after(if results.has_items() { max_age } else { max_age_not_found });
        let records = results.records();
        let own = records.iter().filter_map(|record| record.record.expires).min();
        let expires = own.map_or(latest, |at| latest.min(self.clock.time(at)));
        let closest = match &end {
            Some(QueryEnd::Read { closest_peers, .. }) => closest_peers.len(),
            Some(_) | None => 0,
        };
        let key = shared_query.key().as_ref().len();
        let peers = closest.saturating_add(results.available().items.saturating_sub(records.len()));
        let bytes = records
            .iter()
            .map(|record| RECORD.saturating_add(key).saturating_add(record.record.value.len()))
            .fold(ENTRY.saturating_add(key), usize::saturating_add)
            .saturating_add(peers.saturating_mul(PEER));
        cache.insert(shared_query, Entry { results, progress, end, since: now, expires, bytes }, now);
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
