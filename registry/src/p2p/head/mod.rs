//! Heads of packages. A head is a small record, signed by the publisher, that names the newest [index](crate::Index) of
//! a package.
//!
//! A head is stored in the DHT under [`dht_key`]. Any peer can hold and serve a head, but only the publisher can sign
//! it. A holder can still serve an outdated head, or none. Against that, [`HeadStore`] remembers the highest head that
//! was seen, and heads expire.
//!
//! Two heads of one package conflict if they have the same sequence number and different contents, or if one has the
//! number after that of the other and does not name the other as its predecessor. A publisher that signs both commits
//! an equivocation.

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
