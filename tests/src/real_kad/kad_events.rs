//! What may be relied on in kad's events, checked at every one of them.

use std::{
    collections::{BTreeMap, HashMap},
    mem::Discriminant,
};

use libp2p::kad::{self, GetProvidersOk, GetRecordError, GetRecordOk, ProgressStep, QueryId, QueryResult};

/// The events of every query so far, ours or not.
#[derive(Debug, Default)]
pub(super) struct KadEvents {
    queries: HashMap<QueryId, Seen>,
    /// The numbers of the queries that were started and not ended. Ids are not ordered, but they display as numbers.
    pub(super) alive: BTreeMap<usize, QueryId>,
    last_started: Option<usize>,
}

#[derive(Debug)]
struct Seen {
    kind: Discriminant<QueryResult>,
    events: usize,
    found: usize,
    ended: bool,
    bootstrap: Phases,
}

/// The lookups of a bootstrap, as kad reported them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// How many ended.
    pub done: u32,
    /// How many of them timed out.
    pub failed: u32,
}

impl KadEvents {
    /// Somebody started a query. Ids count up and are not used again.
    pub(super) fn started(&mut self, id: QueryId) {
        let number = number(id);
        assert!(self.last_started < Some(number), "the id {id} was used before");
        assert!(!self.queries.contains_key(&id), "an event of {id} came before its start");
        self.last_started = Some(number);
        self.alive.insert(number, id);
    }

    pub(super) fn event(&mut self, id: QueryId, result: &QueryResult, step: &ProgressStep) {
        let kind = std::mem::discriminant(result);
        if !self.queries.contains_key(&id) {
            // If it is kad's own, this is the first that is heard of it.
            self.alive.insert(number(id), id);
        }
        let new = Seen { kind, events: 0, found: 0, ended: false, bootstrap: Phases::default() };
        let seen = self.queries.entry(id).or_insert(new);
        assert!(!seen.ended, "after the last event of {id} came {result:?}");
        assert_eq!(seen.kind, kind, "the kind of {id} changed: {result:?}");
        seen.events += 1;
        assert_eq!(step.count.get(), seen.events, "the events of {id} are not counted one by one: {result:?}");
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(_))) => seen.found += 1,
            QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: _ })) => {
                assert!(seen.found > 0, "{id} has found nothing and says there is nothing more");
            }
            QueryResult::GetRecord(Err(GetRecordError::NotFound { key: _, closest_peers: _ })) => {
                assert_eq!(seen.found, 0, "{id} has found something and says there is nothing");
            }
            QueryResult::Bootstrap(result) => {
                seen.bootstrap.done += 1;
                seen.bootstrap.failed += u32::from(result.is_err());
            }
            QueryResult::GetRecord(Err(GetRecordError::Timeout { key: _ }))
            | QueryResult::GetProviders(_)
            | QueryResult::GetClosestPeers(_)
            | QueryResult::PutRecord(_)
            | QueryResult::StartProviding(_)
            | QueryResult::RepublishRecord(_)
            | QueryResult::RepublishProvider(_) => {}
        }
        if step.last {
            seen.ended = true;
            self.alive.remove(&number(id));
        } else {
            let may_go_on = matches!(
                result,
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(_)))
                    | QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key: _, providers: _ }))
                    | QueryResult::Bootstrap(_)
            );
            assert!(may_go_on, "{id} goes on after {result:?}");
        }
    }

    pub(super) fn bootstrap(&self, id: QueryId) -> Phases {
        self.queries.get(&id).map_or_else(Phases::default, |seen| seen.bootstrap)
    }
}

/// An event that is not of one of our queries may be of these kinds only, if nobody but kad starts queries.
pub(super) fn may_be_kads_own(result: &QueryResult) -> bool {
    matches!(result, QueryResult::Bootstrap(_) | QueryResult::RepublishRecord(_) | QueryResult::RepublishProvider(_))
}

pub(super) fn number(id: QueryId) -> usize {
    id.to_string().parse().expect("an id displays as its number")
}

/// One line for the trace.
pub(super) fn describe(event: &kad::Event) -> String {
    match event {
        kad::Event::OutboundQueryProgressed { id, result, stats, step } => {
            let last = if step.last { ", last" } else { "" };
            let (asked, answered, failed) = (stats.num_requests(), stats.num_successes(), stats.num_failures());
            format!("kad: {id}, event {}{last}: {} ({asked}/{answered}/{failed})", step.count, kind(result))
        }
        other => {
            let text = format!("{other:?}");
            format!("kad: {}", text.split([' ', '{']).next().unwrap_or_default())
        }
    }
}

fn kind(result: &QueryResult) -> String {
    let text = format!("{result:?}");
    // The kind, whether it is `Ok`, and of which kind that is; sets and instants come in no order.
    text.split('{').next().unwrap_or_default().to_owned()
}
