//! What is heard: announcements, what peers' catalogues say, who comes and goes.

use std::{
    collections::HashMap,
    convert::Infallible,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_channel::{Receiver, Sender};
use blocking::unblock;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use kadence::{
    Lagged, Runtime,
    node::{NodeBehaviourEvent, NodeEvent},
};
use libp2p::{PeerId, gossipsub, swarm::SwarmEvent};

use super::{
    Inner, RegistryBehaviour, RegistryBehaviourEvent, RegistryEvent, contents::ProviderScope, heads::OnlyForgedHeads,
    lock,
};
use crate::{
    GetError, Index, PackageId, Query, SearchEntry, Summary,
    p2p::{
        announce::{
            CataloguePage, Cursor, Freshness, GossipMessage, IgnoreReason, SignedAnnouncement, ValidationResult,
        },
        deadline::within,
        requests::{self, CatalogueClientError, MAX_MATCHES},
        transfer::FetchRequest,
    },
};

/// How many packages wait for their index to be read: 4 MB of announcements, and more than come in while one is read.
const TASK_QUEUE_LEN: usize = 4096;

/// How long reading one of them may take.
const INDEX_TIMEOUT: Duration = Duration::from_secs(15);

/// How many indexes are read at a time.
const CONCURRENT_TASKS: usize = 4;

/// The longest index that is read only for the search.
const MAX_SEARCH_INDEX_LEN: u64 = crate::MAX_INDEX_LEN as u64;

/// How many peers wait to be asked for their catalogue.
const PEER_QUEUE_LEN: usize = 64;

/// How many peers are asked for their catalogues at a time.
const CONCURRENT_CATALOGUES: usize = 2;

/// How many peers' places in their catalogues are remembered.
const MAX_CURSORS: usize = 1024;

/// How many connected peers are asked for matches.
const MAX_SEARCHED_PEERS: usize = 8;

/// How long a search waits for the indexes of what peers have named, so that filters see their tags.
const SEARCH_INDEX_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the node's events.
pub(super) struct Listener<R: Runtime> {
    inner: Arc<Inner<R>>,
    tasks: Sender<Task>,
    new_peers: Sender<PeerId>,
    /// Closed once the node has ended, upon which the registry's other tasks end.
    running: Sender<Infallible>,
}

/// What an announcement gives to do.
enum Task {
    /// To learn more about its package.
    UpdateSearch(SignedAnnouncement, ProviderScope),
    /// To see what the network says: it contradicts what is known.
    Recheck(PackageId),
}

impl<R: Runtime> Listener<R> {
    /// The listener, and the work that it gives to others.
    pub(super) fn new(
        inner: Arc<Inner<R>>,
        running: Sender<Infallible>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (tasks, queued_tasks) = async_channel::bounded(TASK_QUEUE_LEN);
        let (new_peers, queued_peers) = async_channel::bounded(PEER_QUEUE_LEN);
        let work = work(Arc::clone(&inner), tasks.clone(), queued_tasks, queued_peers);
        (Self { inner, tasks, new_peers, running }, work)
    }

    /// Until the node ends.
    pub(super) async fn listen(
        self,
        mut events: impl Stream<Item = Result<NodeEvent<RegistryBehaviour>, Lagged>> + Send + Unpin,
    ) {
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.on_event(event).await,
                Err(Lagged { skipped }) => {
                    tracing::warn!(skipped, "events of the node were missed");
                    self.inner.resync_connections().await;
                }
            }
        }
        self.running.close();
        self.inner.subscribers.close();
        self.inner.save().await;
    }

    async fn on_event(&self, event: NodeEvent<RegistryBehaviour>) {
        let inner = &self.inner;
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } => {
                inner.connections.resolve(&peer_id, true);
                if num_established.get() == 1 {
                    inner.subscribers.send(&RegistryEvent::PeerJoined { peer: peer_id });
                    // If there are too many, others will tell the same.
                    let _full = self.new_peers.try_send(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                inner.subscribers.send(&RegistryEvent::PeerLeft { peer: peer_id });
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), .. } => {
                inner.connections.resolve(&peer, false);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::App(RegistryBehaviourEvent::Gossipsub(
                gossipsub::Event::Message { propagation_source, message_id, message },
            ))) => self.on_announcement(propagation_source, message_id, &message).await,
            _ => {}
        }
    }

    /// Judges a message, and lets gossipsub forward it or not.
    async fn on_announcement(&self, forwarder: PeerId, id: gossipsub::MessageId, message: &gossipsub::Message) {
        let inner = &self.inner;
        let heard = GossipMessage { forwarder, source: message.source, bytes: &message.data };
        let judged = lock(&inner.validator).validate(&mut lock(&inner.discovered), heard, SystemTime::now());
        let acceptance = judged.acceptance();
        let report = inner.swarm.with(move |swarm| {
            swarm.behaviour_mut().app.gossipsub.report_message_validation_result(&id, &forwarder, acceptance);
        });
        if report.await.is_err() {
            return;
        }
        match judged {
            ValidationResult::Accept(announcement) => {
                inner.on_newer_head(&announcement);
                // If there are too many, it is found when its publisher announces again.
                let _full = self.tasks.try_send(Task::UpdateSearch(*announcement, ProviderScope::Announcers));
            }
            ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::Conflict { .. })) => {
                if let Ok(announcement) = SignedAnnouncement::verify(&message.data) {
                    let _full = self.tasks.try_send(Task::Recheck(announcement.announcement().package.clone()));
                }
            }
            ValidationResult::Ignore(reason) => tracing::debug!(%forwarder, %reason, "an announcement was ignored"),
            ValidationResult::Reject(reason) => {
                tracing::debug!(%forwarder, %reason, "an announcement was refused");
            }
        }
    }
}

