//! Answers: the successful result of each operation.

use std::{sync::Arc, time::Duration};

use libp2p::{
    PeerId,
    kad::{PeerInfo, PeerRecord},
};

use crate::Progress;

/// Answer of a get: at least one record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordAnswer {
    /// The record that the policy selected: the first to arrive, the first with the bytes that reached the quorum, or the
    /// best.
    pub record: Arc<PeerRecord>,
    /// All other records, by order of arrival. Each source appears once.
    pub others: Vec<Arc<PeerRecord>>,
    /// Number of sources that hold exactly the bytes of `record`, its own source included.
    pub agreeing: usize,
    /// Number of sources that hold other bytes under the key.
    pub dissenting: usize,
    /// Number of peers that are being sent the best record in the background, because they hold a worse one or none. Only
    /// after [`Policy::Best`](crate::Policy::Best); see
    /// [`TrackerConfig::max_read_repairs`](crate::TrackerConfig::max_read_repairs).
    pub repairing: usize,
    /// Requests and answers of the query so far.
    pub progress: Progress,
    /// Age of this answer if it came from the [cache](crate::Cache); `None` if it came from the network.
    pub cached: Option<Duration>,
}

impl RecordAnswer {
    /// Creates the answer that consists of one record from the network.
    pub fn new(record: Arc<PeerRecord>, progress: Progress) -> Self {
        Self { record, others: Vec::new(), agreeing: 1, dissenting: 0, repairing: 0, progress, cached: None }
    }

    /// Returns an iterator over every record of the answer, the selected one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PeerRecord>> {
        std::iter::once(&self.record).chain(&self.others)
    }

    /// Returns the value of the selected record.
    pub fn value(&self) -> &[u8] {
        &self.record.record.value
    }
}

/// One of several values found under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The first record that arrived with this value.
    pub record: Arc<PeerRecord>,
    /// Number of sources that hold exactly these bytes.
    pub votes: usize,
}

impl Candidate {
    /// Creates a candidate.
    pub fn new(record: Arc<PeerRecord>, votes: usize) -> Self {
        Self { record, votes }
    }
}

/// Answer of a put: the quorum was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutAnswer {
    /// Peers that acknowledged the record. An acknowledgement is a claim; only
    /// [`PutOptions::verify`](crate::PutOptions::verify) proves that a peer holds the record.
    pub acknowledged: Vec<PeerId>,
    /// Peers that the record was sent to and that did not acknowledge it: they rejected it, could not be reached, or have
    /// not answered. kad does not report which; `progress` counts all failed requests.
    pub unacknowledged: Vec<PeerId>,
    /// Number of peers that returned the record when it was read back: as many as
    /// [`PutOptions::verify`](crate::PutOptions::verify) required, since the put waits for no more. Zero without it.
    pub verified: usize,
    /// Requests and answers of all steps of the put.
    pub progress: Progress,
}

impl PutAnswer {
    /// Creates the answer of a put that read nothing back.
    pub fn new(acknowledged: Vec<PeerId>, unacknowledged: Vec<PeerId>, progress: Progress) -> Self {
        Self { acknowledged, unacknowledged, verified: 0, progress }
    }

    /// Returns the number of peers that the record was sent to.
    pub fn asked(&self) -> usize {
        self.acknowledged.len() + self.unacknowledged.len()
    }
}

/// Answer of a provider lookup: at least one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvidersAnswer {
    /// The providers, each once, by order of arrival.
    pub providers: Vec<PeerId>,
    /// Requests and answers of the query so far.
    pub progress: Progress,
    /// Age of this answer if it came from the [cache](crate::Cache); `None` if it came from the network.
    pub cached: Option<Duration>,
}

impl ProvidersAnswer {
    /// Creates the answer of providers found in the network.
    pub fn new(providers: Vec<PeerId>, progress: Progress) -> Self {
        Self { providers, progress, cached: None }
    }
}

/// Answer of a provider announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvideAnswer {
    /// Maximum number of peers that received the announcement: those that kad sent it to. Peers do not acknowledge
    /// announcements, and kad does not report one that could not be delivered.
    pub sent_to: u32,
    /// Requests and answers of the lookup and the announcement. kad counts each announcement as answered before it is
    /// sent, also to a peer that it has yet to dial.
    pub progress: Progress,
}

impl ProvideAnswer {
    /// Creates an answer.
    pub fn new(sent_to: u32, progress: Progress) -> Self {
        Self { sent_to, progress }
    }
}

/// Answer of a lookup of the closest peers: at least one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosestPeersAnswer {
    /// Peers that answered, the closest first, with their known addresses; never the local peer.
    ///
    /// A lookup ends when the closest peers that it has heard of have answered or failed. A silent peer cannot name the
    /// peers that it knows, so a lookup may miss peers that are as close as those it returns. A
    /// [thorough](crate::Operation::GetClosestPeers::thorough) lookup searches for those too.
    pub peers: Vec<PeerInfo>,
    /// Requests and answers, of both queries if the lookup is thorough.
    pub progress: Progress,
}

impl ClosestPeersAnswer {
    /// Creates an answer.
    pub fn new(peers: Vec<PeerInfo>, progress: Progress) -> Self {
        Self { peers, progress }
    }
}

/// Answer of a bootstrap: every lookup has ended, and at least one of them in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootstrapAnswer {
    /// Number of lookups: one for the local peer id and one for each bucket that was refreshed.
    pub phases: u32,
    /// Number of them that timed out in kad.
    pub failed: u32,
    /// Requests and answers of all lookups.
    pub progress: Progress,
}

impl BootstrapAnswer {
    /// Creates an answer.
    pub fn new(phases: u32, failed: u32, progress: Progress) -> Self {
        Self { phases, failed, progress }
    }
}
