use thiserror::Error;

use super::FieldError;

/// Why something is no package as it may be published. What is named has to be changed; trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPackage {
    /// A field is refused for itself.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A link is no `http://` or `https://` URL with a host and without a user.
    #[error("the link {name} is no http or https URL: {url:?}")]
    NotALink {
        /// What the link is called.
        name: String,
        /// What was given.
        url: String,
    },
    /// A package that needs itself, in whatever version, can never be installed.
    #[error("a package cannot depend on itself")]
    DependsOnItself,
    /// It says that it was changed before it was made.
    #[error("it was updated ({updated}) before it was created ({created})")]
    Times {
        /// When it was created, in unix seconds.
        created: u64,
        /// When it was updated, in unix seconds.
        updated: u64,
    },
    /// Everything together makes too long a document, though each field is within its limit.
    #[error("the document has {len} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes it has.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Why bytes are no manifest or index: who sent them made a mistake or means harm, or writes a later format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// It is longer than any of its kind; nothing of it was read.
    #[error("the document has {len} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes it has.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It is not the JSON of such a document.
    #[error("the document cannot be read: {0}")]
    Json(String),
    /// It is of a later format: a newer version of this software reads it.
    #[error("the document has schema {found}, this version reads 1")]
    Schema {
        /// The schema it names.
        found: u32,
    },
    /// It can be read, but says what no package may say.
    #[error(transparent)]
    Invalid(#[from] InvalidPackage),
}

impl From<FieldError> for ManifestError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error.into())
    }
}
