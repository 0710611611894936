//! A tracker under steady load: `pending` waiting requests, 32 running queries, and one complete lifecycle after
//! another.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a measurement, which reads a clock for its epoch and ends at the first surprise"
)]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use kadence_core::{
    Action, Command, Operation, Policy, Progress, QueryEvent, QueryTracker, Request, RequestId, RequestOptions,
    Started, TrackerConfig,
};
use libp2p::{
    PeerId,
    kad::{GetRecordOk, PeerRecord, QueryResult, Record, RecordKey},
};

/// A tracker with `pending` requests in its queue, besides those that run.
pub(crate) struct Load {
    tracker: QueryTracker<u64>,
    now: Instant,
    last_request: u64,
    last_query: u64,
    /// Running queries and what they look for, oldest first.
    running: VecDeque<(u64, RecordKey)>,
    peer: PeerId,
    /// Outcomes so far.
    pub(crate) ended: u64,
}

impl Load {
    pub(crate) fn new(pending: u64) -> Self {
        let config = TrackerConfig::default().max_queued(usize::MAX);
        let mut load = Self {
            tracker: QueryTracker::new(PeerId::random(), config),
            now: Instant::now(),
            last_request: 0,
            last_query: 0,
            running: VecDeque::new(),
            peer: PeerId::random(),
            ended: 0,
        };
        for _ in 0..pending + 32 {
            let request = load.next_request();
            load.ask(request);
        }
        assert_eq!(load.running.len(), 32);
        load
    }

    /// A request comes in, the oldest running one gets its record and its query's end, and the oldest waiting one
    /// starts.
    pub(crate) fn lifecycle(&mut self) {
        let request = self.next_request();
        self.ask(request);
        let [found, last] = self.next_events();
        self.answer(found, last);
    }

    /// The next request, for a key of its own.
    pub(crate) fn next_request(&mut self) -> Request {
        self.last_request += 1;
        let key = RecordKey::new(&self.last_request.to_be_bytes());
        Request {
            id: RequestId(self.last_request),
            operation: Operation::GetRecord { key, policy: Policy::First },
            options: RequestOptions::default().timeout(Duration::from_secs(3600)),
        }
    }

    /// The events that end the oldest running query.
    pub(crate) fn next_events(&mut self) -> [QueryEvent<u64>; 2] {
        let (id, key) = self.running.pop_front().expect("32 are running");
        let progress = Progress { requests: 3, successes: 1, failures: 0 };
        let record = Record::new(key, vec![0; 64]);
        let found = GetRecordOk::FoundRecord(PeerRecord { peer: Some(self.peer), record });
        let finished = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: Default::default() };
        [(found, false), (finished, true)].map(|(result, last)| QueryEvent {
            id,
            result: QueryResult::GetRecord(Ok(result)),
            progress,
            last,
        })
    }

    pub(crate) fn ask(&mut self, request: Request) {
        self.now += Duration::from_micros(50);
        self.tracker.handle_command(Command::Request(request), self.now).unwrap();
        self.act();
    }

    pub(crate) fn answer(&mut self, found: QueryEvent<u64>, last: QueryEvent<u64>) {
        self.tracker.handle_event(found, self.now);
        self.act();
        self.tracker.handle_event(last, self.now);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Start { step, request: _, query } => {
                    let kadence_core::Query::GetRecord { key } = query else { unreachable!("only gets are asked for") };
                    self.last_query += 1;
                    self.running.push_back((self.last_query, key));
                    let started = Started { id: self.last_query, had_provider: false };
                    self.tracker.handle_started(step, Ok(started), self.now);
                }
                Action::Outcome { request: _, outcome } => {
                    assert!(outcome.is_ok());
                    self.ended += 1;
                }
                Action::Finish(_) => {}
                // Thousands of others came before this one's turn to be answered.
                Action::Probe(id) => self.tracker.handle_probe(id, None, self.now),
                action @ (Action::Forget(_)
                | Action::FinishPhase(_)
                | Action::LocalPeers { .. }
                | Action::StoreLocal { .. }
                | Action::StopProviding { .. }
                | Action::Item { .. }) => unreachable!("{action:?}"),
            }
        }
        std::hint::black_box(self.tracker.poll_timeout());
    }
}
