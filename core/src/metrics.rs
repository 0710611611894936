use std::time::Duration;

use crate::{
    BootstrapError, GetClosestPeersError, GetProvidersError, GetRecordError, OperationKind, Outcome, PutRecordError,
    RequestError, StartProvidingError,
};

/// Outcome counts and latency histograms per operation.
///
/// Requests that were not accepted, and read repairs, are not counted.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// By operation, then by [`OutcomeKind`].
    cells: Box<[[Histogram; OutcomeKind::ALL.len()]; OPERATIONS]>,
}

const OPERATIONS: usize = 7;

impl Metrics {
    pub(crate) fn new() -> Self {
        Self { cells: Box::new(std::array::from_fn(|_| std::array::from_fn(|_| Histogram::default()))) }
    }

    pub(crate) fn ended(&mut self, outcome: &Outcome, took: Duration) {
        let kind = OutcomeKind::of(outcome);
        let cell = self.cells.get_mut(row(outcome.kind())).and_then(|cells| cells.get_mut(kind as usize));
        if let Some(histogram) = cell {
            histogram.add(took);
        }
    }

    /// Returns the durations, from acceptance to outcome, of the requests for this operation that ended with this kind
    /// of outcome.
    pub fn durations(&self, operation: OperationKind, kind: OutcomeKind) -> &Histogram {
        let [first, ..] = &*self.cells;
        let cells = self.cells.get(row(operation)).unwrap_or(first);
        let [first, ..] = cells;
        cells.get(kind as usize).unwrap_or(first)
    }
}

fn row(operation: OperationKind) -> usize {
    match operation {
        OperationKind::GetRecord => 0,
        OperationKind::PutRecord => 1,
        OperationKind::PutRecordTo => 2,
        OperationKind::GetProviders => 3,
        OperationKind::StartProviding => 4,
        OperationKind::GetClosestPeers => 5,
        OperationKind::Bootstrap => 6,
    }
}

/// Kinds of outcomes, for graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OutcomeKind {
    /// The request succeeded.
    Answered,
    /// Peers answered, and none of them returned a valid record or a provider.
    NotFound,
    /// A get found too few sources with the same record, or a put found too few peers, got too few acknowledgements, or
    /// read the record back from too few peers.
    QuorumMissed,
    /// The routing table is empty, no peer answered, or every lookup of a bootstrap timed out.
    NoPeers,
    /// The deadline of the request passed, or kad's own query timeout ended the request, except as in
    /// [`ExpiredInQueue`](Self::ExpiredInQueue) and [`NoPeers`](Self::NoPeers).
    Timeout,
    /// The local store rejected the entry, the tracker was overloaded, the request was invalid, or it failed with
    /// [`RequestError::Refused`].
    Refused,
    /// The deadline passed before the first query of the request could start.
    ExpiredInQueue,
    /// The caller cancelled the request.
    Cancelled,
    /// A shutdown ended the request.
    Shutdown,
}

impl OutcomeKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::NotFound,
        Self::QuorumMissed,
        Self::NoPeers,
        Self::Timeout,
        Self::Refused,
        Self::ExpiredInQueue,
        Self::Cancelled,
        Self::Shutdown,
    ];

    /// Returns the kind of an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::GetRecord(Ok(_))
            | Outcome::PutRecord(Ok(_))
            | Outcome::PutRecordTo(Ok(_))
            | Outcome::GetProviders(Ok(_))
            | Outcome::StartProviding(Ok(_))
            | Outcome::GetClosestPeers(Ok(_))
            | Outcome::Bootstrap(Ok(_)) => Self::Answered,
            Outcome::GetRecord(Err(error)) => match error {
                GetRecordError::NotFound { .. } => Self::NotFound,
                GetRecordError::Conflict { .. } | GetRecordError::QuorumNotReached { .. } => Self::QuorumMissed,
                GetRecordError::Timeout { .. } => Self::Timeout,
                GetRecordError::NoResponse { .. } | GetRecordError::NoKnownPeers => Self::NoPeers,
                GetRecordError::Request(error) => Self::of_request(error),
            },
            Outcome::PutRecord(Err(error)) | Outcome::PutRecordTo(Err(error)) => match error {
                PutRecordError::QuorumFailed { .. }
                | PutRecordError::NotVerified { .. }
                | PutRecordError::InsufficientPeers { .. } => Self::QuorumMissed,
                PutRecordError::NoResponse { .. } | PutRecordError::NoKnownPeers => Self::NoPeers,
                PutRecordError::Timeout { .. } => Self::Timeout,
                PutRecordError::Store { .. } => Self::Refused,
                PutRecordError::Request(error) => Self::of_request(error),
            },
            Outcome::GetProviders(Err(error)) => match error {
                GetProvidersError::NotFound { .. } => Self::NotFound,
                GetProvidersError::Timeout { .. } => Self::Timeout,
                GetProvidersError::NoResponse { .. } | GetProvidersError::NoKnownPeers => Self::NoPeers,
                GetProvidersError::Request(error) => Self::of_request(error),
            },
            Outcome::StartProviding(Err(error)) => match error {
                StartProvidingError::NoResponse { .. } | StartProvidingError::NoKnownPeers => Self::NoPeers,
                StartProvidingError::Timeout { .. } => Self::Timeout,
                StartProvidingError::Store(_) | StartProvidingError::NoExternalAddress => Self::Refused,
                StartProvidingError::Request(error) => Self::of_request(error),
            },
            Outcome::GetClosestPeers(Err(error)) => match error {
                GetClosestPeersError::NoResponse { .. } | GetClosestPeersError::NoKnownPeers => Self::NoPeers,
                GetClosestPeersError::Timeout { .. } => Self::Timeout,
                GetClosestPeersError::Request(error) => Self::of_request(error),
            },
            Outcome::Bootstrap(Err(error)) => match error {
                BootstrapError::AllPhasesFailed { .. }
                | BootstrapError::NoResponse { .. }
                | BootstrapError::NoKnownPeers => Self::NoPeers,
                BootstrapError::Timeout { .. } => Self::Timeout,
                BootstrapError::Request(error) => Self::of_request(error),
            },
        }
    }

    fn of_request(error: &RequestError) -> Self {
        match error {
            RequestError::Invalid(_) | RequestError::Overloaded | RequestError::Refused(_) => Self::Refused,
            RequestError::ExpiredInQueue => Self::ExpiredInQueue,
            RequestError::Cancelled => Self::Cancelled,
            // Only a client ends a call as not polled: the tracker then is not polled, either.
            RequestError::Shutdown | RequestError::NotPolled => Self::Shutdown,
        }
    }
}

