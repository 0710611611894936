//! Table of results, and checks of targets.

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

/// Maximum 95th percentile of the duration with few silent peers.
const FEW_SILENT_P95: Duration = Duration::from_millis(400);

/// Maximum ratio of Kadence's time to plain kad's without silent peers. The excess over 1 allows for noise.
const UNDISTURBED_RATIO: f64 = 1.05;

/// Minimum success rate and maximum 95th percentile of puts with 30 % silent peers.
const PUTS_AT_30: (f64, Duration) = (0.99, Duration::from_millis(500));

/// The same with 50 % silent peers, and the minimum ratio of Kadence's success rate to plain kad's.
const PUTS_AT_50: (f64, Duration, f64) = (0.85, Duration::from_secs(1), 5.0);

/// Minimum share of the true closest peers that a thorough lookup finds with 15 % silent peers.
const THOROUGH_RECALL: f64 = 0.95;

/// Number of standard errors by which a difference must be negative to count.
const STANDARD_ERRORS: f64 = 2.0;

/// Explanation of the table's columns.
const COLUMNS: &str = "\
silent: share of silent peers; n: number of operations
p50, p95, max ms: duration of successful operations, in milliseconds: median, 95th percentile, maximum
success: share of operations that succeeded
found: share of the 20 closest answering peers that a lookup returned, that sent a get its record, or that hold a put's
record in the end
requests: mean number of requests to peers per operation, as kad counts them
";

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cells: Vec<Cell>,
    /// For each network, the number of peers in only one client's routing table, and in both.
    tables: Vec<(usize, usize)>,
}

/// Results of one client for one kind of operation, in all networks with one share of silent peers.
#[derive(Debug)]
struct Cell {
    percent: usize,
    operation: Operation,
    client_kind: ClientKind,
    all: Vec<Completed>,
}

