//! How requests end: an answer or a typed error for each operation.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use libp2p::{
    PeerId,
    kad::{self, PeerInfo, PeerRecord, store},
};
use thiserror::Error;

use crate::{InvalidRequestError, OperationKind, QueryStartError};

/// How far a query got: kad's `QueryStats`, whose fields are private and whose `duration` reads the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests sent to peers.
    pub requests: u32,
    /// Requests that were answered.
    pub successes: u32,
    /// Requests that failed: no connection, a refusal, or kad's peer timeout.
    pub failures: u32,
}

impl Progress {
    /// Peers that were asked and have not been heard of.
    pub fn pending(&self) -> u32 {
        self.requests.saturating_sub(self.successes).saturating_sub(self.failures)
    }

    /// Whether that nothing was found means that there is nothing: at least four of five that were asked have answered.
    pub fn certainty(&self) -> Certainty {
        let unanswered = self.requests.saturating_sub(self.successes);
        if self.successes > 0 && unanswered.saturating_mul(4) <= self.successes {
            Certainty::Conclusive
        } else {
            Certainty::Inconclusive
        }
    }

    /// The sum of two queries' progress.
    pub fn merge(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            successes: self.successes.saturating_add(other.successes),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

impl From<&kad::QueryStats> for Progress {
    fn from(stats: &kad::QueryStats) -> Self {
        Self { requests: stats.num_requests(), successes: stats.num_successes(), failures: stats.num_failures() }
    }
}

/// How much it means that nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// At least four of five of the peers that were asked have answered. A record is stored at twenty peers, so that those
    /// who did not answer would hardly be its only holders.
    Conclusive,
    /// Too few have answered: there may be something that nobody who answered knows of. Ask again.
    Inconclusive,
}

impl std::fmt::Display for Certainty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Conclusive => "conclusive",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// One result delivered while its request runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record with the peer it came from (`None`: the local store). Shared, not copied.
    Record(Arc<PeerRecord>),
    /// A provider that was not named before.
    Provider(PeerId),
    /// A bootstrap has done one of its lookups.
    BootstrapPhase(BootstrapPhase),
}

/// One lookup of a bootstrap: the first is for the own id, each further one refreshes a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapPhase {
    /// Whether the lookup ended in time.
    pub ok: bool,
    /// How many lookups are still to come, where kad knows.
    pub remaining: Option<u32>,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of [`Operation::GetRecord`](crate::Operation::GetRecord).
    GetRecord(Result<RecordAnswer, GetRecordError>),
    /// Of [`Operation::PutRecord`](crate::Operation::PutRecord).
    PutRecord(Result<PutAnswer, PutRecordError>),
    /// Of [`Operation::PutRecordTo`](crate::Operation::PutRecordTo).
    PutRecordTo(Result<PutAnswer, PutRecordError>),
    /// Of [`Operation::GetProviders`](crate::Operation::GetProviders).
    GetProviders(Result<ProvidersAnswer, GetProvidersError>),
    /// Of [`Operation::StartProviding`](crate::Operation::StartProviding).
    StartProviding(Result<ProvideAnswer, StartProvidingError>),
    /// Of [`Operation::GetClosestPeers`](crate::Operation::GetClosestPeers).
    GetClosestPeers(Result<ClosestPeersAnswer, GetClosestPeersError>),
    /// Of [`Operation::Bootstrap`](crate::Operation::Bootstrap).
    Bootstrap(Result<BootstrapAnswer, BootstrapError>),
}

impl Outcome {
    /// The outcome of an operation that ended for a reason that has nothing to do with what it asked.
    pub fn failed(kind: OperationKind, error: RequestError) -> Self {
        match kind {
            OperationKind::GetRecord => Self::GetRecord(Err(error.into())),
            OperationKind::PutRecord => Self::PutRecord(Err(error.into())),
            OperationKind::PutRecordTo => Self::PutRecordTo(Err(error.into())),
            OperationKind::GetProviders => Self::GetProviders(Err(error.into())),
            OperationKind::StartProviding => Self::StartProviding(Err(error.into())),
            OperationKind::GetClosestPeers => Self::GetClosestPeers(Err(error.into())),
            OperationKind::Bootstrap => Self::Bootstrap(Err(error.into())),
        }
    }

