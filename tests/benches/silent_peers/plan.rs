//! How large, how often, and what is asked.

use std::{fmt, num::NonZeroUsize, time::Duration};

use kadence_tests::bench::Mode;
use libp2p::kad::{Quorum, RecordKey};

/// The quorum of puts from [`MANY_SILENT`] on: what can still be reached when five of the closest are gone.
pub(crate) const HARD_QUORUM: usize = 15;

/// From this share of silent peers on, in percent, a majority is no test any more.
const MANY_SILENT: usize = 30;

/// Bytes of a value: a pointer to something larger, as in most DHTs.
const VALUE_LEN: usize = 64;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Closest,
    /// Of plain kad, which has no other, an ordinary lookup.
    ClosestThorough,
    Put,
    GetAll,
    GetFirst,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] = [Self::Closest, Self::ClosestThorough, Self::Put, Self::GetAll, Self::GetFirst];

    /// What is done in a network, one after the other: rounds of everything but thorough lookups, and then these. A lookup
    /// that has met silent peers takes as long as it waits for them, and is part of what the tracker takes for the network's
    /// pace; twice as many lookups would be another mixture, in which puts wait longer.
    pub(crate) fn in_order(rounds: usize) -> impl Iterator<Item = (usize, Self)> {
        let others = Self::ALL.into_iter().filter(|operation| *operation != Self::ClosestThorough);
        let others = (0..rounds).flat_map(move |round| others.clone().map(move |operation| (round, operation)));
        others.chain((0..rounds).map(|round| (round, Self::ClosestThorough)))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Closest => "closest peers",
            Self::ClosestThorough => "closest, thorough",
            Self::Put => "put",
            Self::GetAll => "get, all",
            Self::GetFirst => "get, first",
        })
    }
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Kadence,
    Plain,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kadence => "Kadence",
            Self::Plain => "plain kad",
        })
    }
}

/// One operation, the `round`th of its kind in its network.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) operation: Operation,
    pub(crate) round: usize,
    pub(crate) key: RecordKey,
    pub(crate) quorum: Quorum,
}

impl Job {
    /// Both clients look for the same things. Each puts records of its own, so that the copies can be told apart.
    pub(crate) fn new(who: Who, operation: Operation, round: usize, silent_percent: usize) -> Self {
        let key = match operation {
            Operation::Closest => RecordKey::new(&format!("target {round}")),
            Operation::ClosestThorough => RecordKey::new(&format!("other target {round}")),
            Operation::Put => RecordKey::new(&format!("put {round} by {who}")),
            Operation::GetAll | Operation::GetFirst => existing(round),
        };
        let quorum = match silent_percent {
            // Kadence waits for the word of everybody whom it has asked, in order to name them. Asked for a majority, kad
            // ends a put while others still answer, into the time of whoever is measured next.
            0 => Quorum::All,
            few if few < MANY_SILENT => Quorum::Majority,
            _ => NonZeroUsize::new(HARD_QUORUM).map_or(Quorum::Majority, Quorum::N),
        };
        Self { operation, round, key, quorum }
    }
}

/// The key of a record that is in the network from the beginning.
pub(crate) fn existing(round: usize) -> RecordKey {
    RecordKey::new(&format!("record {round}"))
}

/// The value of every record under this key.
pub(crate) fn value(key: &RecordKey) -> Vec<u8> {
    key.as_ref().iter().copied().cycle().take(VALUE_LEN).collect()
}

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// Nodes of a network, the silent ones included.
    pub(crate) nodes: usize,
    /// The shares of silent nodes, in percent.
    pub(crate) silent_percents: &'static [usize],
    /// Networks for each share.
    pub(crate) networks: usize,
    /// Operations of each kind in each network, by Kadence.
    pub(crate) rounds: usize,
    /// The same by both clients where nobody is silent: a few hundredths are looked for there.
    pub(crate) rounds_in_turns: usize,
    /// The same by plain kad, where peers are silent: each takes tens of seconds.
    pub(crate) plain_rounds: usize,
    /// Between the starts of two operations of plain kad in one network. They run beside each other, and their
    /// work is not to be what Kadence waits for.
    pub(crate) plain_every: Duration,
    /// No operation of Kadence begins later than this in its network, however many are missing.
    pub(crate) longest: Duration,
    /// The timeout of Kadence's calls, if not the default.
    pub(crate) timeout: Option<Duration>,
    /// How long plain kad is waited for. Its own timeout, 60 s, is only looked at when something happens.
    pub(crate) patience: Duration,
}

impl Size {
    pub(crate) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Quick | Mode::Full => Self {
                nodes: 60,
                silent_percents: &[0, 5, 15, 30, 50],
                networks: 8,
                rounds: 25,
                rounds_in_turns: 75,
                plain_rounds: 4,
                plain_every: Duration::from_millis(600),
                longest: Duration::from_secs(45),
                timeout: None,
                patience: Duration::from_secs(75),
            },
            Mode::Smoke => Self {
                nodes: 10,
                silent_percents: &[0, 30],
                networks: 1,
                rounds: 2,
                rounds_in_turns: 2,
                plain_rounds: 1,
                plain_every: Duration::from_millis(10),
                longest: Duration::from_secs(2),
                timeout: Some(Duration::from_secs(2)),
                patience: Duration::from_secs(2),
            },
        }
    }

    /// How many nodes of a network are silent.
    pub(crate) fn silent(&self, percent: usize) -> usize {
        self.nodes * percent / 100
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, networks, .. } = self;
        write!(f, "{nodes} nodes in memory, {networks} networks for each share of silent ones")
    }
}
