//! Inputs of a schedule, and how they are read from words.

use std::time::Duration;

use kadence_core::{
    Cache, LocalCopy, OperationKind, Overload, Policy, Priority, Progress, PutOptions, Quorum, RequestOptions, Retry,
    Stall, TrackerConfig,
};

use crate::world::validators;

/// One step of a schedule. Numbers that choose among things count modulo how many there are; with nothing to choose
/// from, nothing happens.
#[derive(Debug, Clone)]
pub enum Input {
    /// A request.
    Ask(Ask),
    /// A cancel of a request, by how many requests ago it was made.
    Cancel(u8),
    /// A shutdown.
    Shutdown {
        /// Whether requests still get their answers.
        drain: bool,
    },
    /// kad's answer to a start that waits for one.
    Start(u8, Answer),
    /// The next event of a query that kad has started and not ended, as kad would send it.
    Kad(u8, Say),
    /// The local store's answer to a put that waits for one.
    Stored(u8, bool),
    /// kad's answer to a probe that waits for one: how many more peers have answered since the query was last heard of.
    Probe(u8, u8),
    /// The routing table's answer to a put that waits for one: these peers.
    LocalPeers(u8, u8),
    /// How many queries kad runs of its own.
    Census(u8),
    /// The local store's entries under a key were changed.
    Forget(u8),
    /// The clock goes on.
    Wait(Wait),

    /// Hostile: an answer to a start that may have been answered.
    StartAgain(u8, Answer),
    /// Hostile: any event.
    Event(Event),
    /// Hostile: an answer of the local store for any request.
    StoredAgain(u8, bool),
    /// Hostile: peers of the routing table for any request.
    LocalPeersAgain(u8, u8),
    /// Hostile: an answer to a probe for any id, with this progress, if any.
    ProbeAgain(u8, Option<Progress>),
    /// Hostile: the clock shows an earlier time, for one call.
    Backwards(Duration),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Hostile: the id of an earlier request.
    pub again: Option<u8>,
    /// Which operation.
    pub kind: OperationKind,
    /// Which key.
    pub key: u8,
    /// For gets.
    pub policy: Policy,
    /// For puts.
    pub quorum: Quorum,
    /// For puts: which value.
    pub value: u8,
    /// For puts to the closest peers.
    pub put: PutOptions,
    /// For puts to named peers; the last bit adds our own id and a repetition.
    pub peers: u8,
    /// For lookups of the closest peers.
    pub thorough: bool,
    /// For puts: after which time the record expires.
    pub expires: Option<Duration>,
    /// How it is to be done.
    pub options: RequestOptions,
}

/// An answer to a start.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// As kad answers, which refuses few queries. If it may refuse, whether it does.
    Kad {
        /// Whether it refuses, if it may.
        refuse: bool,
    },
    /// Hostile: with an id that may be in use, or may have been.
    Id(u8),
    /// Hostile: `NoKnownPeers`, or else an error of the store, for any query.
    Refused {
        /// Which of the two.
        no_known_peers: bool,
    },
}

/// What kad says next.
#[derive(Debug, Clone, Copy)]
pub struct Say {
    /// For queries that may go on: the end.
    pub end: bool,
    /// kad's own timeout.
    pub timeout: bool,
    /// A record of the local store.
    pub local: bool,
    /// Under another key; among the closest, ourselves.
    pub foreign: bool,
    /// Which peer.
    pub peer: u8,
    /// Which peers.
    pub peers: u8,
    /// Which value.
    pub value: u8,
    /// Nobody was asked, as with an empty routing table.
    pub nobody: bool,
    /// Whether a peer has answered since the last event.
    pub answered: bool,
    /// How many peers have failed since the last event.
    pub failures: u32,
    /// After which time a record expires.
    pub expires: Option<Duration>,
}

/// Any event.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// An id; or else how many of the started queries ago it was started.
    pub id: Result<u8, u8>,
    /// Which kind of result; `None` fits the query.
    pub kind: Option<u8>,
    /// What it says.
    pub say: Say,
    /// Its progress.
    pub progress: Progress,
    /// Whether it is the last.
    pub last: bool,
}

/// How far the clock goes.
#[derive(Debug, Clone, Copy)]
pub enum Wait {
    /// This far, and the tracker is called.
    Tick(Duration),
    /// This far, and the tracker is called with the next input.
    Silently(Duration),
    /// To the time that the tracker asks for.
    Due,
    /// To a nanosecond before it.
    AlmostDue,
}

