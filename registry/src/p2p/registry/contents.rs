//! Content: fetching it from providers, and offering it to others.

use std::{collections::HashSet, pin::pin, sync::Arc, time::SystemTime};

use async_channel::Receiver;
use blocking::unblock;
use futures::{
    FutureExt, Stream, StreamExt,
    future::{pending, ready, select},
    stream,
};
use kadence::{Priority, Runtime, Update};
use libp2p::PeerId;

use super::{Inner, RegistryEvent, lock};
use crate::{
    ContentId, GetError, Index, PackageId,
    p2p::{
        head::SignedHead,
        transfer::{BlobProvider, FetchError, FetchEvent, FetchRequest, Fetcher, ProviderOutcome, ProviderReport},
    },
    registry::{Subject, fetch_document},
};

/// Maximum number of providers that one download connects to at the same time.
const CONCURRENT_DIALS: usize = 4;

/// Number of providers that a lookup asks for: those that a fetch uses, and a reserve for those that are gone.
const MAX_LOOKUP_PROVIDERS: usize = 12;

/// Set of peers that are asked for content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProviderScope {
    /// Known providers, and those that a lookup finds.
    All,
    /// Peers that announced or reported the package, without a lookup. A spammer can make nodes look for content that
    /// nobody has, which must not cost the network a lookup.
    Announcers,
}

impl<R: Runtime> Inner<R> {
    /// Fetches the index that a head names.
    pub(super) async fn index_of(self: &Arc<Self>, head: &SignedHead) -> Result<Index, GetError> {
        let head = head.head();
        self.index(&head.package, head.index, head.index_size).await
    }

    /// Fetches an index by its content id.
    pub(super) async fn index(
        self: &Arc<Self>,
        package: &PackageId,
        content: ContentId,
        size: u64,
    ) -> Result<Index, GetError> {
        let expected = Subject { package, version: None };
        fetch_document(&self.blobs, content, size, expected, self.fetch(package, content, size)).await
    }

