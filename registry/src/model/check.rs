use std::collections::BTreeSet;

use semver::Version;
use thiserror::Error;

use super::limits;

/// Error of a field of a manifest, an index or a query. `field` is the field's name there; for the author of a query it
/// is `authors`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FieldError {
    /// An author, a category, a tag, or the name of a link is empty, or an author has only white space.
    #[error("{field} is empty")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// The field, or one of its entries, is longer than the limit.
    #[error("{field} has {len} bytes: the maximum is {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Length of the value, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The list has more entries than its limit.
    #[error("{field} has {count} entries: the maximum is {max}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Number of entries.
        count: usize,
        /// Maximum number of entries.
        max: usize,
    },
    /// The value contains a forbidden character. Everywhere: control characters, Unicode line and paragraph separators,
    /// and directional embeddings, overrides and isolates (U+2028 to U+202E, U+2066 to U+2069). Line breaks and tabs
    /// are allowed in the description and the readme only. In categories, tags and names of links also: white space and
    /// upper-case letters. In a version also: the `+` of build metadata.
    #[error("{field} contains {character:?}, a character that is not allowed there")]
    Character {
        /// The field.
        field: &'static str,
        /// The forbidden character. If there are several, one of them.
        character: char,
    },
    /// The list contains an entry twice.
    #[error("{field} contains {given:?} twice")]
    Duplicate {
        /// The field.
        field: &'static str,
        /// The repeated entry.
        given: String,
    },
    /// A number is out of its range.
    #[error("{field} is {given}: it has to be from {min} to {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The number.
        given: u64,
        /// Minimum allowed value.
        min: u64,
        /// Maximum allowed value.
        max: u64,
    },
}

/// Checks a text of one line.
pub(super) fn line(field: &'static str, text: &str, max: usize) -> Result<(), FieldError> {
    length(field, text, max)?;
    characters(field, text, |_| false)
}

/// Checks a text of several lines.
pub(super) fn lines(field: &'static str, text: &str, max: usize) -> Result<(), FieldError> {
    length(field, text, max)?;
    characters(field, text, |character| matches!(character, '\n' | '\r' | '\t'))
}

/// Checks a single word in lower case. Lower case makes filters by exact comparison possible.
pub(super) fn word(field: &'static str, text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return Err(FieldError::Empty { field });
    }
    line(field, text, limits::MAX_WORD_LEN)?;
    match text.chars().find(|character| character.is_whitespace() || character.is_uppercase()) {
        Some(character) => Err(FieldError::Character { field, character }),
        None => Ok(()),
    }
}

/// Checks a list of distinct single words.
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

/// Checks a version number. Build metadata is rejected: two versions that differ only in it have the same precedence,
/// so they would be one version published twice.
pub(super) fn version(version: &Version) -> Result<(), FieldError> {
    line("version", &version.to_string(), limits::MAX_VERSION_LEN)?;
    if version.build.is_empty() { Ok(()) } else { Err(FieldError::Character { field: "version", character: '+' }) }
}

fn length(field: &'static str, text: &str, max: usize) -> Result<(), FieldError> {
    if text.len() > max { Err(FieldError::TooLong { field, len: text.len(), max }) } else { Ok(()) }
}

/// Rejects control characters, which move a terminal's cursor, and characters that change the direction of text, which
/// make a text look like another one.
fn characters(field: &'static str, text: &str, is_allowed: fn(char) -> bool) -> Result<(), FieldError> {
    let is_bad = |character: &char| {
        (character.is_control() && !is_allowed(*character))
            || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    match text.chars().find(is_bad) {
        Some(character) => Err(FieldError::Character { field, character }),
        None => Ok(()),
    }
}
