use std::{fmt, sync::Arc};

use blocking::unblock;
use futures::Stream;
use kadence::{Clock, Runtime, deadline_after};
use libp2p_stream::Control;

use super::{
    config::FetchConfig,
    download::{Download, FetchContext},
    error::FetchError,
    events::FetchEvent,
    request::{BlobProvider, FetchRequest},
    worker::DialLock,
};
use crate::{
    ContentId,
    blob::{BlobError, BlobStore, Partial},
};

/// Fetches blobs into a store, each from several providers at once. Cheap to clone.
///
/// # Example
///
/// ```no_run
/// # use kadence_registry::{ContentId, blob::BlobStore};
/// # async fn example(control: libp2p_stream::Control, store: BlobStore, id: ContentId, peer: libp2p::PeerId)
/// #     -> Result<(), Box<dyn std::error::Error>> {
/// use futures::stream;
/// use kadence_registry::p2p::transfer::{BlobProvider, FetchConfig, FetchRequest, Fetcher};
/// use kadence_smol::SmolRuntime;
///
/// let fetcher = Fetcher::new(control, store, &SmolRuntime::default(), FetchConfig::default());
/// let request = FetchRequest { id, max: 1 << 20, size: None };
/// let providers = stream::iter([BlobProvider { peer, preference: 0 }]);
/// let size = fetcher.fetch(request, providers, |event| println!("{event:?}")).await?;
/// println!("fetched {size} bytes");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fetcher(FetchContext);

impl Fetcher {
    /// Returns a fetcher that opens streams with `control`, the handle of the swarm's stream behaviour. Peers that are
    /// not connected are dialled at the addresses that the behaviours of the swarm know.
    pub fn new(control: Control, store: BlobStore, runtime: &impl Runtime, config: FetchConfig) -> Self {
        Self(FetchContext { control, store, clock: Clock::new(runtime), config, dial_lock: DialLock::default() })
    }

    /// Returns a fetcher into another store, with the same configuration and the same stream behaviour.
    #[must_use]
    pub fn with_store(&self, store: BlobStore) -> Self {
        Self(FetchContext { store, ..self.0.clone() })
    }

    /// Fetches a blob into the store and returns its size in bytes. A copy that is in the store already is read and
    /// verified; if the copy is valid, no provider is asked.
    ///
    /// More providers may come from the stream while the fetch is in progress; after 256 different ones, the rest of
    /// the stream is ignored. The fetch fails when all providers have failed and the stream has ended, at a timeout, if
    /// the blob has a size that the request does not allow, or if the store fails. Of several calls for one blob and
    /// one store, one fetches the blob and the others wait.
    ///
    /// Dropping the future cancels the fetch. Verified pieces stay on the disk, and the next call with the same
    /// [`piece_groups`](field@FetchConfig::piece_groups) resumes from there, also after a restart; of the unfinished
    /// downloads of a store, the latest 32 are kept.
    ///
    /// `observe` is called on each event, and must not block.
    ///
    /// # Errors
    ///
    /// See [`FetchError`].
    pub async fn fetch(
        &self,
        request: FetchRequest,
        providers: impl Stream<Item = BlobProvider> + Send + 'static,
        observe: impl Fn(FetchEvent) + Send + Sync + 'static,
    ) -> Result<u64, FetchError> {
        let mut alarm = self.0.clock.alarm();
        let deadline = deadline_after(self.0.clock.now(), self.0.config.timeout);
        let lock = Partial::lock(&self.0.store, &request.id);
        let _guard = alarm.until(deadline, lock.lock()).await.map_err(|_| FetchError::Timeout)?;
        let (store, id) = (self.0.store.clone(), request.id);
        match unblock(move || store.verify(&id)).await {
            Ok(size) => return request.check_size(size).map(|()| size),
            Err(BlobError::NotFound(_) | BlobError::Damaged(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Box::pin(Download::new(&self.0, request, deadline, Box::pin(providers), Arc::new(observe)).run()).await
    }

    /// Fetches a blob of at most `max` bytes, such as a manifest, and returns its bytes. The blob also stays in the
    /// store.
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
        let store = self.0.store.clone();
        Ok(unblock(move || store.read(&id, max)).await?)
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("store", &self.0.store).field("config", &self.0.config).finish_non_exhaustive()
    }
}
