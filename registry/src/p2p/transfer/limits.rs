use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{bucket::Bucket, server::ServerConfig};

/// How many peers are kept account of. Who has no stream and has not used up anything is forgotten first.
const MAX_PEERS: usize = 4096;

/// How long a response may be held back for bandwidth: not so long that the peer takes us for dead. Who would have to
/// wait longer is told to come back.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// What each peer has of the serving side, and what all have together.
#[derive(Debug)]
pub(super) struct Limits {
    config: ServerConfig,
    streams: usize,
    total: Bucket,
    peers: HashMap<PeerId, Account>,
}

#[derive(Debug)]
struct Account {
    streams: usize,
    bucket: Bucket,
}

/// Come back after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ComeBack(pub(super) Duration);

impl Limits {
    pub(super) fn new(config: ServerConfig, now: Instant) -> Self {
        let total = Bucket::new(config.bytes_per_second, now);
        Self { config, streams: 0, total, peers: HashMap::new() }
    }

    /// One more stream of this peer.
    pub(super) fn admit(&mut self, peer: PeerId, now: Instant) -> Result<(), ComeBack> {
        let full = Err(ComeBack(self.config.retry_after));
        if self.streams >= self.config.streams {
            return full;
        }
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= MAX_PEERS {
                self.peers.retain(|_, account| account.streams > 0 || !account.bucket.is_full(now));
            }
            if self.peers.len() >= MAX_PEERS {
                return full;
            }
        }
        let rate = self.config.bytes_per_second_per_peer;
        let account = self.peers.entry(peer).or_insert_with(|| Account { streams: 0, bucket: Bucket::new(rate, now) });
        if account.streams >= self.config.streams_per_peer {
            return full;
        }
        account.streams += 1;
        self.streams += 1;
        Ok(())
    }

    /// A stream that was admitted has ended. What its peer has used up is remembered: a new stream is no new allowance.
    pub(super) fn release(&mut self, peer: PeerId) {
        self.streams = self.streams.saturating_sub(1);
        if let Some(account) = self.peers.get_mut(&peer) {
            account.streams = account.streams.saturating_sub(1);
        }
    }

    /// Takes the bandwidth for so many bytes, to be sent after the time that it says.
    pub(super) fn reserve(&mut self, peer: PeerId, bytes: u64, now: Instant) -> Result<Duration, ComeBack> {
        let of_peer = self.peers.get_mut(&peer).map(|account| &mut account.bucket);
        let mut wait = self.total.wait(bytes, now);
        if let Some(bucket) = of_peer {
            wait = wait.max(bucket.wait(bytes, now));
            if wait <= MAX_WAIT {
                bucket.take(bytes, now);
            }
        }
        if wait > MAX_WAIT {
            return Err(ComeBack(wait));
        }
        self.total.take(bytes, now);
        Ok(wait)
    }

    /// Bytes that were reserved and not sent.
    pub(super) fn give_back(&mut self, peer: PeerId, bytes: u64, now: Instant) {
        self.total.give_back(bytes, now);
        if let Some(account) = self.peers.get_mut(&peer) {
            account.bucket.give_back(bytes, now);
        }
    }
}
