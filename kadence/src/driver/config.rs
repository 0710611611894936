use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use kadence_core::{LogValues, TrackerConfig};

/// The sizes of a driver's channels, and what its tracker may do.
#[derive(Debug, Clone)]
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
    /// Where the tracker's log goes, if anywhere.
    pub recording: Option<Recording>,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            tracker: TrackerConfig::default(),
            command_capacity: 256,
            stream_capacity: 256,
            event_capacity: 1024,
            recording: None,
        }
    }
}

/// Writes down every input and every action of the tracker, a line each, so that what happened in production can be
/// replayed in a test ([`tracker::replay`](crate::tracker::replay)).
#[derive(Clone)]
pub struct Recording {
    pub(crate) values: LogValues,
    sink: Sink,
}

type Sink = Arc<Mutex<dyn FnMut(&str) + Send>>;

impl Recording {
    /// A recording whose lines go to `sink`, in their order and without a line feed. It is called from the driver's
    /// loop, so it should be quick: a buffered writer or a channel.
    pub fn new(values: LogValues, sink: impl FnMut(&str) + Send + 'static) -> Self {
        Self { values, sink: Arc::new(Mutex::new(sink)) }
    }

    pub(crate) fn write(&self, line: &str) {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)(line);
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("values", &self.values).finish_non_exhaustive()
    }
}
