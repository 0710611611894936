//! The registry on the network.
//!
//! ```text
//!   reading      head ◄── DHT (best of all holders) ──► judged by what was seen ──► index, manifest, archive ◄── peers
//!   publishing   archive, manifest, index provided ──► head signed, kept, put, read back ──► announced
//!   listening    announcements, peers' catalogues ──► discovered packages, search
//! ```
//!
//! [`P2PRegistry::start`] has the tasks; what each does is in the file of its name.

mod behaviour;
mod catalogues;
mod config;
mod connections;
mod contents;
mod events;
mod heads;
mod listener;
mod published;
mod publishing;
mod republishing;
mod search_updates;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::pending,
    io,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use async_channel::Receiver;
use async_trait::async_trait;
use blocking::unblock;
use futures::{
    FutureExt,
    future::{Either, select},
};
use kadence::{Client, Runtime, SwarmHandle, node::Node, node::NodeBehaviour};
use libp2p::{PeerId, gossipsub::IdentTopic};
use libp2p_identity::Keypair;
use semver::Version;

pub use self::{
    behaviour::{RegistryBehaviour, RegistryBehaviourEvent, configure},
    config::{RegistryConfig, RegistryStartError},
    events::{RegistryEvent, RegistryEvents},
};
use self::{
    connections::Connections, events::Subscribers, heads::HeadCache, listener::Listener, published::PublishedPackages,
};
use super::{
    Reputation,
    announce::{AnnouncementValidator, Discovered, DiscoveredPackage},
    deadline::within,
    head::HeadStore,
    requests::{self, CatalogueClient},
    transfer::{self, Fetcher, Server, ServerStats, StatsHandle},
};
use crate::{
    ContentId, GetError, Index, PackageId, PublishError, Query, Receipt, Registry, Release, SearchIndex, SearchPage,
    Steps, StorageError, blob::BlobStore, unix,
};

/// How long a question to a peer about its catalogue may take, with the connection.
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry of packages on a node's network. Cloning it is cheap, and all clones are the same registry.
///
/// Reading trusts nobody but a package's publisher, whose key is in its name; what the publisher has signed is held against
/// what was seen of the package before. It runs until its node ends.
pub struct P2PRegistry<R: Runtime> {
    inner: Arc<Inner<R>>,
}

struct Inner<R: Runtime> {
    config: RegistryConfig,
    keypair: Keypair,
    publisher: PeerId,
    topic: IdentTopic,
    client: Client,
    swarm: SwarmHandle<NodeBehaviour<RegistryBehaviour>>,
    runtime: R,
    blobs: BlobStore,
    published: PublishedPackages,
    head_store: Arc<HeadStore>,
    reputation: Arc<Reputation>,
    search: SearchIndex,
    validator: Mutex<AnnouncementValidator>,
    discovered: Mutex<Discovered>,
    head_cache: Mutex<HeadCache>,
    connections: Connections,
    fetcher: Fetcher,
    /// Into a store of its own: what is read only for the search is gone again at once, and nobody else counts on it.
    index_fetcher: Fetcher,
    index_cache: BlobStore,
    catalogue: CatalogueClient<R>,
    subscribers: Subscribers,
    /// Closed when the node has ended. Nothing ever comes.
    ended: Receiver<Infallible>,
    server_stats: StatsHandle,
    /// Held from when a package's newest head is read until the next one is put.
    publishing: futures::lock::Mutex<()>,
    /// How far each peer's catalogue was read.
    cursors: Mutex<HashMap<PeerId, super::announce::Cursor>>,
}