/// What takes longer than an event may.
async fn work<R: Runtime>(
    inner: Arc<Inner<R>>,
    tasks: Sender<Task>,
    queued_tasks: Receiver<Task>,
    queued_peers: Receiver<PeerId>,
) {
    let learning = queued_tasks.for_each_concurrent(CONCURRENT_TASKS, |task| {
        let inner = Arc::clone(&inner);
        async move {
            match task {
                Task::UpdateSearch(announcement, scope) => inner.update_search(&announcement, scope).await,
                Task::Recheck(package) => inner.recheck(&package).await,
            }
        }
    });
    let asking = queued_peers.for_each_concurrent(CONCURRENT_CATALOGUES, |peer| {
        let (inner, tasks) = (Arc::clone(&inner), tasks.clone());
        async move { inner.read_catalogue(peer, &tasks).await }
    });
    // One of those who are connected is asked now and then.
    let now_and_then = async {
        loop {
            inner.sleep(inner.config.catalogue_interval).await;
            if let Some(peer) = inner.connected().await.first() {
                inner.read_catalogue(*peer, &tasks).await;
            }
        }
    };
    futures::future::select(futures::future::join(learning, asking).boxed(), now_and_then.boxed()).await;
}

impl<R: Runtime> Inner<R> {
    /// There is news of a package.
    fn on_newer_head(&self, announcement: &SignedAnnouncement) {
        let announced = announcement.announcement();
        lock(&self.head_cache).remove_older(&announced.package, announced.seq);
        self.subscribers.send(&RegistryEvent::PackageDiscovered {
            package: announced.package.clone(),
            version: announced.version.clone(),
        });
    }

    /// From now on the package is found: by its title, if nothing else was known of it, and by all else when its index was
    /// read. Whoever keeps us waiting for that keeps nobody else waiting for long.
    async fn update_search(self: &Arc<Self>, announcement: &SignedAnnouncement, scope: ProviderScope) {
        self.insert_title(announcement).await;
        within(&self.runtime, INDEX_TIMEOUT, self.index_announced(announcement, scope)).await;
    }