    /// Fetches content of this size into the store, unless it is there, and offers it to others from then on.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        package: &PackageId,
        content: ContentId,
        size: u64,
    ) -> Result<(), GetError> {
        let blobs = self.blobs.clone();
        match unblock(move || blobs.size(&content)).await {
            Some(found) if found == size => return Ok(()),
            Some(found) => return Err(GetError::Size { content, expected: size, found }),
            None => {}
        }
        let request = FetchRequest { id: content, max: size, size: Some(size) };
        let size = self.download(&self.fetcher, package, request, ProviderScope::All).await?;
        self.subscribers.send(&RegistryEvent::Downloaded { content, size });
        if self.config.share {
            self.offer(content);
        }
        Ok(())
    }

    /// Fetches content with a fetcher from the peers in scope.
    pub(super) async fn download(
        self: &Arc<Self>,
        fetcher: &Fetcher,
        package: &PackageId,
        request: FetchRequest,
        scope: ProviderScope,
    ) -> Result<u64, GetError> {
        let content = request.id;
        let (failed, failure) = async_channel::bounded(1);
        let (observer, providers) = (Arc::clone(self), self.providers(package, content, scope, failure));
        let fetch = fetcher.fetch(request, providers, move |event| {
            if let FetchEvent::Report(ProviderReport { outcome, .. }) = &event
                && !matches!(outcome, ProviderOutcome::Success { .. })
            {
                // Full after the first failure, which is enough.
                let _full = failed.try_send(());
            }
            observer.observe(content, &event);
        });
        let fetched = self.while_running(fetch).await.ok_or(GetError::Closed)?;
        fetched.map_err(|error| self.fetch_error(content, error))
    }

    /// Announces this node as a provider of content, in the background.
    pub(super) fn offer(self: &Arc<Self>, content: ContentId) {
        let inner = Arc::clone(self);
        let offer = async move {
            let provide = inner.client.start_providing(content.provider_key()).priority(Priority::Background);
            if let Err(error) = provide.await {
                tracing::debug!(%content, %error, "content was not offered");
            }
        };
        self.spawn(offer);
    }

    fn observe(&self, content: ContentId, event: &FetchEvent) {
        match *event {
            FetchEvent::Progress { verified, total } => {
                self.subscribers.send(&RegistryEvent::DownloadProgress { content, verified, total });
            }
            FetchEvent::Report(ProviderReport { peer, outcome }) => {
                let now = SystemTime::now();
                match outcome {
                    ProviderOutcome::Success { bytes, time } => self.reputation.success(peer, bytes, time, now),
                    ProviderOutcome::Failed => self.reputation.failure(peer, now),
                    ProviderOutcome::BadData => self.bad_data(peer),
                    // Not a fault of the peer.
                    ProviderOutcome::Busy | ProviderOutcome::NotFound => {}
                }
            }
        }
    }

    /// Bans a peer that sent data which no honest peer sends.
    pub(super) fn bad_data(&self, peer: PeerId) {
        let until = self.reputation.bad_data(peer, SystemTime::now());
        tracing::warn!(%peer, ?until, "peer sent bad data and is banned for a while");
        self.subscribers.send(&RegistryEvent::BadData { peer });
    }

    /// Returns connected providers of content as they are found: first the known ones, which are the publisher and the
    /// peers that reported the package, best reputation first, then those that a lookup finds. `failure` receives a
    /// message when a provider fails.
    fn providers(
        self: &Arc<Self>,
        package: &PackageId,
        content: ContentId,
        scope: ProviderScope,
        failure: Receiver<()>,
    ) -> Receiver<BlobProvider> {
        let (found, receiver) = async_channel::bounded(CONCURRENT_DIALS);
        let sender = found.clone();
        let inner = Arc::clone(self);
        let mut known = match scope {
            ProviderScope::All => vec![package.publisher()],
            ProviderScope::Announcers => Vec::new(),
        };
        if let Some(package) = lock(&self.discovered).get(package) {
            known.extend(package.providers.iter().map(|provider| provider.peer));
        }
        let known = self.reputation.order(&known, SystemTime::now());
        let search = async move {
            let named = match scope {
                ProviderScope::All => inner.look_up_providers(known.clone(), content, failure).left_stream(),
                ProviderScope::Announcers => stream::empty().right_stream(),
            };
            let mut asked = HashSet::from([inner.client.local_peer_id()]);
            // Known providers come first, but the lookup does not wait for all of them to fail.
            let candidates = stream::select(stream::iter(known), named);
            let candidates = candidates.filter(|peer| ready(asked.insert(*peer)));
            let reputation = Arc::clone(&inner.reputation);
            let candidates =
                candidates.filter(|peer| ready(reputation.banned_until(peer, SystemTime::now()).is_none()));
            let connecting = candidates.map(|peer| {
                let inner = Arc::clone(&inner);
                async move { inner.connect(peer).await.then_some(peer) }
            });
            let mut connected = pin!(connecting.buffer_unordered(CONCURRENT_DIALS));
            while let Some(peer) = connected.next().await {
                let Some(peer) = peer else { continue };
                let provider = BlobProvider { peer, preference: inner.preference(&peer) };
                if sender.send(provider).await.is_err() {
                    return;
                }
            }
        };
        self.spawn(async move {
            // The download has completed or was dropped.
            select(pin!(found.closed()), pin!(search)).await;
        });
        receiver
    }

    /// Looks up providers: at once, or if a known provider is connected, after a delay or the first failure.
    fn look_up_providers(
        &self,
        known: Vec<PeerId>,
        content: ContentId,
        failure: Receiver<()>,
    ) -> impl Stream<Item = PeerId> {
        let lookup = self.client.get_providers(content.provider_key()).limit(MAX_LOOKUP_PROVIDERS);
        async move {
            let connected = self.swarm.with(move |swarm| known.iter().any(|peer| swarm.is_connected(peer)));
            if connected.await == Ok(true) {
                let failed = async {
                    if failure.recv().await.is_err() {
                        // The fetch has ended.
                        pending::<()>().await;
                    }
                };
                select(pin!(self.sleep(self.config.provider_lookup_delay)), pin!(failed)).await;
            }
            lookup.stream().filter_map(|update| {
                ready(match update {
                    Update::Item(peer) => Some(peer),
                    Update::Lagged { .. } | Update::End(_) => None,
                })
            })
        }
        .flatten_stream()
    }

    /// Returns the score of a peer, from 0 to 100.
    fn preference(&self, peer: &PeerId) -> i32 {
        let known = self.reputation.get(peer).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "a score is from 0 to 1")]
        let preference = (known.score(SystemTime::now()) * 100.0) as i32;
        preference
    }

    pub(super) fn fetch_error(&self, content: ContentId, error: FetchError) -> GetError {
        match error {
            FetchError::NoProvider => GetError::Unavailable { content, providers: 0 },
            FetchError::AllFailed { reports } => GetError::Unavailable { content, providers: reports.len() },
            FetchError::TooLarge { size: found, max: expected } | FetchError::OtherSize { size: found, expected } => {
                GetError::Size { content, expected, found }
            }
            FetchError::Timeout => GetError::Timeout { after: self.config.fetch.stall_timeout },
            FetchError::Store(error) => error.into(),
        }
    }
}