impl<R: Runtime> P2PRegistry<R> {
    /// Starts the registry on a node, whose events it takes. The node's configuration has to be
    /// [`configure`]d for it.
    ///
    /// `keypair` is the publisher's: packages are published under it. It may be the node's own.
    ///
    /// # Errors
    ///
    /// See [`RegistryStartError`].
    pub async fn start(
        node: &mut Node<RegistryBehaviour>,
        runtime: R,
        keypair: Keypair,
        config: RegistryConfig,
    ) -> Result<Self, RegistryStartError> {
        let folder = config.folder.clone();
        // The one that only one process can have open comes first.
        let made = folder.clone();
        unblock(move || std::fs::create_dir_all(&made))
            .await
            .map_err(|source| StorageError::Folder { path: folder.clone(), source })?;
        let search = SearchIndex::open(folder.join("search.db"), SearchIndex::DEFAULT_CAPACITY).await?;
        let (blobs, index_cache, published, head_store, reputation) = unblock(move || {
            let blobs = BlobStore::open(folder.join("content"))?;
            let index_cache = open_empty(&folder.join("index-cache"))?;
            let published = PublishedPackages::open(folder.join("published"))?;
            let head_store = HeadStore::open(&folder.join("heads.db"))?;
            let reputation = Reputation::open(&folder.join("peers.db"))?;
            Ok::<_, RegistryStartError>((blobs, index_cache, published, Arc::new(head_store), Arc::new(reputation)))
        })
        .await?;

        let mut control = node.swarm().with(|swarm| swarm.behaviour().app.streams.new_control()).await?;
        let server = Server::new(&mut control, blobs.clone(), &runtime, config.server)
            .map_err(|transfer::ProtocolTakenError| RegistryStartError::AlreadyRunning)?;
        let questions = control.accept(requests::CATALOGUE_PROTOCOL).map_err(|_| RegistryStartError::AlreadyRunning)?;
        let events = node.events().ok_or(RegistryStartError::EventsTaken)?;
        let fetcher = Fetcher::new(control.clone(), blobs.clone(), &runtime, config.fetch);
        let now = SystemTime::now();
        let (running, ended) = async_channel::bounded(1);
        let inner = Arc::new(Inner {
            publisher: keypair.public().to_peer_id(),
            keypair,
            topic: IdentTopic::new(&config.topic),
            client: node.client().clone(),
            swarm: node.swarm().clone(),
            index_fetcher: fetcher.with_store(index_cache.clone()),
            index_cache,
            fetcher,
            catalogue: CatalogueClient::new(runtime.clone(), control, CATALOGUE_TIMEOUT),
            validator: Mutex::new(AnnouncementValidator::new(config.validator)),
            // No two runs of a node begin in the same millisecond.
            discovered: Mutex::new(Discovered::new(unix::millis(now))),
            head_cache: Mutex::default(),
            connections: Connections::default(),
            subscribers: Subscribers::default(),
            ended,
            server_stats: server.stats(),
            publishing: futures::lock::Mutex::new(()),
            cursors: Mutex::default(),
            runtime: runtime.clone(),
            config,
            blobs,
            published,
            head_store,
            reputation,
            search,
        });
        let (listener, learning) = Listener::new(Arc::clone(&inner), running);
        let catalogue = Arc::new(catalogues::RegistryCatalogue(Arc::clone(&inner)));
        inner.spawn(server.run());
        inner.spawn(requests::serve_catalogue(runtime.clone(), questions, catalogue));
        inner.spawn(learning);
        inner.spawn(republishing::run(Arc::clone(&inner)));
        // It is the one that ends the others.
        runtime.spawn(listener.listen(events).boxed());
        Ok(Self { inner })
    }

    /// What happens from now on.
    pub fn events(&self) -> RegistryEvents {
        self.inner.subscribers.add()
    }

    /// The packages that were announced or told of by peers, the longest known first.
    pub fn discovered_packages(&self) -> Vec<DiscoveredPackage> {
        lock(&self.inner.discovered).snapshot()
    }

    /// Asks connected peers for packages that match, and adds what they know to what is known here. What they say is
    /// verified; how well it matches is judged here.
    ///
    /// # Errors
    ///
    /// If the search index fails. A peer that does not answer is no error.
    pub async fn search_network(&self, query: &Query) -> Result<SearchPage, GetError> {
        self.inner.search_peers(query).await;
        Ok(self.inner.search.search(query).await?)
    }

