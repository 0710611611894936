//! Report of the registry's demonstration.

use std::fmt::Write;

use serde::Serialize;

use crate::report::{Check, Conclusion, write_checks};

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `true` if all checks passed.
    pub(super) ok: bool,
    /// Number of honest nodes, on three runtimes.
    pub(super) nodes: usize,
    /// Number of honest nodes that publish.
    pub(super) publishers: usize,
    /// `true` if attackers were part of the demonstration.
    pub(super) attackers: bool,
    pub(super) packages: Vec<String>,
    pub(super) times: Times,
    pub(super) checks: Vec<Check>,
    pub(super) seed: u64,
    pub(super) seconds: f64,
}

/// Durations in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Times {
    /// Duration of the slowest publish.
    pub(super) publish_ms: f64,
    /// Time from the last publish until every node knew every package.
    pub(super) discover_ms: f64,
    /// Duration of resolving all packages.
    pub(super) resolve_ms: f64,
    /// Duration of installing all packages.
    pub(super) install_ms: f64,
    /// Time from a publish until every node knew the version, during spam. `None` without attackers.
    pub(super) heard_in_spam_ms: Option<f64>,
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

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        let Times { publish_ms, discover_ms, resolve_ms, install_ms, heard_in_spam_ms } = self.times;
        writeln!(
            text,
            "{} nodes on tokio, async-std and smol; {} publishers, {} packages\n",
            self.nodes,
            self.publishers,
            self.packages.len()
        )?;
        let times = [
            ("slowest publish", Some(publish_ms)),
            ("until all nodes know it", Some(discover_ms)),
            ("resolve all packages", Some(resolve_ms)),
            ("install all packages", Some(install_ms)),
            ("until all know it in spam", heard_in_spam_ms),
        ];
        for (name, ms) in times {
            if let Some(ms) = ms {
                writeln!(text, "{name:<28}{ms:>8.0} ms")?;
            }
        }
        if !self.attackers {
            writeln!(text, "\nno attacks: this build lacks the feature `attackers`")?;
        }
        writeln!(text)?;
        write_checks(text, &self.checks, self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_attackers_says_so() {
        let report = |attackers| Report {
            ok: true,
            nodes: 12,
            publishers: 5,
            attackers,
            packages: Vec::new(),
            times: Times::default(),
            checks: Vec::new(),
            seed: 1,
            seconds: 1.0,
        };
        assert!(report(false).table().contains("\nno attacks: this build lacks the feature `attackers`\n"));
        assert!(!report(true).table().contains("no attacks"));
    }
}