    /// Which operation ended.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::GetRecord(_) => OperationKind::GetRecord,
            Self::PutRecord(_) => OperationKind::PutRecord,
            Self::PutRecordTo(_) => OperationKind::PutRecordTo,
            Self::GetProviders(_) => OperationKind::GetProviders,
            Self::StartProviding(_) => OperationKind::StartProviding,
            Self::GetClosestPeers(_) => OperationKind::GetClosestPeers,
            Self::Bootstrap(_) => OperationKind::Bootstrap,
        }
    }

    /// Whether the request got an answer.
    pub fn is_ok(&self) -> bool {
        self.error().is_none()
    }

    /// Whether another attempt may end otherwise: peers come and go, so whatever depends on who answered is. What was
    /// wrong with the request itself, what the local store refused, that there is conclusively nothing, and what the
    /// caller or a deadline ended is not.
    /// An attempt that has found something is not repeated but for a quorum that it missed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::GetRecord(Err(error)) => match error {
                // Who has sent forgeries would send them again.
                GetRecordError::NotFound { certainty, rejected, .. } => {
                    *certainty == Certainty::Inconclusive && *rejected == 0
                }
                GetRecordError::NoResponse { .. }
                | GetRecordError::NoKnownPeers
                | GetRecordError::QuorumNotReached { .. } => true,
                GetRecordError::Timeout { found, progress: _ } => found.is_empty(),
                GetRecordError::Conflict { .. } | GetRecordError::Request(_) => false,
            },
            Self::PutRecord(Err(error)) | Self::PutRecordTo(Err(error)) => match error {
                PutRecordError::QuorumFailed { .. }
                | PutRecordError::NotVerified { .. }
                | PutRecordError::NoResponse { .. }
                | PutRecordError::InsufficientPeers { .. }
                | PutRecordError::NoKnownPeers => true,
                PutRecordError::Timeout { .. } | PutRecordError::Store { .. } | PutRecordError::Request(_) => false,
            },
            Self::GetProviders(Err(error)) => match error {
                GetProvidersError::NotFound { certainty, .. } => *certainty == Certainty::Inconclusive,
                GetProvidersError::NoResponse { .. } | GetProvidersError::NoKnownPeers => true,
                GetProvidersError::Timeout { found, progress: _ } => found.is_empty(),
                GetProvidersError::Request(_) => false,
            },
            Self::StartProviding(Err(error)) => match error {
                StartProvidingError::NoResponse { .. }
                | StartProvidingError::Timeout { .. }
                | StartProvidingError::NoKnownPeers => true,
                StartProvidingError::Store(_) | StartProvidingError::Request(_) => false,
            },
            Self::GetClosestPeers(Err(error)) => match error {
                GetClosestPeersError::NoResponse { .. } | GetClosestPeersError::NoKnownPeers => true,
                GetClosestPeersError::Timeout { peers, progress: _ } => peers.is_empty(),
                GetClosestPeersError::Request(_) => false,
            },
            Self::Bootstrap(Err(error)) => match error {
                BootstrapError::AllPhasesFailed { .. }
                | BootstrapError::NoResponse { .. }
                | BootstrapError::NoKnownPeers => true,
                BootstrapError::Timeout { .. } | BootstrapError::Request(_) => false,
            },
            Self::GetRecord(Ok(_))
            | Self::PutRecord(Ok(_))
            | Self::PutRecordTo(Ok(_))
            | Self::GetProviders(Ok(_))
            | Self::StartProviding(Ok(_))
            | Self::GetClosestPeers(Ok(_))
            | Self::Bootstrap(Ok(_)) => false,
        }
    }

    /// Whether the network has said what there is, or conclusively that there is nothing.
    pub(crate) fn is_found_out(&self) -> bool {
        match self {
            Self::GetRecord(Err(GetRecordError::NotFound { certainty, .. }))
            | Self::GetProviders(Err(GetProvidersError::NotFound { certainty, .. })) => {
                *certainty == Certainty::Conclusive
            }
            _ => self.is_ok(),
        }
    }

    /// The same outcome, from an answer that was kept for so long.
    pub(crate) fn kept_for(mut self, age: Duration) -> Self {
        if let Self::GetRecord(Ok(RecordAnswer { cached, .. }) | Err(GetRecordError::NotFound { cached, .. }))
        | Self::GetProviders(
            Ok(ProvidersAnswer { cached, .. }) | Err(GetProvidersError::NotFound { cached, .. }),
        ) = &mut self
        {
            *cached = Some(age);
        }
        self
    }

    /// Why the request failed, if it did.
    pub fn error(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::GetRecord(result) => result.as_ref().err().map(|e| e as _),
            Self::PutRecord(result) | Self::PutRecordTo(result) => result.as_ref().err().map(|e| e as _),
            Self::GetProviders(result) => result.as_ref().err().map(|e| e as _),
            Self::StartProviding(result) => result.as_ref().err().map(|e| e as _),
            Self::GetClosestPeers(result) => result.as_ref().err().map(|e| e as _),
            Self::Bootstrap(result) => result.as_ref().err().map(|e| e as _),
        }
    }
}

