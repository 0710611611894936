use thiserror::Error;

use super::FieldError;

/// Error of the content of a manifest or an index. A retry with the same content fails in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidPackageError {
    /// A field is invalid on its own.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A link is not an `http://` or `https://` URL with a host and without a user, or contains white space, a single
    /// or double quotation mark, `<`, `>`, `\` or a backtick.
    #[error("link {name:?} is not an http or https URL: {url:?}")]
    InvalidLink {
        /// Name of the link.
        name: String,
        /// The invalid URL.
        url: String,
    },
    /// The version depends on its own package, in whatever version.
    #[error("a package cannot depend on itself")]
    DependsOnItself,
    /// The time [`updated`](crate::Package::updated) is before the time [`created`](crate::Package::created).
    #[error("time of update {updated} is before time of creation {created} (Unix seconds)")]
    UpdatedBeforeCreated {
        /// Time of creation, in Unix seconds.
        created: u64,
        /// Time of the update, in Unix seconds.
        updated: u64,
    },
    /// Each field is within its limit, but the whole document is too long.
    #[error("document has {len} bytes: the maximum is {max}")]
    TooLong {
        /// Length of the document, in bytes. Of a draft it includes 1,024 bytes for the id, the version and the fields
        /// that are added later.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
}

/// Error of parsing a manifest or an index. If the bytes have the expected content id, the
/// publisher made a mistake, is malicious, or uses a later format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The document is longer than [`MAX_MANIFEST_LEN`](crate::MAX_MANIFEST_LEN) or
    /// [`MAX_INDEX_LEN`](crate::MAX_INDEX_LEN), by its kind. Nothing of it was parsed.
    #[error("document has {len} bytes: the maximum is {max}")]
    TooLong {
        /// Length of the document, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The document is not valid JSON, lacks a field, or has a field of a wrong type or syntax.
    #[error("document is invalid: {0}")]
    Json(String),
    /// The document has another format, by its number `schema`. A newer version of this library may read it.
    #[error("document has schema {found}: this version reads schema 1")]
    Schema {
        /// Number of the format.
        found: u32,
    },
    /// The document is well-formed, but a value is invalid or exceeds a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
}

impl From<FieldError> for ManifestError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error.into())
    }
}
