use std::{fmt, sync::Arc};

use blocking::unblock;
use futures::Stream;
use kadence::Runtime;
use libp2p_stream::Control;

use kadence::Clock;

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

/// Fetches blobs into a store. Cloning it is cheap.
#[derive(Clone)]
pub struct Fetcher(FetchContext);

impl Fetcher {
    /// Over the streams of this behaviour. Peers are dialled at the addresses that the swarm's behaviours know.
    pub fn new(control: Control, store: BlobStore, runtime: &impl Runtime, config: FetchConfig) -> Self {
        Self(FetchContext { control, store, clock: Clock::new(runtime), config, dial_lock: DialLock::default() })
    }

    /// The same into another store, with the same peers.
    #[must_use]
    pub fn with_store(&self, store: BlobStore) -> Self {
        Self(FetchContext { store, ..self.0.clone() })
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
        request: FetchRequest,
        providers: impl Stream<Item = BlobProvider> + Send + 'static,
        observe: impl Fn(FetchEvent) + Send + Sync + 'static,
    ) -> Result<u64, FetchError> {
        let mut alarm = self.0.clock.alarm();
        let deadline = self.0.clock.now() + self.0.config.timeout;
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
        let store = self.0.store.clone();
        Ok(unblock(move || store.read(&id, max)).await?)
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("store", &self.0.store).field("config", &self.0.config).finish_non_exhaustive()
    }
}
