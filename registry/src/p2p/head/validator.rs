use std::cmp::Ordering;

use kadence::{ValidationError, Validator};
use libp2p::kad::RecordKey;

use super::record::SignedHead;

/// Validator for the records of heads. Register it for [`NAMESPACE`](super::NAMESPACE) in the tracker, which uses it
/// for reads, and in the store, which uses it for records that it keeps for others.
///
/// It uses no clock, so that all nodes agree. Readers check the expiry.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadValidator;

impl Validator for HeadValidator {
    fn validate(&self, key: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        SignedHead::verify_key(value, key).map(drop).map_err(|error| ValidationError(error.to_string()))
    }

    /// The higher sequence number wins, then the later expiry, then the larger bytes. Heads with one number are an
    /// equivocation: until it is noticed, all readers choose the same one. An invalid head is worse than any valid one.
    fn compare(&self, key: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        let rank = |bytes| {
            let signed = SignedHead::verify_key(bytes, key).ok()?;
            Some((signed.head().seq, signed.head().not_after))
        };
        rank(left).cmp(&rank(right)).then_with(|| left.cmp(right))
    }
}
