//! Inputs of a schedule, and their decoding from words.

use std::time::Duration;

use kadence_core::{
    LocalCopy, Network, OperationKind, Policy, Priority, Progress, PutOptions, Quorum, Reachability, RequestOptions,
    Retry, Stall, TrackerConfig,
};

use crate::fixtures::validators;

/// One step of a schedule. An index selects an element modulo the number of elements. If there is none, the input has
/// no effect.
#[derive(Debug, Clone)]
pub enum Input {
    /// A request.
    Request(RequestInput),
    /// Cancels a request. Zero is the latest request, one the request before it, and so on.
    Cancel(u8),
    /// Shuts the tracker down.
    Shutdown {
        /// Requests that were accepted still get their answers.
        drain: bool,
    },
    /// kad's answer to one of the pending starts.
    Start(u8, StartAnswer),
    /// The next legal event of one of kad's running queries.
    KadEvent(u8, EventChoices),
    /// The local store's answer to one of the waiting puts: `true` is success.
    Stored(u8, bool),
    /// kad's answer to one of the pending probes: the number of peers that have answered since the last report.
    Probe(u8, u8),
    /// The routing table's answer to one of the waiting puts: a mask of peers.
    LocalPeers(u8, u8),
    /// The number of queries that kad runs for itself.
    QueryCount(u8),
    /// The local store's entries under a key were changed.
    Written(u8),
    /// A peer that one of kad's running queries waits for was given up, or the application finished the query.
    CutShort(u8),
    /// News of the network.
    Network(Network),
    /// The clock advances.
    Clock(ClockStep),

    /// Hostile: an answer to a start that may already have been answered.
    StartAgain(u8, StartAnswer),
    /// Hostile: an arbitrary event.
    AnyEvent(AnyEvent),
    /// Hostile: an answer of the local store to any request.
    StoredAgain(u8, bool),
    /// Hostile: peers of the routing table for any request.
    LocalPeersAgain(u8, u8),
    /// Hostile: an answer to a probe for any id, with this progress.
    ProbeAgain(u8, Option<Progress>),
    /// Hostile: a query with any id was cut short.
    CutShortAgain(u8),
    /// Hostile: for one call, the clock shows an earlier time.
    ClockBackwards(Duration),
}

/// A request.
#[derive(Debug, Clone)]
pub struct RequestInput {
    /// Hostile: reuses the id of an earlier request.
    pub again: Option<u8>,
    /// Kind of the operation.
    pub kind: OperationKind,
    /// Index of the key.
    pub key: u8,
    /// Policy of a get.
    pub policy: Policy,
    /// Quorum of a put.
    pub quorum: Quorum,
    /// Index of a put's value.
    pub value: u8,
    /// Options of a put to the closest peers.
    pub put: PutOptions,
    /// Peers of a put to named peers. The highest bit adds the local id and repeats every peer.
    pub peers: u8,
    /// Makes a lookup of the closest peers thorough.
    pub thorough: bool,
    /// Time until a put's record expires. `None`: never.
    pub expires: Option<Duration>,
    /// Options of the request.
    pub options: RequestOptions,
}

/// An answer to a start.
#[derive(Debug, Clone, Copy)]
pub enum StartAnswer {
    /// A legal answer. kad refuses few kinds of queries.
    Kad {
        /// kad refuses the query, if it can refuse this kind.
        refuse: bool,
    },
    /// Hostile: accepted with an id that may be in use, or may have been used before.
    Id(u8),
    /// Hostile: refused with `NoKnownPeers` or an error of the local store, for any kind of query.
    Refused {
        /// `NoKnownPeers` rather than an error of the store.
        no_known_peers: bool,
    },
}

/// Random choices that shape one event of kad. Each kind of query uses some of them.
#[derive(Debug, Clone, Copy)]
pub struct EventChoices {
    /// The query ends, if it could also continue.
    pub end: bool,
    /// kad's own timeout ended the query.
    pub timeout: bool,
    /// The record comes from the local store.
    pub local: bool,
    /// A record is stored under another key; a lookup also names the local node.
    pub foreign: bool,
    /// Index of the peer.
    pub peer: u8,
    /// Mask of the peers.
    pub peers: u8,
    /// Index of the value.
    pub value: u8,
    /// No request was sent, as with an empty routing table.
    pub nobody: bool,
    /// A peer has answered since the last event.
    pub answered: bool,
    /// Number of peers that have failed since the last event.
    pub failures: u32,
    /// Time until the record expires. `None`: never.
    pub expires: Option<Duration>,
}