/// The configuration that a word stands for.
pub fn a_config(word: u64) -> TrackerConfig {
    let mut bits = Bits(word);
    TrackerConfig::default()
        .max_running(bits.one_of([0, 1, 2, 2, 3, 4, 8, 200]))
        .max_queued(bits.one_of([0, 1, 2, 3, 5, 8, 64, 64]))
        .overload(if bits.flag() { Overload::Shed } else { Overload::Refuse })
        .shares(bits.one_of([[8, 3, 1], [1, 1, 1], [0, 2, 3], [12, 0, 5]]))
        .seed(bits.take(2).into())
        .validators(validators())
        .max_replay_bytes(bits.one_of([0, 3, 200, 1024 * 1024]))
        .default_timeout(Duration::from_millis(bits.one_of([5, 1_000, 30_000, 30_000])))
        .finish_timeout(Duration::from_millis(bits.one_of([0, 5, 200, 30_000])))
        .max_items(bits.one_of([0, 2, 3, 4, 64, 64, 64, 64]))
        .max_key_len(bits.one_of([2, 64, 64, 64, 64, 64, 64, 64]))
        .max_value_len(bits.one_of([1, 64, 64, 64, 64, 64, 64, 64]))
        .stall(a_stall(&mut bits))
        .max_read_repairs(bits.one_of([0, 1, 2, 16]))
        .cache(a_cache(&mut bits))
}

fn a_stall(bits: &mut Bits) -> Option<Stall> {
    let watched = bits.flag();
    let [min, max, initial] = bits.one_of([[0, 2, 1], [1, 4, 2], [2, 2, 2], [5, 2, 10]]).map(Duration::from_millis);
    let parallelism = bits.one_of([0, 1, 3, 10]);
    watched.then_some(Stall::default().min_quiet(min).max_quiet(max).initial_quiet(initial).parallelism(parallelism))
}

fn a_cache(bits: &mut Bits) -> Option<Cache> {
    let keeps = bits.one_of([false, true, true, true]);
    let max_bytes = bits.one_of([0, 1_000, 1_500, 2_500, 5_000, 1024 * 1024, 1024 * 1024, 1024 * 1024]);
    let max_age =
        Duration::from_millis(bits.one_of([0, 10, 1_000, 30_000, 3_600_000, 36_000_000, 36_000_000, 36_000_000]));
    let max_age_not_found = Duration::from_millis(bits.one_of([0, 10, 5_000, 36_000_000]));
    keeps.then_some(Cache::default().max_bytes(max_bytes).max_age(max_age).max_age_not_found(max_age_not_found))
}

impl Input {
    /// An input as callers and kad make it.
    pub fn legal(word: u64) -> Self {
        let mut bits = Bits(word);
        match bits.take(8) {
            0..=51 => Self::Ask(an_ask(&mut bits)),
            52..=57 => Self::Cancel(bits.take(4)),
            58..=63 => Self::Probe(bits.take(4), bits.one_of([0, 0, 1, 9])),
            64..=127 => Self::Start(bits.take(4), Answer::Kad { refuse: bits.one_in(3) }),
            128..=211 => {
                let (which, say) = (bits.take(4), a_say(&mut bits));
                Self::Kad(which, Say { expires: an_expiry(&mut bits), ..say })
            }
            212..=217 => Self::LocalPeers(bits.take(4), bits.take(8)),
            218..=223 => Self::Stored(bits.take(4), !bits.one_in(2)),
            224..=251 => Self::Wait(a_wait(&mut bits)),
            252 => {
                let own = bits.take(4);
                if bits.flag() { Self::Forget(bits.take(2)) } else { Self::Census(own) }
            }
            253..=254 => Self::Wait(Wait::Due),
            255 if bits.one_in(3) => Self::Shutdown { drain: bits.flag() },
            255 => Self::Cancel(bits.take(4)),
        }
    }

    /// A legal input, or one that neither callers nor kad should ever make.
    pub fn hostile(word: u64) -> Self {
        let mut bits = Bits(word);
        if !bits.one_in(2) {
            return Self::legal(bits.0);
        }
        match bits.take(4) {
            0..=1 => Self::Ask(Ask { again: Some(bits.take(4)), ..an_ask(&mut bits) }),
            2 => Self::Start(bits.take(4), an_answer(&mut bits)),
            3..=5 => Self::StartAgain(bits.take(4), an_answer(&mut bits)),
            6 if bits.flag() => Self::StoredAgain(bits.take(4), bits.flag()),
            6 if bits.flag() => Self::LocalPeersAgain(bits.take(4), bits.take(8)),
            6 => Self::ProbeAgain(bits.take(6), Some(a_progress(&mut bits)).filter(|_| bits.flag())),
            7 => Self::Backwards(a_span(&mut bits)),
            _ => {
                let event = an_event(&mut bits);
                let say = Say { expires: an_expiry(&mut bits), ..event.say };
                Self::Event(Event { say, ..event })
            }
        }
    }
}

