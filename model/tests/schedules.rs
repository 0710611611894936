//! The tracker does what the model says, in random schedules of everything that can be put in.
//!
//! The same schedules each time, so that a failure is there again tomorrow. For others set `PROPTEST_RNG_SEED`, for
//! more `PROPTEST_CASES`.

#![expect(clippy::panic, reason = "a test reports with it")]

use std::cell::RefCell;

use kadence_model::{Mode, Reached, a_config, bytes_of, play};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};

/// Of each test of random words, if nothing else is asked for.
const SCHEDULES: u32 = 6_000;

/// Of the test of requests that come to their last step.
const STORIES: u32 = 1_500;

fn a_few_or_many() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![4 => vec(a_word(), 1..60), 3 => vec(a_word(), 1..300), 1 => vec(a_word(), 1..500)]
}

/// Half of all words are of anything, most others of what is ordinary: they have none of the upper bits, in which is what
/// can come in the way of a plain request and its answer. Some are answers to probes, which are rare otherwise; a hostile
/// word has two bits before those of a legal one.
fn a_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        10 => any::<u64>(),
        4 => 0_u64..1 << 24,
        4 => 0_u64..1 << 13,
        1 => any::<u64>().prop_map(|word| word << 8 | 253),
        1 => any::<u64>().prop_map(|word| word << 10 | 253 << 2),
    ]
}

/// Requests of several steps that nothing comes in the way of, one after the other, with a few words of anything among them:
/// at random hardly one of them comes to its last step.
fn stories() -> impl Strategy<Value = Vec<u64>> {
    let part = prop_oneof![3 => any::<[u64; 14]>().prop_map(a_story), 1 => any::<u64>().prop_map(|word| vec![word])];
    vec(part, 1..20).prop_map(|parts| parts.concat())
}

/// A put, or a lookup of the closest peers, and the answers to whatever it may ask for. What is made of a word here is in its
/// lower bits, as [`Input::legal`](kadence_model::Input::legal) reads them.
fn a_story(words: [u64; 14]) -> Vec<u64> {
    let [ask, ..] = words;
    let (ask_a_put, ask_for_peers) = (2 << 8, 6 << 8);
    let kind = if ask % 4 == 0 { ask_for_peers } else { ask_a_put };
    let (start, kad, local_peers, stored) = (64, 128, 212, 218);
    // Neither a timeout, nor of the local store, nor about something else.
    let well = |word: u64| word & !0xF_C000;
    let of = [0, start, kad, local_peers, start, kad, local_peers, start, kad, kad, kad, kad, kad, stored];
    let made = words.into_iter().zip(of).map(|(word, low)| match low {
        0 => word & !0x7FF | kind,
        128 => well(word) & !0xFF | kad,
        low => word & !0xFF | low,
    });
    made.collect()
}

fn run(mode: Mode, schedules: u32, words: impl Strategy<Value = Vec<u64>>, must_be_reached: &[&str]) {
    let config = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { schedules };
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    let max_shrink_iters = config.max_shrink_iters.min(20_000);
    let config = Config { cases, rng_seed, failure_persistence: None, max_shrink_iters, ..config };
    let reached = RefCell::new(Reached::new());
    let result = TestRunner::new(config).run(&(any::<u64>(), words), |(config, words)| {
        for (what, times) in play(config, &words, mode) {
            *reached.borrow_mut().entry(what).or_default() += times;
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, (config, words))) = &result {
        let inputs: String = words.iter().map(|word| format!("  {:?}\n", mode.input(*word))).collect();
        let file: String = bytes_of(*config, words).iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{:#?}\n{inputs}{reason}\nthe schedule as a file, in hexadecimal: {file}", a_config(*config));
    }
    assert!(result.is_ok(), "{result:?}");
    // A property of what never happens says nothing; but a few schedules cannot reach everything.
    for what in must_be_reached.iter().filter(|_| cases >= schedules) {
        let times = reached.borrow().get(*what).copied().unwrap_or_default();
        assert!(times >= 10, "{what} was hardly reached: {reached:#?}");
    }
}

/// Everything that has to come about in each of the tests.
const REACHED: &[&str] = &[
    "bootstrap: AllPhasesFailed",
    "bootstrap: Cancelled",
    "bootstrap: ExpiredInQueue",
    "bootstrap: NoKnownPeers",
    "bootstrap: NoResponse",
    "bootstrap: Ok",
    "bootstrap: Overloaded",
    "bootstrap: Shutdown",
    "bootstrap: Timeout",
    "cache hit",
    "cache miss",
    "read_repair",
    "foreign",
    "get_closest_peers: NoKnownPeers",
    "get_closest_peers: NoResponse",
    "get_closest_peers: Ok",
    "get_closest_peers: Timeout",
    "get_providers: NoResponse",
    "get_providers: NoKnownPeers",
    "get_providers: NotFound",
    "get_providers: NotFound from the cache",
    "get_providers: Ok",
    "get_providers: Ok from the cache",
    "get_providers: Timeout",
    "get_record: Conflict",
    "get_record: NoResponse",
    "get_record: NoKnownPeers",
    "get_record: NotFound",
    "get_record: NotFound from the cache",
    "get_record: Ok",
    "get_record: Ok from the cache",
    "get_record: Timeout",
    "get_record: QuorumNotReached",
    "finished_early",
    "item",
    "lookup beside the first",
    "local peers",
    "lost",
    "probe",
    "put_record: NoKnownPeers",
    "put_record: NoResponse",
    "put_record: NotVerified",
    "put_record: Ok",
    "put_record: QuorumFailed",
    "put_record: Store",
    "put_record: Timeout",
    "put_record: InsufficientPeers",
    "put_record_to: Ok",
    "put_record_to: QuorumFailed",
    "put_record_to: Timeout",
    "refused: KeyTooLong",
    "refused: NoPeers",
    "refused: NoValidator",
    "refused: Overloaded",
    "refused: PolicyForRecords",
    "refused: RecordExpired",
    "refused: Rejected",
    "refused: Shutdown",
    "refused: ValueTooLong",
    "refused: ZeroLimit",
    "rejected",
    "start_providing: NoKnownPeers",
    "start_providing: NoResponse",
    "start_providing: Ok",
    "start_providing: Store",
    "start_providing: Timeout",
    "stop_providing",
    "unknown",
];

/// Only kad at its worst brings these about.
const REACHED_BY_HOSTILITY: &[&str] = &["get_record: Refused", "mismatched", "refused: DuplicateId"];

#[test]
fn the_tracker_does_what_the_model_says() {
    run(Mode::Legal, SCHEDULES, a_few_or_many(), REACHED);
}

#[test]
fn whatever_happens_the_tracker_does_what_the_model_says() {
    run(Mode::Hostile, SCHEDULES, a_few_or_many(), &[REACHED, REACHED_BY_HOSTILITY].concat());
}

#[test]
fn of_many_steps_the_tracker_does_each_as_the_model_says() {
    let reached = [
        "get_closest_peers: Ok",
        "get_closest_peers: Timeout",
        "local peers",
        "lookup beside the first",
        "put_record: NotVerified",
        "put_record: Ok",
        "put_record: QuorumFailed",
        "put_record: Store",
        "put_record: Timeout",
        "put_record: InsufficientPeers",
        "put_record: verified",
    ];
    run(Mode::Legal, STORIES, stories(), &reached);
}
