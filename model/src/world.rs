//! The small world in which schedules take place: few keys, few peers and few values, so that they collide.

use std::{cmp::Ordering, sync::Arc};

use kadence_core::{ValidationError, Validator, Validators};
use libp2p::{PeerId, kad::RecordKey, multihash::Multihash};

/// Two keys without a validator, and two with one.
pub const KEYS: [&str; 4] = ["a", "b", "/v/a", "/v/b"];

/// One of [`KEYS`].
pub fn key(n: u8) -> RecordKey {
    let [first, ..] = KEYS;
    RecordKey::new(KEYS.get(usize::from(n) % KEYS.len()).unwrap_or(&first))
}

/// A peer for each number. Its id is short, which makes it quick to print.
pub fn peer(n: u8) -> PeerId {
    let id = Multihash::wrap(0, &[n]).ok().and_then(|hash| PeerId::from_multihash(hash).ok());
    match id {
        Some(id) => id,
        None => unreachable!("one byte is a peer id with the identity hash"),
    }
}

/// The node that the tracker belongs to.
pub fn local() -> PeerId {
    peer(0)
}

/// Peers 1 to 8 by the bits of a mask.
pub fn peers(mask: u8) -> Vec<PeerId> {
    (0..8).filter(|bit| mask & (1 << bit) != 0).map(|bit| peer(bit + 1)).collect()
}

/// A few values: different ranks, equal ranks with different bytes, and two that [`Ranked`] rejects.
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

/// Those of every tracker here.
pub fn validators() -> Validators {
    Validators::default().with("v", Arc::new(Ranked))
}

/// The validator of the namespace `v`: the first byte of a value is its rank, and `0xFF` is none.
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
