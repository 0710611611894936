//! What is signed: a JSON document in a signed envelope.

use libp2p::core::SignedEnvelope;
use libp2p_identity::{Keypair, PublicKey};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// A kind of signed document. A signature of one kind says nothing about the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Signed with the document.
    pub(super) domain: &'static str,
    /// Stands in the envelope.
    pub(super) payload_type: &'static [u8],
    /// The longest envelope, in bytes. Looked at before anything is decoded.
    pub(super) max_len: usize,
}

/// The envelope's bytes.
pub(super) fn seal<T: Serialize>(kind: Kind, key: &Keypair, document: &T) -> Result<Vec<u8>, EnvelopeError> {
    let payload = serde_json::to_vec(document).map_err(|error| EnvelopeError::Document(error.to_string()))?;
    let envelope = SignedEnvelope::new(key, kind.domain.to_owned(), kind.payload_type.to_vec(), payload)
        .map_err(|error| EnvelopeError::Key(error.to_string()))?;
    let bytes = envelope.into_protobuf_encoding();
    check_length(kind, &bytes)?;
    Ok(bytes)
}

/// The document and the key that has signed it.
pub(super) fn unseal<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<(T, PublicKey), EnvelopeError> {
    check_length(kind, bytes)?;
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| EnvelopeError::Encoding)?;
    // An envelope can be written in many ways, by anybody. With more than one that counts, somebody else could make two
    // names of one document, which would look as if its signer had signed two.
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

/// Why some bytes are no signed document of the kind that was expected. They are of no use to anybody.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The envelope is too long. It was not decoded.
    #[error("envelope too long: {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// Maximum length of this kind of document, in bytes.
        max: usize,
    },
    /// They are no envelope.
    #[error("it is not a signed envelope")]
    Encoding,
    /// They are an envelope that somebody has written in another way than its signer.
    #[error("the envelope is not written in the one way that counts")]
    NotCanonical,
    /// The signature is not of this document, or of a document of another kind.
    #[error("the signature is wrong")]
    Signature,
    /// What was signed is not such a document.
    #[error("the document is malformed: {0}")]
    Document(String),
    /// The key cannot sign.
    #[error("the key cannot sign: {0}")]
    Key(String),
}
