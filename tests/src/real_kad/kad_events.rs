//! Guarantees of kad's events, checked at each event.

use std::{
    collections::{BTreeMap, HashMap},
    mem::Discriminant,
};

use libp2p::kad::{self, GetProvidersOk, GetRecordError, GetRecordOk, ProgressStep, QueryId, QueryResult};

/// Events of all queries so far.
#[derive(Debug, Default)]
pub(super) struct KadEvents {
    queries: HashMap<QueryId, Seen>,
    /// Numbers of the queries that were started and have not ended. Ids are not ordered, but display as numbers.
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

/// Phases of a bootstrap, as kad reported them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Number of phases that have ended.
    pub done: u32,
    /// Number of phases that timed out.
    pub failed: u32,
}

impl KadEvents {
    /// Records the start of a query. Ids increase and are never reused.
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
            // This is the first event of a query that kad started itself.
            self.alive.insert(number(id), id);
        }
        let new = Seen { kind, events: 0, found: 0, ended: false, bootstrap: Phases::default() };
        let seen = self.queries.entry(id).or_insert(new);
        assert!(!seen.ended, "{id} has ended, and then came {result:?}");
        assert_eq!(seen.kind, kind, "the kind of {id} changed: {result:?}");
        seen.events += 1;
        assert_eq!(step.count.get(), seen.events, "the events of {id} are not numbered consecutively: {result:?}");
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(_))) => seen.found += 1,
            QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: _ })) => {
                assert!(seen.found > 0, "{id} found nothing and reports no additional records");
            }
            QueryResult::GetRecord(Err(GetRecordError::NotFound { key: _, closest_peers: _ })) => {
                assert_eq!(seen.found, 0, "{id} found a record and reports not found");
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
            assert!(may_go_on, "{id} does not end with {result:?}");
        }
    }

    pub(super) fn bootstrap(&self, id: QueryId) -> Phases {
        self.queries.get(&id).map_or_else(Phases::default, |seen| seen.bootstrap)
    }
}

/// Returns whether an event can belong to a query that kad started itself.
pub(super) fn may_be_kads_own(result: &QueryResult) -> bool {
    matches!(result, QueryResult::Bootstrap(_) | QueryResult::RepublishRecord(_) | QueryResult::RepublishProvider(_))
}

pub(super) fn number(id: QueryId) -> usize {
    id.to_string().parse().expect("a query id displays as a number")
}

/// Describes an event in a line of the trace.
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
    // The text up to the first brace names the kind of result. The rest contains sets and instants, whose text is not
    // reproducible.
    text.split('{').next().unwrap_or_default().to_owned()
}
