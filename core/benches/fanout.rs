//! Time of the last event of a query, by the number of callers that share it.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a measurement, which reads a clock and ends at the first surprise"
)]

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc, time::Instant};

use kadence_core::{
    Action, Command, Operation, Policy, Progress, QueryEvent, QueryTracker, Quorum, Request, RequestId, RequestOptions,
    Started, TrackerConfig, ValidationError, Validator, Validators,
};
use libp2p::{
    PeerId,
    kad::{GetRecordOk, PeerRecord, QueryResult, Record, RecordKey},
};

const RECORDS: u8 = 100;

/// Prefers the larger bytes.
#[derive(Debug)]
struct Larger;

impl Validator for Larger {
    fn validate(&self, _: &RecordKey, _: &[u8]) -> Result<(), ValidationError> {
        Ok(())
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}

fn main() {
    println!("Last event of a query that has found {RECORDS} records of 1,000 bytes:\n");
    println!("| callers | all | quorum of 1,000 | best | outcomes |\n|---:|---:|---:|---:|---:|");
    for callers in [1_u64, 1_000, 4_000, 8_000] {
        let policies = [Policy::All, Policy::Quorum(Quorum::N(1_000)), Policy::Best { agree: None }];
        let measured = policies.map(|policy| last_event(callers, policy));
        let times: String = measured.iter().map(|(micros, _)| format!(" {micros} µs |")).collect();
        let outcomes: usize = measured.iter().map(|(_, outcomes)| outcomes).sum();
        println!("| {callers} |{times} {outcomes} |");
    }
}

/// Returns the microseconds that the last event takes, and the number of outcomes.
fn last_event(callers: u64, policy: Policy) -> (u128, usize) {
    let now = Instant::now();
    let validators = Validators::default().with("n", Arc::new(Larger));
    let config = TrackerConfig::default().validators(validators).max_queued(10_000);
    let mut tracker = QueryTracker::<u32>::new(PeerId::random(), config);
    let key = RecordKey::new(b"/n/key");
    for id in 1..=callers {
        let operation = Operation::GetRecord { key: key.clone(), policy };
        let request = Request { id: RequestId(id), operation, options: RequestOptions::default() };
        tracker.handle_command(Command::Request(request), now).expect("there is room");
        for action in drain(&mut tracker) {
            if let Action::Start { step, .. } = action {
                tracker.handle_started(step, Ok(Started { id: 7, had_provider: false }), now);
            }
        }
    }
    let progress = Progress { requests: 120, successes: 110, failures: 0 };
    for n in 0..RECORDS {
        let record = Record::new(key.clone(), vec![n % 2; 1_000]);
        let result =
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord { peer: Some(PeerId::random()), record })));
        tracker.handle_event(QueryEvent { id: 7, result, progress, last: false }, now);
    }
    let end = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: BTreeMap::new() };
    let event = QueryEvent { id: 7, result: QueryResult::GetRecord(Ok(end)), progress, last: true };
    let began = Instant::now();
    tracker.handle_event(event, now);
    let took = began.elapsed().as_micros();
    (took, drain(&mut tracker).iter().filter(|action| matches!(action, Action::Outcome { .. })).count())
}

fn drain(tracker: &mut QueryTracker<u32>) -> Vec<Action<u32>> {
    std::iter::from_fn(|| tracker.poll_action()).collect()
}
