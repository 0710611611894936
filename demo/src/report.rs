//! Report of the network's demonstration, and the conclusion that every demonstration prints.

use std::{
    fmt::{self, Write},
    io,
};

use serde::Serialize;

use super::{
    faults::{Cancelled, Killed},
    measure::Operations,
    output,
    work::ClosestLookups,
};

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `true` if all checks passed.
    pub(super) ok: bool,
    /// Number of nodes that store and answer.
    pub(super) nodes: usize,
    /// `true` if they run on tokio, async-std and smol in turn, `false` if all run on tokio.
    pub(super) mixed: bool,
    /// Number of nodes that only ask.
    pub(super) clients: usize,
    pub(super) files: usize,
    pub(super) stored: usize,
    pub(super) stored_bytes: usize,
    /// Number of files rejected because their value is too large for a record.
    pub(super) rejected: usize,
    pub(super) operations: Operations,
    pub(super) closest: ClosestLookups,
    pub(super) cancelled: Cancelled,
    pub(super) killed: Killed,
    pub(super) checks: Vec<Check>,
    pub(super) seed: u64,
    pub(super) seconds: f64,
}

/// A statement about the answers that has to be true.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
}

impl Report {
    pub(super) fn conclude(&self) -> anyhow::Result<Conclusion> {
        Conclusion::new(self, self.table(), &self.checks)
    }

    /// Returns the report as text.
    fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).map(|()| text).unwrap_or_default()
    }

    fn write_table(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "{} nodes and {} clients{}; {} of {} files stored ({} bytes), {} rejected as too large\n",
            self.nodes,
            self.clients,
            if self.mixed { " on tokio, async-std and smol" } else { "" },
            self.stored,
            self.files,
            self.stored_bytes,
            self.rejected
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
        writeln!(text, "\nclosest peers: {}\n", self.closest)?;
        write_checks(text, &self.checks, self.seconds)
    }
}

/// Ends a table with the checks and the verdict.
pub(super) fn write_checks(text: &mut String, checks: &[Check], seconds: f64) -> fmt::Result {
    for Check { name, ok, detail } in checks {
        let verdict = if *ok { "ok" } else { "FAILED" };
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        writeln!(text, "{verdict:<6} {name}{detail}")?;
    }
    match checks.iter().filter(|check| !check.ok).count() {
        0 => write!(text, "\nall checks passed in {seconds:.1} s"),
        failed => write!(text, "\n{failed} of {} checks FAILED in {seconds:.1} s", checks.len()),
    }
}

/// A report that is ready to be printed, and its verdict.
#[derive(Debug)]
pub(super) struct Conclusion {
    table: String,
    /// The report as one JSON object.
    object: String,
    verdict: Result<(), ChecksFailedError>,
}

impl Conclusion {
    /// # Errors
    ///
    /// If the report cannot be written as JSON.
    pub(super) fn new(report: &impl Serialize, table: String, checks: &[Check]) -> anyhow::Result<Self> {
        let failed: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
        let verdict = if failed.is_empty() {
            Ok(())
        } else {
            let (count, all) = (failed.len(), checks.len());
            Err(ChecksFailedError(format!("{count} of {all} checks failed: {}", failed.join("; "))))
        };
        Ok(Self { table, object: serde_json::to_string(report)?, verdict })
    }

    /// Prints the table on stdout, or, if `json`, the object on stdout and the table on stderr.
    ///
    /// # Errors
    ///
    /// If a check failed, or stdout cannot be written.
    pub(super) fn print(self, json: bool) -> anyhow::Result<()> {
        self.print_to(&mut io::stdout().lock(), json)
    }

    /// [`print`](Self::print) with another stdout.
    pub(super) fn print_to(self, out: &mut impl io::Write, json: bool) -> anyhow::Result<()> {
        let Self { table, object, verdict } = self;
        if json {
            output::note(table);
            output::write(out, format!("{object}\n").as_bytes())?;
        } else {
            output::write(out, format!("{table}\n").as_bytes())?;
        }
        Ok(verdict?)
    }
}

/// Error of a demonstration with a failed check. Its report was printed.
#[derive(Debug)]
pub struct ChecksFailedError(String);

impl fmt::Display for ChecksFailedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ChecksFailedError {}

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
            rejected: 1,
            operations: Operations::default(),
            closest: ClosestLookups::default(),
            cancelled: Cancelled::default(),
            killed: Killed::default(),
            checks,
            seed: 1,
            seconds: 1.25,
        }
    }

    #[test]
    fn a_failed_check_is_named_and_fails_the_demonstration() {
        let good = Check { name: "one", ok: true, detail: String::new() };
        let bad = Check { name: "two", ok: false, detail: "3 of 4".to_owned() };
        let passed = report(vec![good.clone()]);
        assert!(passed.table().ends_with("ok     one\n\nall checks passed in 1.2 s"), "{}", passed.table());
        assert!(passed.conclude().unwrap().verdict.is_ok());
        let failed = report(vec![good, bad]);
        assert!(failed.table().contains("ok     one\nFAILED two (3 of 4)\n"), "{}", failed.table());
        assert!(failed.table().ends_with("\n1 of 2 checks FAILED in 1.2 s"), "{}", failed.table());
        assert_eq!(failed.conclude().unwrap().verdict.unwrap_err().to_string(), "1 of 2 checks failed: two");
    }

    #[test]
    fn the_figures_have_their_names() {
        let value = serde_json::to_value(report(Vec::new())).unwrap();
        assert_eq!(value["ok"], true);
        assert_eq!(value["rejected"], 1);
        assert_eq!(value["cancelled"]["left_alive"], 0);
        assert_eq!(value["closest"]["incomplete"], 0);
        for operation in ["put", "get", "provide", "providers", "closest", "bootstrap"] {
            for figure in ["count", "ok", "failed", "p50_ms", "p95_ms", "max_ms"] {
                assert!(value["operations"][operation].get(figure).is_some(), "{operation}.{figure}");
            }
        }
    }
}
