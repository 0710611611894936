//! What has to be so whenever kad has nothing more to say.

use std::{collections::BTreeSet, time::Duration};

use kadence::{
    OperationKind,
    tracker::{QueryPhase, RequestPhase},
};

use super::{RealKad, facts, turns::POLLS_AT_MOST};

impl RealKad {
    /// After a poll to no avail: what kad runs for us is what the tracker thinks it runs.
    pub(super) fn check_kad(&self) {
        let live = self.live();
        let (mut running, mut finishing) = (BTreeSet::new(), BTreeSet::new());
        let queries = self.tracker.snapshot(self.now()).queries;
        assert!(queries.len() <= self.tracker.config().max_running, "more queries than slots");
        assert_eq!(queries.len(), self.tracker.live_queries(), "slots in use");
        for query in queries {
            let id = facts::number(query.id.expect("every start was answered"));
            match query.phase {
                QueryPhase::Running => assert!(running.insert(id)),
                QueryPhase::Finishing => assert!(finishing.insert(id)),
                phase => unreachable!("{phase:?}, but it has an id"),
            }
        }
        assert!(running.is_subset(&live), "the tracker waits for {running:?}, kad runs {live:?}");
        let known: BTreeSet<_> = running.union(&finishing).copied().collect();
        assert!(live.is_subset(&known), "kad runs {live:?}, the tracker knows of {known:?}");
    }

    /// Before the loop goes to sleep: what is finishing has ended, and everything is as expected.
    pub(super) fn check_rest(&mut self) {
        assert!(self.finishing.is_empty(), "standing orders for queries that kad has ended: {:?}", self.finishing);
        let snapshot = self.tracker.snapshot(self.now());
        let unwanted = snapshot.queries.iter().find(|query| query.phase != QueryPhase::Running);
        assert!(unwanted.is_none(), "kad is at rest, and there is {unwanted:?}");
        let live = self.live();
        assert_eq!(live.len(), snapshot.queries.len(), "kad runs {live:?} for {:?}", snapshot.queries);
        assert!(snapshot.requests.iter().all(|request| request.remaining > Duration::ZERO), "a deadline was missed");
        let callers = snapshot.requests.iter().map(|request| request.id).filter(|id| !id.is_reserved());
        let alive: BTreeSet<_> = callers.collect();
        assert_eq!(alive, self.calls.keys().copied().collect(), "requests alive (left), and ones without outcome");
        let count = |phase| snapshot.requests.iter().filter(|request| request.phase == phase).count();
        let waiters: usize = snapshot.queries.iter().map(|query| query.waiters).sum();
        assert_eq!(count(RequestPhase::Running), waiters, "requests that run, and ones that a query runs for");
        if count(RequestPhase::Queued) + count(RequestPhase::BetweenSteps) > 0 {
            assert_eq!(snapshot.queries.len(), self.tracker.config().max_running, "requests wait, and slots are free");
        }
        let announcing = snapshot.requests.into_iter().filter(|request| request.phase == RequestPhase::Running);
        let announcing = announcing
            .filter(|request| request.operation == OperationKind::StartProviding)
            .map(|request| request.key)
            .collect();
        self.expected.check(self.kad.store_mut(), announcing);
    }

    /// All requests have ended, and kad is at rest: nothing is left, once the read_repairs are ended that nobody waits for.
    pub fn check_end(&mut self) {
        self.settle();
        if !self.tracker.is_empty() {
            self.shut_down(true);
            self.settle();
        }
        assert!(self.calls.is_empty(), "requests without an outcome: {:?}", self.calls);
        assert!(self.tracker.is_empty(), "left: {:#?}", self.tracker.snapshot(self.now()));
        assert!(self.live().is_empty(), "kad still runs {:?} for us", self.live());
        let stats = self.tracker.stats();
        assert_eq!(stats.accepted, self.outcomes.len() as u64, "requests accepted, and outcomes");
        assert_eq!(stats.mismatched_events, 0, "kad never answers another question");
        assert_eq!(stats.lost_queries, self.forgotten.len() as u64, "queries lost, and orders to forget");
        if self.forgotten.is_empty() {
            assert_eq!(stats.unknown_inputs, 0, "everything that was said belonged to something alive");
        }
        // Whoever else started queries finishes them as well: then every id has had its last event.
        let strangers: Vec<_> = self.facts.alive.values().copied().collect();
        self.finishing.extend(strangers);
        assert!(self.turn_until_no_order(), "a query that was finished does not end");
        self.finishing.clear();
        assert!(self.facts.alive.is_empty(), "without a last event: {:?}", self.facts.alive);
    }

    fn turn_until_no_order(&mut self) -> bool {
        (0..POLLS_AT_MOST).any(|_| {
            while self.poll_kad().is_ready() {}
            !self.repeat_finishes()
        })
    }

    /// What kad runs for us, by number.
    fn live(&self) -> BTreeSet<usize> {
        self.kad
            .iter_queries()
            .map(|query| query.id())
            .filter(|id| self.ours.contains(id) && !self.forgotten.contains(id))
            .map(facts::number)
            .collect()
    }
}
