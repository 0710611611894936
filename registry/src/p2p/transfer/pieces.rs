use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kadence::deadline_after;
use libp2p::PeerId;

/// Maximum number of providers that fetch the same piece at the same time: the number that a download has by default.
const MAX_PROVIDERS_PER_PIECE: usize = 6;

/// State of the pieces of a download: missing, being fetched by some providers, or complete.
#[derive(Debug)]
pub(super) struct Pieces {
    count: u32,
    /// Missing pieces that nobody fetches.
    open: BTreeSet<u32>,
    /// Pieces that providers are fetching.
    taken: BTreeMap<u32, Taken>,
}

#[derive(Debug)]
struct Taken {
    by: Vec<PeerId>,
    since: Instant,
}

impl Taken {
    /// Time at which one more provider may fetch the piece; `None` if it has the maximum. Each provider that is added
    /// moves the time on by `hedge_after`.
    fn next_hedge_at(&self, hedge_after: Duration) -> Option<Instant> {
        let providers = u32::try_from(self.by.len()).ok().filter(|_| self.by.len() < MAX_PROVIDERS_PER_PIECE)?;
        Some(deadline_after(self.since, hedge_after.saturating_mul(providers)))
    }
}

impl Pieces {
    pub(super) fn new(count: u32, done: &BTreeSet<u32>) -> Self {
        let open = (0..count).filter(|piece| !done.contains(piece)).collect();
        Self { count, open, taken: BTreeMap::new() }
    }

    /// Assigns a piece that nobody fetches to the provider.
    pub(super) fn take(&mut self, peer: PeerId, now: Instant) -> Option<u32> {
        let piece = self.open.pop_first()?;
        self.taken.insert(piece, Taken { by: vec![peer], since: now });
        Some(piece)
    }

    /// Assigns a late piece to an idle provider, in addition to those that are fetching it: the one that is being
    /// fetched for the longest time.
    pub(super) fn hedge(&mut self, peer: PeerId, now: Instant, hedge_after: Duration) -> Option<u32> {
        let late = |taken: &Taken| taken.next_hedge_at(hedge_after).is_some_and(|at| at <= now);
        let (piece, taken) = self
            .taken
            .iter_mut()
            .filter(|(_, taken)| !taken.by.contains(&peer) && late(taken))
            .min_by_key(|(_, taken)| taken.since)?;
        taken.by.push(peer);
        Some(*piece)
    }

    /// Returns the time after `now` at which the next piece becomes late.
    pub(super) fn next_late(&self, now: Instant, hedge_after: Duration) -> Option<Instant> {
        self.taken.values().filter_map(|taken| taken.next_hedge_at(hedge_after)).filter(|at| *at > now).min()
    }

    /// Returns the providers that are fetching late pieces.
    pub(super) fn late(&self, now: Instant, hedge_after: Duration) -> BTreeSet<PeerId> {
        let late = self.taken.values().filter(|taken| now.saturating_duration_since(taken.since) >= hedge_after);
        late.flat_map(|taken| taken.by.iter().copied()).collect()
    }

    /// Marks a piece as complete, even if its provider is gone. Returns whether it was missing.
    pub(super) fn complete(&mut self, piece: u32) -> bool {
        self.taken.remove(&piece).is_some() || self.open.remove(&piece)
    }

    /// Takes a piece back from a provider that will not fetch it.
    pub(super) fn give_back(&mut self, piece: u32, peer: &PeerId) {
        if let Some(taken) = self.taken.get_mut(&piece) {
            taken.by.retain(|by| by != peer);
            if taken.by.is_empty() {
                self.taken.remove(&piece);
                self.open.insert(piece);
            }
        }
    }

    /// Takes all pieces back from a provider that is gone.
    pub(super) fn give_all_back(&mut self, peer: &PeerId) {
        let pieces: Vec<u32> =
            self.taken.iter().filter(|(_, taken)| taken.by.contains(peer)).map(|(piece, _)| *piece).collect();
        for piece in pieces {
            self.give_back(piece, peer);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty() && self.taken.is_empty()
    }

    /// Returns the number of complete pieces.
    pub(super) fn done_count(&self) -> u32 {
        let missing = self.open.len() + self.taken.len();
        self.count.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }
}
