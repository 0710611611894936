//! Lifecycle of a query: every state with every input.
//!
//! ```text
//!   Starting ── started ──► Running ── last event ──► gone
//!      │                       │
//!   no request              no request
//!      ▼                       ▼
//!   Abandoned ── started ──► Finishing ── last event ──► gone
//!      └ finish_timeout ► gone   └ finish_timeout ──► gone, its id remembered
//! ```

use kadence_core::{Policy, QueryPhase, QueryStartError, StepId};

use crate::support::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Abandoned,
    Running,
    Finishing,
    Gone,
    GoneRemembered,
}

const STATES: [State; 6] =
    [State::Starting, State::Abandoned, State::Running, State::Finishing, State::Gone, State::GoneRemembered];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    StartedOk,
    StartedErr,
    Event,
    LastEvent,
    Cancel,
    /// `finish_timeout` passes, and no more; the request's own deadline is far away.
    Lost,
}

const INPUTS: [Input; 6] =
    [Input::StartedOk, Input::StartedErr, Input::Event, Input::LastEvent, Input::Cancel, Input::Lost];

/// The id that kad gives, and another one for a second answer to the same start.
const ID: u32 = 7;
const OTHER_ID: u32 = 8;

/// Expectation of a cell: the next state, the actions, and the counters that change.
#[derive(Debug, PartialEq, Eq)]
struct Cell {
    next: State,
    actions: &'static [&'static str],
    unknown: u64,
    lost: u64,
}

fn expected(state: State, input: Input) -> Cell {
    use State::{Abandoned, Finishing, Gone, GoneRemembered, Running, Starting};
    let goes = |next, actions| Cell { next, actions, unknown: 0, lost: 0 };
    let stays = goes(state, &[]);
    // An input for something that does not exist is counted, and does nothing else.
    let unknown = Cell { next: state, actions: &[], unknown: 1, lost: 0 };
    match (state, input) {
        (Starting, Input::StartedOk) => goes(Running, &[]),
        (Starting, Input::StartedErr) => goes(Gone, &["Outcome"]),
        (Starting, Input::Cancel) => goes(Abandoned, &["Outcome"]),
        (Abandoned, Input::StartedOk) => goes(Finishing, &["Finish"]),
        (Abandoned, Input::StartedErr) => goes(Gone, &[]),
        // There is no id to remember or to forget.
        (Abandoned, Input::Lost) => Cell { next: Gone, actions: &[], unknown: 0, lost: 1 },
        (Starting | Abandoned, Input::Event | Input::LastEvent) => unknown,

        (Running, Input::Event) => goes(Running, &["Item"]),
        (Running, Input::LastEvent) => goes(Gone, &["Outcome"]),
        (Running, Input::Cancel) => goes(Finishing, &["Outcome", "Finish"]),
        (Finishing, Input::LastEvent) => goes(Gone, &[]),
        (Finishing, Input::Lost) => Cell { next: GoneRemembered, actions: &["Forget"], unknown: 0, lost: 1 },
        (Finishing, Input::Event) => stays,
        (Running | Finishing, Input::StartedOk | Input::StartedErr) => unknown,

        (Gone | GoneRemembered, Input::StartedOk | Input::StartedErr | Input::Event | Input::LastEvent) => unknown,

        // Only a query without requests can be lost, and a request has one end.
        (Starting | Running | Gone | GoneRemembered, Input::Lost) => stays,
        (Abandoned | Finishing | Gone | GoneRemembered, Input::Cancel) => stays,
    }
}

/// A streaming get whose query is in this state.
fn in_state(state: State) -> (Harness, StepId) {
    let mut h = Harness::one_slot();
    let options = kadence_core::RequestOptions::default().timeout(secs(1000)).streaming(true);
    h.ask(1, get_record("k", Policy::All), options).expect("the request is valid");
    let step = h.starts[0].step;
    match state {
        State::Starting => {}
        State::Abandoned => h.cancel(1),
        State::Running => h.started(step, Ok(ID), false),
        State::Finishing | State::GoneRemembered => {
            h.started(step, Ok(ID), false);
            h.cancel(1);
            if state == State::GoneRemembered {
                h.tick(secs(30));
            }
        }
        State::Gone => {
            h.started(step, Ok(ID), false);
            h.ev(ID, not_found(Vec::new()), true);
        }
    }
    assert_eq!(state_of(&h), state);
    (h, step)
}

