//! Cached answers.
//!
//! 1. When a read is answered, or conclusively finds nothing, the results of its query replace the cached results of
//!    the same read. If the answer had to wait for the end of the query, at least four of five peers must have
//!    answered.
//! 2. Results of a query are not cached if its key was written to after the query got its slot: a put or announcement
//!    of the key was accepted or ended, an announcement was undone, or `Command::Forget` named the key.
//! 3. To make room, the answer that expires first is evicted; at the same time, records before providers, then by key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Cache, Certainty, GetProvidersError, GetRecordError, Item, Operation, OperationKind, Outcome, Progress, Query,
    RequestOptions,
};
use libp2p::kad::RecordKey;

use super::{
    Model, State, later,
    outcomes::{self, QueryEnd},
    results::{QueryResults, Threshold},
};

#[derive(Debug)]
pub(super) struct CachedAnswer {
    kind: OperationKind,
    key: RecordKey,
    results: QueryResults,
    progress: Progress,
    /// End of the query, if the results are complete.
    query_end: Option<QueryEnd>,
    since: Instant,
    expires: Instant,
}

impl CachedAnswer {
    fn bytes(&self) -> usize {
        let key = self.key.as_ref().len();
        let records: usize = self.results.records.iter().map(|record| 320 + key + record.record.value.len()).sum();
        let closest = self.query_end.as_ref().map_or(0, |query_end| query_end.closest_peers.len());
        320 + key + records + 80 * (self.results.providers.len() + closest)
    }
}

impl Model {
    /// Returns the cached answer to a read as items and outcome, if there is one that satisfies it.
    pub(super) fn cached(
        &mut self,
        operation: &Operation,
        options: &RequestOptions,
        now: Instant,
    ) -> Option<(Vec<Item>, Outcome)> {
        let (Operation::GetRecord { key, policy: _ } | Operation::GetProviders { key, policy: _ }) = operation else {
            return None;
        };
        if options.fresh || self.config.cache.is_none() {
            return None;
        }
        let kept =
            self.cache.iter().find(|kept| kept.kind == operation.kind() && kept.key == *key && kept.expires > now);
        let answer = kept.and_then(|kept| {
            let validator = self.config.validators.of(key.as_ref());
            let threshold = Threshold::of(operation, self.config.max_items);
            let found = (&kept.results, kept.progress);
            let outcome = if kept.results.satisfies(threshold, validator) {
                outcomes::read(operation, found, validator, true, &QueryEnd::default())
            } else {
                outcomes::read(operation, found, validator, false, kept.query_end.as_ref()?)
            };
            let mut items = kept.results.items();
            if let Threshold::Items(at_most) = threshold {
                items.truncate(at_most);
            }
            Some((items, with_age(outcome, now - kept.since)?))
        });
        match answer {
            Some(_) => self.counters.cache_hits += 1,
            None => self.counters.cache_misses += 1,
        }
        answer
    }

    /// Caches the results behind the outcome of a read. `query_end` is `Some` if the query has ended.
    pub(super) fn cache_answer(&mut self, step: u64, outcome: &Outcome, query_end: Option<&QueryEnd>, now: Instant) {
        let Some(Cache { max_bytes, max_age, max_age_not_found, .. }) = self.config.cache else { return };
        let Some(query) = self.query(step).filter(|query| !query.key_written) else { return };
        let (Query::GetRecord { key } | Query::GetProviders { key }) = &query.query else { return };
        let none = QueryEnd::default();
        let conclusive = outcomes::certainty(query_end.unwrap_or(&none), query.progress) == Certainty::Conclusive;
        if with_age(outcome.clone(), Duration::ZERO).is_none() || (query_end.is_some() && !conclusive) {
            return;
        }
        let latest = later(now, if query.results.is_empty() { max_age_not_found } else { max_age });
        let kept = CachedAnswer {
            kind: outcome.kind(),
            key: key.clone(),
            results: query.results.clone(),
            progress: query.progress,
            query_end: query_end.cloned(),
            since: now,
            expires: query.results.records.iter().filter_map(|record| record.record.expires).fold(latest, Instant::min),
        };
        self.cache.retain(|other| (other.kind, &other.key) != (kept.kind, &kept.key) && other.expires > now);
        if kept.expires <= now || kept.bytes() > max_bytes {
            return;
        }
        self.cache.push(kept);
        self.cache.sort_by_key(|kept| (kept.expires, kept.kind, kept.key.to_vec()));
        while self.cache.iter().map(CachedAnswer::bytes).sum::<usize>() > max_bytes {
            self.cache.remove(0);
        }
    }

    /// Drops cached answers that an operation makes outdated. Called when the operation is accepted and when it ends.
    pub(super) fn drop_cached_by(&mut self, operation: &Operation) {
        match operation {
            Operation::PutRecord { record, .. } | Operation::PutRecordTo { record, .. } => {
                self.drop_cached(&Arc::clone(record).key);
            }
            Operation::StartProviding { key } => self.drop_cached(key),
            Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => {}
        }
    }

    pub(super) fn drop_cached(&mut self, key: &RecordKey) {
        self.cache.retain(|kept| kept.key != *key);
        for query in &mut self.queries {
            if let Query::GetRecord { key: of } | Query::GetProviders { key: of } = &query.query
                && of == key
                && !matches!(query.state, State::Waiting(_))
            {
                query.key_written = true;
            }
        }
    }
}

/// Marks an outcome as cached for this time. Returns `None` if the outcome cannot be cached.
fn with_age(mut outcome: Outcome, age: Duration) -> Option<Outcome> {
    match &mut outcome {
        Outcome::GetRecord(Ok(answer)) => answer.cached = Some(age),
        Outcome::GetProviders(Ok(answer)) => answer.cached = Some(age),
        Outcome::GetRecord(Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, cached, .. }))
        | Outcome::GetProviders(Err(GetProvidersError::NotFound {
            certainty: Certainty::Conclusive, cached, ..
        })) => {
            *cached = Some(age);
        }
        _ => return None,
    }
    Some(outcome)
}
