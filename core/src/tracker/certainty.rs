//! Certainty: whether a result that found nothing shows that there is nothing.

use std::time::Duration;

use crate::{Certainty, Network, Progress, REPLICATION_FACTOR, Reachability, TrackerConfig};

/// Maximum floor: half of the peers that hold a record.
const MAX_FLOOR: usize = REPLICATION_FACTOR / 2;

/// Minimum floor without a setting: fewer peers may all be new, or cut off from the rest together.
const MIN_FLOOR: usize = 3;

/// Time for which kad waits for a peer before it ends a query without it: a constant of its lookups.
pub(super) const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the number of peers that must have answered for a conclusive result: half of the network, within
/// [`MIN_FLOOR`] and [`MAX_FLOOR`]. Only a size from the configuration may lower it below [`MIN_FLOOR`].
fn floor(config: &TrackerConfig, network: Network) -> usize {
    match (config.expected_network_size, network.size) {
        (Some(expected), _) => expected.div_ceil(2).clamp(1, MAX_FLOOR),
        (None, Some(size)) => size.div_ceil(2).clamp(MIN_FLOOR, MAX_FLOOR),
        (None, None) => MAX_FLOOR,
    }
}

/// Returns the certainty of a result. `cut_short` says that the query could have asked or heard more: it was finished
/// before its end, or a peer was given up. `outlasted` says that it ran for [`PEER_TIMEOUT`] or longer.
pub(super) fn certainty(
    config: &TrackerConfig,
    network: Network,
    progress: Progress,
    cut_short: bool,
    outlasted: bool,
) -> Certainty {
    let answered = progress.successes as usize >= floor(config, network);
    // kad ends a query when the closest peers have answered, while requests to farther ones are pending. Those count only
    // if kad may have stopped to wait for closer ones.
    let pending = if outlasted { progress.pending() } else { 0 };
    let unanswered = progress.failures.saturating_add(pending);
    let most_answered = progress.successes > 0 && unanswered.saturating_mul(4) <= progress.successes;
    let isolated = network.reachability == Reachability::Isolated;
    if answered && most_answered && !cut_short && !isolated { Certainty::Conclusive } else { Certainty::Inconclusive }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floors(expected: Option<usize>) -> Vec<usize> {
        let config = TrackerConfig::default().expected_network_size(expected);
        let sizes = [None, Some(0), Some(1), Some(7), Some(19), Some(20), Some(10_000)];
        sizes.map(|size| floor(&config, Network::default().size(size))).to_vec()
    }

    #[test]
    fn the_floor_is_half_of_the_network_within_three_and_ten() {
        assert_eq!(floors(None), [10, 3, 3, 4, 10, 10, 10]);
    }

    #[test]
    fn only_a_setting_lowers_the_floor_below_three() {
        assert_eq!(floors(Some(0)), [1; 7]);
        assert_eq!(floors(Some(3)), [2; 7]);
        assert_eq!(floors(Some(usize::MAX)), [10; 7]);
    }

    #[test]
    fn every_condition_is_necessary() {
        let said = |successes, failures, cut_short, reachability| {
            let progress = Progress { requests: successes + failures, successes, failures };
            let network = Network::default().size(Some(8)).reachability(reachability);
            certainty(&TrackerConfig::default(), network, progress, cut_short, false) == Certainty::Conclusive
        };
        assert!(said(4, 1, false, Reachability::Unknown));
        assert!(said(4, 0, false, Reachability::Connected));
        assert!(!said(3, 0, false, Reachability::Connected), "below the floor");
        assert!(!said(4, 2, false, Reachability::Connected), "two of six did not answer");
        assert!(!said(4, 0, true, Reachability::Connected), "cut short");
        assert!(!said(4, 0, false, Reachability::Isolated), "isolated");
    }

    #[test]
    fn pending_requests_count_once_kad_may_have_stopped_to_wait_for_them() {
        let said = |pending: u32, outlasted| {
            let progress = Progress { requests: 20 + pending, successes: 20, failures: 0 };
            certainty(&TrackerConfig::default(), Network::default(), progress, false, outlasted)
        };
        assert_eq!(said(9, false), Certainty::Conclusive);
        assert_eq!(said(5, true), Certainty::Conclusive);
        assert_eq!(said(9, true), Certainty::Inconclusive);
    }
}