fn an_event(bits: &mut Bits) -> Event {
    Event {
        id: if bits.flag() { Ok(bits.take(6)) } else { Err(bits.take(4)) },
        kind: if bits.one_in(2) { Some(bits.take(3)) } else { None },
        say: a_say(bits),
        progress: a_progress(bits),
        last: bits.flag(),
    }
}

fn an_expiry(bits: &mut Bits) -> Option<Duration> {
    let millis = bits.one_of([None, None, None, None, None, Some(0), Some(3), Some(20)]);
    millis.map(Duration::from_millis)
}

fn a_progress(bits: &mut Bits) -> Progress {
    Progress { requests: bits.take(2).into(), successes: bits.take(2).into(), failures: bits.take(2).into() }
}

fn an_ask(bits: &mut Bits) -> Ask {
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
    let policy = match a_policy(bits) {
        // Refused for providers; once in a while is enough.
        Policy::Quorum(Quorum::N(n)) | Policy::Best { agree: Some(Quorum::N(n)) }
            if kind == Kind::GetProviders && bits.flag() =>
        {
            Policy::Limit(n as usize)
        }
        other => other,
    };
    let soon = Some(Duration::from_millis(10));
    let expiries = [None, None, None, None, None, soon, soon, Some(Duration::ZERO)];
    let mut ask = Ask {
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
            .timeout(a_timeout(bits))
            .streaming(bits.flag())
            .retry(a_retry(bits))
            .fresh(bits.one_in(2)),
    };
    ask.put = put_options(bits);
    // All bits are taken, and a lookup has no use for these.
    ask.thorough = ask.peers % 2 == 1;
    ask
}

fn put_options(bits: &mut Bits) -> PutOptions {
    PutOptions::default().verify(bits.one_of([0, 0, 1, 2])).clamp_quorum(bits.one_in(2)).local_copy(if bits.one_in(2) {
        LocalCopy::First
    } else {
        LocalCopy::OnSuccess
    })
}

fn a_policy(bits: &mut Bits) -> Policy {
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

fn a_timeout(bits: &mut Bits) -> Option<Duration> {
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

fn a_retry(bits: &mut Bits) -> Option<Retry> {
    let attempts = bits.one_of([None, None, None, None, Some(0), Some(2), Some(3), Some(5)]);
    let base = Duration::from_millis(bits.one_of([0, 1, 10, 300]));
    let cap = Duration::from_millis(bits.one_of([15, 5_000]));
    let jitter_percent = bits.one_of([0, 50, 100, 255]);
    attempts.map(|attempts| Retry::default().attempts(attempts).base(base).cap(cap).jitter_percent(jitter_percent))
}

fn an_answer(bits: &mut Bits) -> Answer {
    match bits.take(2) {
        0 => Answer::Kad { refuse: bits.flag() },
        1 => Answer::Refused { no_known_peers: bits.flag() },
        _ => Answer::Id(bits.take(6)),
    }
}

fn a_say(bits: &mut Bits) -> Say {
    Say {
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

fn a_wait(bits: &mut Bits) -> Wait {
    match bits.take(3) {
        0..=3 => Wait::Tick(a_span(bits)),
        4..=5 => Wait::Silently(a_span(bits)),
        6 => Wait::Due,
        _ => Wait::AlmostDue,
    }
}

fn a_span(bits: &mut Bits) -> Duration {
    let long = bits.one_of([100, 1_000, 30_000, 3_600_000]);
    Duration::from_millis(bits.one_of([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 5, 5, 5, 10, 10, long]))
}

/// A word that is taken apart, the lowest bits first.
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

    /// Once in two to the power of `bits`.
    fn one_in(&mut self, bits: u32) -> bool {
        self.take(bits) == 1
    }

    /// One of so many that their number is a power of two.
    fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        const { assert!(N.is_power_of_two()) };
        let [first, ..] = all.as_slice() else { unreachable!("a power of two is not zero") };
        *all.get(usize::from(self.take(N.ilog2()))).unwrap_or(first)
    }
}
