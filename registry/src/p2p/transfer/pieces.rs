use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// How many providers may be at one piece at a time: as many as a download has by default.
const MAX_PROVIDERS_PER_PIECE: usize = 6;

/// Which pieces are there, and who is at which of the others.
#[derive(Debug)]
pub(super) struct Pieces {
    count: u32,
    /// Nobody is at them.
    open: BTreeSet<u32>,
    /// Somebody is at them.
    taken: BTreeMap<u32, Taken>,
}

#[derive(Debug)]
struct Taken {
    by: Vec<PeerId>,
    since: Instant,
}

impl Taken {
    /// When one more provider may be at it, if ever: the later it is, the more of them are.
    fn next_hedge_at(&self, hedge_after: Duration) -> Option<Instant> {
        let providers = u32::try_from(self.by.len()).ok().filter(|_| self.by.len() < MAX_PROVIDERS_PER_PIECE)?;
        Some(self.since + hedge_after.saturating_mul(providers))
    }
}

impl Pieces {
    pub(super) fn new(count: u32, done: &BTreeSet<u32>) -> Self {
        let open = (0..count).filter(|piece| !done.contains(piece)).collect();
        Self { count, open, taken: BTreeMap::new() }
    }

    /// What this provider is to fetch next: a piece that nobody is at.
    pub(super) fn take(&mut self, peer: PeerId, now: Instant) -> Option<u32> {
        let piece = self.open.pop_first()?;
        self.taken.insert(piece, Taken { by: vec![peer], since: now });
        Some(piece)
    }

    /// What a provider with nothing to do is to fetch as well: the piece that others are at for the longest time, if that is
    /// longer than `hedge_after` for each of them.
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

    /// When a piece becomes late next.
    pub(super) fn next_late(&self, now: Instant, hedge_after: Duration) -> Option<Instant> {
        self.taken.values().filter_map(|taken| taken.next_hedge_at(hedge_after)).filter(|at| *at > now).min()
    }

    /// Who is at pieces that are late.
    pub(super) fn late(&self, now: Instant, hedge_after: Duration) -> BTreeSet<PeerId> {
        let late = self.taken.values().filter(|taken| now.saturating_duration_since(taken.since) >= hedge_after);
        late.flat_map(|taken| taken.by.iter().copied()).collect()
    }

    /// The piece is there, even if its provider has gone in the meantime. Says whether it is news.
    pub(super) fn complete(&mut self, piece: u32) -> bool {
        self.taken.remove(&piece).is_some() || self.open.remove(&piece)
    }

    /// This provider does not fetch it after all.
    pub(super) fn give_back(&mut self, piece: u32, peer: &PeerId) {
        if let Some(taken) = self.taken.get_mut(&piece) {
            taken.by.retain(|by| by != peer);
            if taken.by.is_empty() {
                self.taken.remove(&piece);
                self.open.insert(piece);
            }
        }
    }

    /// This provider is gone.
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

    /// How many are there.
    pub(super) fn done_count(&self) -> u32 {
        let missing = self.open.len() + self.taken.len();
        self.count.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }
}
