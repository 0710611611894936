//! Table of results, and checks of targets.

use std::{fmt::Write, time::Duration};

use serde_json::json;

use crate::{
    burst::GetResults,
    plan::{Case, ClientKind, Load, Size},
};

/// Minimum throughput of a burst of all records, relative to small bursts.
const LARGE_OVER_SMALL: f64 = 0.85;

/// Maximum 95th percentile of the latency with a few dozen concurrent callers.
const P95: Duration = Duration::from_millis(200);

/// Explanation of the table's columns.
const COLUMNS: &str = "\
gets at once: concurrent gets (`10 x 200`: ten bursts of 200 in succession; `64 callers, 2000`: 64 callers share 2,000)
client: Kadence, or a map from query ids to callers that finishes its queries or answers from their first event
gets/s: correct answers per second, median (minimum..maximum) of the runs
p50, p95, max ms: latency of correct answers in milliseconds, queueing included; median of the runs
cpu us: processor time of the whole process per get, in microseconds, servers included
failed, false, lost, wrong: gets that ended with an error, that falsely reported a missing record, that were never
answered, and that returned a wrong value, in all runs
after s: seconds from the last answer until kad had no running query
";

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// All runs of a case on one runtime.
#[derive(Debug)]
struct Row {
    runtime: &'static str,
    case: Case,
    runs: Vec<GetResults>,
}

/// Condition that the results have to meet.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) detail: String,
    /// Depends on the machine and its other load.
    pub(crate) timing: bool,
}

impl Report {
    pub(crate) fn add(&mut self, runtime: &'static str, case: Case, gets: GetResults) {
        match self.rows.iter_mut().find(|row| row.runtime == runtime && row.case == case) {
            Some(row) => row.runs.push(gets),
            None => self.rows.push(Row { runtime, case, runs: vec![gets] }),
        }
    }

    fn row(&self, runtime: &str, client_kind: ClientKind, load: Load) -> Option<&Row> {
        self.rows.iter().find(|row| row.runtime == runtime && row.case == Case { client_kind, load })
    }

    /// Returns the rows, grouped by runtime and load.
    fn sorted(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        let place = |row: &Row| self.rows.iter().position(|first| first.runtime == row.runtime);
        rows.sort_by_key(|row| {
            let Case { client_kind, load } = row.case;
            (place(row), matches!(load, Load::Callers { .. }), load.largest(), client_kind)
        });
        rows
    }

