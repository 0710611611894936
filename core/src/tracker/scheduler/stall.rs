//! Stall detection: the time without progress after which a query is finished early.

use std::time::Duration;

use super::{
    query::{Job, LiveQuery},
    waiters::Threshold,
};
use crate::{Query, Stall};

/// Number of answers that are enough of the up to 20 that a lookup aims for.
const MANY_ANSWERS: u32 = 10;

/// Returns the time without progress after which a query is finished early. `None` if never, because its result would be
/// worthless. `quiet` is the quiet time.
pub(super) fn patience<Id>(live: &LiveQuery<Id>, max_items: usize, stall: &Stall, quiet: Duration) -> Option<Duration> {
    let times = |number| quiet.saturating_mul(number);
    let progress = live.progress();
    let answers = progress.successes;
    let enough = answers >= MANY_ANSWERS || (answers > 0 && answers >= progress.pending().saturating_mul(3));
    match &live.job {
        // The peers that answered are the result. If kad asks as many as it may at the same time and could know others, the
        // silent ones get more time. If few answered, which often are near peers that are connected, far ones get
        // enough for a dial: what is put or announced would go to the few.
        Job::Query(Query::GetClosestPeers { target: _ } | Query::StartProviding { key: _ } | Query::Bootstrap) => {
            match answers {
                0 => None,
                _ if enough && progress.pending() < stall.parallelism => Some(times(1)),
                _ if enough => Some(times(4)),
                _ => Some(times(4).max(stall.max_quiet)),
            }
        }
        Job::Query(Query::GetRecord { key: _ } | Query::GetProviders { key: _ }) | Job::ReadBack(_) => {
            let (found, wants_more) = (live.available().items > 0, live.waiters.want_more(max_items));
            if !enough {
                // Silent peers may hold what has not been found.
                (found && answers > 0 && !wants_more).then_some(times(3))
            } else if wants_more {
                Some(times(8))
            } else if found {
                Some(times(1))
            } else {
                Some(times(4))
            }
        }
        Job::Query(Query::PutRecordTo { record: _, peers }) => {
            let Some(Threshold::Acknowledgements { needed, can_widen }) = live.waiters.first_threshold() else {
                return None;
            };
            // kad asks a few at a time, and has not asked all yet.
            let asks_on = (progress.requests as usize) < peers.len();
            match answers {
                _ if answers >= needed => Some(times(1)),
                0 => can_widen.then_some(times(3)),
                _ if asks_on => can_widen.then_some(times(4)),
                _ => Some(times(if can_widen { 2 } else { 4 })),
            }
        }
    }
}