/// An arbitrary event.
#[derive(Debug, Clone, Copy)]
pub struct AnyEvent {
    /// `Ok`: the id of a query. `Err`: an index among the live queries.
    pub id: Result<u8, u8>,
    /// Kind of the result. `None`: the kind that fits the query.
    pub kind: Option<u8>,
    /// Content of the result.
    pub choices: EventChoices,
    /// Progress of the query.
    pub progress: Progress,
    /// Marks the event as the last of its query.
    pub last: bool,
}

/// Movement of the clock.
#[derive(Debug, Clone, Copy)]
pub enum ClockStep {
    /// Advances by this time and calls the tracker.
    Advance(Duration),
    /// Advances by this time. The tracker sees the new time with the next input.
    AdvanceSilently(Duration),
    /// Advances to the tracker's timeout and calls the tracker.
    ToTimeout,
    /// Advances to one nanosecond before the tracker's timeout and calls the tracker.
    JustBeforeTimeout,
}

/// Decodes a word into a configuration.
pub fn arbitrary_config(word: u64) -> TrackerConfig {
    let mut bits = Bits(word);
    TrackerConfig::default()
        .max_running(bits.one_of([0, 1, 2, 2, 3, 4, 8, 200]))
        .max_queued(bits.one_of([0, 1, 2, 3, 5, 8, 64, 64]))
        .expected_network_size(if bits.flag() { Some(2) } else { None })
        .shares(bits.one_of([[8, 3, 1], [1, 1, 1], [0, 2, 3], [12, 0, 5]]))
        .seed(bits.take(2).into())
        .validators(validators())
        .max_replay_bytes(bits.one_of([0, 3, 200, 1024 * 1024]))
        .default_timeout(Duration::from_millis(bits.one_of([5, 1_000, 30_000, 30_000])))
        .finish_timeout(Duration::from_millis(bits.one_of([0, 5, 200, 30_000])))
        .max_items(bits.one_of([0, 2, 3, 4, 64, 64, 64, 64]))
        .max_key_len(bits.one_of([2, 64, 64, 64, 64, 64, 64, 64]))
        .max_value_len(bits.one_of([1, 64, 64, 64, 64, 64, 64, 64]))
        .stall(arbitrary_stall(&mut bits))
        .max_read_repairs(bits.one_of([0, 1, 2, 16]))
        .max_item_bytes(bits.one_of([0, 2, 5, 100, 200, 1024, 1024 * 1024, 1024 * 1024]))
}

fn arbitrary_stall(bits: &mut Bits) -> Option<Stall> {
    let watched = bits.flag();
    let [min, max, initial] = bits.one_of([[0, 2, 1], [1, 4, 2], [2, 2, 2], [5, 2, 10]]).map(Duration::from_millis);
    let parallelism = bits.one_of([0, 1, 3, 10]);
    watched.then_some(Stall::default().min_quiet(min).max_quiet(max).initial_quiet(initial).parallelism(parallelism))
}

fn arbitrary_network(bits: &mut Bits) -> Network {
    Network::default()
        .size(bits.one_of([None, Some(0), Some(2), Some(5), Some(7), Some(12), Some(30), Some(usize::MAX)]))
        .reachability(bits.one_of([
            Reachability::Unknown,
            Reachability::Connected,
            Reachability::Connected,
            Reachability::Isolated,
        ]))
}

impl Input {
    /// Decodes a word into a legal input.
    pub fn legal(word: u64) -> Self {
        let mut bits = Bits(word);
        match bits.take(8) {
            0..=51 => Self::Request(arbitrary_request(&mut bits)),
            52..=57 => Self::Cancel(bits.take(4)),
            58..=63 => Self::Probe(bits.take(4), bits.one_of([0, 0, 1, 9])),
            64..=127 => Self::Start(bits.take(4), StartAnswer::Kad { refuse: bits.one_in(3) }),
            128..=211 => {
                let (which, choices) = (bits.take(4), arbitrary_choices(&mut bits));
                Self::KadEvent(which, EventChoices { expires: arbitrary_expiry(&mut bits), ..choices })
            }
            212..=217 => Self::LocalPeers(bits.take(4), bits.take(8)),
            218..=223 => Self::Stored(bits.take(4), !bits.one_in(2)),
            224..=251 => Self::Clock(arbitrary_clock_step(&mut bits)),
            252 => {
                let own = bits.take(4);
                match bits.take(2) {
                    0 => Self::Written(bits.take(2)),
                    1 => Self::CutShort(own),
                    2 => Self::Network(arbitrary_network(&mut bits)),
                    _ => Self::QueryCount(own),
                }
            }
            253..=254 => Self::Clock(ClockStep::ToTimeout),
            255 if bits.one_in(3) => Self::Shutdown { drain: bits.flag() },
            255 => Self::Cancel(bits.take(4)),
        }
    }

