//! Registry in a folder, without a network.

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
    ContentId, GetError, Index, IndexEntry, IndexError, Package, PackageId, PublishError, Query, Receipt, Registry,
    Release, SearchEntry, SearchPage, Step, StepOutcome, Steps, StorageError,
    archive::{ArchiveLimits, PackOptions},
    blob::{BlobError, BlobStore},
    database::Format,
    registry::{Staged, Subject, read_document, stage},
    search,
    storage::Database,
    unix,
};

/// Exclusive: the lock on the database also protects the folder of blobs.
const FORMAT: Format = Format { application_id: *b"GGlr", steps: &[SCHEMA, search::SCHEMA], exclusive: true };

/// `heads` maps each package to its index, as signed heads do in the network. All other data is in blobs.
///
/// Superseded indexes are deleted when the registry is opened the next time: only then no reader can use them.
const SCHEMA: &str = "
    CREATE TABLE heads (package TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE superseded (content TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// Registry in a folder, without a network. An SQLite database has the search index and names the newest index of each
/// package; a [`BlobStore`] has the content. Cloning is cheap, and all clones are the same registry.
///
/// Only packages of the publisher that was given to [`open`](Self::open) can be published or yanked. Only one registry
/// and its clones can have the folder open at a time, in this process and all others. A publication or a yank takes
/// effect when it is written to the database, which is its last step: if the process ends earlier, readers find the
/// packages as they were.
///
/// # Example
///
/// ```
/// use kadence_registry::{LocalRegistry, MANIFEST_FILE, Query, Registry, Release};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # futures::executor::block_on(async {
/// let publisher = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
/// let folder = tempfile::tempdir()?;
/// let registry = LocalRegistry::open(folder.path(), publisher).await?;
///
/// let package = tempfile::tempdir()?;
/// std::fs::write(package.path().join(MANIFEST_FILE), "name = 'left-pad'\nversion = '1.0.0'")?;
/// let receipt = registry.publish(Release::read(publisher, package.path()).await?).await?;
///
/// let page = registry.search(&Query::text("left")?).await?;
/// assert_eq!(page.hits[0].package, receipt.package);
///
/// registry.yank(&receipt.package, &receipt.version).await?;
/// assert_eq!(registry.get_package(&receipt.package).await?, None);
/// # Ok(())
/// # })
/// # }
/// ```
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
    /// Held from reading an index until its successor is named.
    publishing: Mutex<()>,
}

impl LocalRegistry {
    /// Opens the registry in a folder, and creates the folder if it does not exist. `publisher` is the only publisher
    /// whose packages this registry can publish; packages of earlier publishers in the folder stay readable.
    ///
    /// # Errors
    ///
    /// See [`StorageError`]: for example, the registry is already open, its database is damaged, of another kind or of
    /// a later version, or the disk fails. Published packages are unchanged then.
    pub async fn open(folder: impl Into<PathBuf>, publisher: PeerId) -> Result<Self, StorageError> {
        Self::with(folder.into(), publisher, ArchiveLimits::default(), SystemTime::now).await
    }

    /// Opens the registry like [`LocalRegistry::open`], with options for packing the folders that are published, and
    /// with a clock. `folder` is added to the private paths of `options`. `clock` returns the current time, for the
    /// times of publications.
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
        // The database first: its lock also protects the folder of blobs, which has none.
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
            Some(found) => Err(GetError::Size { content, expected: size, found }),
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

impl Inner {
    async fn set_yanked(
        self: &Arc<Self>,
        package: &PackageId,
        version: &Version,
        yanked: bool,
    ) -> Result<Receipt, PublishError> {
        self.check_publisher(package)?;
        let _turn = self.publishing.lock().await;
        let (Some(head), Some(index)) = self.newest(package).await? else {
            return Err(PublishError::NoSuchPackage(Box::new(package.clone())));
        };
        let next = index.with_yanked(version, yanked)?;
        let mut steps = Steps::default();
        let json = next.to_json();
        let blobs = self.blobs.clone();
        let stored = blocking::unblock(move || blobs.put(&json)).await;
        steps.record(Step::Index, stored)?;
        let entry = next.versions().get(version).cloned();
        let index = self.put_head(Some(head), next, &mut steps).await?;
        let Some(IndexEntry { manifest, archive, .. }) = entry else {
            return Err(IndexError::NoSuchVersion { version: version.clone() }.into());
        };
        let (package, version) = (package.clone(), version.clone());
        Ok(Receipt { package, version, manifest, archive, index, steps, excluded: Vec::new() })
    }

    /// Makes an index that is in the store the package's current one, and updates the search. From here on it is
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
            // A call that was cancelled has run to its end in the background.
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
            false => steps.record(Step::Head, Err(SupersededError)),
        }
    }

    /// Returns the content id of a package's newest index, and the index.
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
        let damaged = |_| self.database.damaged(format!("head of {package} is not a content id"));
        Ok(head.map(|head| head.parse()).transpose().map_err(damaged)?)
    }

    async fn index(&self, package: &PackageId, head: ContentId) -> Result<Index, GetError> {
        read_document(&self.blobs, head, Subject { package, version: None }).await
    }

    fn check_publisher(&self, package: &PackageId) -> Result<(), PublishError> {
        if package.publisher() == self.publisher {
            return Ok(());
        }
        Err(PublishError::OtherPublisher { package: Box::new(package.clone()), publisher: Box::new(self.publisher) })
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

/// Another call has published the package in the meantime.
#[derive(Debug, Error)]
#[error("another call has published the package in the meantime: retry")]
struct SupersededError;

fn head_in(database: &rusqlite::Connection, package: &str) -> rusqlite::Result<Option<String>> {
    let mut head = database.prepare_cached("SELECT content FROM heads WHERE package = ?")?;
    head.query_row([package], |row| row.get(0)).optional()
}

/// Returns the search entry of a package's newest version, with the readme if the manifest is readable.
fn search_entry(blobs: &BlobStore, index: &Index) -> Option<SearchEntry> {
    let (_, entry) = index.current()?;
    let manifest = blobs.read(&entry.manifest, entry.manifest_size).ok();
    let mut found = SearchEntry::from_index(index, String::new())?;
    if let Some(package) = manifest.and_then(|json| Package::from_json(&json).ok()) {
        (found.summary, found.readme) = (package.metadata().into(), package.metadata().readme.clone());
    }
    Some(found)
}
