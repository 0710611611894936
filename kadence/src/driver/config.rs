use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use kadence_core::{LogValues, TrackerConfig};

/// Configuration of a [`Driver`](crate::Driver): limits of its tracker and sizes of its channels.
///
/// ```
/// use kadence::DriverConfig;
///
/// let config = DriverConfig::default().stream_capacity(64).event_capacity(0);
/// assert_eq!(config.command_capacity, 256);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DriverConfig {
    /// Limits and policies of the tracker.
    pub tracker: TrackerConfig,
    /// Maximum number of calls on their way to the driver, at least 1. Further calls wait, without blocking a thread,
    /// until the driver has received one. The driver receives all of them in its next turns, so the limit concerns only
    /// bursts. Default: 256.
    pub command_capacity: usize,
    /// Maximum number of items that a call's stream holds for its reader, unless [`Call::buffer`](crate::Call::buffer)
    /// sets another number. Further items are dropped and reported as [`Update::Lagged`](crate::Update::Lagged).
    /// Default: 256, more than the few dozen peers that a lookup asks, so that a reader which reads at all loses none.
    pub stream_capacity: usize,
    /// Maximum number of swarm events that [`Events`](crate::Events) holds for its reader. Further events are dropped
    /// and reported as [`LaggedError`](crate::LaggedError). Zero drops all of them. Default: 1,024.
    pub event_capacity: usize,
    /// Recording of the tracker's inputs and actions. Default: `None`.
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

impl DriverConfig {
    /// Sets [`tracker`](field@Self::tracker).
    #[must_use]
    pub fn tracker(mut self, tracker: TrackerConfig) -> Self {
        self.tracker = tracker;
        self
    }

    /// Sets [`command_capacity`](field@Self::command_capacity).
    #[must_use]
    pub fn command_capacity(mut self, command_capacity: usize) -> Self {
        self.command_capacity = command_capacity;
        self
    }

    /// Sets [`stream_capacity`](field@Self::stream_capacity).
    #[must_use]
    pub fn stream_capacity(mut self, stream_capacity: usize) -> Self {
        self.stream_capacity = stream_capacity;
        self
    }

    /// Sets [`event_capacity`](field@Self::event_capacity).
    #[must_use]
    pub fn event_capacity(mut self, event_capacity: usize) -> Self {
        self.event_capacity = event_capacity;
        self
    }

    /// Sets [`recording`](field@Self::recording).
    #[must_use]
    pub fn recording(mut self, recording: impl Into<Option<Recording>>) -> Self {
        self.recording = recording.into();
        self
    }
}

/// Recording of every input and every action of the tracker, one line each. [`replay`](kadence_core::replay) repeats a
/// recording in a test.
///
/// ```
/// use std::{fs::File, io::{BufWriter, Write}};
///
/// use kadence::{DriverConfig, LogValues, Recording};
///
/// # fn example() -> std::io::Result<()> {
/// let mut log = BufWriter::new(File::create("queries.log")?);
/// let recording = Recording::new(LogValues::Hashed, move |line| {
///     // The driver has to go on even if the disk is full.
///     let _full = writeln!(log, "{line}");
/// });
/// let config = DriverConfig::default().recording(recording);
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Recording {
    pub(crate) values: LogValues,
    sink: Sink,
}

type Sink = Arc<Mutex<dyn FnMut(&str) + Send>>;

impl Recording {
    /// Returns a recording that passes its lines to `sink`, in their order and without a line feed. The driver's loop
    /// calls `sink` and waits for it: write to a buffer or a channel.
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
