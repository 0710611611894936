//! Keys, peers and values of schedules. There are few of each, so that requests collide.

use std::{cmp::Ordering, sync::Arc};

use kadence_core::{ValidationError, Validator, Validators};
use libp2p::{PeerId, kad::RecordKey, multihash::Multihash};

/// Two keys without a validator and two with one.
pub const KEYS: [&str; 4] = ["a", "b", "/v/a", "/v/b"];

/// Returns one of [`KEYS`]; `n` counts modulo their number.
pub fn key(n: u8) -> RecordKey {
    let [first, ..] = KEYS;
    RecordKey::new(KEYS.get(usize::from(n) % KEYS.len()).unwrap_or(&first))
}

/// Returns the peer with this number. Its id is short, so that it prints quickly.
pub fn peer(n: u8) -> PeerId {
    let id = Multihash::wrap(0, &[n]).ok().and_then(|hash| PeerId::from_multihash(hash).ok());
    match id {
        Some(id) => id,
        None => unreachable!("a single byte with the identity hash is a valid peer id"),
    }
}

/// Returns the id of the tracker's own node.
pub fn local() -> PeerId {
    peer(0)
}

/// Returns the peers 1 to 8 whose bits are set in `mask`.
pub fn peers(mask: u8) -> Vec<PeerId> {
    (0..8).filter(|bit| mask & (1 << bit) != 0).map(|bit| peer(bit + 1)).collect()
}

/// Returns one of eight values. They include different ranks, equal ranks with different bytes, and two values that
/// [`Ranked`] rejects.
pub fn value(n: u8) -> Vec<u8> {
    match n % 8 {
        0 | 1 => vec![1],
        2 | 3 => vec![2],
        4 => vec![2, 1],
        5 => vec![3, 0, 0],
        6 => vec![0xFF],
        _ => Vec::new(),
    }
}

/// Returns the validators that every tracker of a schedule uses.
pub fn validators() -> Validators {
    Validators::default().with("v", Arc::new(Ranked))
}

/// Validator of the namespace `v`. The first byte of a value is its rank; an empty value and the rank `0xFF` are
/// invalid.
#[derive(Debug)]
pub struct Ranked;

impl Validator for Ranked {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        match value.first() {
            None => Err(ValidationError("no rank".to_owned())),
            Some(0xFF) => Err(ValidationError("no such rank".to_owned())),
            Some(_) => Ok(()),
        }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.first().cmp(&right.first())
    }
}
