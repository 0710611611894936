//! Entries of the search index, made from announcements and from the indexes that they name.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use blocking::unblock;
use kadence::Runtime;

use super::{Inner, contents::ProviderScope};
use crate::{
    GetError, Index, SearchEntry, Summary,
    p2p::{announce::SignedAnnouncement, deadline::within, transfer::FetchRequest},
    registry::{Subject, read_document},
};

/// How long reading one of them may take.
const INDEX_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest index that is read only for the search.
const MAX_SEARCH_INDEX_LEN: u64 = crate::MAX_INDEX_LEN as u64;

impl<R: Runtime> Inner<R> {
    /// From now on the package is found: by its title, if nothing else was known of it, and by all else when its index was
    /// read. Whoever keeps us waiting for that keeps nobody else waiting for long.
    pub(super) async fn update_search(self: &Arc<Self>, announcement: &SignedAnnouncement, scope: ProviderScope) {
        self.insert_title(announcement).await;
        within(&self.runtime, INDEX_TIMEOUT, self.index_announced(announcement, scope)).await;
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
            tracing::warn!(%error, "a package is not found by the search");
        }
    }

    /// Reads the index of an announced package, for the search.
    pub(super) async fn index_announced(self: &Arc<Self>, announcement: &SignedAnnouncement, scope: ProviderScope) {
        let announced = announcement.announcement();
        let content = announced.index;
        let expected = Subject { package: &announced.package, version: None };
        let index: Index = match read_document(&self.blobs, content, expected).await {
            Ok(index) => index,
            // It is not here.
            Err(GetError::Unavailable { .. } | GetError::Storage(_)) => {
                let wanted = FetchRequest { id: content, max: MAX_SEARCH_INDEX_LEN, size: None };
                if let Err(error) = self.download(&self.index_fetcher, &announced.package, wanted, scope).await {
                    tracing::debug!(package = %announced.package, %error, "the index of an announced package was not read");
                    return;
                }
                let read = read_document(&self.index_cache, content, expected).await;
                // Thousands of them would fill the disk.
                let index_cache = self.index_cache.clone();
                let _gone = unblock(move || index_cache.remove(&content)).await;
                let Ok(index) = read else { return };
                index
            }
            Err(_) => return,
        };
        self.update_search_entry(&index, String::new()).await;
    }

    /// What an index says is found from now on; nothing of it, if all of it was withdrawn.
    pub(super) async fn update_search_entry(&self, index: &Index, readme: String) {
        let found = match SearchEntry::from_index(index, readme) {
            Some(entry) => self.search.upsert(entry, SystemTime::now()).await,
            None => self.search.remove(index.package()).await.map(drop),
        };
        if let Err(error) = found {
            tracing::warn!(package = %index.package(), %error, "a package is not found by the search");
        }
    }
}