/// Why a request ended without an answer from the network, for reasons common to all operations.
#[derive(Debug, Clone, Error)]
pub enum RequestError {
    /// The request makes no sense as it is: change it.
    #[error("the request is not valid")]
    Invalid(#[from] InvalidRequestError),
    /// Too many requests are waiting; nothing was done. Ask again later, or ask for less at once.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The deadline came while the request was waiting for a slot: its query never started. Ask again with more time.
    #[error("the deadline passed before the query could start")]
    ExpiredInQueue,
    /// The request was cancelled by its caller.
    #[error("the request was cancelled")]
    Cancelled,
    /// The client is shutting down, or its driver is gone.
    #[error("the client has shut down")]
    Shutdown,
    /// kad refused to start the query for a reason that this operation does not know.
    #[error("kad refused the query")]
    Refused(#[source] QueryStartError),
}

/// The answer of a get: at least one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAnswer {
    /// The record that the policy is about: the first that arrived, the first of those that make the quorum, or the
    /// best.
    pub record: Arc<PeerRecord>,
    /// All others, by order of arrival; each source is named once.
    pub others: Vec<Arc<PeerRecord>>,
    /// How many sources hold exactly these bytes, this record's included.
    pub agreeing: usize,
    /// How many sources hold other bytes under the key.
    pub dissenting: usize,
    /// How many peers are sent the best record in the background, because they hold a worse one or none: after
    /// [`Policy::Best`](crate::Policy::Best), see [`TrackerConfig::max_read_repairs`](crate::TrackerConfig::max_read_repairs).
    pub repairing: usize,
    /// How many peers were asked and answered until then.
    pub progress: Progress,
    /// How long ago this was found, if it was [kept](crate::Cache) since; `None`: just now.
    pub cached: Option<Duration>,
}

/// One of several values under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The value, as the first of its sources sent it.
    pub record: Arc<PeerRecord>,
    /// How many sources hold exactly these bytes.
    pub votes: usize,
}

impl RecordAnswer {
    /// Every record of the answer.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PeerRecord>> {
        std::iter::once(&self.record).chain(&self.others)
    }

    /// The bytes of the first record.
    pub fn value(&self) -> &[u8] {
        &self.record.record.value
    }
}

/// Why a get has no answer.
#[derive(Debug, Clone, Error)]
pub enum GetRecordError {
    /// No peer that answered has the record.
    #[error("no record was found under this key ({} of {} peers answered: {certainty})", progress.successes, progress.requests)]
    NotFound {
        /// The peers closest to the key that answered.
        closest_peers: Vec<PeerId>,
        /// Whether enough peers answered for this to mean that there is none.
        certainty: Certainty,
        /// How many records came that the validator of the key's namespace rejected. If any did, it is not told that there
        /// is none: somebody has something, and its answer took the place of a true one.
        rejected: u32,
        /// How many peers were asked and answered.
        progress: Progress,
        /// How long ago this was found out, if it was [kept](crate::Cache) since; `None`: just now.
        cached: Option<Duration>,
    },
    /// Peers were asked, and none answered: this says nothing about the key.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// How many peers were asked.
        progress: Progress,
    },
    /// The query ended, and no value is held by as many sources as the quorum asks for: sources disagree.
    #[error("{} different values were found, none of them at {needed} sources", candidates.len())]
    Conflict {
        /// Every value, the most frequent first.
        candidates: Vec<Candidate>,
        /// How many sources had to agree.
        needed: usize,
    },
    /// The query ended, all sources agree, and they are fewer than the quorum asks for.
    #[error("{} sources hold the record, the quorum is {needed}", candidate.votes)]
    QuorumNotReached {
        /// The value.
        candidate: Candidate,
        /// How many sources had to agree.
        needed: usize,
    },
    /// The deadline came first; what had been found by then is here.
    #[error("the deadline passed with {} records found", found.len())]
    Timeout {
        /// Records found before the deadline, each source once: by order of arrival, those of the last attempt first.
        found: Vec<Arc<PeerRecord>>,
        /// How far the query got, as far as kad had said.
        progress: Progress,
    },
    /// The routing table is empty: connect to a peer first.
    #[error("no peer is known")]
    NoKnownPeers,
    /// For a reason common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// The answer of a put: the quorum was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAnswer {
    /// The peers that acknowledged the record. An acknowledgement is a peer's word; only reading back is proof.
    pub acknowledged: Vec<PeerId>,
    /// The peers that the record was sent to and that did not acknowledge it: they refused it, could not be reached, or
    /// have not answered. kad does not say which; how many of all requests failed is in `progress`.
    pub unacknowledged: Vec<PeerId>,
    /// How many peers gave the record back, if that was asked for ([`PutOptions::verify`](crate::PutOptions::verify)): as
    /// many as were asked for, whereupon no more are waited for.
    pub verified: usize,
    /// Requests and answers of all steps together.
    pub progress: Progress,
}

