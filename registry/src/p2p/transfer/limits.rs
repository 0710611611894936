use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::config::ServerConfig;
use crate::p2p::token_bucket::{Refill, TokenBucket};

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
    total: TokenBucket,
    started: Instant,
    peers: HashMap<PeerId, Account>,
}

#[derive(Debug, Default)]
struct Account {
    streams: usize,
    bucket: TokenBucket,
}

/// Come back after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryAfter(pub(super) Duration);

impl Limits {
    pub(super) fn new(config: ServerConfig, now: Instant) -> Self {
        Self { config, streams: 0, total: TokenBucket::default(), started: now, peers: HashMap::new() }
    }

    /// One more stream of this peer.
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

    /// A stream that was admitted has ended. What its peer has used up is remembered: a new stream is no new allowance.
    pub(super) fn release(&mut self, peer: PeerId) {
        self.streams = self.streams.saturating_sub(1);
        if let Some(account) = self.peers.get_mut(&peer) {
            account.streams = account.streams.saturating_sub(1);
        }
    }

    /// Takes the bandwidth for so many bytes, to be sent after the time that it says.
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

    /// Bytes that were reserved and not sent.
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
