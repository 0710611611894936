//! An operation and what came of it.

use std::{collections::BTreeSet, fmt, time::Duration};

use kadence::{Call, Progress, node::Node};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use crate::plan::{Job, Operation, value};

/// What a client answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// It is what was asked for: some peers, the quorum, a right value.
    pub(crate) ok: bool,
    /// The peers that were found, or that have sent the record.
    pub(crate) peers: BTreeSet<PeerId>,
    /// Requests that were sent to peers, where the client says so.
    pub(crate) requests: Option<u32>,
    /// Other bytes than those that were stored.
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

/// How an operation ended.
#[derive(Debug, Clone)]
pub(crate) struct Completed {
    /// Which network of its share it was in.
    pub(crate) network: usize,
    pub(crate) job: Job,
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
    /// How much of what there is was found, from 0 to 1: of the true closest peers alive, of the holders alive; of a put,
    /// how many of the true closest peers alive hold it in the end.
    pub(crate) recall: Option<f64>,
}

/// Kadence carries out a job.
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
