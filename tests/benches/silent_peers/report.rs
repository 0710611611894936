//! The tables, and what has to hold.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    time::Duration,
};

use serde_json::json;

use crate::{
    client::Completed,
    plan::{ClientKind, HARD_QUORUM, Operation, Size},
};

/// What 95 of 100 operations have to stay below where few peers are silent.
const FEW_SILENT_P95: Duration = Duration::from_millis(400);

/// Where nobody is silent, the time of an operation of Kadence over one of plain kad: what noise is allowed.
const UNDISTURBED_RATIO: f64 = 1.05;

/// Of puts where 30 % are silent.
const PUTS_AT_30: (f64, Duration) = (0.99, Duration::from_millis(500));

/// Of puts where 50 % are silent, and how many times as many have to succeed as of plain kad's.
const PUTS_AT_50: (f64, Duration, f64) = (0.85, Duration::from_secs(1), 5.0);

/// How many of the true closest peers alive a thorough lookup has to find where 15 % are silent.
const THOROUGH_RECALL: f64 = 0.95;

/// How many standard errors a difference may be below nothing until it counts as a difference.
const STANDARD_ERRORS: f64 = 2.0;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cells: Vec<Cell>,
    /// For each network: how many peers are in one client's routing table only, and how many in both.
    tables: Vec<(usize, usize)>,
}

/// What one client did of one kind, in all networks with one share of silent peers.
#[derive(Debug)]
struct Cell {
    percent: usize,
    operation: Operation,
    client_kind: ClientKind,
    all: Vec<Completed>,
}

/// Something that has to hold.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) detail: String,
    /// Whether it holds on any machine, however busy.
    pub(crate) always: bool,
}

impl Report {
    pub(crate) fn add(&mut self, percent: usize, client_kind: ClientKind, completed: Completed) {
        let operation = completed.job.operation;
        match self
            .cells
            .iter_mut()
            .find(|cell| (cell.percent, cell.operation, cell.client_kind) == (percent, operation, client_kind))
        {
            Some(cell) => cell.all.push(completed),
            None => self.cells.push(Cell { percent, operation, client_kind, all: vec![completed] }),
        }
    }

    pub(crate) fn tables(&mut self, compared: (usize, usize)) {
        self.tables.push(compared);
    }

