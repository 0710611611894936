//! Stall detection: the time without progress after which a query is finished early.

use std::time::Duration;

use super::{
    query::{Job, LiveQuery},
    waiters::Threshold,
};
use crate::{Progress, Query, Stall};

/// Number of answers that are enough of the up to 20 that a lookup aims for.
const MANY_ANSWERS: u32 = 10;

fn is_enough(progress: Progress) -> bool {
    let answers = progress.successes;
    answers >= MANY_ANSWERS || (answers > 0 && answers >= progress.pending().saturating_mul(3))
}

/// Returns the time without progress after which a query is finished early. `None` if never, because its result would be
/// worthless. `quiet` is the quiet time.
pub(super) fn patience<Id>(live: &LiveQuery<Id>, max_items: usize, stall: &Stall, quiet: Duration) -> Option<Duration> {
    let times = quiet_times(live, max_items, stall.parallelism)?;
    let patience = quiet.saturating_mul(times);
    let is_lookup = matches!(
        live.job,
        Job::Query(Query::GetClosestPeers { target: _ } | Query::StartProviding { key: _ } | Query::Bootstrap)
    );
    // The first answers are often those of near peers that are connected, and say nothing of far ones that have to be dialled.
    // The record or the announcement would go to the few that have answered.
    Some(if is_lookup && !is_enough(live.progress()) { patience.max(stall.max_quiet) } else { patience })
}

/// Returns the multiple of the quiet time after which a query is finished early. `parallelism` is the number of peers that
/// kad asks at the same time.
fn quiet_times<Id>(live: &LiveQuery<Id>, max_items: usize, parallelism: u32) -> Option<u32> {
    let progress = live.progress();
    let answers = progress.successes;
    let enough = is_enough(progress);
    match &live.job {
        // The peers that answered are the result. If few did, or if kad asks as many as it may at the same time and
        // could know others, the silent ones get more time, enough for a dial.
        Job::Query(Query::GetClosestPeers { target: _ } | Query::StartProviding { key: _ } | Query::Bootstrap) => {
            match answers {
                0 => None,
                _ if enough && progress.pending() < parallelism => Some(1),
                _ => Some(4),
            }
        }
        Job::Query(Query::GetRecord { key: _ } | Query::GetProviders { key: _ }) | Job::ReadBack(_) => {
            let (found, wants_more) = (live.available().items > 0, live.waiters.want_more(max_items));
            if !enough {
                // Silent peers may hold what has not been found.
                (found && answers > 0 && !wants_more).then_some(3)
            } else if wants_more {
                Some(8)
            } else if found {
                Some(1)
            } else {
                Some(4)
            }
        }
        Job::Query(Query::PutRecordTo { record: _, peers }) => {
            let Some(Threshold::Acknowledgements { needed, can_widen }) = live.waiters.first_threshold() else {
                return None;
            };
            // kad asks a few at a time, and has not asked all yet.
            let asks_on = (progress.requests as usize) < peers.len();
            match answers {
                _ if answers >= needed => Some(1),
                0 => can_widen.then_some(3),
                _ if asks_on => can_widen.then_some(4),
                _ => Some(if can_widen { 2 } else { 4 }),
            }
        }
    }
}
