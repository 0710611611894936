use std::time::Duration;

use kadence::TrackerConfig;
use libp2p::kad::{self, store::MemoryStoreConfig};

use crate::PROTOCOL;

/// How a [`RealKad`](super::RealKad) is made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What decides the peers, and everything that chance decides.
    pub seed: u64,
    /// The tracker's configuration.
    pub tracker: TrackerConfig,
    /// kad's configuration.
    pub kad: kad::Config,
    /// The local store's configuration.
    pub store: MemoryStoreConfig,
    /// What is done wrong on purpose.
    pub fault: Option<Fault>,
}

impl Setup {
    /// A kad that starts no queries by itself, and whose own query timeout never comes.
    pub fn new(seed: u64) -> Self {
        let mut kad = kad::Config::new(PROTOCOL);
        kad.set_periodic_bootstrap_interval(None).set_query_timeout(Duration::from_secs(3600));
        // The clock moves by hand, and what is silent here stays so.
        let tracker = TrackerConfig::default().stall(None);
        Self { seed, tracker, kad, store: MemoryStoreConfig::default(), fault: None }
    }
}

/// Something that a driver could do wrong. It must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is ever finished.
    NeverFinishes,
    /// A query is finished once, and the order is not repeated.
    FinishesOnce,
    /// Every third last event does not reach the tracker.
    LosesEvents,
    /// Every third event is taken for one of the query that was started last.
    ConfusesQueries,
    /// What was announced in vain is not taken back.
    KeepsAnnouncing,
    /// A record is in the local store before the put has succeeded.
    StoresBeforehand,
    /// The clock is not looked at.
    MissesDeadlines,
    /// Every third outcome is delivered twice.
    RepeatsOutcomes,
}

impl Fault {
    /// All of them.
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
