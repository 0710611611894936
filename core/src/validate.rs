use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use libp2p::kad::RecordKey;
use thiserror::Error;

/// Decides for one namespace of keys whether a record is valid, and which of two records is better.
///
/// Both methods must be pure: the same arguments always give the same result. They are called often, on the task of the
/// driver, and must not block. The namespace of the key `/pkg/abc` is `pkg`.
pub trait Validator: Send + Sync {
    /// Validates a value under a key.
    ///
    /// # Errors
    ///
    /// Returns an error if the value is invalid. A get then never returns the record, and a put of it is rejected.
    fn validate(&self, key: &RecordKey, value: &[u8]) -> Result<(), ValidationError>;

    /// Compares two valid values under a key: `Greater` if `left` is better. Must be a total order. Of two values that
    /// compare as `Equal`, the tracker prefers the one with the larger bytes, so that all readers agree.
    fn compare(&self, key: &RecordKey, left: &[u8], right: &[u8]) -> Ordering;
}

/// Reason why a validator rejects a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ValidationError(pub String);

/// Validators by the namespace of a key. A record whose key has no validator is always valid.
#[derive(Clone, Default)]
pub struct Validators {
    by_namespace: BTreeMap<Vec<u8>, Arc<dyn Validator>>,
}

impl Validators {
    /// Registers the validator of a namespace, replacing an earlier one. The namespace is written without slashes:
    /// `pkg`.
    #[must_use]
    pub fn with(mut self, namespace: impl Into<Vec<u8>>, validator: Arc<dyn Validator>) -> Self {
        self.by_namespace.insert(namespace.into(), validator);
        self
    }

    /// Returns the validator of a key's namespace, which is the part between the first two slashes of `/namespace/…`.
    /// `None` if the key has no such form, or the namespace has no validator.
    pub fn of(&self, key: &[u8]) -> Option<&dyn Validator> {
        let rest = key.strip_prefix(b"/")?;
        let end = rest.iter().position(|byte| *byte == b'/')?;
        self.by_namespace.get(rest.get(..end)?).map(AsRef::as_ref)
    }
}

impl fmt::Debug for Validators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_namespace.keys().map(|name| name.escape_ascii().to_string())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Any;

    impl Validator for Any {
        fn validate(&self, _: &RecordKey, _: &[u8]) -> Result<(), ValidationError> {
            Ok(())
        }

        fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
            left.cmp(right)
        }
    }

    #[test]
    fn a_namespace_is_the_part_between_the_first_two_slashes() {
        let validators = Validators::default().with("pkg", Arc::new(Any));
        let known = |key: &str| validators.of(key.as_bytes()).is_some();
        assert!(known("/pkg/abc"));
        assert!(known("/pkg/"));
        assert!(known("/pkg/a/b"));
        assert!(!known("/pkg"));
        assert!(!known("pkg/abc"));
        assert!(!known("/pkgs/abc"));
        assert!(!known("//pkg/abc"));
        assert!(!known(""));
        assert_eq!(format!("{validators:?}"), "{\"pkg\"}");
    }
}
