use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::ManifestError;

/// Version of the format of manifests and indexes: the one that is written, and the only one that is read.
pub(super) const SCHEMA: u32 = 1;

/// Parses a document: checks its length, then its schema, then everything else. This order makes a document of a later
/// format a schema error instead of a syntax error.
pub(super) fn read<T: DeserializeOwned>(json: &[u8], max: usize) -> Result<T, ManifestError> {
    #[derive(Deserialize)]
    struct Envelope {
        schema: u32,
    }
    if json.len() > max {
        return Err(ManifestError::TooLong { len: json.len(), max });
    }
    let read_failed = |error: serde_json::Error| ManifestError::Json(error.to_string());
    match serde_json::from_slice(json).map_err(read_failed)? {
        Envelope { schema: SCHEMA } => serde_json::from_slice(json).map_err(read_failed),
        Envelope { schema: found } => Err(ManifestError::Schema { found }),
    }
}

/// Serialises a document. Documents consist of text, numbers and maps with text keys, so that JSON serialisation cannot
/// fail; if it did, the result would be empty, which no reader accepts.
pub(super) fn write<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}
