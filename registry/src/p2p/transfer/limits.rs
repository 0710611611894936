use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::config::ServerConfig;
use crate::p2p::token_bucket::{Refill, TokenBucket};

/// Maximum number of peers that are accounted. Peers without streams and with a full bucket are removed first.
const MAX_PEERS: usize = 4096;

/// Maximum delay of a response for bandwidth. It is short, so that the peer does not take us for dead; a peer that
/// would have to wait longer is sent a time after which to come back.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Streams and bandwidth in use, by peer and in total.
#[derive(Debug)]
pub(super) struct Limits {
    config: ServerConfig,
    streams: usize,
    total: TokenBucket,
    started: Instant,
    peers: HashMap<PeerId, Account>,
}

#[derive(Debug, Default)]
struct Account {
    streams: usize,
    bucket: TokenBucket,
}

/// Refusal with the time after which the peer may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryAfter(pub(super) Duration);

impl Limits {
    pub(super) fn new(config: ServerConfig, now: Instant) -> Self {
        Self { config, streams: 0, total: TokenBucket::default(), started: now, peers: HashMap::new() }
    }

    /// Admits one more stream of the peer.
    pub(super) fn admit(&mut self, peer: PeerId, now: Instant) -> Result<(), RetryAfter> {
        let full = Err(RetryAfter(self.config.retry_after));
        if self.streams >= self.config.streams {
            return full;
        }
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= MAX_PEERS {
                let time = self.time(now);
                self.peers.retain(|_, account| account.streams > 0 || !account.bucket.is_full(time));
            }
            if self.peers.len() >= MAX_PEERS {
                return full;
            }
        }
        let account = self.peers.entry(peer).or_default();
        if account.streams >= self.config.streams_per_peer {
            return full;
        }
        account.streams += 1;
        self.streams += 1;
        Ok(())
    }

    /// Releases an admitted stream. The peer's used bandwidth stays on its account: a new stream gives no new
    /// allowance.
    pub(super) fn release(&mut self, peer: PeerId) {
        self.streams = self.streams.saturating_sub(1);
        if let Some(account) = self.peers.get_mut(&peer) {
            account.streams = account.streams.saturating_sub(1);
        }
    }

    /// Reserves bandwidth. Returns the time after which the bytes may be sent.
    pub(super) fn reserve(&mut self, peer: PeerId, bytes: u64, now: Instant) -> Result<Duration, RetryAfter> {
        let (of_all, of_peer, time) = (self.refill(), self.refill_of_peer(), self.time(now));
        let mut wait = self.total.wait(of_all, bytes, time);
        if let Some(Account { bucket, .. }) = self.peers.get_mut(&peer) {
            wait = wait.max(bucket.wait(of_peer, bytes, time));
            if wait <= MAX_WAIT {
                bucket.take(of_peer, bytes, time);
            }
        }
        if wait > MAX_WAIT {
            return Err(RetryAfter(wait));
        }
        self.total.take(of_all, bytes, time);
        Ok(wait)
    }

    /// Returns reserved bytes that were not sent.
    pub(super) fn give_back(&mut self, peer: PeerId, bytes: u64) {
        self.total.give_back(self.refill(), bytes);
        let of_peer = self.refill_of_peer();
        if let Some(account) = self.peers.get_mut(&peer) {
            account.bucket.give_back(of_peer, bytes);
        }
    }

    fn refill(&self) -> Refill {
        Refill::per_second(self.config.bytes_per_second)
    }

    fn refill_of_peer(&self) -> Refill {
        Refill::per_second(self.config.bytes_per_second_per_peer)
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}
