//! Results of a request's failed attempts, for the timeout that ends a later one.

use std::{collections::BTreeSet, sync::Arc};

use libp2p::{PeerId, kad::PeerRecord};

use super::{Ended, Plan};
use crate::{
    GetClosestPeersError, GetProvidersError, GetRecordError, Outcome, Progress, PutRecordError, StartProvidingError,
    tracker::results::{QueryEnd, QueryResults},
};

/// Maximum number of peers remembered of a put's earlier attempts: fifty times the replication factor.
const MOST_PEERS: usize = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Earlier {
    /// Those of the last attempt first, one for each source.
    records: Vec<Arc<PeerRecord>>,
    sent_to: Vec<PeerId>,
    progress: Progress,
}

impl Earlier {
    /// Ends a failed attempt, and returns its results. A bootstrap leaves none, because its phases belong to one
    /// attempt.
    pub(super) fn take(plan: &mut Plan, ended: Option<&Ended<'_>>) -> Self {
        if let Plan::PutRecord(put) = plan {
            let (sent_to, progress) = put.restart().unwrap_or_default();
            return Self { sent_to, progress, ..Self::default() };
        }
        let Some(Ended { results, progress, end, .. }) = ended.copied() else { return Self::default() };
        match results {
            // Nothing was sent.
            _ if matches!(end, QueryEnd::NotStarted(_)) => Self::default(),
            QueryResults::Records(found) => Self { records: found.records.clone(), progress, ..Self::default() },
            QueryResults::Put { asked } => Self { sent_to: asked.to_vec(), progress, ..Self::default() },
            // An attempt that found providers or peers is not retried.
            QueryResults::Providers(_) | QueryResults::ClosestPeers | QueryResults::Announcement => {
                Self { progress, ..Self::default() }
            }
            QueryResults::Bootstrap { .. } => Self::default(),
        }
    }

    /// Adds the results of the attempts before this one. `None` if there are none at all.
    pub(super) fn after(mut self, before: Option<&Self>, max_items: usize) -> Option<Box<Self>> {
        if let Some(before) = before {
            add_records(&mut self.records, before, max_items);
            add_peers(&mut self.sent_to, before);
            self.progress = self.progress.merge(before.progress);
        }
        (self != Self::default()).then(|| Box::new(self))
    }

    /// Adds the results of earlier attempts to a timeout.
    pub(super) fn complete(&self, outcome: &mut Outcome, max_items: usize) {
        let progress = match outcome {
            Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) => {
                let mut all = found.to_vec();
                add_records(&mut all, self, max_items);
                *found = all.into();
                progress
            }
            Outcome::PutRecord(Err(PutRecordError::Timeout { sent_to, progress }))
            | Outcome::PutRecordTo(Err(PutRecordError::Timeout { sent_to, progress })) => {
                add_peers(sent_to, self);
                progress
            }
            Outcome::GetProviders(Err(GetProvidersError::Timeout { found: _, progress }))
            | Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: _, progress }))
            | Outcome::StartProviding(Err(StartProvidingError::Timeout { progress })) => progress,
            _ => return,
        };
        *progress = progress.merge(self.progress);
    }
}

fn add_records(records: &mut Vec<Arc<PeerRecord>>, before: &Earlier, max_items: usize) {
    let mut sources: BTreeSet<_> = records.iter().map(|record| record.peer).collect();
    let room = max_items.saturating_sub(records.len());
    records.extend(before.records.iter().filter(|record| sources.insert(record.peer)).take(room).cloned());
}

fn add_peers(peers: &mut Vec<PeerId>, before: &Earlier) {
    let mut known: BTreeSet<_> = peers.iter().copied().collect();
    let room = MOST_PEERS.saturating_sub(peers.len());
    peers.extend(before.sent_to.iter().filter(|peer| known.insert(**peer)).take(room).copied());
}