    async fn insert_title(&self, announcement: &SignedAnnouncement) {
        let announced = announcement.announcement();
        let entry = SearchEntry {
            package: announced.package.clone(),
            version: announced.version.clone(),
            summary: Summary { title: announced.title.clone(), ..Summary::default() },
            readme: String::new(),
            updated: announced.published_at,
        };
        if let Err(error) = self.search.insert(entry, SystemTime::now()).await {
            tracing::warn!(%error, "a package is not found by the search");
        }
    }

    /// An announcement contradicts what is known. Looking at the network's heads remembers both, if there are two.
    async fn recheck(&self, package: &PackageId) {
        match self.look_up(package, OnlyForgedHeads::Error).await {
            Err(GetError::Equivocation { seq }) => {
                tracing::warn!(%package, seq, "a publisher has signed two heads with one number");
                self.subscribers.send(&RegistryEvent::Equivocation { package: package.clone(), seq });
            }
            Err(error) => tracing::debug!(%package, %error, "a contradiction was not cleared up"),
            Ok(_) => {}
        }
    }

    /// Reads the index of an announced package, for the search.
    async fn index_announced(self: &Arc<Self>, announcement: &SignedAnnouncement, scope: ProviderScope) {
        let announced = announcement.announcement();
        let content = announced.index;
        let blobs = self.blobs.clone();
        let here = unblock(move || blobs.read(&content, MAX_SEARCH_INDEX_LEN)).await;
        let json = match here {
            Ok(json) => json,
            Err(_) => {
                let wanted = FetchRequest { id: content, max: MAX_SEARCH_INDEX_LEN, size: None };
                if let Err(error) = self.download(&self.index_fetcher, &announced.package, wanted, scope).await {
                    tracing::debug!(package = %announced.package, %error, "the index of an announced package was not read");
                    return;
                }
                let index_cache = self.index_cache.clone();
                let read = unblock(move || {
                    let json = index_cache.read(&content, MAX_SEARCH_INDEX_LEN);
                    // Thousands of them would fill the disk.
                    let _gone = index_cache.remove(&content);
                    json
                });
                let Ok(json) = read.await else { return };
                json
            }
        };
        let Ok(index) = Index::from_json(&json) else { return };
        if *index.package() != announced.package {
            return;
        }
        self.update_search_entry(&index, String::new()).await;
    }

    /// What an index says is found from now on; nothing of it, if all of it was withdrawn.
    pub(super) async fn update_search_entry(&self, index: &Index, readme: String) {
        let found = match SearchEntry::of(index, readme) {
            Some(entry) => self.search.upsert(entry, SystemTime::now()).await,
            None => self.search.remove(index.package()).await.map(drop),
        };
        if let Err(error) = found {
            tracing::warn!(package = %index.package(), %error, "a package is not found by the search");
        }
    }

