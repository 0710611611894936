//! Measurements and checks.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use serde_json::json;

/// All measurements and checks of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    checks: Vec<Check>,
}

/// Times of one measurement.
#[derive(Debug)]
struct Row {
    what: String,
    times: Times,
    note: String,
}

/// Durations in ascending order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

/// A check of a measurement.
#[derive(Debug)]
struct Check {
    what: String,
    ok: bool,
    detail: String,
    /// True for a check that holds on any machine, however busy; false for a target.
    always: bool,
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }
}

impl Times {
    /// Returns the time below which `percent` percent of the times are.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

impl Report {
    pub(crate) fn row(&mut self, what: impl Into<String>, times: impl Into<Times>, note: impl Into<String>) -> Times {
        let row = Row { what: what.into(), times: times.into(), note: note.into() };
        let times = row.times.clone();
        eprintln!("{row}");
        self.rows.push(row);
        times
    }

    /// Adds a target, which depends on the machine, too.
    pub(crate) fn target(&mut self, what: impl Into<String>, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { what: what.into(), ok, detail: detail.into(), always: false });
    }

    pub(crate) fn always(&mut self, what: impl Into<String>, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { what: what.into(), ok, detail: detail.into(), always: true });
    }

    /// Formats a table.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:<52}{:>6}{:>11}{:>11}{:>11}\n", "what", "n", "p50 ms", "p95 ms", "longest");
        for row in &self.rows {
            // Writing to a `String` cannot fail.
            let _written = writeln!(text, "{row}");
        }
        for Check { what, ok, detail, .. } in &self.checks {
            let _written = write!(text, "\n{:<7}{what} ({detail})", if *ok { "ok" } else { "NOT OK" });
        }
        text
    }

    /// Formats one JSON object per line.
    pub(crate) fn lines(&self) -> String {
        let rows = self.rows.iter().map(|Row { what, times, note }| {
            let [p50, p95, max] = [50, 95, 100].map(|percent| milliseconds(times.percentile(percent)));
            json!({ "what": what, "n": times.0.len(), "p50_ms": p50, "p95_ms": p95, "max_ms": max, "note": note })
        });
        let checks = self
            .checks
            .iter()
            .map(|Check { what, ok, detail, always: _ }| json!({ "check": what, "ok": ok, "detail": detail }));
        rows.chain(checks).map(|line| line.to_string() + "\n").collect()
    }

    /// Returns whether the checks hold. Targets count only if `strict`.
    pub(crate) fn is_ok(&self, strict: bool) -> bool {
        self.checks.iter().all(|check| check.ok || !(check.always || strict))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, times, note } = self;
        let [p50, p95, max] = [50, 95, 100].map(|percent| milliseconds(times.percentile(percent)));
        write!(f, "{what:<52}{:>6}{p50:>11.1}{p95:>11.1}{max:>11.1}  {note}", times.0.len())
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