    /// Decodes a word into an input that is legal, or that callers and kad never produce.
    pub fn hostile(word: u64) -> Self {
        let mut bits = Bits(word);
        if !bits.one_in(2) {
            return Self::legal(bits.0);
        }
        match bits.take(4) {
            0..=1 => Self::Request(RequestInput { again: Some(bits.take(4)), ..arbitrary_request(&mut bits) }),
            2 => Self::Start(bits.take(4), arbitrary_start_answer(&mut bits)),
            3..=5 => Self::StartAgain(bits.take(4), arbitrary_start_answer(&mut bits)),
            6 if bits.flag() => Self::StoredAgain(bits.take(4), bits.flag()),
            6 if bits.flag() => Self::LocalPeersAgain(bits.take(4), bits.take(8)),
            6 if bits.one_in(2) => Self::CutShortAgain(bits.take(6)),
            6 => Self::ProbeAgain(bits.take(6), Some(arbitrary_progress(&mut bits)).filter(|_| bits.flag())),
            7 => Self::ClockBackwards(arbitrary_span(&mut bits)),
            _ => {
                let event = arbitrary_event(&mut bits);
                let choices = EventChoices { expires: arbitrary_expiry(&mut bits), ..event.choices };
                Self::AnyEvent(AnyEvent { choices, ..event })
            }
        }
    }
}

fn arbitrary_event(bits: &mut Bits) -> AnyEvent {
    AnyEvent {
        id: if bits.flag() { Ok(bits.take(6)) } else { Err(bits.take(4)) },
        kind: if bits.one_in(2) { Some(bits.take(3)) } else { None },
        choices: arbitrary_choices(bits),
        progress: arbitrary_progress(bits),
        last: bits.flag(),
    }
}

fn arbitrary_expiry(bits: &mut Bits) -> Option<Duration> {
    let millis = bits.one_of([None, None, None, None, None, Some(0), Some(3), Some(20)]);
    millis.map(Duration::from_millis)
}

fn arbitrary_progress(bits: &mut Bits) -> Progress {
    Progress { requests: bits.take(2).into(), successes: bits.take(2).into(), failures: bits.take(2).into() }
}

fn arbitrary_request(bits: &mut Bits) -> RequestInput {
    use OperationKind as Kind;
    let kind = bits.one_of([
        Kind::GetRecord,
        Kind::GetRecord,
        Kind::PutRecord,
        Kind::PutRecordTo,
        Kind::GetProviders,
        Kind::StartProviding,
        Kind::GetClosestPeers,
        Kind::Bootstrap,
    ]);
    let key = bits.take(2);
    let policy = match arbitrary_policy(bits) {
        // The tracker rejects these policies for providers. Half of them are replaced, so that more requests are
        // accepted.
        Policy::Quorum(Quorum::N(n)) | Policy::Best { agree: Some(Quorum::N(n)) }
            if kind == Kind::GetProviders && bits.flag() =>
        {
            Policy::Limit(n as usize)
        }
        other => other,
    };
    let soon = Some(Duration::from_millis(10));
    let expiries = [None, None, None, None, None, soon, soon, Some(Duration::ZERO)];
    let mut request = RequestInput {
        again: None,
        kind,
        key,
        policy,
        quorum: bits.one_of([
            Quorum::One,
            Quorum::One,
            Quorum::Majority,
            Quorum::All,
            Quorum::N(1),
            Quorum::N(2),
            Quorum::N(3),
            Quorum::N(9),
        ]),
        value: bits.take(3),
        peers: bits.take(8),
        thorough: false,
        expires: bits.one_of(expiries),
        put: PutOptions::default(),
        options: RequestOptions::default()
            .priority(bits.one_of([Priority::Normal, Priority::Interactive, Priority::Normal, Priority::Background]))
            .timeout(arbitrary_timeout(bits))
            .streaming(bits.flag())
            .retry(arbitrary_retry(bits))
            .fresh(bits.one_in(2)),
    };
    request.put = arbitrary_put_options(bits);
    // All 64 bits are used up, and a lookup has no use for these.
    request.thorough = request.peers % 2 == 1;
    request
}

