//! A registry in a folder, for one publisher and without a network.

#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use futures::lock::Mutex;
use libp2p_identity::PeerId;
use rusqlite::{OptionalExtension, params};
use semver::Version;
use thiserror::Error;

use crate::{
    ContentId, GetError, Index, IndexEntry, IndexError, MAX_INDEX_LEN, Package, PackageId, PublishError, Query,
    Receipt, Registry, Release, SearchEntry, SearchPage, Step, StepOutcome, Steps, StorageError,
    archive::{ArchiveLimits, PackOptions},
    blob::{BlobError, BlobStore},
    database::Format,
    registry::{Staged, stage},
    search,
    storage::Database,
    unix,
};

/// For one process at a time, which also keeps the blobs' folder to itself.
const FORMAT: Format = Format { application_id: *b"GGlr", steps: &[SCHEMA, search::SCHEMA], exclusive: true };

/// Which index a package has: what a head is in the network. All else is in blobs.
///
/// Superseded indexes go when the registry is opened the next time, when nobody can be reading them.
const SCHEMA: &str = "
    CREATE TABLE heads (package TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE superseded (content TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// A registry in a folder: an SQLite database that says which index each package has and finds packages, and a store of blobs
/// with everything else.
///
/// Only its publisher's packages can be published in it. It is for one process at a time. A version is there when its row of
/// the database is, which is written last: if the process ends before that, there is as much as before.
#[derive(Debug, Clone)]
pub struct LocalRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    publisher: PeerId,
    options: PackOptions,
    clock: fn() -> SystemTime,
    database: Database,
    blobs: BlobStore,
    /// Held from when an index is read until the next one is named.
    publishing: Mutex<()>,
}

impl LocalRegistry {
    /// Opens the registry in this folder, which is made if need be.
    ///
    /// # Errors
    ///
    /// If another process has it open, if its database is damaged or was written by another version, or if the disk does not
    /// do its part. Nothing is taken away then.
    pub async fn open(folder: impl Into<PathBuf>, publisher: PeerId) -> Result<Self, StorageError> {
        Self::with(folder.into(), publisher, ArchiveLimits::default(), SystemTime::now).await
    }

    /// The same with other limits, private paths and keys for what is published, and with another clock. The registry's own
    /// folder is private in any case.
    ///
    /// # Errors
    ///
    /// As for [`LocalRegistry::open`].
    pub async fn with(
        folder: PathBuf,
        publisher: PeerId,
        options: impl Into<PackOptions>,
        clock: fn() -> SystemTime,
    ) -> Result<Self, StorageError> {
        let mut options = options.into();
        options.private_paths.push(folder.clone());
        let made = folder.clone();
        let failed = |source| StorageError::Folder { path: folder.clone(), source };
        blocking::unblock(move || fs::create_dir_all(made)).await.map_err(failed)?;
        // The database first: whoever has it may use the blobs' folder, which does not notice two.
        let database = Database::open(folder.join("packages.db"), FORMAT).await?;
        let store = folder.join("content");
        let blobs = blocking::unblock(move || BlobStore::open(store)).await?;
        let publishing = Mutex::new(());
        let inner = Inner { folder, publisher, options, clock, database, blobs, publishing };
        inner.remove_superseded().await?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl Registry for LocalRegistry {
    async fn search(&self, query: &Query) -> Result<SearchPage, GetError> {
        let query = query.clone();
        Ok(self.inner.database.transaction(move |database| search::search(database, &query)).await?)
    }

    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError> {
        let Some(head) = self.inner.head(package).await? else { return Ok(None) };
        self.inner.index(package, head).await.map(Some)
    }

    async fn fetch(&self, _: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError> {
        let (blobs, content) = (self.blobs().clone(), *content);
        match blocking::unblock(move || blobs.size(&content)).await {
            Some(found) if found == size => Ok(()),
            Some(found) => Err(GetError::Size { content, wanted: size, found }),
            None => Err(BlobError::NotFound(content).into()),
        }
    }

    async fn publish(&self, release: Release) -> Result<Receipt, PublishError> {
        let inner = &self.inner;
        let package = release.draft.id().clone();
        inner.check_publisher(&package)?;
        let _turn = inner.publishing.lock().await;
        let (head, index) = inner.newest(&package).await?;
        let index = index.unwrap_or_else(|| Index::new(package));

        let shared = Arc::clone(inner);
        let staged = blocking::unblock(move || {
            let now = unix::seconds((shared.clock)());
            stage(&shared.blobs, &shared.folder, release, &index, &shared.options, now)
        });
        let Staged { package, manifest, index, is_published, excluded, mut steps } = staged.await?;
        let content = match head {
            Some(head) if is_published => {
                steps.set(Step::Head, StepOutcome::AlreadyThere);
                head
            }
            head => inner.put_head(head, index, &mut steps).await?,
        };
        let archive = package.contents().archive;
        let (id, version) = (package.id().clone(), package.version().clone());
        Ok(Receipt { package: id, version, manifest, archive, index: content, steps, excluded })
    }

    async fn delete(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        let inner = &self.inner;
        inner.check_publisher(package)?;
        let _turn = inner.publishing.lock().await;
        let (Some(head), Some(index)) = inner.newest(package).await? else {
            return Err(PublishError::NoSuchPackage(Box::new(package.clone())));
        };
        let next = index.with_yanked(version, true)?;
        let mut steps = Steps::default();
        let json = next.to_json();
        let blobs = inner.blobs.clone();
        let stored = blocking::unblock(move || blobs.put(&json)).await;
        steps.record(Step::Index, stored)?;
        let entry = next.versions().get(version).cloned();
        let index = inner.put_head(Some(head), next, &mut steps).await?;
        let Some(IndexEntry { manifest, archive, .. }) = entry else {
            return Err(IndexError::NoSuchVersion { version: version.clone() }.into());
        };
        Ok(Receipt {
            package: package.clone(),
            version: version.clone(),
            manifest,
            archive,
            index,
            steps,
            excluded: Vec::new(),
        })
    }

    fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }
}

impl Inner {
    /// Names an index that is in the store, and puts what its newest version says into the search. From here on it is
    /// published.
    async fn put_head(
        self: &Arc<Self>,
        before: Option<ContentId>,
        index: Index,
        steps: &mut Steps,
    ) -> Result<ContentId, PublishError> {
        let content = index.content_id();
        let blobs = self.blobs.clone();
        let now = unix::seconds((self.clock)());
        let put = self.database.transaction(move |database| {
            let package = index.package().to_string();
            let found = head_in(database, &package)?;
            // Somebody who was publishing has gone away, and what he had begun was ended meanwhile.
            if found != before.map(|before| before.to_string()) {
                return Ok(false);
            }
            if let Some(found) = found {
                database.execute("INSERT OR IGNORE INTO superseded VALUES (?)", [found])?;
            }
            database.execute("DELETE FROM superseded WHERE content = ?", [content.to_string()])?;
            database.execute("INSERT OR REPLACE INTO heads VALUES (?, ?)", params![package, content.to_string()])?;
            match search_entry(&blobs, &index) {
                Some(entry) => search::upsert(database, &entry, now, usize::MAX)?,
                None => drop(search::remove(database, index.package())?),
            }
            Ok(true)
        });
        match steps.record(Step::Head, put.await)? {
            true => Ok(content),
            false => steps.record(Step::Head, Err(Superseded)),
        }
    }

    /// The newest index of a package, and its content id.
    async fn newest(&self, package: &PackageId) -> Result<(Option<ContentId>, Option<Index>), PublishError> {
        let newest = async {
            let head = self.head(package).await?;
            let index = match head {
                Some(head) => Some(self.index(package, head).await?),
                None => None,
            };
            Ok((head, index))
        };
        newest.await.map_err(PublishError::Versions)
    }

    async fn head(&self, package: &PackageId) -> Result<Option<ContentId>, GetError> {
        let id = package.to_string();
        let head = self.database.transaction(move |database| head_in(database, &id)).await?;
        let invalid = |_| self.database.damaged(format!("{package} has a head that is no content id"));
        Ok(head.map(|head| head.parse()).transpose().map_err(invalid)?)
    }

    async fn index(&self, package: &PackageId, head: ContentId) -> Result<Index, GetError> {
        let blobs = self.blobs.clone();
        let json = blocking::unblock(move || blobs.read(&head, MAX_INDEX_LEN as u64)).await?;
        let index = Index::from_json(&json).map_err(|error| GetError::invalid(head, error))?;
        if index.package() != package {
            let (wanted, found) = (package.to_string(), index.package().to_string());
            return Err(GetError::OtherPackage { content: head, wanted, found });
        }
        Ok(index)
    }

    fn check_publisher(&self, package: &PackageId) -> Result<(), PublishError> {
        if package.publisher() == self.publisher {
            return Ok(());
        }
        Err(PublishError::NotOurs { package: Box::new(package.clone()), publisher: Box::new(self.publisher) })
    }

    async fn remove_superseded(&self) -> Result<(), StorageError> {
        let list = |database: &rusqlite::Transaction<'_>| {
            let mut list = database.prepare("SELECT content FROM superseded")?;
            list.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let superseded = self.database.transaction(list).await?;
        let blobs = self.blobs.clone();
        let remove = move || superseded.iter().flat_map(|id| id.parse()).try_for_each(|id| blobs.remove(&id).map(drop));
        blocking::unblock(remove).await?;
        self.database.transaction(|database| database.execute("DELETE FROM superseded", [])).await.map(drop)
    }
}

/// Somebody else has published the package meanwhile.
#[derive(Debug, Error)]
#[error("the package was published by another call meanwhile")]
struct Superseded;

fn head_in(database: &rusqlite::Connection, package: &str) -> rusqlite::Result<Option<String>> {
    let mut head = database.prepare_cached("SELECT content FROM heads WHERE package = ?")?;
    head.query_row([package], |row| row.get(0)).optional()
}

/// What is found of a package: its newest version, with its readme if the manifest can be read.
fn search_entry(blobs: &BlobStore, index: &Index) -> Option<SearchEntry> {
    let (_, entry) = index.current()?;
    let manifest = blobs.read(&entry.manifest, entry.manifest_size).ok();
    let mut found = SearchEntry::of(index, String::new())?;
    if let Some(package) = manifest.and_then(|json| Package::from_json(&json).ok()) {
        (found.summary, found.readme) = (package.metadata().into(), package.metadata().readme.clone());
    }
    Some(found)
}
