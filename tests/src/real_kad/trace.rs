//! Trace of a run.

use std::collections::VecDeque;

/// Number of lines that are printed when a test fails.
const LAST_LINES: usize = 80;

#[derive(Debug, Default)]
pub(super) struct Trace {
    last: VecDeque<String>,
    digest: u64,
    lines: usize,
}

impl Trace {
    pub(super) fn note(&mut self, line: String) {
        self.lines += 1;
        // FNV-1a.
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.last.push_back(line);
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
        }
    }

    /// Returns the number of lines and a digest of all of them.
    pub(super) fn digest(&self) -> (usize, u64) {
        (self.lines, self.digest)
    }

    pub(super) fn print(&self) {
        for line in &self.last {
            eprintln!("{line}");
        }
    }
}
