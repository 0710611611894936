use std::collections::BTreeSet;

use semver::Version;
use thiserror::Error;

use super::limits;

/// Why a field of a package or of a query is refused. The field is named as in the JSON document and in `ggen.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldError {
    /// It has to say something.
    #[error("{field} is empty")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// It says too much.
    #[error("{field} has {len} bytes, the limit is {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It has too many entries.
    #[error("{field} has {count} entries, the limit is {max}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Entries given.
        count: usize,
        /// Entries allowed.
        max: usize,
    },
    /// It has a character that it must not have: a control character, one that reverses the direction of text, or, in a
    /// single word, a space or an upper-case letter.
    #[error("{field} must not have the character {character:?}")]
    Character {
        /// The field.
        field: &'static str,
        /// The first such character.
        character: char,
    },
    /// It has an entry twice.
    #[error("{field} has {given:?} twice")]
    Duplicate {
        /// The field.
        field: &'static str,
        /// The entry.
        given: String,
    },
    /// A number is out of its range.
    #[error("{field} is {given}, it can be {min} to {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was given.
        given: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
}

/// Checks a text of one line.
pub(super) fn line(field: &'static str, text: &str, max: usize) -> Result<(), FieldError> {
    length(field, text, max)?;
    characters(field, text, |_| false)
}

/// Checks a text that may have lines.
pub(super) fn lines(field: &'static str, text: &str, max: usize) -> Result<(), FieldError> {
    length(field, text, max)?;
    characters(field, text, |character| matches!(character, '\n' | '\r' | '\t'))
}

/// Checks a single word in lower case, so that a filter for it is exact.
pub(super) fn word(field: &'static str, text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return Err(FieldError::Empty { field });
    }
    line(field, text, limits::MAX_WORD)?;
    match text.chars().find(|character| character.is_whitespace() || character.is_uppercase()) {
        Some(character) => Err(FieldError::Character { field, character }),
        None => Ok(()),
    }
}

/// Checks a list of single words, none of them twice.
pub(super) fn words(field: &'static str, words: &[String], max: usize) -> Result<(), FieldError> {
    count(field, words.len(), max)?;
    words.iter().try_for_each(|text| word(field, text))?;
    distinct(field, words.iter())
}

pub(super) fn count(field: &'static str, count: usize, max: usize) -> Result<(), FieldError> {
    if count > max { Err(FieldError::TooMany { field, count, max }) } else { Ok(()) }
}

pub(super) fn distinct<T: Ord + ToString>(
    field: &'static str,
    mut entries: impl Iterator<Item = T>,
) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    match entries.find(|entry| !seen.insert(entry.to_string())) {
        Some(entry) => Err(FieldError::Duplicate { field, given: entry.to_string() }),
        None => Ok(()),
    }
}

pub(super) fn range(field: &'static str, given: u64, min: u64, max: u64) -> Result<(), FieldError> {
    if (min..=max).contains(&given) { Ok(()) } else { Err(FieldError::OutOfRange { field, given, min, max }) }
}

/// Checks what is published as a version: without build metadata, since versions that differ in nothing else have no order
/// and would be one version twice.
pub(super) fn version(version: &Version) -> Result<(), FieldError> {
    line("version", &version.to_string(), limits::MAX_VERSION_TEXT)?;
    if version.build.is_empty() { Ok(()) } else { Err(FieldError::Character { field: "version", character: '+' }) }
}

fn length(field: &'static str, text: &str, max: usize) -> Result<(), FieldError> {
    if text.len() > max { Err(FieldError::TooLong { field, len: text.len(), max }) } else { Ok(()) }
}

/// Control characters move a terminal's cursor, and those of direction make a text look like another.
fn characters(field: &'static str, text: &str, is_fine: fn(char) -> bool) -> Result<(), FieldError> {
    let is_bad = |character: &char| {
        (character.is_control() && !is_fine(*character))
            || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    match text.chars().find(is_bad) {
        Some(character) => Err(FieldError::Character { field, character }),
        None => Ok(()),
    }
}