    fn cell(&self, percent: usize, operation: Operation, client_kind: ClientKind) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| (cell.percent, cell.operation, cell.client_kind) == (percent, operation, client_kind))
    }

    /// The cells in the order of the table.
    fn sorted(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self.cells.iter().collect();
        cells.sort_by_key(|cell| (cell.percent, cell.operation as usize, cell.client_kind as usize));
        cells
    }

    /// For people. Times are of what succeeded.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:>8}  {:<18}{:<11}{:>5}{:>10}{:>10}{:>10}{:>10}{:>8}{:>10}\n",
            "silent", "operation", "client", "n", "p50 ms", "p95 ms", "max ms", "success", "found", "requests"
        );
        for cell in self.sorted() {
            let [p50, p95, max] = [50, 95, 100].map(|p| milliseconds(cell.of_successes(p)));
            let success = format!("{:.1} %", cell.success() * 100.0);
            let figure = |figure: Option<f64>, digits| figure.map_or("-".to_owned(), |f| format!("{f:.digits$}"));
            // A `String` takes everything.
            let _written = writeln!(
                text,
                "{:>6} %  {:<18}{:<11}{:>5}{p50:>10.1}{p95:>10.1}{max:>10.1}{success:>10}{:>8}{:>10}",
                cell.percent,
                cell.operation,
                cell.client_kind,
                cell.all.len(),
                figure(mean(cell.recalls()), 3),
                figure(mean(cell.requests()), 1),
            );
        }
        for cell in self.sorted() {
            let failed: Vec<&Completed> = cell.all.iter().filter(|completed| !completed.answer.ok).collect();
            let max_duration = failed.iter().map(|completed| completed.took).max().unwrap_or_default();
            if let Some(error) = failed.iter().find_map(|completed| completed.answer.error.as_ref()) {
                let _written = writeln!(
                    text,
                    "{} %, {}, {}: {} failed, within {max_duration:.1?}, the first with: {error}",
                    cell.percent,
                    cell.operation,
                    cell.client_kind,
                    failed.len(),
                );
            }
        }
        text
    }

    /// For programs: an object a line.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for cell in self.sorted() {
            let line = json!({
                "silent_percent": cell.percent,
                "operation": cell.operation.to_string(),
                "client": cell.client_kind.to_string(),
                "n": cell.all.len(),
                "p50_ms": milliseconds(cell.of_successes(50)),
                "p95_ms": milliseconds(cell.of_successes(95)),
                "max_ms": milliseconds(cell.of_successes(100)),
                "success": cell.success(),
                "found": mean(cell.recalls()),
                "requests": mean(cell.requests()),
                "wrong": cell.all.iter().filter(|completed| completed.answer.wrong).count(),
            });
            let _written = writeln!(text, "{line}");
        }
        text
    }

    /// What has to hold; of a smoke run, in a network that is too small for the rest, what has to hold always.
    pub(crate) fn checks(&self, size: &Size, smoke: bool) -> Vec<Check> {
        use Operation::{Closest, ClosestThorough, GetAll, Put};
        let mut checks = vec![self.nothing_is_wrong(), self.all_succeed_undisturbed()];
        if smoke {
            return checks;
        }
        checks.extend([self.same_tables(), self.enough_operations(size)]);
        // Two lookups take twice the time of the one beside them.
        let alike = Operation::ALL.iter().filter(|operation| **operation != ClosestThorough);
        checks.extend(alike.filter_map(|&operation| self.undisturbed(operation)));
        for percent in [5, 15] {
            checks.extend([Closest, Put, GetAll].iter().filter_map(|&operation| self.few_silent(percent, operation)));
        }
        checks.extend([Closest, GetAll].iter().filter_map(|&operation| self.recall_at_15(operation)));
        checks.extend(self.thorough_recall(size));
        let (success, p95) = PUTS_AT_30;
        checks.extend(self.puts(30, success, p95));
        let (success, p95, _) = PUTS_AT_50;
        checks.extend(self.puts(50, success, p95));
        checks.extend(self.many_times_the_puts());
        for &percent in size.silent_percents {
            for operation in Operation::ALL {
                checks.extend(self.success_is_no_worse(percent, operation));
                checks.extend(self.recall_is_no_worse(percent, operation));
            }
        }
        checks
    }

    fn nothing_is_wrong(&self) -> Check {
        let wrong = self.cells.iter().flat_map(|cell| &cell.all).filter(|completed| completed.answer.wrong).count();
        Check {
            name: "no answer has other bytes than those that were stored".to_owned(),
            ok: wrong == 0,
            detail: format!("{wrong} have"),
            always: true,
        }
    }

    fn all_succeed_undisturbed(&self) -> Check {
        let ours = self.cells.iter().filter(|cell| cell.percent == 0 && cell.client_kind == ClientKind::Kadence);
        let all: Vec<&Completed> = ours.flat_map(|cell| &cell.all).collect();
        let failed = all.iter().filter(|completed| !completed.answer.ok).count();
        Check {
            name: "0 % silent: every operation of Kadence succeeds".to_owned(),
            ok: failed == 0 && !all.is_empty(),
            detail: format!("{failed} of {} failed", all.len()),
            always: true,
        }
    }

    fn same_tables(&self) -> Check {
        let (differing, common) = self.tables.iter().fold((0, 0), |sum, table| (sum.0 + table.0, sum.1 + table.1));
        Check {
            name: "both clients begin with the same routing tables".to_owned(),
            ok: differing == 0 && common > 0,
            detail: format!("in {} networks {common} entries in common, {differing} not", self.tables.len()),
            always: false,
        }
    }

    fn enough_operations(&self, size: &Size) -> Check {
        let fewest = |client_kind| {
            self.cells
                .iter()
                .filter(|cell| cell.client_kind == client_kind)
                .map(|cell| cell.all.len())
                .min()
                .unwrap_or(0)
        };
        let (ours, theirs) = (fewest(ClientKind::Kadence), fewest(ClientKind::Plain));
        Check {
            name: "no cell was cut short".to_owned(),
            ok: ours == size.rounds * size.networks && theirs >= size.plain_rounds * size.networks,
            detail: format!("at least {ours} operations of Kadence and {theirs} of plain kad in each"),
            always: false,
        }
    }

    fn undisturbed(&self, operation: Operation) -> Option<Check> {
        let pairs = self.pairs(0, operation);
        let mut ratios: Vec<f64> = pairs.iter().map(|(o, t)| o.took.as_secs_f64() / t.took.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |percent: usize| ratios.get(ratios.len() * percent / 100).copied();
        let median = at(50)?;
        Some(Check {
            name: format!("0 % silent, {operation}: at most {UNDISTURBED_RATIO} times the time of plain kad"),
            ok: median <= UNDISTURBED_RATIO,
            detail: format!("median of {} pairs {median:.2}, quartiles {:.2}..{:.2}", ratios.len(), at(25)?, at(75)?),
            always: false,
        })
    }

    fn few_silent(&self, percent: usize, operation: Operation) -> Option<Check> {
        let p95 = self.cell(percent, operation, ClientKind::Kadence)?.of_all(95);
        let beside = milliseconds(self.cell(percent, operation, ClientKind::Plain)?.of_all(95));
        Some(Check {
            name: format!("{percent} % silent, {operation}: 95 of 100 succeed within {FEW_SILENT_P95:?}"),
            ok: p95.is_some_and(|p95| p95 <= FEW_SILENT_P95),
            detail: format!("{:.0} ms; plain kad {beside:.0} ms", milliseconds(p95)),
            always: false,
        })
    }

    fn recall_at_15(&self, operation: Operation) -> Option<Check> {
        let pairs = self.pairs(15, operation);
        let ours = mean(pairs.iter().filter_map(|(ours, _)| ours.recall))?;
        let theirs = mean(pairs.iter().filter_map(|(_, theirs)| theirs.recall))?;
        Some(Check {
            name: format!("15 % silent, {operation}: at least as many of what there is as plain kad"),
            ok: ours >= theirs,
            detail: format!("{ours:.4} of it, plain kad {theirs:.4}, in {} pairs", pairs.len()),
            always: false,
        })
    }

    /// In all shares of silent peers, because it is one figure that tells what the second lookup is worth.
    fn thorough_recall(&self, size: &Size) -> Option<Check> {
        let of = |percent| self.cell(percent, Operation::ClosestThorough, ClientKind::Kadence)?.recall_over_networks();
        let recall = of(15)?;
        let all = size.silent_percents.iter().filter_map(|&percent| Some(format!("{percent} %: {:.4}", of(percent)?)));
        Some(Check {
            name: format!("15 % silent, {}: {THOROUGH_RECALL} of what there is", Operation::ClosestThorough),
            ok: recall >= THOROUGH_RECALL,
            detail: format!("the mean over the networks with {}", all.collect::<Vec<_>>().join(", ")),
            always: false,
        })
    }

    fn puts(&self, percent: usize, success: f64, p95: Duration) -> Option<Check> {
        let ours = self.cell(percent, Operation::Put, ClientKind::Kadence)?;
        let took = ours.of_successes(95);
        Some(Check {
            name: format!(
                "{percent} % silent: {:.0} of 100 puts reach a quorum of {HARD_QUORUM}, 95 of 100 of these within {p95:?}",
                success * 100.0
            ),
            ok: ours.success() >= success && took.is_some_and(|took| took <= p95),
            detail: format!("{:.1} of 100, {:.0} ms", ours.success() * 100.0, milliseconds(took)),
            always: false,
        })
    }

    fn many_times_the_puts(&self) -> Option<Check> {
        let ours = self.cell(50, Operation::Put, ClientKind::Kadence)?.success();
        let theirs = self.cell(50, Operation::Put, ClientKind::Plain)?.success();
        let (_, _, times) = PUTS_AT_50;
        Some(Check {
            name: format!("50 % silent: {times:.0} times as many puts succeed as of plain kad's"),
            ok: ours > 0.0 && ours >= times * theirs,
            detail: format!("{:.1} of 100, plain kad {:.1}", ours * 100.0, theirs * 100.0),
            always: false,
        })
    }

    fn success_is_no_worse(&self, percent: usize, operation: Operation) -> Option<Check> {
        let ours = self.cell(percent, operation, ClientKind::Kadence)?.success();
        let theirs = self.cell(percent, operation, ClientKind::Plain)?.success();
        Some(Check {
            name: format!("{percent} % silent, {operation}: as many succeed as of plain kad's"),
            ok: ours >= theirs,
            detail: format!("{:.1} of 100, plain kad {:.1}", ours * 100.0, theirs * 100.0),
            always: false,
        })
    }

    /// Of lookups by the same targets; of puts, whose keys differ, by all there are. A difference within its own
    /// noise is none.
    fn recall_is_no_worse(&self, percent: usize, operation: Operation) -> Option<Check> {
        let (difference, error) = if operation == Operation::Put {
            let recalls = |client_kind| Some(self.cell(percent, operation, client_kind)?.recalls().collect::<Vec<_>>());
            let (ours, theirs) = (recalls(ClientKind::Kadence)?, recalls(ClientKind::Plain)?);
            let difference = mean(ours.iter().copied())? - mean(theirs.iter().copied())?;
            (difference, standard_error(&ours).hypot(standard_error(&theirs)))
        } else {
            let pairs = self.pairs(percent, operation);
            let differences: Vec<f64> = pairs.iter().filter_map(|(o, t)| Some(o.recall? - t.recall?)).collect();
            (mean(differences.iter().copied())?, standard_error(&differences))
        };
        Some(Check {
            name: format!("{percent} % silent, {operation}: no less is found than by plain kad"),
            ok: difference >= -STANDARD_ERRORS * error,
            detail: format!("{difference:+.4}, standard error {error:.4}"),
            always: false,
        })
    }

    /// What both clients were asked, in the same network and the same round.
    fn pairs(&self, percent: usize, operation: Operation) -> Vec<(&Completed, &Completed)> {
        let all = |client_kind| self.cell(percent, operation, client_kind).map_or(&[][..], |cell| &cell.all);
        let place = |completed: &Completed| (completed.network, completed.job.round);
        let theirs: HashMap<_, _> = all(ClientKind::Plain).iter().map(|theirs| (place(theirs), theirs)).collect();
        all(ClientKind::Kadence).iter().filter_map(|ours| Some((ours, *theirs.get(&place(ours))?))).collect()
    }
}

