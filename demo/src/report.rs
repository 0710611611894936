//! What the demo says at its end.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{
    disturb::{Cancelled, Killed},
    measure::Operations,
};
use crate::output;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    /// Nodes that store and answer.
    pub(super) nodes: usize,
    /// Whether they run on tokio, async-std and smol in turn, and not all on tokio.
    pub(super) mixed: bool,
    /// Further nodes, that only ask.
    pub(super) clients: usize,
    pub(super) files: usize,
    pub(super) stored: usize,
    pub(super) stored_bytes: usize,
    /// Files over the limit of a value.
    pub(super) refused: usize,
    pub(super) operations: Operations,
    pub(super) cancelled: Cancelled,
    pub(super) killed: Killed,
    pub(super) checks: Vec<Check>,
    pub(super) seed: u64,
    pub(super) seconds: f64,
}

/// Something that has to hold.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
}

impl Report {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).map(|()| text).unwrap_or_default()
    }

    fn write_table(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "{} nodes and {} clients{}; {} of {} files stored ({} bytes), {} refused as too large\n",
            self.nodes,
            self.clients,
            if self.mixed { " on tokio, async-std and smol" } else { "" },
            self.stored,
            self.files,
            self.stored_bytes,
            self.refused
        )?;
        writeln!(
            text,
            "{:<16}{:>7}{:>7}{:>8}{:>10}{:>10}{:>10}",
            "operation", "count", "ok", "failed", "p50 ms", "p95 ms", "max ms"
        )?;
        for (name, row) in self.operations.rows() {
            let [p50, p95, max] = [row.p50_ms, row.p95_ms, row.max_ms].map(figure);
            writeln!(text, "{name:<16}{:>7}{:>7}{:>8}{p50:>10}{p95:>10}{max:>10}", row.count, row.ok, row.failed)?;
        }
        writeln!(text)?;
        write_checks(text, &self.checks, self.seconds)
    }
}

/// Ends a table: what had to hold, and whether all of it did.
pub(super) fn write_checks(text: &mut String, checks: &[Check], seconds: f64) -> fmt::Result {
    for Check { name, ok, detail } in checks {
        let verdict = if *ok { "ok" } else { "FAILED" };
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        writeln!(text, "{verdict:<6} {name}{detail}")?;
    }
    let all = checks.iter().all(|check| check.ok);
    let verdict = if all { "all is as it should be" } else { "NOT all is as it should be" };
    write!(text, "\n{verdict}, after {seconds:.1} s")
}

/// Prints a report, as a table or as one JSON object with the table beside it.
///
/// # Errors
///
/// If a check failed, or nothing can be printed.
pub(super) fn conclude(report: &impl Serialize, table: String, checks: &[Check], json: bool) -> anyhow::Result<()> {
    if json {
        output::note(table);
        output::json(report)?;
    } else {
        output::line(table)?;
    }
    verdict(checks)
}

/// # Errors
///
/// If a check failed.
fn verdict(checks: &[Check]) -> anyhow::Result<()> {
    let failed: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(ChecksFailed(format!("{} of {} checks failed: {}", failed.len(), checks.len(), failed.join("; "))).into())
}

/// Error of a demo whose report was printed, and in which a check failed.
#[derive(Debug)]
pub struct ChecksFailed(String);

impl fmt::Display for ChecksFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ChecksFailed {}

fn figure(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        Report {
            ok: checks.iter().all(|check| check.ok),
            nodes: 4,
            mixed: true,
            clients: 4,
            files: 3,
            stored: 2,
            stored_bytes: 10,
            refused: 1,
            operations: Operations::default(),
            cancelled: Cancelled::default(),
            killed: Killed::default(),
            checks,
            seed: 1,
            seconds: 1.25,
        }
    }

    #[test]
    fn a_failed_check_is_named_and_fails_the_demo() {
        let good = Check { name: "one", ok: true, detail: String::new() };
        let bad = Check { name: "two", ok: false, detail: "3 of 4".to_owned() };
        assert!(verdict(&report(vec![good.clone()]).checks).is_ok());
        let report = report(vec![good, bad]);
        assert!(report.table().contains("ok     one\nFAILED two (3 of 4)\n"));
        assert!(verdict(&report.checks).is_err());
    }

    #[test]
    fn the_figures_have_their_names() {
        let value = serde_json::to_value(report(Vec::new())).unwrap();
        assert_eq!(value["ok"], true);
        assert_eq!(value["refused"], 1);
        assert_eq!(value["cancelled"]["left_alive"], 0);
        for operation in ["put", "get", "provide", "providers", "closest", "bootstrap"] {
            for figure in ["count", "ok", "failed", "p50_ms", "p95_ms", "max_ms"] {
                assert!(value["operations"][operation].get(figure).is_some(), "{operation}.{figure}");
            }
        }
    }
}
