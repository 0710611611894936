//! Read repair: sends the best record to peers that a read found to hold a worse one, or none.
//!
//! A read repair is a put without a caller: it has an id that no caller can choose, the lowest class, no place in the
//! queue and no outcome. It never delays the read that started it.

use std::{collections::BTreeMap, fmt, hash::Hash, sync::Arc};

use libp2p::{
    PeerId,
    kad::{KBucketKey, PeerRecord},
};

use super::{
    QueryTracker,
    policy::first_query,
    results::{QueryEnd, QueryResults},
    state::{LiveRequest, Phase, Timer},
    time::Time,
};
use crate::{Operation, Outcome, Policy, Priority, Quorum, REPLICATION_FACTOR, RequestId, StepId};

/// A record, and the peers to send it to.
pub(super) type ReadRepair = (Arc<PeerRecord>, Vec<PeerId>);

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Returns the closest peers that hold a worse record or none, the closest first, and notes their number in the
    /// answer.
    pub(super) fn read_repair(
        &self,
        operation: &Operation,
        outcome: &mut Outcome,
        results: &QueryResults,
        end: Option<&QueryEnd>,
        now: Time,
    ) -> Option<ReadRepair> {
        let Operation::GetRecord { key, policy: Policy::Best { agree: _ } } = operation else { return None };
        let (Outcome::GetRecord(Ok(answer)), QueryResults::Records(found)) = (outcome, results) else { return None };
        let expired = self.clock.instant(now).is_some_and(|now| answer.record.record.is_expired(now));
        if self.read_repairs >= self.config.max_read_repairs || self.shutting_down || expired {
            return None;
        }
        let best = &answer.record.record.value;
        let holders = found.records.iter().filter_map(|record| Some((record.peer?, record.record.value == *best)));
        let without = match end {
            Some(QueryEnd::Read { without, .. }) => without.as_slice(),
            _ => &[],
        };
        // A peer that sent a record counts as its holder, even if kad later lists it as having none.
        let mut known: BTreeMap<_, _> = without.iter().map(|peer| (*peer, false)).collect();
        known.extend(holders);
        known.remove(&self.local_peer);
        let target = KBucketKey::new(key.clone());
        let mut known: Vec<_> = known.into_iter().collect();
        known.sort_by_cached_key(|(peer, _)| KBucketKey::from(*peer).distance(&target));
        let peers: Vec<_> =
            known.into_iter().take(REPLICATION_FACTOR).filter(|(_, is_best)| !is_best).map(|(peer, _)| peer).collect();
        answer.repairing = peers.len();
        (!peers.is_empty()).then(|| (Arc::clone(&answer.record), peers))
    }

    /// Sends a record to the peers that need it.
    pub(super) fn start_read_repair(&mut self, (best, peers): ReadRepair, now: Time) {
        self.last_read_repair += 1;
        let id = RequestId(RequestId::FIRST_RESERVED.0 | self.last_read_repair);
        let operation = Operation::PutRecordTo { record: Arc::new(best.record.clone()), peers, quorum: Quorum::One };
        let query = first_query(&operation);
        let deadline = now.after(self.config.default_timeout);
        let request = LiveRequest {
            operation,
            streaming: false,
            priority: Priority::Background,
            retry: None,
            accepted: now,
            deadline,
            phase: Phase::Attached { step: StepId(0) },
            put: None,
            closest: None,
            // It takes no place in the queue.
            begun: true,
            second_step: false,
            announced: false,
        };
        self.requests.insert(id, Box::new(request));
        self.timers.insert((deadline, Timer::Deadline(id)));
        self.read_repairs += 1;
        self.stats.read_repairs += 1;
        self.attach(id, query, now);
    }
}