/// State as observed through the public API.
fn state_of(h: &Harness) -> State {
    let snapshot = h.tracker.snapshot(h.instant(h.now));
    assert_eq!(snapshot.queries.len(), h.tracker.live_queries());
    let owned = h.tracker.owns(&ID);
    match snapshot.queries.first().map(|query| (query.phase, query.id, query.request.is_some())) {
        None if owned => State::GoneRemembered,
        None => State::Gone,
        Some((QueryPhase::Starting, None, true)) if !owned => State::Starting,
        Some((QueryPhase::Finishing, None, false)) if !owned => State::Abandoned,
        Some((QueryPhase::Running, Some(ID), true)) if owned => State::Running,
        Some((QueryPhase::Finishing, Some(ID), false)) if owned => State::Finishing,
        other => panic!("no such state: {other:?}, owned: {owned}"),
    }
}

#[test]
fn every_state_and_every_input() {
    for state in STATES {
        for input in INPUTS {
            let (mut h, step) = in_state(state);
            let (trace, before) = (h.trace.len(), h.tracker.stats());
            match input {
                // The answer of kad, or a duplicate.
                Input::StartedOk if matches!(state, State::Starting | State::Abandoned) => {
                    h.started(step, Ok(ID), false);
                }
                Input::StartedOk => h.started(step, Ok(OTHER_ID), false),
                Input::StartedErr => h.started(step, Err(QueryStartError::NoKnownPeers), false),
                Input::Event => h.ev(ID, found("k", 1, b"value"), false),
                Input::LastEvent => h.ev(ID, not_found(Vec::new()), true),
                Input::Cancel => h.cancel(1),
                Input::Lost => h.tick(h.now + secs(30)),
            }
            let cell = expected(state, input);
            assert_eq!(state_of(&h), cell.next, "{state:?} × {input:?}");
            let actions: Vec<_> = h.trace[trace..].iter().map(|line| action_name(line)).collect();
            assert_eq!(actions, cell.actions, "{state:?} × {input:?}");
            let mut expected = before;
            expected.unknown_inputs += cell.unknown;
            expected.lost_queries += cell.lost;
            assert_eq!(h.tracker.stats(), expected, "{state:?} × {input:?}");
            assert!(!h.tracker.owns(&OTHER_ID), "{state:?} × {input:?}");

            // From any state, time alone ends it.
            h.starts.clear();
            h.let_time_pass();
            h.assert_empty();
        }
    }
}

/// `Finish` of `30s Finish(7)`.
fn action_name(line: &str) -> &str {
    let (_, action) = line.split_once(' ').expect("a line of the trace is a time and an action");
    action.split(['(', ' ']).next().expect("a name")
}

/// The time for the last event counts from the moment at which the query lost its last request.
#[test]
fn a_query_abandoned_at_its_start_gets_no_more_time_when_it_starts() {
    let (mut h, step) = in_state(State::Abandoned);
    h.now = secs(20);
    h.started(step, Ok(ID), false);
    assert_eq!(h.timeout(), Some(secs(30)));
    h.tick(secs(30));
    assert_eq!(h.forgotten, [ID]);
}

/// Two live queries with one id cannot be distinguished: the first keeps it.
#[test]
fn an_id_that_is_in_use_is_not_given_to_a_second_query() {
    let mut h = Harness::slots(2);
    h.request(1, get_record("a", Policy::All));
    h.request_within(2, get_record("b", Policy::All), secs(5));
    h.start();
    let (first, step) = (h.id_of(1), h.starts[0].step);
    h.started(step, Ok(first), false);
    assert_eq!(h.tracker.stats().unknown_inputs, 1);
    h.ev(first, found("a", 1, b"value"), false);
    h.ev(first, records_finished(), true);
    assert_eq!((h.ending(1).as_str(), h.ended(2)), ("Ok", false));
    h.tick(secs(5));
    assert_eq!(h.ending(2), "Timeout");
    h.tick(secs(35));
    h.assert_empty();
}
