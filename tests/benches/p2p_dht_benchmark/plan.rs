//! How large, how often, and in which order.

use std::{fmt, ops::Range, time::Duration};

use kadence_tests::bench::Mode;

/// How much longer than its deadline a call is waited for, before it counts as lost.
const GRACE: Duration = Duration::from_secs(5);

/// The sizes of a network and of what is asked of it.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    pub(crate) servers: usize,
    /// Records that exist.
    pub(crate) keys: usize,
    /// Servers that hold each of them, the closest ones to its key. kad's own number is 20.
    pub(crate) replicas: usize,
    /// The timeout of a Kadence call.
    pub(crate) deadline: Duration,
    /// The burst that is repeated; the larger ones are made of as many gets at least.
    small: usize,
    medium: usize,
    /// Callers at once, each with one get after the other.
    callers: usize,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientKind {
    Kadence,
    /// The naive client, that lets its queries run on.
    FirstEvent,
    /// The naive client, that finishes its queries.
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

/// How many gets at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Load {
    /// All at once, so many times one after the other.
    Bursts { gets: usize, times: usize },
    /// So many callers, so many gets in all.
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

/// A line of the table.
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

    /// How long a call is waited for.
    pub(crate) fn max_wait(&self) -> Duration {
        self.deadline + GRACE
    }

    /// Small bursts, in all as many gets as a medium one.
    pub(crate) fn small(&self) -> Load {
        Load::Bursts { gets: self.small, times: self.medium / self.small }
    }

    pub(crate) fn medium(&self) -> Load {
        Load::Bursts { gets: self.medium, times: 1 }
    }

    /// Every record there is, at once.
    pub(crate) fn large(&self) -> Load {
        Load::Bursts { gets: self.keys, times: 1 }
    }

    pub(crate) fn callers(&self) -> Load {
        Load::Callers { callers: self.callers, gets: self.medium }
    }

    /// A few gets, to make the connections.
    pub(crate) fn first(&self) -> Load {
        Load::Bursts { gets: self.small, times: 1 }
    }

    /// What is measured in this run on one runtime, in this order: ratios are between neighbours.
    pub(crate) fn cases(&self, mode: Mode, run: usize, runtime_index: usize) -> Vec<Case> {
        use ClientKind::{FirstEvent, FirstRecord, Kadence};
        let case = |client_kind, load| Case { client_kind, load };
        let mut cases = vec![case(Kadence, self.small())];
        if runtime_index == 0 || mode != Mode::Quick {
            // Small ones before and after: a long measurement on a busy machine is to be compared with the same times.
            cases.extend([case(Kadence, self.large()), case(Kadence, self.small())]);
        }
        cases.extend([
            case(FirstRecord, self.small()),
            case(Kadence, self.callers()),
            case(FirstRecord, self.medium()),
            case(Kadence, self.medium()),
        ]);
        // Once, because each of these takes as long as much of the rest: the cost of what runs at once is quadratic.
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

    /// The records that a measurement asks for: others in the next run.
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
