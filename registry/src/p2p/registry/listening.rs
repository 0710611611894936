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
    Inner, RegistryBehaviour, RegistryBehaviourEvent, RegistryEvent, contents::Asking, heads::OnlyForged, lock,
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
const LEARNING: usize = 4096;

/// How long reading one of them may take.
const LEARNING_TIMEOUT: Duration = Duration::from_secs(15);

/// How many indexes are read at a time.
const LEARNING_AT_ONCE: usize = 4;

/// The longest index that is read only for the search.
const MAX_LEARNED: u64 = crate::MAX_INDEX_LEN as u64;

/// How many peers wait to be asked for their catalogue.
const ASKING: usize = 64;

/// How many peers are asked for their catalogues at a time.
const ASKING_AT_ONCE: usize = 2;

/// How many peers' places in their catalogues are remembered.
const MAX_CURSORS: usize = 1024;

/// How many connected peers are asked for matches.
const ASKED_FOR_MATCHES: usize = 8;

/// How long a search waits for the indexes of what peers have named, so that filters see their tags.
const MATCHES_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the node's events.
pub(super) struct Listener<R: Runtime> {
    inner: Arc<Inner<R>>,
    news: Sender<News>,
    met: Sender<PeerId>,
    /// Closed once the node has ended, upon which the registry's other tasks end.
    running: Sender<Infallible>,
}

/// What an announcement gives to do.
enum News {
    /// To learn more about its package.
    Learn(SignedAnnouncement, Asking),
    /// To see what the network says: it contradicts what is known.
    Doubt(PackageId),
}

impl<R: Runtime> Listener<R> {
    /// The listener, and the work that it gives to others.
    pub(super) fn new(
        inner: Arc<Inner<R>>,
        running: Sender<Infallible>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (news, to_learn) = async_channel::bounded(LEARNING);
        let (met, to_ask) = async_channel::bounded(ASKING);
        let work = work(Arc::clone(&inner), news.clone(), to_learn, to_ask);
        (Self { inner, news, met, running }, work)
    }

