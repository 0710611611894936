//! Compares the tracker with the model in random schedules.
//!
//! The schedules are the same in every run, so that a failure is reproducible. `PROPTEST_RNG_SEED` selects other
//! schedules, `PROPTEST_CASES` their number.

#![expect(clippy::panic, reason = "a test reports with it")]

use std::cell::RefCell;

use kadence_model::{Coverage, Mode, arbitrary_config, bytes_of, play};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};

/// Default number of schedules of each test with arbitrary words.
const SCHEDULES: u32 = 6_000;

/// Default number of schedules of the test with multi-step requests.
const MULTI_STEP_SCHEDULES: u32 = 1_500;

fn arbitrary_words() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![4 => vec(arbitrary_word(), 1..60), 3 => vec(arbitrary_word(), 1..300), 1 => vec(arbitrary_word(), 1..500)]
}

/// Half of all words are arbitrary. Most others are ordinary inputs: without the upper bits, which disturb a request
/// and its answer. The last two kinds are answers to probes, which are rare otherwise; a hostile word has two bits
/// before those of a legal one.
fn arbitrary_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        10 => any::<u64>(),
        4 => 0_u64..1 << 24,
        4 => 0_u64..1 << 13,
        1 => any::<u64>().prop_map(|word| word << 8 | 253),
        1 => any::<u64>().prop_map(|word| word << 10 | 253 << 2),
    ]
}

/// Requests of several steps that run undisturbed, one after the other, with a few arbitrary words in between. In
/// arbitrary schedules hardly any of them gets to its last step.
fn multi_step_schedules() -> impl Strategy<Value = Vec<u64>> {
    let part = prop_oneof![3 => any::<[u64; 14]>().prop_map(multi_step_request), 1 => any::<u64>().prop_map(|word| vec![word])];
    vec(part, 1..20).prop_map(|parts| parts.concat())
}

/// Returns a put, or a lookup of the closest peers, and answers to everything that it may ask for. The kind of input is
/// encoded in the lower bits, as [`Input::legal`](kadence_model::Input::legal) reads them.
fn multi_step_request(words: [u64; 14]) -> Vec<u64> {
    let [ask, ..] = words;
    let (ask_a_put, ask_for_peers) = (2 << 8, 6 << 8);
    let kind = if ask % 4 == 0 { ask_for_peers } else { ask_a_put };
    let (start, kad, local_peers, stored) = (64, 128, 212, 218);
    // Clears the bits for a timeout, the local store and foreign keys.
    let undisturbed = |word: u64| word & !0xF_C000;
    let of = [0, start, kad, local_peers, start, kad, local_peers, start, kad, kad, kad, kad, kad, stored];
    let made = words.into_iter().zip(of).map(|(word, low)| match low {
        0 => word & !0x7FF | kind,
        128 => undisturbed(word) & !0xFF | kad,
        low => word & !0xFF | low,
    });
    made.collect()
}

fn run(mode: Mode, schedules: u32, words: impl Strategy<Value = Vec<u64>>, required: &[&str]) {
    let config = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { schedules };
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    let max_shrink_iters = config.max_shrink_iters.min(20_000);
    let config = Config { cases, rng_seed, failure_persistence: None, max_shrink_iters, ..config };
    let coverage = RefCell::new(Coverage::new());
    let result = TestRunner::new(config).run(&(any::<u64>(), words), |(config, words)| {
        for (what, times) in play(config, &words, mode) {
            *coverage.borrow_mut().entry(what).or_default() += times;
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, (config, words))) = &result {
        let inputs: String = words.iter().map(|word| format!("  {:?}\n", mode.input(*word))).collect();
        let file: String = bytes_of(*config, words).iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{:#?}\n{inputs}{reason}\nthe schedule as a file, in hexadecimal:  {file}", arbitrary_config(*config));
    }
    assert!(result.is_ok(), "{result:?}");
    // A property of something that never happens proves nothing. Few schedules cover less, and many more.
    let mut least = 10 * u64::from(cases) / u64::from(schedules);
    if cases > schedules {
        // What happens just often enough is seen less often in half of all runs, by a few standard deviations at most.
        least -= 3 * least.isqrt();
    }
    for what in required {
        let times = coverage.borrow().get(*what).copied().unwrap_or_default();
        assert!(times >= least, "{what} was hardly covered: {coverage:#?}");
    }
}

/// Required in the legal and the hostile test.
const REQUIRED: &[&str] = &[
    "bootstrap: AllPhasesFailed",
    "bootstrap: Cancelled",
    "bootstrap: ExpiredInQueue",
    "bootstrap: NoKnownPeers",
    "bootstrap: NoResponse",
    "bootstrap: Ok",
    "bootstrap: Shutdown",
    "bootstrap: Timeout",
    "read_repair",
    "foreign",
    "get_closest_peers: NoKnownPeers",
    "get_closest_peers: NoResponse",
    "get_closest_peers: Ok",
    "get_closest_peers: Timeout",
    "get_providers: NoResponse",
    "get_providers: NoKnownPeers",
    "get_providers: NotFound",
    "get_providers: Ok",
    "get_closest_peers: conclusive",
    "get_closest_peers: inconclusive",
    "get_providers: conclusive",
    "get_providers: inconclusive",
    "get_providers: Timeout",
    "get_record: Conflict",
    "get_record: NoResponse",
    "get_record: NoKnownPeers",
    "get_record: NotFound",
    "get_record: Ok",
    "get_record: Timeout",
    "get_record: QuorumNotReached",
    "get_record: conclusive",
    "get_record: inconclusive",
    "finished_early",
    "item",
    "second lookup",
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
    "refused: QuorumExceedsPeers",
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

/// Required in the hostile test only.
const REQUIRED_WHEN_HOSTILE: &[&str] = &["get_record: Refused", "mismatched", "refused: DuplicateId"];

#[test]
fn legal_schedules_match_the_model() {
    run(Mode::Legal, SCHEDULES, arbitrary_words(), REQUIRED);
}

#[test]
fn hostile_schedules_match_the_model() {
    run(Mode::Hostile, SCHEDULES, arbitrary_words(), &[REQUIRED, REQUIRED_WHEN_HOSTILE].concat());
}

#[test]
fn multi_step_requests_match_the_model() {
    let coverage = [
        "get_closest_peers: Ok",
        "get_closest_peers: Timeout",
        "local peers",
        "second lookup",
        "put_record: NotVerified",
        "put_record: Ok",
        "put_record: QuorumFailed",
        "put_record: Store",
        "put_record: Timeout",
        "put_record: InsufficientPeers",
        "put_record: verified",
    ];
    run(Mode::Legal, MULTI_STEP_SCHEDULES, multi_step_schedules(), &coverage);
}
