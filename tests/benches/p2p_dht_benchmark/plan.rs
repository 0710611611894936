//! Sizes of the network, and the order of measurements.

use std::{fmt, ops::Range, time::Duration};

use kadence_tests::bench::Mode;

/// Time after its deadline at which a call counts as lost.
const GRACE: Duration = Duration::from_secs(5);

/// Sizes of the network and of the loads.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    pub(crate) servers: usize,
    /// Number of records.
    pub(crate) keys: usize,
    /// Number of servers that hold each record: those closest to its key. kad's default is 20.
    pub(crate) replicas: usize,
    /// Timeout of a Kadence call.
    pub(crate) deadline: Duration,
    /// Gets of a small burst, which is repeated. Larger bursts have at least as many gets as all of its repetitions.
    small: usize,
    medium: usize,
    /// Number of concurrent callers. Each makes one get after the other.
    callers: usize,
}

/// Client that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientKind {
    Kadence,
    /// Naive client that lets its queries run to their end.
    FirstEvent,
    /// Naive client that finishes a query at its first record.
    FirstRecord,
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kadence => "Kadence",
            Self::FirstEvent => "map, first event",
            Self::FirstRecord => "map, finishing",
        })
    }
}

/// Concurrency of the gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Load {
    /// Bursts of `gets` concurrent gets, `times` times in succession.
    Bursts { gets: usize, times: usize },
    /// `callers` concurrent callers, which make `gets` gets in total.
    Callers { callers: usize, gets: usize },
}

impl Load {
    pub(crate) fn gets(self) -> usize {
        match self {
            Self::Bursts { gets, times } => gets * times,
            Self::Callers { gets, .. } => gets,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Bursts { gets, times: 1 } => format!("{gets}"),
            Self::Bursts { gets, times } => format!("{times} x {gets}"),
            Self::Callers { callers, gets } => format!("{callers} callers, {gets}"),
        })
    }
}

/// Case to measure: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Case {
    pub(crate) client_kind: ClientKind,
    pub(crate) load: Load,
}

impl Size {
    pub(crate) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Quick | Mode::Full => Self {
                servers: 30,
                keys: 20_000,
                replicas: 20,
                deadline: Duration::from_secs(300),
                small: 200,
                medium: 2_000,
                callers: 64,
            },
            Mode::Smoke => Self {
                servers: 6,
                keys: 400,
                replicas: 4,
                deadline: Duration::from_secs(30),
                small: 20,
                medium: 100,
                callers: 8,
            },
        }
    }

    /// Returns the time after which a call counts as lost.
    pub(crate) fn max_wait(&self) -> Duration {
        self.deadline + GRACE
    }

    /// Returns repeated small bursts with as many gets as a medium one.
    pub(crate) fn small(&self) -> Load {
        Load::Bursts { gets: self.small, times: self.medium / self.small }
    }

    pub(crate) fn medium(&self) -> Load {
        Load::Bursts { gets: self.medium, times: 1 }
    }

    /// Returns one burst with a get for every record.
    pub(crate) fn large(&self) -> Load {
        Load::Bursts { gets: self.keys, times: 1 }
    }

    pub(crate) fn callers(&self) -> Load {
        Load::Callers { callers: self.callers, gets: self.medium }
    }

    /// Returns the warm-up load.
    pub(crate) fn first(&self) -> Load {
        Load::Bursts { gets: self.small, times: 1 }
    }

    /// Returns the cases to measure in this run on one runtime, in order. Cases that are compared are neighbours.
    pub(crate) fn cases(&self, mode: Mode, run: usize, runtime_index: usize) -> Vec<Case> {
        use ClientKind::{FirstEvent, FirstRecord, Kadence};
        let case = |client_kind, load| Case { client_kind, load };
        let mut cases = vec![case(Kadence, self.small())];
        if runtime_index == 0 || mode != Mode::Quick {
            // Small bursts before and after the large one, so that a busy machine affects both alike.
            cases.extend([case(Kadence, self.large()), case(Kadence, self.small())]);
        }
        cases.extend([
            case(FirstRecord, self.small()),
            case(Kadence, self.callers()),
            case(FirstRecord, self.medium()),
            case(Kadence, self.medium()),
        ]);
        // Measured once, because these cases take very long: the cost of concurrent queries is quadratic.
        if run == 0 && (runtime_index == 0 || mode == Mode::Full) {
            cases.push(case(FirstEvent, self.medium()));
        }
        if run == 0 && runtime_index == 0 {
            cases.push(case(FirstRecord, self.large()));
        }
        if run == 0 && mode != Mode::Quick {
            cases.push(case(FirstEvent, self.small()));
        }
        cases
    }

    /// Returns the records that a measurement gets. Each run gets different ones.
    pub(crate) fn records(&self, load: Load, run: usize) -> Range<usize> {
        let spare = self.keys - load.gets();
        let start = if spare == 0 { 0 } else { run * load.gets() % spare };
        start..start + load.gets()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers, keys, replicas, .. } = self;
        write!(f, "{servers} servers in one process, {keys} records, each at the {replicas} servers closest to its key")
    }
}
