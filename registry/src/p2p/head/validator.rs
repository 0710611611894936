use std::cmp::Ordering;

use kadence::{ValidationError, Validator};
use libp2p::kad::RecordKey;

use super::record::SignedHead;

/// Validator for the DHT records of heads. Register it for [`NAMESPACE`](super::NAMESPACE) in
/// `TrackerConfig::validators`, for reads and puts, and in the validators of the record store, for records that the
/// node keeps for others. [`configure`](crate::p2p::registry::configure) does both.
///
/// The validator uses no clock, so that all nodes come to the same result. It accepts expired heads: readers check the
/// expiry.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadValidator;

impl Validator for HeadValidator {
    fn validate(&self, key: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        SignedHead::verify_key(value, key).map(drop).map_err(|error| ValidationError(error.to_string()))
    }

    /// Compares two heads: the one with the higher sequence number is better, then the one with the later expiry, then
    /// the one with the larger bytes. After an equivocation, readers that find the same heads therefore choose the same
    /// one until they notice. An invalid head is worse than any valid one.
    fn compare(&self, key: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        let rank = |bytes| {
            let signed = SignedHead::verify_key(bytes, key).ok()?;
            Some((signed.head().seq, signed.head().not_after))
        };
        rank(left).cmp(&rank(right)).then_with(|| left.cmp(right))
    }
}
