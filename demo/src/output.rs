//! Output on stdout and stderr that does not panic when its reader has gone, unlike `println!`.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::json;

use crate::ChecksFailedError;

/// Prints one line on stdout and flushes it.
///
/// # Errors
///
/// If stdout cannot be written. A closed pipe is not an error.
pub fn line(text: impl fmt::Display) -> io::Result<()> {
    stdout(format!("{text}\n").as_bytes())
}

/// Prints a JSON object as one line on stdout.
///
/// # Errors
///
/// As [`line()`].
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Prints one line on stderr. Does nothing if stderr cannot be written.
pub fn note(text: impl fmt::Display) {
    let _unwritable = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Prints bytes on stdout and flushes them.
///
/// # Errors
///
/// As [`line()`].
pub fn stdout(bytes: &[u8]) -> io::Result<()> {
    write(&mut io::stdout().lock(), bytes)
}

/// Prints an error of [`run`](crate::run) as one line on stderr and, if `json`, as one JSON object on stdout. The
/// object is left out after [`ChecksFailedError`], because the report was that object.
pub fn error(error: &anyhow::Error, json: bool) {
    write_error(&mut io::stdout().lock(), error, json);
}

/// Writes bytes and flushes them. A closed pipe is not an error.
pub(crate) fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// [`error`] with another stdout.
pub(crate) fn write_error(out: &mut impl Write, error: &anyhow::Error, json: bool) {
    let text = chain(error.as_ref());
    note(format_args!("error: {text}"));
    if json && !error.is::<ChecksFailedError>() {
        let object = json!({ "ok": false, "reason": "failure", "error": text });
        // There is nowhere else to report that stdout cannot be written.
        let _unwritable = write(out, format!("{object}\n").as_bytes());
    }
}

/// Returns an error and its sources as one line. A source that its error already quotes is not repeated.
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
