use thiserror::Error;

use super::{HeadError, SignedHead};
use crate::PackageId;

/// Proof of an equivocation: two conflicting heads of one package, both signed by its publisher. Anybody can
/// [verify](Self::verify) it.
///
/// Two heads conflict if they have the same sequence number and different contents, or if one has the number after that
/// of the other and does not name the other as its predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EquivocationProof {
    /// Encoded envelope of the head that was seen first.
    pub first: Vec<u8>,
    /// Encoded envelope of the other head.
    pub second: Vec<u8>,
}

impl EquivocationProof {
    /// Returns the proof if the two heads conflict, and `None` otherwise: also if they are of different packages, or if
    /// their sequence numbers differ by more than one.
    pub fn of(first: &SignedHead, second: &SignedHead) -> Option<Self> {
        contradict(first, second).then(|| Self { first: first.bytes().to_owned(), second: second.bytes().to_owned() })
    }

    /// Verifies the proof and returns the package of the two heads.
    ///
    /// # Errors
    ///
    /// If the proof does not contain two valid heads, or they do not conflict.
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
    /// One of the two envelopes is not a valid head. The inner error is the reason.
    #[error("proof does not contain two valid heads")]
    Head(#[from] HeadError),
    /// The heads do not conflict, or belong to different packages.
    #[error("the two heads do not conflict")]
    NoContradiction,
}