    /// Takes what is new in a peer's catalogue.
    async fn read_catalogue(self: &Arc<Self>, peer: PeerId, tasks: &Sender<Task>) {
        let now = SystemTime::now();
        if self.reputation.banned_until(&peer, now).is_some() {
            return;
        }
        let after = lock(&self.cursors).get(&peer).copied().unwrap_or_default();
        let (mut found, mut bad) = (Vec::new(), 0);
        let pages = self.catalogue.pages(peer, after, |page| {
            // Hundreds of signatures: not while others wait for what was discovered.
            let now = SystemTime::now();
            let page = page.verify(now);
            let added = lock(&self.discovered).add_verified_page(page, peer, now);
            found.extend(added.updated);
            bad += added.invalid;
            if bad > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let pages = pages.await;
        if bad > 0 {
            self.bad_data(peer);
        }
        for package in found {
            let newest = lock(&self.discovered).get(&package).map(|package| package.newest.clone());
            if let Some(newest) = newest {
                lock(&self.discovered).add_provider(&package, peer, now);
                self.on_newer_head(&newest);
                if tasks.send(Task::UpdateSearch(newest, ProviderScope::All)).await.is_err() {
                    return;
                }
            }
        }
        match pages {
            Ok(cursor) => self.store_cursor(peer, cursor),
            // Not every peer is one of the registry.
            Err(CatalogueClientError::Unsupported) => {}
            Err(error) if error.is_bad_data() => self.bad_data(peer),
            Err(error) => tracing::debug!(%peer, %error, "a catalogue was not read to its end"),
        }
    }

    fn store_cursor(&self, peer: PeerId, cursor: Cursor) {
        let mut cursors = lock(&self.cursors);
        if cursors.len() >= MAX_CURSORS && !cursors.contains_key(&peer) {
            // Who is asked again from the beginning costs a page or two.
            cursors.clear();
        }
        cursors.insert(peer, cursor);
    }

    /// Asks connected peers for what matches a query, and takes what they name.
    pub(super) async fn search_peers(self: &Arc<Self>, query: &Query) {
        let connected = self.connected().await;
        let limit = u16::try_from(query.limit().saturating_add(query.offset())).unwrap_or(MAX_MATCHES).min(MAX_MATCHES);
        let text = query.words();
        let ask =
            |peer| async move { (peer, self.catalogue.matches(peer, text, limit, SystemTime::now()).await) }.boxed();
        let asked: Vec<_> = connected.into_iter().take(MAX_SEARCHED_PEERS).map(ask).collect();
        let mut answers = stream::iter(asked).buffer_unordered(MAX_SEARCHED_PEERS);
        let (mut news, mut known) = (Vec::new(), HashMap::new());
        while let Some((peer, answer)) = answers.next().await {
            let matches = match answer {
                Ok(matches) if matches.invalid == 0 => matches,
                Err(error) if !error.is_bad_data() => continue,
                Ok(_) | Err(_) => {
                    self.bad_data(peer);
                    continue;
                }
            };
            for announcement in matches.announcements {
                let now = SystemTime::now();
                let mut discovered = lock(&self.discovered);
                let freshness = discovered.add(&announcement, peer, now);
                let package = announcement.announcement().package.clone();
                discovered.add_provider(&package, peer, now);
                match freshness {
                    Freshness::New | Freshness::Newer => news.push(announcement),
                    Freshness::Same => drop(known.insert(package, announcement)),
                    Freshness::Older { .. } | Freshness::Conflict { .. } | Freshness::FastForward { .. } => {}
                }
            }
        }
        for announcement in &news {
            known.remove(&announcement.announcement().package);
            self.on_newer_head(announcement);
            self.insert_title(announcement).await;
        }
        // What matches there and not here is known here by its title alone: its index was not read yet.
        if let Ok(here) = self.search.search(query).await {
            known.retain(|package, _| !here.hits.iter().any(|hit| hit.package == *package));
        }
        let unread = news.into_iter().chain(known.into_values());
        let read = |announcement: SignedAnnouncement| {
            let inner = Arc::clone(self);
            async move { inner.index_announced(&announcement, ProviderScope::All).await }.boxed()
        };
        let learn =
            stream::iter(unread.map(read).collect::<Vec<_>>()).buffer_unordered(CONCURRENT_TASKS).collect::<()>();
        // What was not read in time is found by its title.
        within(&self.runtime, SEARCH_INDEX_TIMEOUT, learn).await;
    }
}

/// What is given to peers that ask.
pub(super) struct RegistryCatalogue<R: Runtime>(pub(super) Arc<Inner<R>>);

impl<R: Runtime> requests::CatalogueSource for RegistryCatalogue<R> {
    fn page(&self, after: Cursor) -> BoxFuture<'_, CataloguePage> {
        let page = lock(&self.0.discovered).page(after);
        futures::future::ready(page).boxed()
    }

    fn matches(&self, text: String, limit: usize) -> BoxFuture<'_, Vec<Vec<u8>>> {
        async move {
            let limit = limit.clamp(1, usize::from(MAX_MATCHES));
            let Ok(query) = Query::builder().text(text).limit(limit).build() else { return Vec::new() };
            let Ok(page) = self.0.search.search(&query).await else { return Vec::new() };
            let discovered = lock(&self.0.discovered);
            let signed = |package: &PackageId| Some(discovered.get(package)?.newest.bytes().to_owned());
            page.hits.iter().filter_map(|hit| signed(&hit.package)).collect()
        }
        .boxed()
    }
}
