mod record;
mod rules;
mod store;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p_identity::Keypair;

use super::*;
use crate::{ContentId, PackageId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Returns the same key for the same number.
fn keypair(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).unwrap()
}

fn package_of(key: &Keypair, name: &str) -> PackageId {
    PackageId::new(key.public().to_peer_id(), name.parse().unwrap()).unwrap()
}

fn package() -> PackageId {
    package_of(&keypair(1), "left-pad")
}

/// Returns the head after `previous`, with an index of this text.
fn after(previous: Option<&SignedHead>, index: &str) -> SignedHead {
    after_at(previous, index, now())
}

fn after_at(previous: Option<&SignedHead>, index: &str, now: SystemTime) -> SignedHead {
    let index = ContentId::of(index.as_bytes());
    let head = next_head(&package(), previous, index, 100, Lifetime::default(), now).unwrap();
    SignedHead::sign(&keypair(1), head).unwrap()
}

/// Returns the heads 1 to `len`.
fn chain(len: usize) -> Vec<SignedHead> {
    let mut heads: Vec<SignedHead> = Vec::new();
    for number in 0..len {
        heads.push(after(heads.last(), &format!("index {number}")));
    }
    heads
}

/// Returns a head with any number, as a thief of the key could sign it.
fn with_seq(seq: u64) -> SignedHead {
    let mut head = after(None, "index").head().clone();
    head.seq = seq;
    head.prev = (seq > 1).then(|| ContentId::of(b"some head"));
    SignedHead::sign(&keypair(1), head).unwrap()
}

fn checkpoint(head: &SignedHead) -> Checkpoint {
    Checkpoint { seq: head.head().seq, head: Some(head.clone()) }
}
