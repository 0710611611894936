//! Invariants that hold whenever kad is idle.

use std::{collections::BTreeSet, time::Duration};

use kadence::{
    OperationKind,
    tracker::{QueryPhase, RequestPhase},
};

use super::{RealKad, event_loop::MAX_POLLS, kad_events};

impl RealKad {
    /// Checks, after a poll without result, that kad runs the queries that the tracker believes it runs.
    pub(super) fn check_kad(&self) {
        let live = self.live();
        let (mut running, mut finishing) = (BTreeSet::new(), BTreeSet::new());
        let queries = self.tracker.snapshot(self.now()).queries;
        assert!(queries.len() <= self.tracker.config().max_running, "more queries than slots");
        assert_eq!(queries.len(), self.tracker.live_queries(), "slots in use");
        for query in queries {
            let id = kad_events::number(query.id.expect("every start was answered"));
            match query.phase {
                QueryPhase::Starting => unreachable!("a query with an id has been started"),
                QueryPhase::Running => assert!(running.insert(id)),
                QueryPhase::Finishing => assert!(finishing.insert(id)),
                phase => unreachable!("{phase:?}, but it has an id"),
            }
        }
        assert!(running.is_subset(&live), "the tracker waits for {running:?}, kad runs {live:?}");
        let known: BTreeSet<_> = running.union(&finishing).copied().collect();
        assert!(live.is_subset(&known), "kad runs {live:?}, the tracker knows of {known:?}");
    }

    /// Checks, before the loop goes to sleep, that finished queries have ended, and that requests, slots and the local
    /// store are as expected.
    pub(super) fn check_rest(&mut self) {
        assert!(self.finishing.is_empty(), "queries still to be finished that kad has ended: {:?}", self.finishing);
        let snapshot = self.tracker.snapshot(self.now());
        let unwanted = snapshot.queries.iter().find(|query| query.phase != QueryPhase::Running);
        assert!(unwanted.is_none(), "kad is idle, but there is {unwanted:?}");
        let live = self.live();
        assert_eq!(live.len(), snapshot.queries.len(), "kad runs {live:?} for {:?}", snapshot.queries);
        assert!(snapshot.requests.iter().all(|request| request.remaining > Duration::ZERO), "a deadline has passed");
        let callers = snapshot.requests.iter().map(|request| request.id).filter(|id| !id.is_reserved());
        let alive: BTreeSet<_> = callers.collect();
        assert_eq!(
            alive,
            self.calls.keys().copied().collect(),
            "live requests (left), and requests without an outcome (right)"
        );
        let count = |phase| snapshot.requests.iter().filter(|request| request.phase == phase).count();
        let waiters: usize = snapshot.queries.iter().map(|query| query.waiters).sum();
        assert_eq!(count(RequestPhase::Running), waiters, "running requests (left), and waiters of queries (right)");
        if count(RequestPhase::Queued) + count(RequestPhase::BetweenSteps) > 0 {
            assert_eq!(
                snapshot.queries.len(),
                self.tracker.config().max_running,
                "requests wait although slots are free"
            );
        }
        let announcing = snapshot.requests.into_iter().filter(|request| request.phase == RequestPhase::Running);
        let announcing = announcing
            .filter(|request| request.operation == OperationKind::StartProviding)
            .map(|request| request.key)
            .collect();
        self.expected.check(self.kad.store_mut(), announcing);
    }

    /// Checks the final state after all requests have ended: nothing is left, once the remaining read repairs are
    /// cancelled.
    pub fn check_end(&mut self) {
        self.run_until_idle();
        if !self.tracker.is_empty() {
            self.shut_down(true);
            self.run_until_idle();
        }
        assert!(self.calls.is_empty(), "requests without an outcome: {:?}", self.calls);
        assert!(self.tracker.is_empty(), "requests or queries left: {:#?}", self.tracker.snapshot(self.now()));
        assert!(self.live().is_empty(), "kad still runs {:?}", self.live());
        let stats = self.tracker.stats();
        assert_eq!(stats.accepted, self.outcomes.len() as u64, "requests accepted (left), and outcomes (right)");
        assert_eq!(stats.mismatched_events, 0, "kad never sends a result of another kind");
        assert_eq!(
            stats.lost_queries,
            self.forgotten.len() as u64,
            "lost queries (left), and `Forget` actions (right)"
        );
        if self.forgotten.is_empty() {
            assert_eq!(stats.unknown_inputs, 0, "every input belonged to a live request or query");
        }
        // Queries that others have started are finished as well, so that every query gets its last event.
        let foreign_queries: Vec<_> = self.kad_events.alive.values().copied().collect();
        self.finishing.extend(foreign_queries);
        assert!(self.run_until_all_finished(), "a finished query does not end");
        self.finishing.clear();
        assert!(self.kad_events.alive.is_empty(), "queries without a last event: {:?}", self.kad_events.alive);
    }

    fn run_until_all_finished(&mut self) -> bool {
        (0..MAX_POLLS).any(|_| {
            while self.poll_kad().is_ready() {}
            !self.repeat_finishes()
        })
    }

    /// Returns the numbers of the tracker's queries that kad is running.
    fn live(&self) -> BTreeSet<usize> {
        self.kad
            .iter_queries()
            .map(|query| query.id())
            .filter(|id| self.own_queries.contains(id) && !self.forgotten.contains(id))
            .map(kad_events::number)
            .collect()
    }
}
