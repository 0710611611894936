//! Writing to stdout and stderr without the panics of `println!`: whoever reads may stop reading.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
};

use serde::Serialize;

/// One line on stdout, at once.
///
/// # Errors
///
/// If it cannot be written; but a reader that has gone is not an error.
pub fn line(text: impl fmt::Display) -> io::Result<()> {
    stdout(format!("{text}\n").as_bytes())
}

/// A JSON object as one line on stdout.
///
/// # Errors
///
/// As [`line`].
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string(value)?)
}

/// One line on stderr, or nothing if that cannot be written.
pub fn note(text: impl fmt::Display) {
    let _lost = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Bytes on stdout, at once.
///
/// # Errors
///
/// As [`line`].
pub fn stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// An error and its sources in one line. A source that its error has already quoted is not said twice.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
