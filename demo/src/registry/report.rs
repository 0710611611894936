//! What the demo of the registry says at its end.

use std::fmt::Write;

use serde::Serialize;

use crate::report::{Check, write_checks};

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    /// Honest nodes, on three runtimes.
    pub(super) nodes: usize,
    /// How many of them publish.
    pub(super) publishers: usize,
    pub(super) packages: Vec<String>,
    pub(super) times: Times,
    pub(super) checks: Vec<Check>,
    pub(super) seed: u64,
    pub(super) seconds: f64,
}

/// How long things took, in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Times {
    /// The slowest publish.
    pub(super) publish_ms: f64,
    /// From the last publish until every node knew of every package.
    pub(super) discover_ms: f64,
    /// Resolving everything.
    pub(super) resolve_ms: f64,
    /// Installing everything.
    pub(super) install_ms: f64,
    /// From publishing until every node had heard of it, while a spammer was at work.
    pub(super) heard_in_spam_ms: f64,
}

impl Report {
    /// For people.
    pub(super) fn table(&self) -> String {
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
            ("publish, the slowest", publish_ms),
            ("known to all nodes after", discover_ms),
            ("resolve all", resolve_ms),
            ("install all", install_ms),
            ("known to all in spam after", heard_in_spam_ms),
        ];
        for (name, ms) in times {
            writeln!(text, "{name:<28}{ms:>8.0} ms")?;
        }
        writeln!(text)?;
        write_checks(text, &self.checks, self.seconds)
    }
}
