use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use kadence_core::{LogValues, TrackerConfig};

/// Configuration of a [`Driver`](crate::Driver): limits of its tracker ([`QueryTracker`](kadence_core::QueryTracker)),
/// which makes the driver's decisions, and sizes of its queues.
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
    /// Limits and policies of the tracker. Default: [`TrackerConfig::default`].
    pub tracker: TrackerConfig,
    /// Maximum number of messages in each of the driver's two bounded queues: messages from clients, such as new calls,
    /// and closures from [`SwarmHandle`](crate::SwarmHandle)s. Cancellations have a queue of their own, which holds at
    /// most one for each call that was sent. Default: 256. Zero counts as 1.
    ///
    /// While a queue is full, a further call or closure waits, without blocking a thread, until the driver has received
    /// another message. This wait does not count towards the call's timeout. The driver receives messages whenever it
    /// is polled, so the limit matters only in bursts.
    pub command_capacity: usize,
    /// Maximum number of items that a [`CallStream`](crate::CallStream) keeps for its reader, unless
    /// [`Call::buffer`](crate::Call::buffer) sets another number. Further items are dropped and reported as
    /// [`Update::Lagged`](crate::Update::Lagged). Zero drops all items. Default: 256. A get finds at most one record at
    /// each of the few dozen peers that it asks; a lookup of providers can find more items.
    pub stream_capacity: usize,
    /// Maximum number of swarm events that [`Events`](crate::Events) keeps for its reader. Further events are dropped
    /// and reported as [`LaggedError`](crate::LaggedError). Zero drops all events. Has no effect on a driver that is
    /// not run by [`spawn`](crate::spawn) or by a node. Default: 1,024.
    pub event_capacity: usize,
    /// `true` lets announcements fail with [`NoExternalAddress`](kadence_core::StartProvidingError::NoExternalAddress)
    /// while the swarm has no external address. kad announces external addresses alone, and peers drop a provider without
    /// one, or name it only while they have it in their routing tables. With `false`, such an announcement succeeds, and
    /// its [`sent_to`](kadence_core::ProvideAnswer::sent_to) is zero. Default: `false`; the
    /// default of a ready-made node is `true`.
    pub requires_external_address: bool,
    /// Recording of the inputs and actions of the driver's tracker. `None`, the default, records nothing.
    pub recording: Option<Recording>,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            tracker: TrackerConfig::default(),
            command_capacity: 256,
            stream_capacity: 256,
            event_capacity: 1024,
            requires_external_address: false,
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

    /// Sets [`requires_external_address`](field@Self::requires_external_address).
    #[must_use]
    pub fn requires_external_address(mut self, requires_external_address: bool) -> Self {
        self.requires_external_address = requires_external_address;
        self
    }

    /// Sets [`recording`](field@Self::recording).
    #[must_use]
    pub fn recording(mut self, recording: impl Into<Option<Recording>>) -> Self {
        self.recording = recording.into();
        self
    }
}

/// Recording of a driver's tracker ([`QueryTracker`](kadence_core::QueryTracker)): the first line is the tracker's
/// configuration, and each further line an input or an action. [`replay`](kadence_core::replay) feeds the inputs of a
/// recording to a new tracker, for example in a test, and compares the lines of both. If the tracker has validators,
/// record with [`LogValues::Whole`]: a replay of hashed values cannot repeat their verdicts.
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
    /// Returns a recording that passes its lines to `sink`, in their order and without a line feed. `values` determines
    /// whether a line contains the value of a record or only the length of the value and the beginning of its hash. The
    /// driver's loop calls `sink` and waits for it: write to a buffer or a channel.
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
