//! Output on stdout and stderr that does not panic when its reader has gone, unlike `println!`.

use std::io::{self, IsTerminal};

pub(crate) use kadence_demo::output::{json, line, note, stdout};

/// Prints a record's value on stdout, unchanged unless stdout is a terminal. Anybody may have stored the value, so
/// control sequences in it must not reach a terminal.
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
            note(format_args!("value of {} bytes is not text: use --output FILE or a pipe", bytes.len()));
            Ok(())
        }
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
