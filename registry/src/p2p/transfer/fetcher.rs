use std::{fmt, sync::Arc, time::Duration};

use blocking::unblock;
use futures::Stream;
use kadence::Runtime;
use libp2p::PeerId;
use libp2p_stream::Control;

use kadence::Clock;

use super::{download::Download, error::FetchError, wire::MAX_GROUPS};
use crate::{
    ContentId,
    blob::{BlobError, BlobStore, GROUP_BYTES, Partial},
};

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRequest {
    /// Which blob.
    pub id: ContentId,
    /// How large it may be, in bytes.
    pub max: u64,
    /// How large it is, if somebody who should know has said so.
    pub size: Option<u64>,
}

/// Somebody who may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobProvider {
    /// Who.
    pub peer: PeerId,
    /// Whoever has more is asked first.
    pub preference: i32,
}

/// What happens while a blob is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// So much is verified and written, what was there from an earlier time included.
    Progress {
        /// Bytes.
        verified: u64,
        /// The size of the blob in bytes.
        total: u64,
    },
    /// Something that a peer's reputation is made of.
    Report(Report),
}

/// How it went with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Who.
    pub peer: PeerId,
    /// How.
    pub event: ReportEvent,
}

/// How it went with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportEvent {
    /// It has sent what was asked for.
    Success {
        /// So many bytes.
        bytes: u64,
        /// In this time, from when it was first asked.
        time: Duration,
    },
    /// It could not be reached, has gone away, was too slow, or does not speak the protocol.
    Failed,
    /// It has sent bytes that are not of this blob. It is not asked again.
    BadData,
    /// It had no room for us.
    Busy,
    /// It does not have it.
    NotFound,
}

/// How blobs are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchConfig {
    /// Groups of 16 KiB that are asked for at a time, 1 to 64.
    pub piece_groups: u32,
    /// How many pieces each provider is asked for ahead, at least 1.
    pub pipeline: usize,
    /// Providers at a time, at least 1.
    pub providers: usize,
    /// How long it may take to have a stream, connecting included.
    pub open_timeout: Duration,
    /// How long 16 KiB may take.
    pub step_timeout: Duration,
    /// How long a piece may take. Well below `stall_timeout`: others are to have their turn before all is given up.
    pub piece_timeout: Duration,
    /// When a piece is so late that another provider is asked for it, too, if it has nothing else to do; after twice the
    /// time, a third, and so on.
    pub hedge_after: Duration,
    /// How long there may be no progress at all.
    pub stall_timeout: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
    /// How long a provider is left alone after a failure; after the second, twice as long.
    pub retry_after: Duration,
}

impl Default for FetchConfig {
    /// Pieces of 256 KiB, eight ahead, as measured over loopback: with four, a stream waits for requests, which costs a
    /// fifth; larger pieces make nothing faster.
    fn default() -> Self {
        Self {
            piece_groups: 16,
            pipeline: 8,
            providers: 6,
            open_timeout: Duration::from_secs(10),
            step_timeout: Duration::from_secs(10),
            piece_timeout: Duration::from_secs(20),
            hedge_after: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(60 * 60),
            retry_after: Duration::from_millis(500),
        }
    }
}

impl FetchConfig {
    pub(super) fn piece_bytes(&self) -> u64 {
        u64::from(self.piece_groups.clamp(1, MAX_GROUPS)).saturating_mul(GROUP_BYTES)
    }
}

/// Fetches blobs into a store. Cloning it is cheap.
#[derive(Clone)]
pub struct Fetcher {
    pub(super) control: Control,
    pub(super) store: BlobStore,
    pub(super) clock: Clock,
    pub(super) config: FetchConfig,
    pub(super) gate: AnnouncementValidator,
}

/// Held by whoever opens a stream, until it is open or a moment has passed: of several peers that are to be dialled at
/// the very same time, the behaviour of streams forgets all but one.
pub(super) type AnnouncementValidator = Arc<futures::lock::Mutex<()>>;

impl Fetcher {
    /// Over the streams of this behaviour. Peers are dialled at the addresses that the swarm's behaviours know.
    pub fn new(control: Control, store: BlobStore, runtime: &impl Runtime, config: FetchConfig) -> Self {
        Self { control, store, clock: Clock::new(runtime), config, gate: AnnouncementValidator::default() }
    }

    /// The same into another store, with the same peers.
    #[must_use]
    pub fn with_store(&self, store: BlobStore) -> Self {
        Self { store, ..self.clone() }
    }

    /// Fetches a blob into the store, and says its size. If it is there already, nobody is asked.
    ///
    /// Providers may come while it goes on; it fails once there are none left and no more come. Of several calls for one
    /// blob, one fetches it and the others wait for it. Dropping the future ends it; what was verified is kept on the
    /// disk, and the next call goes on from there, after a restart too.
    ///
    /// `observe` is called in between, and should return at once.
    ///
    /// # Errors
    ///
    /// See [`FetchError`].
    pub async fn fetch(
        &self,
        wanted: FetchRequest,
        providers: impl Stream<Item = BlobProvider> + Send + 'static,
        observe: impl Fn(FetchEvent) + Send + Sync + 'static,
    ) -> Result<u64, FetchError> {
        let mut alarm = self.clock.alarm();
        let deadline = self.clock.now() + self.config.timeout;
        let turn = Partial::lock(&self.store, &wanted.id);
        let _turn = alarm.until(deadline, turn.lock()).await.map_err(|_| FetchError::Timeout)?;
        let (store, id) = (self.store.clone(), wanted.id);
        match unblock(move || store.verify(&id)).await {
            Ok(size) => return check(size, &wanted).map(|()| size),
            Err(BlobError::NotFound(_) | BlobError::Damaged(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Box::pin(Download::new(self, wanted, deadline, Box::pin(providers), Arc::new(observe)).run()).await
    }

    /// Fetches a small blob, such as an index or a manifest, and reads it. It stays in the store.
    ///
    /// # Errors
    ///
    /// See [`FetchError`].
    pub async fn fetch_bytes(
        &self,
        id: ContentId,
        max: u64,
        providers: impl Stream<Item = BlobProvider> + Send + 'static,
        observe: impl Fn(FetchEvent) + Send + Sync + 'static,
    ) -> Result<Vec<u8>, FetchError> {
        self.fetch(FetchRequest { id, max, size: None }, providers, observe).await?;
        let store = self.store.clone();
        Ok(unblock(move || store.read(&id, max)).await?)
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("store", &self.store).field("config", &self.config).finish_non_exhaustive()
    }
}

/// Whether a proven size is one that is wanted.
pub(super) fn check(size: u64, wanted: &FetchRequest) -> Result<(), FetchError> {
    if size > wanted.max {
        return Err(FetchError::TooLarge { size, max: wanted.max });
    }
    match wanted.size {
        Some(expected) if expected != size => Err(FetchError::OtherSize { size, expected }),
        _ => Ok(()),
    }
}
