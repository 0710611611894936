use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::ManifestError;

/// The format of manifests and indexes that is written, and read.
pub(super) const SCHEMA: u32 = 1;

/// Reads a document: its size first, then its schema, then everything else, so that a later format is called that and
/// not a mistake.
pub(super) fn read<T: DeserializeOwned>(json: &[u8], max: usize) -> Result<T, ManifestError> {
    #[derive(Deserialize)]
    struct Envelope {
        schema: u32,
    }
    if json.len() > max {
        return Err(ManifestError::TooLarge { len: json.len(), max });
    }
    let read_failed = |error: serde_json::Error| ManifestError::Json(error.to_string());
    match serde_json::from_slice(json).map_err(read_failed)? {
        Envelope { schema: SCHEMA } => serde_json::from_slice(json).map_err(read_failed),
        Envelope { schema: found } => Err(ManifestError::Schema { found }),
    }
}

/// Writes a document. Everything in one is text, numbers, and maps with text for keys, which JSON can always say; an empty
/// document, which nothing reads, takes the place of an impossible error.
pub(super) fn write<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}