fn arbitrary_put_options(bits: &mut Bits) -> PutOptions {
    PutOptions::default().verify(bits.one_of([0, 0, 1, 2])).clamp_quorum(bits.one_in(2)).local_copy(if bits.one_in(2) {
        LocalCopy::First
    } else {
        LocalCopy::OnSuccess
    })
}

fn arbitrary_policy(bits: &mut Bits) -> Policy {
    let n = bits.one_of([0, 1, 1, 2, 2, 3, 3, 5]);
    bits.one_of([
        Policy::First,
        Policy::First,
        Policy::Limit(n),
        Policy::All,
        Policy::Quorum(n.into()),
        Policy::Quorum(n.into()),
        Policy::Best { agree: Some(n.into()) },
        Policy::Best { agree: None },
    ])
}

fn arbitrary_timeout(bits: &mut Bits) -> Option<Duration> {
    let millis = bits.one_of([
        None,
        None,
        None,
        None,
        None,
        None,
        Some(0),
        Some(2),
        Some(5),
        Some(10),
        Some(100),
        Some(1_000),
        Some(10_000),
        Some(60_000),
        Some(60_000),
        Some(u64::MAX),
    ]);
    millis.map(|millis| if millis == u64::MAX { Duration::MAX } else { Duration::from_millis(millis) })
}

fn arbitrary_retry(bits: &mut Bits) -> Option<Retry> {
    let attempts = bits.one_of([None, None, None, None, Some(0), Some(2), Some(3), Some(5)]);
    let base = Duration::from_millis(bits.one_of([0, 1, 10, 300]));
    let cap = Duration::from_millis(bits.one_of([15, 5_000]));
    let jitter_percent = bits.one_of([0, 50, 100, 255]);
    attempts.map(|attempts| Retry::default().attempts(attempts).base(base).cap(cap).jitter_percent(jitter_percent))
}

fn arbitrary_start_answer(bits: &mut Bits) -> StartAnswer {
    match bits.take(2) {
        0 => StartAnswer::Kad { refuse: bits.flag() },
        1 => StartAnswer::Refused { no_known_peers: bits.flag() },
        _ => StartAnswer::Id(bits.take(6)),
    }
}

fn arbitrary_choices(bits: &mut Bits) -> EventChoices {
    EventChoices {
        end: bits.one_in(2),
        timeout: bits.one_in(2),
        local: bits.flag(),
        foreign: bits.one_in(3),
        peer: bits.take(4),
        peers: if bits.one_in(3) { 0 } else { bits.take(8) },
        value: bits.take(5),
        nobody: bits.one_in(3),
        answered: !bits.one_in(2),
        failures: bits.take(1).into(),
        expires: None,
    }
}

fn arbitrary_clock_step(bits: &mut Bits) -> ClockStep {
    match bits.take(3) {
        0..=3 => ClockStep::Advance(arbitrary_span(bits)),
        4..=5 => ClockStep::AdvanceSilently(arbitrary_span(bits)),
        6 => ClockStep::ToTimeout,
        _ => ClockStep::JustBeforeTimeout,
    }
}

fn arbitrary_span(bits: &mut Bits) -> Duration {
    let long = bits.one_of([100, 1_000, 30_000, 3_600_000]);
    Duration::from_millis(bits.one_of([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 5, 5, 5, 10, 10, long]))
}

/// The bits of a word that are still unused, the lowest ones first.
struct Bits(u64);

impl Bits {
    fn take(&mut self, bits: u32) -> u8 {
        let [low, ..] = self.0.to_le_bytes();
        self.0 >>= bits;
        low & u8::MAX.unbounded_shr(8 - bits)
    }

    fn flag(&mut self) -> bool {
        self.take(1) == 1
    }

    /// Returns `true` with a probability of one in two to the power of `bits`.
    fn one_in(&mut self, bits: u32) -> bool {
        self.take(bits) == 1
    }

    /// Returns one of the values, whose number has to be a power of two.
    fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        const { assert!(N.is_power_of_two()) };
        let [first, ..] = all.as_slice() else { unreachable!("a power of two is at least one") };
        *all.get(usize::from(self.take(N.ilog2()))).unwrap_or(first)
    }
}