impl PutAnswer {
    /// How many peers the record was sent to.
    pub fn asked(&self) -> usize {
        self.acknowledged.len() + self.unacknowledged.len()
    }
}

/// Why a put failed. Unless a variant says otherwise, the record is not in the local store, or
/// is there because [`LocalCopy::First`](crate::LocalCopy::First) was asked for.
#[derive(Debug, Clone, Error)]
pub enum PutRecordError {
    /// Fewer peers than the quorum asks for acknowledged the record. Those that did keep it until it expires.
    #[error("{} of {asked} peers acknowledged the record, the quorum is {needed}", acknowledged.len())]
    QuorumFailed {
        /// The peers that acknowledged it.
        acknowledged: Vec<PeerId>,
        /// How many had to.
        needed: NonZeroUsize,
        /// How many peers the record was sent to.
        asked: usize,
    },
    /// The quorum was reached, but fewer peers than were asked for gave the record back when it was read. Those who have it
    /// keep it until it expires.
    #[error("{verified} peers gave the record back, {needed} were asked for")]
    NotVerified {
        /// The peers that acknowledged it.
        acknowledged: Vec<PeerId>,
        /// How many gave it back.
        verified: usize,
        /// How many had to.
        needed: usize,
    },
    /// Nobody answered the lookup of the peers closest to the key; nothing was sent.
    #[error("none of {} peers answered the lookup", progress.requests)]
    NoResponse {
        /// How many peers were asked.
        progress: Progress,
    },
    /// Fewer peers were found than the quorum asks for; nothing was sent.
    #[error("{found} peers were found, the quorum is {needed}")]
    InsufficientPeers {
        /// How many peers were found in all, by the lookups and in the own routing table.
        found: usize,
        /// How many would have to acknowledge the record.
        needed: NonZeroUsize,
    },
    /// The deadline came first. kad names the peers that acknowledged only at the end, so `sent_to` may hold it; and
    /// where the quorum was reached in the very moment of the deadline, the local store may as well.
    #[error("the deadline passed, with the record sent to {} peers", sent_to.len())]
    Timeout {
        /// The peers that the record was being sent to, those of the last attempt first; empty if no lookup had ended.
        sent_to: Vec<PeerId>,
        /// How far the queries got, as far as kad had said.
        progress: Progress,
    },
    /// The quorum was reached, but the local store refused the record: the peers hold it until it expires, and
    /// nobody republishes it.
    #[error("{} peers hold the record, but the local store refused it", acknowledged.len())]
    Store {
        /// The store's reason.
        #[source]
        error: store::Error,
        /// The peers that acknowledged the record.
        acknowledged: Vec<PeerId>,
    },
    /// The routing table is empty: connect to a peer first.
    #[error("no peer is known")]
    NoKnownPeers,
    /// For a reason common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// The answer of a provider lookup: at least one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidersAnswer {
    /// The providers, each once, by order of arrival.
    pub providers: Vec<PeerId>,
    /// How many peers were asked and answered until then.
    pub progress: Progress,
    /// How long ago this was found, if it was [kept](crate::Cache) since; `None`: just now.
    pub cached: Option<Duration>,
}

