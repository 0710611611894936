//! Read repair: sends the best record to peers that a read found to hold a worse one, or none.
//!
//! A read repair is a put without a caller: it has an id that no caller can choose, the lowest class, no place in the
//! queue and no outcome. It never delays the read that started it.

use std::collections::BTreeMap;

use libp2p::{
    PeerId,
    kad::{KBucketKey, Record, RecordKey},
};

use super::{
    plans::Ended,
    results::{QueryEnd, QueryResults},
};
use crate::{REPLICATION_FACTOR, RequestId};

/// Read repairs under way.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadRepairs {
    /// Bounded by `max_read_repairs`.
    live: Vec<(RequestId, RecordKey)>,
    last: u64,
}

impl ReadRepairs {
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Returns the id of a new one.
    pub(super) fn start(&mut self, key: RecordKey) -> RequestId {
        self.last += 1;
        let id = RequestId(RequestId::FIRST_RESERVED.0 | self.last);
        self.live.push((id, key));
        id
    }

    pub(super) fn ended(&mut self, id: RequestId) {
        self.live.retain(|(live, _)| *live != id);
    }

    /// Returns those of a key.
    pub(super) fn of(&self, key: &RecordKey) -> Vec<RequestId> {
        self.live.iter().filter(|(_, of)| of == key).map(|(id, _)| *id).collect()
    }
}

/// Returns the closest peers that hold a worse record than the best, or none, the closest first.
pub(super) fn peers_to_repair(best: &Record, ended: &Ended<'_>, local_peer: &PeerId) -> Vec<PeerId> {
    let QueryResults::Records(found) = ended.results else { return Vec::new() };
    let holders = found.records.iter().filter_map(|record| Some((record.peer?, record.record.value == best.value)));
    let without = match ended.end {
        QueryEnd::Read { without, .. } => without.as_slice(),
        _ => &[],
    };
    // A peer that sent a record counts as its holder, even if kad later lists it as having none.
    let mut known: BTreeMap<_, _> = without.iter().map(|peer| (*peer, false)).collect();
    known.extend(holders);
    known.remove(local_peer);
    let target = KBucketKey::new(best.key.clone());
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_by_cached_key(|(peer, _)| KBucketKey::from(*peer).distance(&target));
    known.into_iter().take(REPLICATION_FACTOR).filter(|(_, is_best)| !is_best).map(|(peer, _)| peer).collect()
}
