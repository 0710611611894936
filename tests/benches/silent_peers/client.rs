//! Operations and their results.

use std::{collections::BTreeSet, fmt, time::Duration};

use kadence::{Call, Progress, node::Node};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use crate::plan::{Job, Operation, value};

/// Answer of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// The operation succeeded: it found peers, reached its quorum, or returned a correct value.
    pub(crate) ok: bool,
    /// Peers that were found, or that have sent the record.
    pub(crate) peers: BTreeSet<PeerId>,
    /// Number of requests to peers, if the client reports it.
    pub(crate) requests: Option<u32>,
    /// The answer has a wrong value.
    pub(crate) wrong: bool,
    pub(crate) error: Option<String>,
}

impl Answer {
    pub(crate) fn fail(&mut self, error: impl fmt::Display) {
        self.ok = false;
        self.error = Some(error.to_string());
    }

    pub(crate) fn found(&mut self, key: &RecordKey, peer: Option<PeerId>, bytes: &[u8]) {
        self.wrong |= bytes != value(key);
        self.ok = !self.wrong;
        self.peers.extend(peer);
    }

    fn progress(&mut self, progress: Progress) {
        self.requests = Some(progress.requests);
    }
}

/// Completed operation.
#[derive(Debug, Clone)]
pub(crate) struct Completed {
    /// Number of its network.
    pub(crate) network: usize,
    pub(crate) job: Job,
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
    /// Share of the possible results that were found, from 0 to 1. Lookups and gets: of the true closest peers that
    /// answer. Puts: the share of those peers that hold the record in the end.
    pub(crate) recall: Option<f64>,
}

/// Runs a job on Kadence's node.
pub(crate) async fn ask(node: &Node, job: Job, timeout: Option<Duration>) -> Answer {
    let client = node.client();
    let mut answer = Answer::default();
    match job.operation {
        Operation::Closest | Operation::ClosestThorough => {
            let lookup = client.get_closest_peers(job.key);
            let lookup = if job.operation == Operation::ClosestThorough { lookup.thorough() } else { lookup };
            match within(lookup, timeout).await {
                Ok(found) => {
                    answer.ok = true;
                    answer.peers = found.peers.iter().map(|peer| peer.peer_id).collect();
                    answer.progress(found.progress);
                }
                Err(error) => answer.fail(error),
            }
        }
        Operation::Put => {
            let record = Record::new(job.key.clone(), value(&job.key));
            match within(client.put_record(record).quorum(job.quorum), timeout).await {
                Ok(put) => {
                    answer.ok = true;
                    answer.progress(put.progress);
                }
                Err(error) => answer.fail(error),
            }
        }
        Operation::GetAll | Operation::GetFirst => {
            let get = client.get_record(job.key.clone());
            let get = if job.operation == Operation::GetAll { get.all() } else { get };
            match within(get, timeout).await {
                Ok(found) => {
                    for record in found.iter() {
                        answer.found(&job.key, record.peer, &record.record.value);
                    }
                    answer.progress(found.progress);
                }
                Err(error) => answer.fail(error),
            }
        }
    }
    answer
}

fn within<K>(call: Call<K>, timeout: Option<Duration>) -> Call<K> {
    match timeout {
        Some(timeout) => call.timeout(timeout),
        None => call,
    }
}
