use std::cmp::Ordering;

use kadence::{ValidationError, Validator};
use libp2p::kad::RecordKey;

use super::SignedHead;

/// The namespace of the record keys of heads.
pub const NAMESPACE: &str = "pkg";

/// Says of the records under `/pkg/…` which are heads, and which of two is better. For the tracker and for the store that
/// serves others: register it for [`NAMESPACE`].
///
/// A validator has no clock, so that all nodes say the same: whether a head has expired is for the reader.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadValidator;

impl Validator for HeadValidator {
    fn validate(&self, key: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        SignedHead::verify_key(value, key).map(drop).map_err(|error| ValidationError(error.to_string()))
    }

    /// The higher sequence number; then the one that is valid for longer; then the larger bytes. Two with one number are an
    /// equivocation: all readers choose the same until it is noticed. What is no head is worse than any.
    fn compare(&self, key: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        let rank = |bytes| {
            let signed = SignedHead::verify_key(bytes, key).ok()?;
            Some((signed.head().seq, signed.head().not_after))
        };
        rank(left).cmp(&rank(right)).then_with(|| left.cmp(right))
    }
}
