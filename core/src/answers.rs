//! Answers: the successful result of each operation.

use std::sync::Arc;

use libp2p::{
    PeerId,
    kad::{PeerInfo, PeerRecord},
};

use crate::{Certainty, Progress};

/// Answer of a get: at least one record. The source of a record is the peer that sent it, or the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordAnswer {
    /// The record that the [`Policy`](crate::Policy) selected. With `Quorum` it is the first to arrive with the bytes
    /// that reached the quorum, with `Best` the first to arrive with the best bytes, and otherwise the first to arrive.
    pub record: Arc<PeerRecord>,
    /// The other records of the answer, by order of arrival. No two records of an answer, `record` included, have the
    /// same source. Always empty with [`Policy::First`](crate::Policy::First), and at most `n - 1` records with
    /// `Limit(n)`.
    pub others: Arc<[Arc<PeerRecord>]>,
    /// Number of records in this answer with exactly the bytes of `record`, including `record` itself.
    pub agreeing: usize,
    /// Number of records in this answer with other bytes than `record`.
    pub dissenting: usize,
    /// Number of peers that the best record is sent to in the background (read repair), because they hold a worse
    /// record or none. Always zero for other policies than [`Policy::Best`](crate::Policy::Best). See
    /// [`TrackerConfig::max_read_repairs`](crate::TrackerConfig::max_read_repairs).
    pub repairing: usize,
    /// Requests and answers of the query, as last reported by kad. kad reports a record before it counts the response
    /// that contained it, so the response that completed this answer may be missing from [`Progress::successes`].
    pub progress: Progress,
}

impl RecordAnswer {
    /// Creates an answer that consists of one record.
    pub fn new(record: Arc<PeerRecord>, progress: Progress) -> Self {
        Self { record, others: Arc::default(), agreeing: 1, dissenting: 0, repairing: 0, progress }
    }

    /// Returns an iterator over every record of the answer, the selected one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PeerRecord>> {
        std::iter::once(&self.record).chain(&*self.others)
    }

    /// Returns the value of the selected record.
    pub fn value(&self) -> &[u8] {
        &self.record.record.value
    }
}

/// One value found under a key, with the number of sources that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The first record to arrive with this value.
    pub record: Arc<PeerRecord>,
    /// Number of sources (peers, and the local store) that hold exactly this value.
    pub votes: usize,
}

impl Candidate {
    /// Creates a candidate from its first record and its number of sources.
    pub fn new(record: Arc<PeerRecord>, votes: usize) -> Self {
        Self { record, votes }
    }
}

/// Answer of a put: enough peers acknowledged the record, and for [`Operation::PutRecord`](crate::Operation::PutRecord)
/// everything that [`PutOptions`](crate::PutOptions) requires was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutAnswer {
    /// Peers that acknowledged the record; with retries, in the successful attempt. An acknowledgement does not prove that a peer holds the record;
    /// [`PutOptions::verify`](crate::PutOptions::verify) checks it.
    pub acknowledged: Vec<PeerId>,
    /// Peers that were selected for the record and did not acknowledge it. They rejected it, could not be reached, did
    /// not answer in time, or were not asked because the query ended before. kad does not report which.
    pub unacknowledged: Vec<PeerId>,
    /// Number of peers that returned the record when it was read back. Equals
    /// [`PutOptions::verify`](crate::PutOptions::verify), because reading back stops at that number. Zero if the record
    /// was not read back.
    pub verified: usize,
    /// Requests and answers of all steps of the put. With retries, those of the successful attempt only.
    pub progress: Progress,
}

impl PutAnswer {
    /// Creates the answer of a put that did not read the record back.
    pub fn new(acknowledged: Vec<PeerId>, unacknowledged: Vec<PeerId>, progress: Progress) -> Self {
        Self { acknowledged, unacknowledged, verified: 0, progress }
    }

    /// Returns the number of peers that were selected for the record: those in `acknowledged` and in `unacknowledged`.
    pub fn asked(&self) -> usize {
        self.acknowledged.len() + self.unacknowledged.len()
    }
}

/// Answer of a provider lookup: at least one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvidersAnswer {
    /// The providers, each once, by order of arrival; those of one response by order of their ids. At most `n` with
    /// `Limit(n)`. The local peer may be one of them, for example because the local store names it.
    pub providers: Arc<[PeerId]>,
    /// Requests and answers of the query, as last reported by kad.
    pub progress: Progress,
}

impl ProvidersAnswer {
    /// Creates an answer.
    pub fn new(providers: Vec<PeerId>, progress: Progress) -> Self {
        Self { providers: providers.into(), progress }
    }
}

/// Answer of a provider announcement: at least one peer answered the lookup of the peers closest to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvideAnswer {
    /// Number of peers that kad sent the announcement to, at most 20. Zero if the swarm has no external address, because
    /// the announcement then does not say where the provider is: see
    /// [`NoExternalAddress`](crate::StartProvidingError::NoExternalAddress).
    ///
    /// The number is derived from kad's counters, for kad's default replication factor. Fewer peers may have received the
    /// announcement: they do not acknowledge it, and kad does not report one that could not be delivered.
    pub sent_to: u32,
    /// Requests and answers of the lookup and of the announcement. kad counts each announcement as a request and as
    /// answered, even if it has yet to dial the peer.
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
    /// Up to 20 peers that answered, the closest to the target first, never the local peer. Each has the addresses that
    /// the last peer to name it during the lookup gave, possibly none.
    ///
    /// Peers that did not answer are left out, and others may be missing because of them: see
    /// [`thorough`](crate::Operation::GetClosestPeers::thorough).
    pub peers: Arc<[PeerInfo]>,
    /// Certainty by the rules for an empty result: enough peers have answered, or not. Even in a conclusive answer, a
    /// silent peer may have hidden another one that belongs in `peers`. A thorough lookup is conclusive if both of its queries are.
    pub certainty: Certainty,
    /// Requests and answers of the lookup; of both queries if the lookup was thorough.
    pub progress: Progress,
}

impl ClosestPeersAnswer {
    /// Creates an answer that is inconclusive.
    pub fn new(peers: Vec<PeerInfo>, progress: Progress) -> Self {
        Self { peers: peers.into(), certainty: Certainty::Inconclusive, progress }
    }
}

/// Answer of a bootstrap: every lookup has ended, at least one before kad's query timeout, and at least one peer has
/// answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootstrapAnswer {
    /// Number of lookups that have ended: one for the local peer id, and one for each refreshed bucket of the routing
    /// table.
    pub phases: u32,
    /// Number of lookups that ended by kad's query timeout.
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
