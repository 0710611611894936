use std::time::Duration;

use kadence::TrackerConfig;
use libp2p::kad::{self, store::MemoryStoreConfig};

use crate::PROTOCOL;

/// Configuration of a [`RealKad`](super::RealKad).
#[derive(Debug, Clone)]
pub struct Setup {
    /// Seed of the peers and of all random decisions.
    pub seed: u64,
    /// Configuration of the tracker.
    pub tracker: TrackerConfig,
    /// Configuration of kad.
    pub kad: kad::Config,
    /// Configuration of the local store.
    pub store: MemoryStoreConfig,
    /// Fault to inject.
    pub fault: Option<Fault>,
}

impl Setup {
    /// Returns a configuration in which kad starts no queries by itself and never reaches its query timeout.
    pub fn new(seed: u64) -> Self {
        let mut kad = kad::Config::new(PROTOCOL);
        kad.set_periodic_bootstrap_interval(None).set_query_timeout(Duration::from_secs(3600));
        // The test advances the clock, and peers that are silent stay silent, so stall detection is off.
        let tracker = TrackerConfig::default().stall(None);
        Self { seed, tracker, kad, store: MemoryStoreConfig::default(), fault: None }
    }
}

/// Fault of a driver. The checks have to detect each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Queries are never finished.
    NeverFinishes,
    /// A query is finished once, and the `finish` is not repeated.
    FinishesOnce,
    /// Every third last event of a query does not reach the tracker.
    LosesEvents,
    /// Every third event is attributed to the query that was started last.
    ConfusesQueries,
    /// Failed announcements are not undone.
    KeepsAnnouncing,
    /// Records are stored locally before their put has succeeded.
    StoresBeforehand,
    /// Timeouts are ignored.
    MissesDeadlines,
    /// Every third outcome is delivered twice.
    RepeatsOutcomes,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 8] = [
        Self::NeverFinishes,
        Self::FinishesOnce,
        Self::LosesEvents,
        Self::ConfusesQueries,
        Self::KeepsAnnouncing,
        Self::StoresBeforehand,
        Self::MissesDeadlines,
        Self::RepeatsOutcomes,
    ];
}
