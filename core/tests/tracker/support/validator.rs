//! A validator for the keys `/v/…`.

use std::{cmp::Ordering, sync::Arc};

use kadence_core::{TrackerConfig, ValidationError, Validator, Validators};
use libp2p::kad::RecordKey;

/// A value is one byte, its version, and then anything. Version 0 is invalid, and the highest is the best.
struct Newest;

impl Validator for Newest {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        match value.first() {
            Some(1..) => Ok(()),
            Some(0) | None => Err(ValidationError("it has no version".to_owned())),
        }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.first().cmp(&right.first())
    }
}

/// The default configuration, with a validator for the keys `/v/…`.
pub(crate) fn validating() -> TrackerConfig {
    TrackerConfig::default().validators(Validators::default().with("v", Arc::new(Newest)))
}
