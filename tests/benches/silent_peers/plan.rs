//! Sizes of the networks, and the operations.

use std::{fmt, num::NonZeroUsize, time::Duration};

use kadence_tests::bench::Mode;
use libp2p::kad::{Quorum, RecordKey};

/// Quorum of puts from [`MANY_SILENT`] on. It can still be reached when five of the closest peers are silent.
pub(crate) const HARD_QUORUM: usize = 15;

/// Share of silent peers, in percent, from which on a majority is no meaningful quorum.
const MANY_SILENT: usize = 30;

/// Length of a value in bytes: a pointer to something larger, as in most DHTs.
const VALUE_LEN: usize = 64;

/// Operation to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Closest,
    /// Plain kad has no thorough lookup and runs an ordinary one.
    ClosestThorough,
    Put,
    GetAll,
    GetFirst,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] = [Self::Closest, Self::ClosestThorough, Self::Put, Self::GetAll, Self::GetFirst];

    /// Returns the operations in a network in order: rounds of all others first, then the thorough lookups. A lookup
    /// that meets silent peers takes as long as it waits for them, and the tracker includes this time in its estimate
    /// of the network's round-trip time. Thorough lookups in each round would change that estimate and make puts wait
    /// longer.
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

/// Client that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ClientKind {
    Kadence,
    Plain,
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kadence => "Kadence",
            Self::Plain => "plain kad",
        })
    }
}

/// One operation: the `round`th of its kind in its network.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) operation: Operation,
    pub(crate) round: usize,
    pub(crate) key: RecordKey,
    pub(crate) quorum: Quorum,
}

impl Job {
    /// Both clients use the same lookup targets. Each puts its own records, so that copies can be told apart.
    pub(crate) fn new(client_kind: ClientKind, operation: Operation, round: usize, silent_percent: usize) -> Self {
        let key = match operation {
            Operation::Closest => RecordKey::new(&format!("target {round}")),
            Operation::ClosestThorough => RecordKey::new(&format!("other target {round}")),
            Operation::Put => RecordKey::new(&format!("put {round} by {client_kind}")),
            Operation::GetAll | Operation::GetFirst => existing(round),
        };
        let quorum = match silent_percent {
            // Kadence waits for the acknowledgements of all peers that it has asked, in order to name them. With a
            // majority, kad would end a put while other peers still answer, during the next measurement.
            0 => Quorum::All,
            few if few < MANY_SILENT => Quorum::Majority,
            _ => NonZeroUsize::new(HARD_QUORUM).map_or(Quorum::Majority, Quorum::N),
        };
        Self { operation, round, key, quorum }
    }
}

/// Returns the key of a record that exists from the beginning.
pub(crate) fn existing(round: usize) -> RecordKey {
    RecordKey::new(&format!("record {round}"))
}

/// Returns the value of every record under this key.
pub(crate) fn value(key: &RecordKey) -> Vec<u8> {
    key.as_ref().iter().copied().cycle().take(VALUE_LEN).collect()
}

/// Sizes of the measurement.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// Number of nodes of a network, including silent ones.
    pub(crate) nodes: usize,
    /// Shares of silent nodes, in percent.
    pub(crate) silent_percents: &'static [usize],
    /// Number of networks for each share.
    pub(crate) networks: usize,
    /// Number of operations of each kind in each network, by Kadence.
    pub(crate) rounds: usize,
    /// The same for both clients without silent peers. There are more rounds, because differences of a few percent are
    /// measured.
    pub(crate) rounds_in_turns: usize,
    /// The same for plain kad with silent peers, where each operation takes tens of seconds.
    pub(crate) plain_rounds: usize,
    /// Interval between the starts of two operations of plain kad in one network. They run concurrently, and must not
    /// slow Kadence down.
    pub(crate) plain_interval: Duration,
    /// Time after which Kadence starts no further operation in a network.
    pub(crate) max_duration: Duration,
    /// Timeout of Kadence's calls. `None`: the default.
    pub(crate) timeout: Option<Duration>,
    /// Maximum time to wait for plain kad. Its own timeout of 60 s is only checked when an event occurs.
    pub(crate) max_wait: Duration,
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
                plain_interval: Duration::from_millis(600),
                max_duration: Duration::from_secs(45),
                timeout: None,
                max_wait: Duration::from_secs(75),
            },
            Mode::Smoke => Self {
                nodes: 10,
                silent_percents: &[0, 30],
                networks: 1,
                rounds: 2,
                rounds_in_turns: 2,
                plain_rounds: 1,
                plain_interval: Duration::from_millis(10),
                max_duration: Duration::from_secs(2),
                timeout: Some(Duration::from_secs(2)),
                max_wait: Duration::from_secs(2),
            },
        }
    }

    /// Returns the number of silent nodes of a network.
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