    /// Until the node ends.
    pub(super) async fn listen(
        self,
        mut events: impl Stream<Item = Result<NodeEvent<RegistryBehaviour>, Lagged>> + Send + Unpin,
    ) {
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.heard(event).await,
                Err(Lagged { skipped }) => {
                    tracing::warn!(skipped, "events of the node were missed");
                    self.inner.look_for_connections().await;
                }
            }
        }
        self.running.close();
        self.inner.readers.close();
        self.inner.save().await;
    }

    async fn heard(&self, event: NodeEvent<RegistryBehaviour>) {
        let inner = &self.inner;
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } => {
                inner.connections.settled(&peer_id, true);
                if num_established.get() == 1 {
                    inner.readers.tell(&RegistryEvent::PeerJoined { peer: peer_id });
                    // If there are too many, others will tell the same.
                    let _full = self.met.try_send(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                inner.readers.tell(&RegistryEvent::PeerLeft { peer: peer_id });
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), .. } => {
                inner.connections.settled(&peer, false);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::App(RegistryBehaviourEvent::Gossipsub(
                gossipsub::Event::Message { propagation_source, message_id, message },
            ))) => self.announced(propagation_source, message_id, &message).await,
            _ => {}
        }
    }

    /// Judges a message, and lets gossipsub forward it or not.
    async fn announced(&self, forwarder: PeerId, id: gossipsub::MessageId, message: &gossipsub::Message) {
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
                inner.heard_of(&announcement);
                // If there are too many, it is found when its publisher announces again.
                let _full = self.news.try_send(News::Learn(*announcement, Asking::Announcers));
            }
            ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::Conflict { .. })) => {
                if let Ok(announcement) = SignedAnnouncement::verify(&message.data) {
                    let _full = self.news.try_send(News::Doubt(announcement.announcement().package.clone()));
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
    news: Sender<News>,
    to_learn: Receiver<News>,
    to_ask: Receiver<PeerId>,
) {
    let learning = to_learn.for_each_concurrent(LEARNING_AT_ONCE, |news| {
        let inner = Arc::clone(&inner);
        async move {
            match news {
                News::Learn(announcement, asking) => inner.learn(&announcement, asking).await,
                News::Doubt(package) => inner.doubt(&package).await,
            }
        }
    });
    let asking = to_ask.for_each_concurrent(ASKING_AT_ONCE, |peer| {
        let (inner, news) = (Arc::clone(&inner), news.clone());
        async move { inner.pull(peer, &news).await }
    });
    // One of those who are connected is asked now and then.
    let now_and_then = async {
        loop {
            inner.sleep(inner.config.catalogue_interval).await;
            if let Some(peer) = inner.connected().await.first() {
                inner.pull(*peer, &news).await;
            }
        }
    };
    futures::future::select(futures::future::join(learning, asking).boxed(), now_and_then.boxed()).await;
}

impl<R: Runtime> Inner<R> {
    /// There is news of a package.
    fn heard_of(&self, announcement: &SignedAnnouncement) {
        let told = announcement.announcement();
        lock(&self.fresh).heard_of(&told.package, told.seq);
        self.readers
            .tell(&RegistryEvent::PackageDiscovered { package: told.package.clone(), version: told.version.clone() });
    }

    /// From now on the package is found: by its title, if nothing else was known of it, and by all else when its index was
    /// read. Whoever keeps us waiting for that keeps nobody else waiting for long.
    async fn learn(self: &Arc<Self>, announcement: &SignedAnnouncement, asking: Asking) {
        self.find_by_title(announcement).await;
        within(&self.runtime, LEARNING_TIMEOUT, self.read_index(announcement, asking)).await;
    }

    async fn find_by_title(&self, announcement: &SignedAnnouncement) {
        let told = announcement.announcement();
        let entry = SearchEntry {
            package: told.package.clone(),
            version: told.version.clone(),
            summary: Summary { title: told.title.clone(), ..Summary::default() },
            readme: String::new(),
            updated: told.published_at,
        };
        if let Err(error) = self.search.insert(entry, SystemTime::now()).await {
            tracing::warn!(%error, "a package is not found by the search");
        }
    }

    /// An announcement contradicts what is known. Looking at the network's heads remembers both, if there are two.
    async fn doubt(&self, package: &PackageId) {
        match self.look_up(package, OnlyForged::IsRefused).await {
            Err(GetError::Equivocation { seq }) => {
                tracing::warn!(%package, seq, "a publisher has signed two heads with one number");
                self.readers.tell(&RegistryEvent::Equivocation { package: package.clone(), seq });
            }
            Err(error) => tracing::debug!(%package, %error, "a contradiction was not cleared up"),
            Ok(_) => {}
        }
    }

    /// Reads the index of an announced package, for the search.
    async fn read_index(self: &Arc<Self>, announcement: &SignedAnnouncement, asking: Asking) {
        let told = announcement.announcement();
        let content = told.index;
        let blobs = self.blobs.clone();
        let here = unblock(move || blobs.read(&content, MAX_LEARNED)).await;
        let json = match here {
            Ok(json) => json,
            Err(_) => {
                let wanted = FetchRequest { id: content, max: MAX_LEARNED, size: None };
                if let Err(error) = self.download(&self.index_fetcher, &told.package, wanted, asking).await {
                    tracing::debug!(package = %told.package, %error, "the index of an announced package was not read");
                    return;
                }
                let index_cache = self.index_cache.clone();
                let read = unblock(move || {
                    let json = index_cache.read(&content, MAX_LEARNED);
                    // Thousands of them would fill the disk.
                    let _gone = index_cache.remove(&content);
                    json
                });
                let Ok(json) = read.await else { return };
                json
            }
        };
        let Ok(index) = Index::from_json(&json) else { return };
        if *index.package() != told.package {
            return;
        }
        self.find(&index, String::new()).await;
    }

    /// What an index says is found from now on; nothing of it, if all of it was withdrawn.
    pub(super) async fn find(&self, index: &Index, readme: String) {
        let found = match SearchEntry::of(index, readme) {
            Some(entry) => self.search.upsert(entry, SystemTime::now()).await,
            None => self.search.remove(index.package()).await.map(drop),
        };
        if let Err(error) = found {
            tracing::warn!(package = %index.package(), %error, "a package is not found by the search");
        }
    }

    /// Takes what is new in a peer's catalogue.
    async fn pull(self: &Arc<Self>, peer: PeerId, news: &Sender<News>) {
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
                self.heard_of(&newest);
                if news.send(News::Learn(newest, Asking::Everybody)).await.is_err() {
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
    pub(super) async fn ask_peers(self: &Arc<Self>, query: &Query) {
        let connected = self.connected().await;
        let limit = u16::try_from(query.limit().saturating_add(query.offset())).unwrap_or(MAX_MATCHES).min(MAX_MATCHES);
        let text = query.words();
        let ask =
            |peer| async move { (peer, self.catalogue.matches(peer, text, limit, SystemTime::now()).await) }.boxed();
        let asked: Vec<_> = connected.into_iter().take(ASKED_FOR_MATCHES).map(ask).collect();
        let mut answers = stream::iter(asked).buffer_unordered(ASKED_FOR_MATCHES);
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
            self.heard_of(announcement);
            self.find_by_title(announcement).await;
        }
        // What matches there and not here is known here by its title alone: its index was not read yet.
        if let Ok(here) = self.search.search(query).await {
            known.retain(|package, _| !here.hits.iter().any(|hit| hit.package == *package));
        }
        let unread = news.into_iter().chain(known.into_values());
        let read = |announcement: SignedAnnouncement| {
            let inner = Arc::clone(self);
            async move { inner.read_index(&announcement, Asking::Everybody).await }.boxed()
        };
        let learn =
            stream::iter(unread.map(read).collect::<Vec<_>>()).buffer_unordered(LEARNING_AT_ONCE).collect::<()>();
        // What was not read in time is found by its title.
        within(&self.runtime, MATCHES_TIMEOUT, learn).await;
    }
}

/// What is given to peers that ask.
pub(super) struct Catalogue<R: Runtime>(pub(super) Arc<Inner<R>>);

impl<R: Runtime> requests::CatalogueSource for Catalogue<R> {
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
