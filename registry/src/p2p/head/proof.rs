use thiserror::Error;

use super::{HeadError, SignedHead};
use crate::PackageId;

/// Two heads that one publisher cannot have made in good order. Both are signed, so that anybody can check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EquivocationProof {
    /// The head that was seen first, as its envelope.
    pub first: Vec<u8>,
    /// The other one.
    pub second: Vec<u8>,
}

impl EquivocationProof {
    /// Of two heads, if they contradict each other.
    pub fn of(first: &SignedHead, second: &SignedHead) -> Option<Self> {
        contradict(first, second).then(|| Self { first: first.bytes().to_owned(), second: second.bytes().to_owned() })
    }

    /// Whose publisher has made both.
    ///
    /// # Errors
    ///
    /// If they are not two heads, or do not contradict each other: it proves nothing then.
    pub fn verify(&self) -> Result<PackageId, ProofError> {
        let first = SignedHead::verify_any(&self.first)?;
        let second = SignedHead::verify_any(&self.second)?;
        if contradict(&first, &second) { Ok(first.head().package.clone()) } else { Err(ProofError::NoContradiction) }
    }
}

/// Whether no publisher would sign both: two different heads with one number, or two in a row of which the second names
/// another one than the first.
fn contradict(left: &SignedHead, right: &SignedHead) -> bool {
    if left.head().package != right.head().package {
        return false;
    }
    let (older, newer) = if left.head().seq <= right.head().seq { (left, right) } else { (right, left) };
    match newer.head().seq - older.head().seq {
        // By what they say: a second signature of the same is harmless.
        0 => older.head() != newer.head(),
        1 => newer.head().prev != Some(older.hash()),
        _ => false,
    }
}

/// Why something proves no equivocation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    /// One of the two is no head.
    #[error("the proof has no two heads")]
    Head(#[from] HeadError),
    /// Both may be of one chain, or are of two packages.
    #[error("the two heads do not contradict each other")]
    NoContradiction,
}
