//! Bootstraps: one query with several phases.

use kadence_core::{BootstrapError, Item, Outcome, Progress};

use crate::support::*;

#[test]
fn a_bootstrap_ends_with_its_last_event_and_counts_its_phases() {
    let mut h = Harness::default();
    h.stream(1, kadence_core::Operation::Bootstrap);
    let id = h.start();
    let automatic = 99;
    for result in [bootstrap_ok(3), bootstrap_timeout(Some(2)), bootstrap_ok(1)] {
        h.ev(id, result, false);
        // kad's own bootstrap in between: the driver passes it on, because the tracker does not own it.
        assert!(!h.tracker.owns(&automatic));
        h.ev(automatic, bootstrap_ok(0), true);
        assert!(!h.ended(1));
    }
    h.ev(id, bootstrap_ok(0), true);
    let Outcome::Bootstrap(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!((answer.phases, answer.failed), (4, 1));
    // Each phase is a query of its own in kad, with its own counts.
    assert_eq!(answer.progress, Progress { requests: 16, successes: 12, failures: 4 });
    let phases: Vec<_> = h
        .items(1)
        .iter()
        .map(|item| match item {
            Item::BootstrapPhase(phase) => (phase.ok, phase.remaining),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(phases, [(true, Some(3)), (false, Some(2)), (true, Some(1)), (true, Some(0))]);
    h.assert_empty();
}

#[test]
fn a_bootstrap_whose_phases_all_timed_out_has_failed() {
    let mut h = Harness::default();
    h.request(1, kadence_core::Operation::Bootstrap);
    let id = h.start();
    h.ev(id, bootstrap_timeout(Some(2)), false);
    h.ev(id, bootstrap_timeout(Some(1)), false);
    h.ev(id, bootstrap_timeout(Some(0)), true);
    let Outcome::Bootstrap(Err(BootstrapError::AllPhasesFailed { phases: 3, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!(progress.requests, 12);
    h.assert_empty();
}

/// The application has finished it before kad had asked anybody.
#[test]
fn a_bootstrap_that_has_asked_nobody_has_failed() {
    let mut h = Harness::default();
    h.request(1, kadence_core::Operation::Bootstrap);
    let id = h.start();
    h.ev_with(id, bootstrap_ok(0), Progress::default(), true);
    let Outcome::Bootstrap(Err(BootstrapError::NoResponse { progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!(progress.requests, 0);
    h.assert_empty();
}

#[test]
fn a_bootstrap_at_its_deadline_reports_its_completed_phases() {
    let mut h = Harness::default();
    h.request_within(1, kadence_core::Operation::Bootstrap, secs(5));
    let id = h.start();
    h.ev(id, bootstrap_ok(3), false);
    h.ev(id, bootstrap_timeout(Some(2)), false);
    h.tick(secs(5));
    let Outcome::Bootstrap(Err(BootstrapError::Timeout { phases: 2, failed: 1, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!(*progress, some_progress().merge(some_progress()));
    assert_eq!(h.finishes, [id]);
}
