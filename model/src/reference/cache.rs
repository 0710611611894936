//! Answers that are kept for later requests.
//!
//! 1. Whenever a read gets an answer, or hears that there is conclusively nothing, what its query has found is kept in the
//!    place of what was kept for the same read; if it had to wait for the end of the query for it, only from four of five
//!    peers on that have answered.
//! 2. Nothing is kept of a query that had its slot when its key was written to: when a put or an announcement was accepted
//!    or ended, when an announcement was taken back, and when the tracker was told so.
//! 3. What expires first makes room; of those that expire at the same time records before providers, by their keys.

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
    results::{Found, Threshold},
};

#[derive(Debug)]
pub(super) struct Kept {
    kind: OperationKind,
    key: RecordKey,
    found: Found,
    progress: Progress,
    /// If this is all that there is.
    ending: Option<QueryEnd>,
    since: Instant,
    expires: Instant,
}

impl Kept {
    fn bytes(&self) -> usize {
        let key = self.key.as_ref().len();
        let records: usize = self.found.records.iter().map(|record| 320 + key + record.record.value.len()).sum();
        let closest = self.ending.as_ref().map_or(0, |ending| ending.closest_peers.len());
        320 + key + records + 80 * (self.found.providers.len() + closest)
    }
}

impl Model {
    /// What was kept for a read, if it satisfies it: the items and the outcome.
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
            let need = Threshold::of(operation, self.config.max_items);
            let found = (&kept.found, kept.progress);
            let outcome = if kept.found.satisfies(need, validator) {
                outcomes::read(operation, found, validator, true, &QueryEnd::default())
            } else {
                outcomes::read(operation, found, validator, false, kept.ending.as_ref()?)
            };
            let mut items = kept.found.items();
            if let Threshold::Items(at_most) = need {
                items.truncate(at_most);
            }
            Some((items, with_age(outcome, now - kept.since)?))
        });
        match answer {
            Some(_) => self.view.cache_hits += 1,
            None => self.view.cache_misses += 1,
        }
        answer
    }

    /// A read has this outcome. `ending`: from its query's end.
    pub(super) fn keep(&mut self, step: u64, outcome: &Outcome, ending: Option<&QueryEnd>, now: Instant) {
        let Some(Cache { max_bytes, max_age, max_age_not_found, .. }) = self.config.cache else { return };
        let Some(query) = self.query(step).filter(|query| !query.outdated) else { return };
        let (Query::GetRecord { key } | Query::GetProviders { key }) = &query.query else { return };
        let none = QueryEnd::default();
        let conclusive = outcomes::certainty(ending.unwrap_or(&none), query.progress) == Certainty::Conclusive;
        if with_age(outcome.clone(), Duration::ZERO).is_none() || (ending.is_some() && !conclusive) {
            return;
        }
        let latest = later(now, if query.found.is_empty() { max_age_not_found } else { max_age });
        let kept = Kept {
            kind: outcome.kind(),
            key: key.clone(),
            found: query.found.clone(),
            progress: query.progress,
            ending: ending.cloned(),
            since: now,
            expires: query.found.records.iter().filter_map(|record| record.record.expires).fold(latest, Instant::min),
        };
        self.cache.retain(|other| (other.kind, &other.key) != (kept.kind, &kept.key) && other.expires > now);
        if kept.expires <= now || kept.bytes() > max_bytes {
            return;
        }
        self.cache.push(kept);
        self.cache.sort_by_key(|kept| (kept.expires, kept.kind, kept.key.to_vec()));
        while self.cache.iter().map(Kept::bytes).sum::<usize>() > max_bytes {
            self.cache.remove(0);
        }
    }

    /// An operation begins or ends.
    pub(super) fn writes(&mut self, operation: &Operation) {
        match operation {
            Operation::PutRecord { record, .. } | Operation::PutRecordTo { record, .. } => {
                self.written(&Arc::clone(record).key);
            }
            Operation::StartProviding { key } => self.written(key),
            Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => {}
        }
    }

    pub(super) fn written(&mut self, key: &RecordKey) {
        self.cache.retain(|kept| kept.key != *key);
        for query in &mut self.queries {
            if let Query::GetRecord { key: of } | Query::GetProviders { key: of } = &query.query
                && of == key
                && !matches!(query.state, State::Waiting(_))
            {
                query.outdated = true;
            }
        }
    }
}

/// `None` if there is nothing to be kept.
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
