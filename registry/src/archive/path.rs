use thiserror::Error;

/// Error of a path that an archive must not contain, for example because some systems would read it as another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The path is longer than [`ArchiveLimits::path_len`](field@super::ArchiveLimits::path_len), or, when packing,
    /// does not fit into the format: a path of more than 100 bytes needs a `/` with at most 155 bytes before it and at
    /// most 100 bytes after it.
    #[error("too long")]
    TooLong,
    /// The path is empty or absolute, or one of its names is empty, `.` or `..`.
    #[error("not a plain relative path")]
    NotPlain,
    /// The path contains a `\`, a `:` or a control character, or one of its names ends with a dot or a space.
    #[error("contains characters that are not portable")]
    NotPortable,
}

/// Checks that a path is plain: relative names separated by `/` that never go up, and that mean the same on every
/// system.
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

/// Returns a key for comparing paths: paths that a case-insensitive file system does not distinguish have the same key.
pub(super) fn key(path: &str) -> String {
    path.to_lowercase()
}

/// Iterates over the folders above a path, the outermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}
