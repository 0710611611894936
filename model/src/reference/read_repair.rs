//! Read repair: after a read for the best record, peers that returned a different record, or none, are sent the best
//! one.

use std::{sync::Arc, time::Instant};

use kadence_core::{Operation, Outcome, Policy, Priority, Quorum, RequestId, RequestOptions};
use libp2p::{
    PeerId,
    kad::{KBucketKey, PeerRecord},
};

use super::{Awaiting, LiveRequest, Model, later, results::QueryResults};

pub(super) type ReadRepair = Option<(Arc<PeerRecord>, Vec<PeerId>)>;

impl Model {
    /// Returns the best record and the outdated peers. Stores their number in the outcome.
    pub(super) fn read_repair(
        &self,
        operation: &Operation,
        outcome: &mut Outcome,
        found: &QueryResults,
        without: &[PeerId],
        now: Instant,
    ) -> ReadRepair {
        let alive = self.requests.iter().filter(|request| request.id.is_reserved()).count();
        match (operation, outcome) {
            (Operation::GetRecord { policy: Policy::Best { agree: _ }, .. }, Outcome::GetRecord(Ok(answer)))
                if alive < self.config.max_read_repairs
                    && !self.shutting_down
                    && answer.record.record.expires.is_none_or(|at| at > now) =>
            {
                let held = |peer: &PeerId| found.records.iter().find(|record| record.peer == Some(*peer));
                let key = KBucketKey::new(answer.record.record.key.clone());
                let holders = found.records.iter().filter_map(|record| record.peer);
                let mut peers: Vec<_> = holders.chain(without.iter().copied()).collect();
                peers.retain(|peer| *peer != self.local);
                peers.sort_by_key(|peer| KBucketKey::from(*peer).distance(&key));
                peers.dedup();
                peers.truncate(20);
                peers.retain(|peer| held(peer).is_none_or(|held| held.record.value != answer.record.record.value));
                answer.repairing = peers.len();
                if peers.is_empty() { None } else { Some((Arc::clone(&answer.record), peers)) }
            }
            _ => None,
        }
    }

    pub(super) fn start_read_repair(&mut self, read_repair: ReadRepair, now: Instant) {
        let Some((best, peers)) = read_repair else { return };
        self.last_read_repair += 1;
        self.counters.read_repairs += 1;
        let id = RequestId(RequestId::FIRST_RESERVED.0 + self.last_read_repair);
        let record = Arc::new(best.record.clone());
        let operation =
            Operation::PutRecordTo { record: Arc::clone(&record), peers: peers.clone(), quorum: Quorum::One };
        self.requests.push(LiveRequest {
            id,
            operation,
            options: RequestOptions::default().priority(Priority::Background),
            accepted: now,
            deadline: later(now, self.config.default_timeout),
            awaiting: Awaiting::Retry(now),
            put: None,
            first_lookup: None,
            failed_attempts: 0,
            earlier_attempts: Vec::new(),
            past_first_step: true,
            second_step: false,
            announced: false,
        });
        self.attach(id, kadence_core::Query::PutRecordTo { record, peers: peers.into() }, now);
    }
}
