//! Registry in memory, for tests.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use libp2p_identity::Keypair;
use semver::Version;
use tempfile::TempDir;

use super::*;
use crate::{
    Contents, Draft,
    archive::{PackOptions, pack},
};

pub(crate) fn id(name: &str) -> PackageId {
    let keypair = Keypair::ed25519_from_bytes([1; 32]).unwrap();
    PackageId::new(keypair.public().to_peer_id(), name.parse().unwrap()).unwrap()
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// `indexes` and `content` are what other peers have; `looked_up` and `fetched` record the calls.
pub(crate) struct FakeRegistry {
    pub(crate) indexes: BTreeMap<PackageId, Result<Index, GetError>>,
    pub(crate) content: HashMap<ContentId, Vec<u8>>,
    pub(crate) looked_up: Mutex<Vec<PackageId>>,
    pub(crate) fetched: Mutex<Vec<ContentId>>,
    running: AtomicUsize,
    pub(crate) most_running: AtomicUsize,
    blobs: BlobStore,
    _dir: TempDir,
}

impl FakeRegistry {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            indexes: BTreeMap::new(),
            content: HashMap::new(),
            looked_up: Mutex::default(),
            fetched: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            blobs: BlobStore::open(dir.path()).unwrap(),
            _dir: dir,
        }
    }

    /// Builds a draft. `needs` has pairs of a name and a requirement.
    pub(crate) fn draft(name: &str, number: &str, needs: &[(&str, &str)]) -> Draft {
        let builder = Package::builder(id(name), version(number));
        let add = |builder: crate::DraftBuilder, (name, requirement): &(&str, &str)| {
            builder.dependency(id(name), requirement.parse().unwrap())
        };
        needs.iter().fold(builder, add).build().unwrap()
    }

    /// Adds a version with one file that contains its name and number.
    pub(crate) fn add(&mut self, name: &str, number: &str, needs: &[(&str, &str)]) -> Package {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("what.txt"), format!("{name} {number}")).unwrap();
        let mut archive = Vec::new();
        let packed = pack(dir.path(), &PackOptions::default(), &mut archive).unwrap();
        let contents = Contents {
            archive: ContentId::of(&archive),
            archive_size: archive.len() as u64,
            files: packed.files as u64,
            unpacked_size: packed.bytes,
        };
        self.content.insert(contents.archive, archive);
        self.add_package(Package::new(Self::draft(name, number, needs), contents, 1, 1).unwrap())
    }

    pub(crate) fn add_package(&mut self, package: Package) -> Package {
        self.content.insert(package.content_id(), package.to_json());
        let index = self.indexes.entry(package.id().clone()).or_insert_with(|| Ok(Index::new(package.id().clone())));
        *index = Ok(index.clone().unwrap().with_version(&package).unwrap());
        package
    }

    pub(crate) fn mark_yanked(&mut self, name: &str, number: &str) {
        let index = self.indexes.get_mut(&id(name)).unwrap();
        *index = Ok(index.clone().unwrap().with_yanked(&version(number), true).unwrap());
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn search(&self, _: &Query) -> Result<SearchPage, GetError> {
        Err(GetError::Closed)
    }

    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError> {
        self.looked_up.lock().unwrap().push(package.clone());
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        for _ in 0..3 {
            smol::future::yield_now().await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.indexes.get(package).cloned().transpose()
    }

    async fn fetch(&self, _: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError> {
        if let Some(found) = self.blobs.size(content) {
            assert_eq!(found, size);
            return Ok(());
        }
        self.fetched.lock().unwrap().push(*content);
        let bytes = self.content.get(content).ok_or(GetError::Unavailable { content: *content, providers: 0 })?;
        if bytes.len() as u64 != size {
            return Err(GetError::Size { content: *content, expected: size, found: bytes.len() as u64 });
        }
        self.blobs.put(bytes).unwrap();
        Ok(())
    }

    async fn publish(&self, _: Release) -> Result<Receipt, PublishError> {
        Err(PublishError::Versions(GetError::Closed))
    }

    async fn yank(&self, _: &PackageId, _: &Version) -> Result<Receipt, PublishError> {
        Err(PublishError::Versions(GetError::Closed))
    }

    async fn unyank(&self, _: &PackageId, _: &Version) -> Result<Receipt, PublishError> {
        Err(PublishError::Versions(GetError::Closed))
    }

    fn blobs(&self) -> &BlobStore {
        &self.blobs
    }
}
