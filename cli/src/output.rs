//! Writing to stdout and stderr without the panics of `println!`: whoever reads may stop reading.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

/// One line on stdout, at once.
///
/// # Errors
///
/// If it cannot be written; but a reader that has gone is not an error.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    stdout(format!("{text}\n").as_bytes())
}

/// A JSON object as one line on stdout.
///
/// # Errors
///
/// As [`line`].
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string(value)?)
}

/// A record's value on stdout: as it is, unless a person looks at it. What anybody may have stored must not reach a
/// terminal as control sequences.
///
/// # Errors
///
/// As [`line`].
pub(crate) fn value(bytes: &[u8]) -> io::Result<()> {
    if !io::stdout().is_terminal() {
        return stdout(bytes);
    }
    match printable(bytes) {
        Some(text) if text.ends_with('\n') => stdout(text.as_bytes()),
        Some(text) => line(text),
        None => {
            note(format_args!("{} bytes that are not text; use --output FILE or a pipe", bytes.len()));
            Ok(())
        }
    }
}

/// One line on stderr, or nothing if that cannot be written.
pub(crate) fn note(text: impl fmt::Display) {
    let _lost = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

fn stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn printable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(harmless).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("tab\tand\nümlaut".as_bytes()), Some("tab\tand\nümlaut"));
        assert_eq!(printable(b"\x1b[2J"), None);
        assert_eq!(printable(b"\xff\xfe"), None);
    }
}
