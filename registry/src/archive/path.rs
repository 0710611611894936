use thiserror::Error;

/// Why a path has no place in an archive: it would be another one, or none, on some systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is longer than the limit, or cannot be split as the format has it: at most 100 bytes for each name, at most 155
    /// for the folders of a path.
    #[error("it is too long")]
    TooLong,
    /// It is empty or absolute, or one of its names is empty, `.` or `..`.
    #[error("it is not a plain relative path")]
    NotPlain,
    /// There is a `\`, a `:` or a control character in it, or a name that ends with a dot or a space: not portable.
    #[error("it has characters that are not portable")]
    NotPortable,
}

/// Whether a path is plain: names with `/` between, that go down from where they begin, and mean the same everywhere.
pub(super) fn check(path: &str, longest: usize) -> Result<(), PathError> {
    if path.len() > longest {
        return Err(PathError::TooLong);
    }
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(PathError::NotPlain);
    }
    if path.contains(|c: char| matches!(c, '\\' | ':') || c.is_control())
        || path.split('/').any(|name| name.ends_with(['.', ' ']))
    {
        return Err(PathError::NotPortable);
    }
    Ok(())
}

/// Paths that some file systems take for the same have the same key.
pub(super) fn key(path: &str) -> String {
    path.to_lowercase()
}

/// The folders above a path, the outermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}