/// Why a provider lookup has no answer.
#[derive(Debug, Clone, Error)]
pub enum GetProvidersError {
    /// No peer that answered knows a provider.
    #[error("no provider was found for this key ({} of {} peers answered: {certainty})", progress.successes, progress.requests)]
    NotFound {
        /// The peers closest to the key that answered.
        closest_peers: Vec<PeerId>,
        /// Whether enough peers answered for this to mean that there is none.
        certainty: Certainty,
        /// How many peers were asked and answered.
        progress: Progress,
        /// How long ago this was found out, if it was [kept](crate::Cache) since; `None`: just now.
        cached: Option<Duration>,
    },
    /// Peers were asked, and none answered: this says nothing about the key.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// How many peers were asked.
        progress: Progress,
    },
    /// The deadline came first; what had been found by then is here.
    #[error("the deadline passed with {} providers found", found.len())]
    Timeout {
        /// Providers found before the deadline, by order of arrival.
        found: Vec<PeerId>,
        /// How far the query got, as far as kad had said.
        progress: Progress,
    },
    /// The routing table is empty: connect to a peer first.
    #[error("no peer is known")]
    NoKnownPeers,
    /// For a reason common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// The answer of a provider announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvideAnswer {
    /// How many peers the announcement was sent to. None of them acknowledges it, and kad does not tell of one that could
    /// not be reached after all, so these are at most as many as were told.
    pub sent_to: u32,
    /// Requests and answers of the lookup and the announcement together. Announcements are not acknowledged: kad
    /// counts each as answered before it is sent, those to peers that have to be dialled first included.
    pub progress: Progress,
}

/// Why an announcement failed. The local peer is then not a provider of the key, unless it was one before.
#[derive(Debug, Clone, Error)]
pub enum StartProvidingError {
    /// Nobody answered the lookup of the peers closest to the key, so nobody was told.
    #[error("none of {} peers answered the lookup", progress.requests)]
    NoResponse {
        /// How many peers were asked.
        progress: Progress,
    },
    /// The deadline came first. Some peers may have been told.
    #[error("the deadline passed")]
    Timeout {
        /// How far the query got, as far as kad had said.
        progress: Progress,
    },
    /// The local store takes no further provider entry: raise its limits, or stop providing another key.
    #[error("the local store refused the provider entry")]
    Store(#[source] store::Error),
    /// The routing table is empty: connect to a peer first.
    #[error("no peer is known")]
    NoKnownPeers,
    /// For a reason common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// The answer of a lookup of the closest peers: at least one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosestPeersAnswer {
    /// The peers that answered, closest first, with their known addresses, and never the local peer. A lookup ends when the
    /// closest that it has heard of have answered or failed; where some of these are silent, it may never have heard of
    /// others that belong here. A [thorough](crate::Operation::GetClosestPeers::thorough) one has looked for those as well.
    pub peers: Vec<PeerInfo>,
    /// How many peers were asked and answered, by both lookups of a thorough one together.
    pub progress: Progress,
}

/// Why a lookup of the closest peers failed.
#[derive(Debug, Clone, Error)]
pub enum GetClosestPeersError {
    /// Peers were asked, and none answered.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// How many peers were asked.
        progress: Progress,
    },
    /// The deadline, or kad's own query timeout, came first.
    #[error("the deadline passed with {} peers found", peers.len())]
    Timeout {
        /// The peers that had answered. kad names them only when a lookup ends, so where our own deadline was the
        /// earlier one, these are those of the first of a thorough one's two lookups, or nobody.
        peers: Vec<PeerInfo>,
        /// How far the query got, as far as kad had said.
        progress: Progress,
    },
    /// The routing table is empty: connect to a peer first.
    #[error("no peer is known")]
    NoKnownPeers,
    /// For a reason common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// The answer of a bootstrap: every lookup was done, and at least one ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapAnswer {
    /// How many lookups were done: one for the own id and one for each bucket that was refreshed.
    pub phases: u32,
    /// How many of them timed out in kad.
    pub failed: u32,
    /// Requests and answers of all lookups together.
    pub progress: Progress,
}

/// Why a bootstrap failed.
#[derive(Debug, Clone, Error)]
pub enum BootstrapError {
    /// Every lookup timed out.
    #[error("all {phases} lookups timed out")]
    AllPhasesFailed {
        /// How many lookups were done.
        phases: u32,
        /// Requests and answers of all lookups together.
        progress: Progress,
    },
    /// Peers were asked, and none answered.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// How many peers were asked.
        progress: Progress,
    },
    /// The deadline came first. What the lookups done so far put into the routing table stays there.
    #[error("the deadline passed after {phases} lookups")]
    Timeout {
        /// How many lookups were done.
        phases: u32,
        /// How many of them timed out in kad.
        failed: u32,
        /// Requests and answers of these lookups together.
        progress: Progress,
    },
    /// The routing table is empty: connect to a peer first.
    #[error("no peer is known")]
    NoKnownPeers,
    /// For a reason common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_are_those_that_were_asked_and_not_heard_of() {
        assert_eq!(Progress { requests: 5, successes: 2, failures: 1 }.pending(), 2);
        // Whatever was counted, there are no fewer than none.
        assert_eq!(Progress { requests: 2, successes: 2, failures: 1 }.pending(), 0);
    }
}
