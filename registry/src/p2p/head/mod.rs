//! The head of a package: the one small record that changes, signed by its publisher.
//!
//! A head says which index is the newest. It is a record of the DHT under [`dht_key`]; anybody can hold and serve it, nobody
//! but the publisher can make one. What holders can still do is to serve an old one, or none: against that,
//! [`HeadStore`] remembers what was seen, and heads expire.

mod next;
mod policy;
mod proof;
mod record;
mod store;
mod validator;

pub use next::{Lifetime, NextHeadError, next_head};
pub use policy::{Accepted, CLOCK_TOLERANCE, Checkpoint, HeadRejectedError, MAX_JUMP, MAX_VALIDITY, validate_head};
pub use proof::{EquivocationProof, ProofError};
pub use record::{Head, HeadError, MAX_HEAD_INDEX_LEN, MAX_HEAD_LEN, MAX_SEQ, NAMESPACE, SignedHead, dht_key};
pub use store::{HeadStore, HeadStoreError, MAX_PACKAGES};
pub use validator::HeadValidator;

#[cfg(test)]
mod tests;