    /// Whose packages can be published here.
    pub fn publisher(&self) -> PeerId {
        self.inner.publisher
    }

    /// What is known of how peers serve.
    pub fn reputation(&self) -> &Reputation {
        &self.inner.reputation
    }

    /// What was seen of packages' heads: to look at a contradiction, or to accept_equivocation it.
    pub fn head_store(&self) -> &HeadStore {
        &self.inner.head_store
    }

    /// What was served to others.
    pub fn server_stats(&self) -> ServerStats {
        self.inner.server_stats.read()
    }

    /// Puts the newest head of an own package again, and offers its content and announces it again: what happens by itself
    /// every [`RegistryConfig::republish_interval`], and soon again if a step has failed. `None` if it was never published
    /// here.
    ///
    /// # Errors
    ///
    /// If the head cannot be put. What fails after that stands in the steps.
    pub async fn republish(&self, package: &PackageId) -> Result<Option<Steps>, PublishError> {
        self.inner.republish(package).await
    }

    /// Writes what is not on the disk yet. The node's end does the same.
    pub async fn close(&self) {
        self.inner.save().await;
    }
}

#[async_trait]
impl<R: Runtime> Registry for P2PRegistry<R> {
    async fn search(&self, query: &Query) -> Result<SearchPage, GetError> {
        Ok(self.inner.search.search(query).await?)
    }

    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError> {
        match self.inner.head(package).await? {
            Some(head) => self.inner.index_of(&head).await.map(Some),
            None => Ok(None),
        }
    }

    async fn fetch(&self, package: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError> {
        self.inner.fetch(package, *content, size).await
    }

    async fn publish(&self, release: Release) -> Result<Receipt, PublishError> {
        self.inner.publish(release).await
    }

    async fn yank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.inner.set_yanked(package, version, true).await
    }

    async fn unyank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.inner.set_yanked(package, version, false).await
    }

    fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }
}

impl<R: Runtime> Clone for P2PRegistry<R> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<R: Runtime> fmt::Debug for P2PRegistry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P2PRegistry").field("publisher", &self.inner.publisher).finish_non_exhaustive()
    }
}

impl<R: Runtime> Inner<R> {
    async fn save(&self) {
        let reputation = Arc::clone(&self.reputation);
        if let Err(error) = unblock(move || reputation.save()).await {
            tracing::warn!(%error, "what is known of peers was not written");
        }
    }

    /// What a call to the memory of heads gives, which blocks.
    async fn with_head_store<T: Send + 'static>(&self, ask: impl FnOnce(&HeadStore) -> T + Send + 'static) -> T {
        let store = Arc::clone(&self.head_store);
        unblock(move || ask(&store)).await
    }

    /// Runs a task, until the node ends at the latest. It may hold what keeps the registry's files open.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        let until_it_ends = async move {
            select(pin!(ended.recv()), pin!(task)).await;
        };
        self.runtime.spawn(until_it_ends.boxed());
    }

    /// What the future gives, or `None` if the node ends before.
    async fn while_running<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        // In this order: what has no node any more may soon have an answer, too, and not a true one.
        match select(pin!(self.ended.recv()), pin!(future)).await {
            Either::Left(_) => None,
            Either::Right((output, _)) => Some(output),
        }
    }

    async fn sleep(&self, span: Duration) {
        within(&self.runtime, span, pending::<()>()).await;
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }
}

/// A store without what an earlier time has left.
fn open_empty(folder: &Path) -> Result<BlobStore, RegistryStartError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StorageError::Folder { path: folder.to_owned(), source }.into())
        }
        _ => Ok(BlobStore::open(folder)?),
    }
}

/// What a panic has left is as good as what was there: no lock is held over more than one change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
