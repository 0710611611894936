//! Provider lookups: kad reports providers in batches, which may be empty.

use kadence_core::{GetProvidersError, Item, Outcome, Policy};

use crate::support::*;

#[test]
fn an_empty_first_provider_batch_is_not_the_answer() {
    for policy in [Policy::First, Policy::All, Policy::Limit(1)] {
        let mut h = Harness::default();
        h.request(1, get_providers("k", policy));
        let id = h.start();
        h.ev(id, providers([]), false);
        assert!(!h.ended(1), "{policy:?}");
        h.ev(id, providers([1]), false);
        h.ev(id, providers_finished(), true);
        let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
        assert_eq!(*answer.providers, peers([1]), "{policy:?}");
        h.assert_empty();
    }
}

#[test]
fn only_empty_batches_are_not_found() {
    let mut h = Harness::default();
    h.request(1, get_providers("k", Policy::All));
    let id = h.start();
    for _ in 0..5 {
        h.ev(id, providers([]), false);
    }
    h.ev(id, providers_finished(), true);
    let Outcome::GetProviders(Err(GetProvidersError::NotFound { closest_peers, certainty: _, progress })) =
        h.outcome(1)
    else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((&**closest_peers, *progress), (&*peers([7]), some_progress()));
    h.assert_empty();
}

#[test]
fn a_limit_is_exact_and_finishes_the_query_once() {
    let mut h = Harness::default();
    h.stream(1, get_providers("k", Policy::Limit(10)));
    let id = h.start();
    h.ev(id, providers(0..6), false);
    assert!(!h.ended(1));
    h.ev(id, providers(6..13), false);
    let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.providers.len(), 10);
    assert_eq!(answer.providers[..6], peers(0..6));
    let delivered: Vec<_> = answer.providers.iter().map(|provider| Item::Provider(*provider)).collect();
    assert_eq!(h.items(1), delivered);
    assert_eq!(h.finishes, [id]);
    // Late events, and the end.
    h.ev(id, providers(20..40), false);
    h.ev(id, providers_finished(), true);
    assert_eq!(h.finishes, [id]);
    h.assert_empty();
}
