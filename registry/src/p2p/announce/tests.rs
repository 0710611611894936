mod catalogue;
mod discovered;
mod gossip;
mod message;
mod network;
mod validator;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p_identity::{Keypair, PeerId};

use super::*;
use crate::{ContentId, PackageId};

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Returns the same key for the same number.
fn keypair(number: u32) -> Keypair {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    Keypair::ed25519_from_bytes(secret).unwrap()
}

fn peer(number: u32) -> PeerId {
    keypair(number + 1_000_000).public().to_peer_id()
}

fn package_of(publisher: u32, name: &str) -> PackageId {
    PackageId::new(keypair(publisher).public().to_peer_id(), name.parse().unwrap()).unwrap()
}

fn unsigned(publisher: u32, name: &str, seq: u64) -> Announcement {
    Announcement {
        schema: 1,
        package: package_of(publisher, name),
        version: semver::Version::new(1, seq, 0),
        seq,
        head: ContentId::of(format!("head {publisher} {name} {seq}").as_bytes()),
        index: ContentId::of(b"index"),
        title: "Pads on the left".to_owned(),
        published_at: NOW,
    }
}

fn signed(publisher: u32, name: &str, seq: u64) -> SignedAnnouncement {
    SignedAnnouncement::sign(&keypair(publisher), unsigned(publisher, name, seq)).unwrap()
}

fn signed_at(publisher: u32, name: &str, published_at: u64) -> SignedAnnouncement {
    let announcement = Announcement { published_at, ..unsigned(publisher, name, 1) };
    SignedAnnouncement::sign(&keypair(publisher), announcement).unwrap()
}
