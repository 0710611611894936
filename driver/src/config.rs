use kadence_core::TrackerConfig;

/// The sizes of a driver's channels, and what its tracker may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// Limits of the queries.
    pub tracker: TrackerConfig,
    /// How many calls may be on their way to the driver. The next one waits, without blocking its thread, until the
    /// driver has taken one; the driver takes them all at its next turn, so this is a matter of one turn's burst.
    /// At least 1.
    pub command_capacity: usize,
    /// How many items a call's stream holds for a slow reader, unless the call says otherwise. Further ones are
    /// skipped, and the reader is told how many.
    ///
    /// A lookup asks a few dozen peers, so a reader that takes the items at all misses none.
    pub stream_capacity: usize,
    /// How many swarm events [`Events`](crate::Events) holds for a slow reader. Further ones are skipped, and the
    /// reader is told how many.
    pub event_capacity: usize,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self { tracker: TrackerConfig::default(), command_capacity: 256, stream_capacity: 256, event_capacity: 1024 }
    }
}
