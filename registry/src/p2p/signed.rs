//! JSON documents in signed envelopes.

use libp2p::core::SignedEnvelope;
use libp2p_identity::{Keypair, PublicKey};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Kind of a signed document. A signature of one kind is not valid for another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Signature domain: signed together with the document, but not part of the envelope.
    pub(super) domain: &'static str,
    /// Payload type: a field of the envelope.
    pub(super) payload_type: &'static [u8],
    /// Maximum length of the envelope, in bytes. Checked before decoding.
    pub(super) max_len: usize,
}

/// Signs a document and returns the encoded envelope.
pub(super) fn seal<T: Serialize>(kind: Kind, key: &Keypair, document: &T) -> Result<Vec<u8>, EnvelopeError> {
    let payload = serde_json::to_vec(document).map_err(|error| EnvelopeError::Document(error.to_string()))?;
    let envelope = SignedEnvelope::new(key, kind.domain.to_owned(), kind.payload_type.to_vec(), payload)
        .map_err(|error| EnvelopeError::Key(error.to_string()))?;
    let bytes = envelope.into_protobuf_encoding();
    check_length(kind, &bytes)?;
    Ok(bytes)
}

/// Verifies an envelope. Returns the document and the key that signed it.
pub(super) fn unseal<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<(T, PublicKey), EnvelopeError> {
    check_length(kind, bytes)?;
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| EnvelopeError::Encoding)?;
    // Protobuf allows several encodings of one envelope, and anybody can make them without the key. Heads are named by
    // the hash of their envelope: a second encoding would look as if the signer had signed two heads.
    if envelope.clone().into_protobuf_encoding() != bytes {
        return Err(EnvelopeError::NotCanonical);
    }
    let (payload, key) = envelope
        .payload_and_signing_key(kind.domain.to_owned(), kind.payload_type)
        .map_err(|_| EnvelopeError::Signature)?;
    let document = serde_json::from_slice(payload).map_err(|error| EnvelopeError::Document(error.to_string()))?;
    Ok((document, key.clone()))
}

fn check_length(kind: Kind, bytes: &[u8]) -> Result<(), EnvelopeError> {
    if bytes.len() > kind.max_len {
        return Err(EnvelopeError::TooLong { len: bytes.len(), max: kind.max_len });
    }
    Ok(())
}

/// Error of creating or verifying a signed document: a head or an announcement, as JSON in a signed envelope of libp2p.
///
/// Bytes that fail verification are, for example, forged, damaged, too long, another kind of document, or of a format
/// that this version does not support.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The encoded envelope is longer than the maximum. A verification rejects it without decoding it.
    #[error("envelope too long: {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Length of the encoded envelope, in bytes.
        len: usize,
        /// Maximum length of an envelope with this kind of document, in bytes.
        max: usize,
    },
    /// The bytes cannot be decoded as a signed envelope of libp2p.
    #[error("not a signed envelope")]
    Encoding,
    /// The bytes are not the canonical encoding of the envelope in them, which is the one that libp2p produces. Anybody
    /// can encode an envelope in another way without the key, which would give it another hash.
    #[error("envelope is not in canonical form")]
    NotCanonical,
    /// The signature does not fit the content of the envelope, or the envelope has another kind of document.
    #[error("invalid signature")]
    Signature,
    /// The payload is not the JSON of the expected document, or the document cannot be serialized. The text is the
    /// cause.
    #[error("malformed document: {0}")]
    Document(String),
    /// The key cannot sign. The text is the cause.
    #[error("signing failed: {0}")]
    Key(String),
}
