//! Catalogues: reading and searching those of peers, and serving the own one.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_channel::Sender;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use kadence::{Alarm, Runtime};
use libp2p::PeerId;

use super::{Inner, contents::ProviderScope, listener::Task, lock};
use crate::{
    PackageId, Query,
    p2p::{
        announce::{CataloguePage, Cursor, Freshness, SignedAnnouncement},
        requests::{self, CatalogueClientError, MAX_MATCHES},
    },
};

/// Maximum number of peers whose catalogue positions are remembered.
const MAX_CURSORS: usize = 1024;

/// Maximum number of connected peers that a search asks.
const MAX_SEARCHED_PEERS: usize = 8;

/// Time for which a search waits for the indexes of the packages that peers named, whose tags it filters by.
const SEARCH_INDEX_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of indexes that a search reads at the same time.
const CONCURRENT_INDEXES: usize = 4;

impl<R: Runtime> Inner<R> {
    /// Adds what is new in a peer's catalogue.
    pub(super) async fn read_catalogue(self: &Arc<Self>, peer: PeerId, tasks: &Sender<Task>) {
        let now = SystemTime::now();
        if self.reputation.banned_until(&peer, now).is_some() {
            return;
        }
        let after = lock(&self.cursors).get(&peer).copied().unwrap_or_default();
        let (mut found, mut bad) = (Vec::new(), 0);
        let pages = self.catalogue.pages(peer, after, |page| {
            // Before the lock: verifying hundreds of signatures takes milliseconds.
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
            // Not every peer runs a registry.
            Err(CatalogueClientError::Unsupported) => {}
            Err(error) if error.is_bad_data() => self.bad_data(peer),
            Err(error) => tracing::debug!(%peer, %error, "catalogue was not read to its end"),
        }
    }

    fn store_cursor(&self, peer: PeerId, cursor: Cursor) {
        let mut cursors = lock(&self.cursors);
        if cursors.len() >= MAX_CURSORS && !cursors.contains_key(&peer) {
            // Reading a catalogue again from the beginning costs a few pages.
            cursors.clear();
        }
        cursors.insert(peer, cursor);
    }

    /// Asks connected peers for packages that match the query, and adds what they name.
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
        // A package that matches there but not here is known here by its name and title only: its index was not read yet.
        if let Ok(here) = self.search.search(query).await {
            known.retain(|package, _| !here.hits.iter().any(|hit| hit.package == *package));
        }
        let unread = news.into_iter().chain(known.into_values());
        let read = |announcement: SignedAnnouncement| {
            let inner = Arc::clone(self);
            async move { inner.index_announced(&announcement, ProviderScope::All).await }.boxed()
        };
        let learn =
            stream::iter(unread.map(read).collect::<Vec<_>>()).buffer_unordered(CONCURRENT_INDEXES).collect::<()>();
        // Packages whose index was not read in time are found by their name and title.
        let _elapsed = Alarm::new(&self.runtime).within(SEARCH_INDEX_TIMEOUT, learn).await;
    }
}

/// Catalogue that is served to peers.
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
