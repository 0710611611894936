//! Updates of the search index from announcements and from the indexes that they name.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use blocking::unblock;
use kadence::{Alarm, Runtime};

use super::{Inner, contents::ProviderScope};
use crate::{
    GetError, Index, SearchEntry, Summary,
    p2p::{announce::SignedAnnouncement, transfer::FetchRequest},
    registry::{Subject, read_document},
};

/// Timeout for reading the index of an announced package.
const INDEX_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of an index that is read for the search.
const MAX_SEARCH_INDEX_LEN: u64 = crate::MAX_INDEX_LEN as u64;

impl<R: Runtime> Inner<R> {
    /// Makes an announced package searchable: at once by its title if it is new, and by the rest once its index was
    /// read. The timeout keeps slow providers from delaying other packages.
    pub(super) async fn update_search(self: &Arc<Self>, announcement: &SignedAnnouncement, scope: ProviderScope) {
        self.insert_title(announcement).await;
        let index = self.index_announced(announcement, scope);
        let _elapsed = Alarm::new(&self.runtime).within(INDEX_TIMEOUT, index).await;
    }

    pub(super) async fn insert_title(&self, announcement: &SignedAnnouncement) {
        let announced = announcement.announcement();
        let entry = SearchEntry {
            package: announced.package.clone(),
            version: announced.version.clone(),
            summary: Summary { title: announced.title.clone(), ..Summary::default() },
            readme: String::new(),
            updated: announced.published_at,
        };
        if let Err(error) = self.search.insert(entry, SystemTime::now()).await {
            tracing::warn!(%error, "package was not added to the search index");
        }
    }

    /// Reads the index of an announced package into the search index.
    pub(super) async fn index_announced(self: &Arc<Self>, announcement: &SignedAnnouncement, scope: ProviderScope) {
        let announced = announcement.announcement();
        let content = announced.index;
        let expected = Subject { package: &announced.package, version: None };
        let index: Index = match read_document(&self.blobs, content, expected).await {
            Ok(index) => index,
            // Not in the store.
            Err(GetError::Unavailable { .. } | GetError::Storage(_)) => {
                let request = FetchRequest { id: content, max: MAX_SEARCH_INDEX_LEN, size: None };
                if let Err(error) = self.download(&self.index_fetcher, &announced.package, request, scope).await {
                    tracing::debug!(package = %announced.package, %error, "index of an announced package was not read");
                    return;
                }
                let read = read_document(&self.index_cache, content, expected).await;
                // Thousands of indexes would fill the disk.
                let index_cache = self.index_cache.clone();
                let _gone = unblock(move || index_cache.remove(&content)).await;
                let Ok(index) = read else { return };
                index
            }
            Err(_) => return,
        };
        self.update_search_entry(&index, String::new()).await;
    }

    /// Replaces the search entry of a package; removes it if all versions are yanked.
    pub(super) async fn update_search_entry(&self, index: &Index, readme: String) {
        let found = match SearchEntry::from_index(index, readme) {
            Some(entry) => self.search.upsert(entry, SystemTime::now()).await,
            None => self.search.remove(index.package()).await.map(drop),
        };
        if let Err(error) = found {
            tracing::warn!(package = %index.package(), %error, "package was not added to the search index");
        }
    }
}