/// Histogram of durations, truncated to whole microseconds except in [`sum`](Self::sum). Each power of two of
/// microseconds is divided into four buckets, so a quantile exceeds the true one by at most a quarter. The last bucket
/// takes every duration from about 133.6 hours on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: Duration,
}

/// Four for the first microseconds and four for each power of two up to 2^39 µs, six days: longer than any query runs.
const BUCKETS: usize = 4 * 38;

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(micros)) {
            *bucket += 1;
        }
        self.sum = self.sum.saturating_add(duration);
    }

    /// Returns the number of durations recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the sum of all durations recorded.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns an upper bound of a quantile: 0.95 gives a duration that 95 % of the recorded ones do not exceed. Values
    /// are clamped to 0..=1. `None` if the histogram is empty. Durations above the bound of the last bucket, about
    /// 152.7 hours, are reported as that bound.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank within a count; beyond 2^53 durations an error of one does not matter"
        )]
        let rank = (quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64;
        let mut seen = 0;
        self.buckets().find_map(|(bound, count)| {
            seen += count;
            (count > 0 && seen >= rank).then_some(bound)
        })
    }

    /// Returns each bucket's upper bound, which is inclusive, and the number of durations in this bucket alone, in
    /// ascending order.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(index, count)| (Duration::from_micros(upper_bound(index)), *count))
    }
}

/// Returns the bucket of a duration: one for each microsecond below 4 µs, then four for each power of two.
fn bucket(micros: u64) -> usize {
    let index = if micros < 4 {
        micros
    } else {
        let power = u64::from(micros.ilog2());
        let quarter = (micros >> (power - 2)) & 3;
        (power - 1) * 4 + quarter
    };
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// Returns the largest duration of a bucket in microseconds.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < 4 {
        return index;
    }
    let (power, quarter) = (index / 4 + 1, index % 4);
    ((5 + quarter) << (power - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_at_most_a_quarter_below_its_buckets_bound() {
        for micros in (0..100_000).chain([1 << 30, (1 << 30) + 12_345, (1 << 38) - 1]) {
            let bound = upper_bound(bucket(micros));
            assert!(micros <= bound && bound <= micros + micros / 4, "{micros} is in the bucket up to {bound}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_bounds() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=100).for_each(|n| histogram.add(Duration::from_millis(n)));
        assert_eq!((histogram.count(), histogram.sum()), (100, Duration::from_millis(5050)));
        for (quantile, millis) in [(0.0, 1), (0.5, 50), (0.95, 95), (1.0, 100)] {
            let (found, exact) = (histogram.quantile(quantile).unwrap(), Duration::from_millis(millis));
            assert!(exact <= found && found <= exact * 5 / 4, "{quantile}: {found:?}");
        }
    }

    #[test]
    fn a_request_that_the_queue_has_no_room_for_counts_as_refused() {
        let outcome = Outcome::failed(OperationKind::GetRecord, RequestError::Overloaded);
        assert_eq!(OutcomeKind::of(&outcome), OutcomeKind::Refused);
    }

    #[test]
    fn every_kind_has_a_place_of_its_own() {
        for (index, kind) in OutcomeKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