/// Condition that the results have to meet.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) detail: String,
    /// Holds on any machine, under any load.
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

    /// Returns the cells in the order of the table.
    fn sorted(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self.cells.iter().collect();
        cells.sort_by_key(|cell| (cell.percent, cell.operation as usize, cell.client_kind as usize));
        cells
    }

    /// Returns the results as a table, with an explanation of its columns.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:>8}  {:<18}{:<11}{:>5}{:>10}{:>10}{:>10}{:>10}{:>8}{:>10}\n",
            "silent", "operation", "client", "n", "p50 ms", "p95 ms", "max ms", "success", "found", "requests"
        );
        for cell in self.sorted() {
            let [p50, p95, max] = [50, 95, 100].map(|p| milliseconds(cell.of_successes(p)));
            let success = format!("{:.1} %", cell.success() * 100.0);
            let figure = |figure: Option<f64>, digits| figure.map_or("-".to_owned(), |f| format!("{f:.digits$}"));
            // Writing to a `String` never fails.
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
                    "{} % silent, {}, {}: {} failed, after at most {max_duration:.1?}; first failure: {error}",
                    cell.percent,
                    cell.operation,
                    cell.client_kind,
                    failed.len(),
                );
            }
        }
        text.push('\n');
        text.push_str(COLUMNS);
        text
    }

    /// Returns the results as one JSON object per line.
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

    /// Checks all results. In a smoke run, whose network is too small for the targets, only the conditions that always
    /// hold.
    pub(crate) fn checks(&self, size: &Size, smoke: bool) -> Vec<Check> {
        use Operation::{Closest, ClosestThorough, GetAll, Put};
        let mut checks = vec![self.nothing_is_wrong(), self.all_succeed_undisturbed()];
        if smoke {
            return checks;
        }
        checks.extend([self.same_tables(), self.enough_operations(size)]);
        // A thorough lookup takes twice as long as the ordinary lookup of plain kad.
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
            name: "no answer has a wrong value".to_owned(),
            ok: wrong == 0,
            detail: format!("{wrong} wrong values"),
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
            name: "both clients start with the same routing tables".to_owned(),
            ok: differing == 0 && common > 0,
            detail: format!(
                "in {} networks, {common} entries in both tables and {differing} in one",
                self.tables.len()
            ),
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
            name: "every row of the table has its full number of operations".to_owned(),
            ok: ours == size.rounds * size.networks && theirs >= size.plain_rounds * size.networks,
            detail: format!("at least {ours} operations of Kadence and {theirs} of plain kad"),
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
        let plain = milliseconds(self.cell(percent, operation, ClientKind::Plain)?.of_all(95));
        Some(Check {
            name: format!("{percent} % silent, {operation}: 95 % succeed within {FEW_SILENT_P95:?}"),
            ok: p95.is_some_and(|p95| p95 <= FEW_SILENT_P95),
            detail: format!("{:.0} ms; plain kad {plain:.0} ms", milliseconds(p95)),
            always: false,
        })
    }

    fn recall_at_15(&self, operation: Operation) -> Option<Check> {
        let pairs = self.pairs(15, operation);
        let ours = mean(pairs.iter().filter_map(|(ours, _)| ours.recall))?;
        let theirs = mean(pairs.iter().filter_map(|(_, theirs)| theirs.recall))?;
        Some(Check {
            name: format!("15 % silent, {operation}: finds at least as much as plain kad"),
            ok: ours >= theirs,
            detail: format!("share found {ours:.4}, plain kad {theirs:.4}, in {} pairs", pairs.len()),
            always: false,
        })
    }

    /// Reports all shares of silent peers, because this figure shows the benefit of the second lookup.
    fn thorough_recall(&self, size: &Size) -> Option<Check> {
        let of = |percent| self.cell(percent, Operation::ClosestThorough, ClientKind::Kadence)?.recall_over_networks();
        let recall = of(15)?;
        let all = size.silent_percents.iter().filter_map(|&percent| Some(format!("{percent} %: {:.4}", of(percent)?)));
        Some(Check {
            name: format!("15 % silent, {}: finds a share of at least {THOROUGH_RECALL}", Operation::ClosestThorough),
            ok: recall >= THOROUGH_RECALL,
            detail: format!("mean over all networks, with {}", all.collect::<Vec<_>>().join(", ")),
            always: false,
        })
    }

    fn puts(&self, percent: usize, success: f64, p95: Duration) -> Option<Check> {
        let ours = self.cell(percent, Operation::Put, ClientKind::Kadence)?;
        let took = ours.of_successes(95);
        Some(Check {
            name: format!(
                "{percent} % silent: {:.0} % of puts reach a quorum of {HARD_QUORUM}, 95 % of those within {p95:?}",
                success * 100.0
            ),
            ok: ours.success() >= success && took.is_some_and(|took| took <= p95),
            detail: format!("{:.1} %, {:.0} ms", ours.success() * 100.0, milliseconds(took)),
            always: false,
        })
    }

    fn many_times_the_puts(&self) -> Option<Check> {
        let ours = self.cell(50, Operation::Put, ClientKind::Kadence)?.success();
        let theirs = self.cell(50, Operation::Put, ClientKind::Plain)?.success();
        let (_, _, times) = PUTS_AT_50;
        Some(Check {
            name: format!("50 % silent: at least {times:.0} times as many puts succeed as with plain kad"),
            ok: ours > 0.0 && ours >= times * theirs,
            detail: format!("{:.1} %, plain kad {:.1} %", ours * 100.0, theirs * 100.0),
            always: false,
        })
    }

    fn success_is_no_worse(&self, percent: usize, operation: Operation) -> Option<Check> {
        let ours = self.cell(percent, operation, ClientKind::Kadence)?.success();
        let theirs = self.cell(percent, operation, ClientKind::Plain)?.success();
        Some(Check {
            name: format!("{percent} % silent, {operation}: at least as many succeed as with plain kad"),
            ok: ours >= theirs,
            detail: format!("{:.1} %, plain kad {:.1} %", ours * 100.0, theirs * 100.0),
            always: false,
        })
    }

    /// Compares lookups pair by pair; puts, whose keys differ, as a whole. A difference within its own noise does not
    /// count.
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
            name: format!("{percent} % silent, {operation}: finds no less than plain kad"),
            ok: difference >= -STANDARD_ERRORS * error,
            detail: format!("{difference:+.4}, standard error {error:.4}"),
            always: false,
        })
    }

    /// Returns the operations that both clients ran in the same network and round.
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

    /// Returns the mean of the means of all networks.
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

    /// Returns a percentile of the duration of successful operations.
    fn of_successes(&self, percent: usize) -> Option<Duration> {
        let times = self.times();
        percentile(&times, times.len(), percent)
    }

    /// Returns the time within which this share of all operations has succeeded, or `None` if fewer ever did.
    fn of_all(&self, percent: usize) -> Option<Duration> {
        percentile(&self.times(), self.all.len(), percent)
    }

    /// Returns the durations of successful operations, sorted.
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

/// Returns the standard error of the mean.
fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let Some(mean) = mean(values.iter().copied()).filter(|_| values.len() > 1) else { return f64::INFINITY };
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (n - 1.0) / n).sqrt()
}

fn milliseconds(span: Option<Duration>) -> f64 {
    span.map_or(f64::NAN, |span| span.as_secs_f64() * 1_000.0)
}
