//! A popular key: the answers of many requests share what they have in common, so that the end of a query costs each of
//! them the same, however much was found.

use std::sync::Arc;

use kadence_core::{Operation, Outcome, Policy};

use crate::support::*;

const CALLERS: u64 = 1000;

/// Many requests that share a query, which finds a hundred items, one in each event, and ends.
fn fan_out(operation: impl Fn(u64) -> Operation) -> Harness {
    let mut h = Harness::new(validating());
    for request in 0..CALLERS {
        h.request(request, operation(request));
    }
    assert_eq!(h.starts.len(), 1);
    let id = h.start();
    let is_record = matches!(operation(0), Operation::GetRecord { .. });
    for from in 1..=100 {
        h.ev(id, if is_record { found("/v/k", from, &[1 + from % 2]) } else { providers([from]) }, false);
    }
    h.ev(id, if is_record { records_finished() } else { providers_finished() }, true);
    h.assert_empty();
    h
}

/// Asserts that all slices are the same allocation, with this number of items.
#[track_caller]
fn assert_shared<'a, T: 'a>(slices: impl IntoIterator<Item = &'a Arc<[T]>>, len: usize) {
    let slices: Vec<_> = slices.into_iter().collect();
    assert!(slices.len() > 1);
    for slice in &slices {
        assert_eq!(slice.len(), len);
        assert!(Arc::ptr_eq(slice, slices[0]), "a request has a copy of its own");
    }
}

#[test]
fn a_thousand_gets_share_the_records_that_they_found() {
    for policy in [Policy::All, Policy::Best { agree: None }, Policy::Limit(200)] {
        let h = fan_out(|_| get_record("/v/k", policy));
        let answers = (0..CALLERS).map(|request| match h.outcome(request) {
            Outcome::GetRecord(Ok(answer)) => answer,
            other => panic!("{other:?}"),
        });
        assert_shared(answers.clone().map(|answer| &answer.others), 99);
        let first = answers.clone().next().unwrap();
        assert!(answers.clone().all(|answer| Arc::ptr_eq(&answer.record, &first.record)), "{policy:?}");
        assert!(answers.clone().all(|answer| (answer.agreeing, answer.dissenting) == (50, 50)), "{policy:?}");
    }
}

#[test]
fn a_thousand_lookups_share_the_providers_that_they_found() {
    let h = fan_out(|_| get_providers("k", Policy::All));
    let providers = (0..CALLERS).map(|request| match h.outcome(request) {
        Outcome::GetProviders(Ok(answer)) => &answer.providers,
        other => panic!("{other:?}"),
    });
    assert_shared(providers, 100);
}

/// Requests with the same policy share, whatever others there are.
#[test]
fn requests_with_different_policies_share_with_their_equals() {
    let policies = [Policy::Best { agree: None }, Policy::All];
    let h = fan_out(|request| get_record("/v/k", policies[request as usize % 2]));
    for policy in 0..2 {
        let others = (policy..CALLERS).step_by(2).map(|request| match h.outcome(request) {
            Outcome::GetRecord(Ok(answer)) => &answer.others,
            other => panic!("{other:?}"),
        });
        assert_shared(others, 99);
    }
}

/// So do those that miss a quorum.
#[test]
fn a_thousand_gets_share_the_values_of_a_conflict() {
    let h = fan_out(|_| get_record("/v/k", Policy::Quorum(n(51))));
    let candidates = (0..CALLERS).map(|request| match h.outcome(request) {
        Outcome::GetRecord(Err(kadence_core::GetRecordError::Conflict { candidates, needed: 51 })) => candidates,
        other => panic!("{other:?}"),
    });
    assert_shared(candidates, 2);
}