impl Cell {
    fn success(&self) -> f64 {
        self.all.iter().filter(|completed| completed.answer.ok).count() as f64 / self.all.len() as f64
    }

    fn recalls(&self) -> impl Iterator<Item = f64> {
        self.all.iter().filter_map(|completed| completed.recall)
    }

    /// The mean of the means of each network.
    fn recall_over_networks(&self) -> Option<f64> {
        let mut networks: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for completed in &self.all {
            networks.entry(completed.network).or_default().extend(completed.recall);
        }
        mean(networks.into_values().filter_map(|recalls| mean(recalls.into_iter())))
    }

    fn requests(&self) -> impl Iterator<Item = f64> {
        self.all.iter().filter_map(|completed| completed.answer.requests).map(f64::from)
    }

    /// The time that so many of a hundred successes do not exceed.
    fn of_successes(&self, percent: usize) -> Option<Duration> {
        let times = self.times();
        percentile(&times, times.len(), percent)
    }

    /// The time within which so many of a hundred operations have succeeded; none if fewer ever did.
    fn of_all(&self, percent: usize) -> Option<Duration> {
        percentile(&self.times(), self.all.len(), percent)
    }

    /// Of successes, the shortest first.
    fn times(&self) -> Vec<Duration> {
        let mut times: Vec<_> =
            self.all.iter().filter(|completed| completed.answer.ok).map(|completed| completed.took).collect();
        times.sort_unstable();
        times
    }
}

fn percentile(sorted: &[Duration], of: usize, percent: usize) -> Option<Duration> {
    sorted.get((of * percent).div_ceil(100).max(1) - 1).copied()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// Of the mean of values.
fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let Some(mean) = mean(values.iter().copied()).filter(|_| values.len() > 1) else { return f64::INFINITY };
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (n - 1.0) / n).sqrt()
}

fn milliseconds(span: Option<Duration>) -> f64 {
    span.map_or(f64::NAN, |span| span.as_secs_f64() * 1_000.0)
}
