use thiserror::Error;

use super::{HeadError, SignedHead};
use crate::PackageId;

/// Proof of an equivocation: two heads that an honest publisher does not sign both. Anybody can check the signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EquivocationProof {
    /// Envelope of the head that was seen first.
    pub first: Vec<u8>,
    /// Envelope of the other head.
    pub second: Vec<u8>,
}

impl EquivocationProof {
    /// Returns the proof if the two heads conflict.
    pub fn of(first: &SignedHead, second: &SignedHead) -> Option<Self> {
        contradict(first, second).then(|| Self { first: first.bytes().to_owned(), second: second.bytes().to_owned() })
    }

    /// Verifies the proof and returns the package.
    ///
    /// # Errors
    ///
    /// If the proof does not contain two heads, or they do not conflict.
    pub fn verify(&self) -> Result<PackageId, ProofError> {
        let first = SignedHead::verify_any(&self.first)?;
        let second = SignedHead::verify_any(&self.second)?;
        if contradict(&first, &second) { Ok(first.head().package.clone()) } else { Err(ProofError::NoContradiction) }
    }
}

/// Returns whether two heads conflict: different heads with one number, or consecutive heads of which the second names
/// another predecessor.
fn contradict(left: &SignedHead, right: &SignedHead) -> bool {
    if left.head().package != right.head().package {
        return false;
    }
    let (older, newer) = if left.head().seq <= right.head().seq { (left, right) } else { (right, left) };
    match newer.head().seq - older.head().seq {
        // Compares documents, not envelopes: a second signature of the same document is harmless.
        0 => older.head() != newer.head(),
        1 => newer.head().prev != Some(older.hash()),
        _ => false,
    }
}

/// Error of a proof that proves no equivocation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// One of the two is not a valid head.
    #[error("proof does not contain two valid heads")]
    Head(#[from] HeadError),
    /// The heads can be in one chain, or belong to two packages.
    #[error("the two heads do not conflict")]
    NoContradiction,
}