    /// Returns the results as a table, with an explanation of its columns.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<17}{:<18}{:<18}{:>5}{:>9}{:>16}{:>10}{:>10}{:>10}{:>9}{:>8}{:>7}{:>6}{:>7}{:>9}\n",
            "runtime",
            "gets at once",
            "client",
            "runs",
            "gets/s",
            "(min..max)",
            "p50 ms",
            "p95 ms",
            "max ms",
            "cpu us",
            "failed",
            "false",
            "lost",
            "wrong",
            "after s"
        );
        for row in self.sorted() {
            let throughput = row.spread(GetResults::throughput);
            let [p50, p95, max] = [50, 95, 100].map(|p| row.spread(|gets| gets.percentile(p)).median);
            let count = |of: fn(&GetResults) -> usize| row.runs.iter().map(of).sum::<usize>();
            // Writing to a `String` never fails.
            let _written = writeln!(
                text,
                "{:<17}{:<18}{:<18}{:>5}{:>9.0}{:>16}{p50:>10.1}{p95:>10.1}{max:>10.1}{:>9}{:>8}{:>7}{:>6}{:>7}{:>9.1}",
                row.runtime,
                row.case.load,
                row.case.client_kind,
                row.runs.len(),
                throughput.median,
                format!("({:.0}..{:.0})", throughput.min, throughput.max),
                row.cpu().map_or_else(|| "-".to_owned(), |cpu| format!("{:.0}", cpu.median)),
                count(|gets| gets.failed),
                count(|gets| gets.not_found),
                count(GetResults::lost),
                count(|gets| gets.wrong),
                row.spread(|gets| gets.drain_time.as_secs_f64()).median,
            );
        }
        for row in &self.rows {
            if let Some(error) = row.runs.iter().find_map(|gets| gets.first_failure.as_ref()) {
                let _written = writeln!(
                    text,
                    "{}, {}, {}: first failure: {error}",
                    row.runtime, row.case.load, row.case.client_kind
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
        for row in self.sorted() {
            for (run, gets) in row.runs.iter().enumerate() {
                let line = json!({
                    "runtime": row.runtime,
                    "client": row.case.client_kind.to_string(),
                    "load": row.case.load.to_string(),
                    "run": run,
                    "gets": gets.asked,
                    "seconds": gets.wall.as_secs_f64(),
                    "gets_per_second": gets.throughput(),
                    "p50_ms": gets.percentile(50),
                    "p95_ms": gets.percentile(95),
                    "max_ms": gets.percentile(100),
                    "cpu_us_per_get": gets.cpu_per_get(),
                    "failed": gets.failed,
                    "false_not_found": gets.not_found,
                    "lost": gets.lost(),
                    "wrong": gets.wrong,
                    "busy_after_seconds": gets.drain_time.as_secs_f64(),
                });
                let _written = writeln!(text, "{line}");
            }
        }
        text
    }

    /// Checks all results.
    pub(crate) fn checks(&self, size: &Size) -> Vec<Check> {
        let mut checks = vec![self.every_get_is_right()];
        let mut runtimes: Vec<&str> = self.sorted().iter().map(|row| row.runtime).collect();
        runtimes.dedup();
        for runtime in runtimes {
            checks.extend(self.large_bursts_are_no_slower(runtime, size));
            checks.extend(self.callers_do_not_wait(runtime, size));
        }
        checks
    }

    fn every_get_is_right(&self) -> Check {
        let runs = self.rows.iter().filter(|row| row.case.client_kind == ClientKind::Kadence).flat_map(|row| &row.runs);
        let (asked, not_right) = runs.fold((0, 0), |sum, gets| (sum.0 + gets.asked, sum.1 + gets.not_right()));
        Check {
            name: "every get of Kadence returns its record".to_owned(),
            ok: not_right == 0 && asked > 0,
            detail: format!("{not_right} of {asked} gets failed, were lost, or had a wrong result"),
            timing: false,
        }
    }

    fn large_bursts_are_no_slower(&self, runtime: &str, size: &Size) -> Option<Check> {
        let small = self.row(runtime, ClientKind::Kadence, size.small())?;
        let large = self.row(runtime, ClientKind::Kadence, size.large())?;
        let groups = small.runs.chunks(small.runs.len().div_ceil(large.runs.len()));
        let pairs = groups
            .zip(&large.runs)
            .map(|(small, large)| large.throughput() / Spread::of(small.iter().map(GetResults::throughput)).median);
        let paired = Spread::of(pairs);
        let cpu = small.cpu().zip(large.cpu()).map(|(small, large)| large.median / small.median);
        let cpu = cpu.map(|ratio| format!("; {ratio:.2} times the processor time per get")).unwrap_or_default();
        let ratio = large.spread(GetResults::throughput).median / small.spread(GetResults::throughput).median;
        Some(Check {
            name: format!(
                "{runtime}: {} concurrent gets reach at least {LARGE_OVER_SMALL} of the throughput of {}",
                size.large(),
                size.small()
            ),
            ok: ratio >= LARGE_OVER_SMALL,
            detail: format!(
                "{ratio:.2}, from medians of {} runs; {:.2}..{:.2} in single runs{cpu}",
                large.runs.len(),
                paired.min,
                paired.max
            ),
            timing: true,
        })
    }

    fn callers_do_not_wait(&self, runtime: &str, size: &Size) -> Option<Check> {
        let p95 = self.row(runtime, ClientKind::Kadence, size.callers())?.spread(|gets| gets.percentile(95));
        Some(Check {
            name: format!("{runtime}: 95 % of the gets of {} take less than {P95:?}", size.callers()),
            ok: p95.median < milliseconds(P95),
            detail: format!("{:.1} ms, {:.1}..{:.1}", p95.median, p95.min, p95.max),
            timing: true,
        })
    }

    /// Compares Kadence's throughput with that of each other client, on the same runtime under the same load.
    pub(crate) fn comparisons(&self) -> Vec<String> {
        let others = self.sorted().into_iter().filter(|row| row.case.client_kind != ClientKind::Kadence);
        others
            .filter_map(|other| {
                let ours = self.row(other.runtime, ClientKind::Kadence, other.case.load)?;
                let per_run = ours.runs.len().div_ceil(other.runs.len());
                let pairs = ours.runs.chunks(per_run).zip(&other.runs);
                let ratios = Spread::of(pairs.map(|(ours, other)| {
                    Spread::of(ours.iter().map(GetResults::throughput)).median / other.throughput()
                }));
                Some(format!(
                    "{}, {}: Kadence has {:.2} times ({:.2}..{:.2}) the throughput of `{}`",
                    other.runtime, other.case.load, ratios.median, ratios.min, ratios.max, other.case.client_kind
                ))
            })
            .collect()
    }
}

impl Row {
    fn spread(&self, of: impl Fn(&GetResults) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(of))
    }

    /// Returns the processor time per get, in microseconds.
    fn cpu(&self) -> Option<Spread> {
        let each: Option<Vec<f64>> = self.runs.iter().map(GetResults::cpu_per_get).collect();
        each.map(|each| Spread::of(each.into_iter()))
    }
}

impl Load {
    fn largest(self) -> usize {
        match self {
            Self::Bursts { gets, .. } | Self::Callers { gets, .. } => gets,
        }
    }
}

impl GetResults {
    /// Returns the processor time per get, in microseconds.
    fn cpu_per_get(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.asked as f64)
    }

    /// Returns a percentile of the latency of correct answers, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().map_or(f64::NAN, milliseconds)
    }
}

/// Median and extremes of a figure over all runs.
#[derive(Debug, Clone, Copy)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let (last, middle) = (sorted.len().saturating_sub(1), sorted.len() / 2);
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { min: at(0), median, max: at(last) }
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
