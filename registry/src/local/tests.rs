use std::path::Path;

use libp2p_identity::Keypair;
use tempfile::TempDir;

use super::*;
use crate::{Draft, MANIFEST_FILE, PackageName};

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn publisher() -> PeerId {
    keypair(1).public().to_peer_id()
}

fn id(name: &str) -> PackageId {
    PackageId::new(publisher(), name.parse().unwrap()).unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// A registry in a folder, and a folder with the files of a package.
struct Fixture {
    registry: Option<LocalRegistry>,
    dir: TempDir,
    files: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture =
            Self { registry: None, dir: tempfile::tempdir().unwrap(), files: tempfile::tempdir().unwrap() };
        fixture.reopen();
        fixture.write("one");
        fixture
    }

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000)
    }

    fn reopen(&mut self) {
        self.registry = None;
        let dir = self.dir.path().to_owned();
        let opened = LocalRegistry::with(dir, publisher(), ArchiveLimits::default(), Self::clock);
        self.registry = Some(smol::block_on(opened).unwrap());
    }

    fn registry(&self) -> &LocalRegistry {
        self.registry.as_ref().unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(self.files.path().join("file.txt"), text).unwrap();
    }

    fn release(&self, name: &str, number: &str) -> Release {
        let draft = Package::builder(id(name), version(number)).title("Pads").tag("text").readme(format!("r{number}"));
        Release { draft: draft.build().unwrap(), dir: self.files.path().to_owned() }
    }

    fn publish(&self, name: &str, number: &str) -> Result<Receipt, PublishError> {
        smol::block_on(self.registry().publish(self.release(name, number)))
    }

    fn get(&self, name: &str) -> Option<Package> {
        smol::block_on(self.registry().get_package(&id(name))).unwrap()
    }

    fn search(&self, text: &str) -> Vec<String> {
        let page = smol::block_on(self.registry().search(&Query::text(text).unwrap())).unwrap();
        page.hits.iter().map(|hit| format!("{} {}", hit.package.name(), hit.version)).collect()
    }

    /// Creates a folder at the path of a blob, so that the blob cannot be written.
    fn obstruct(&self, id: &ContentId) -> PathBuf {
        let hex = id.hash().to_hex();
        let path = self.dir.path().join("content/blobs").join(&hex[..2]).join(hex.as_str());
        fs::create_dir_all(&path).unwrap();
        path
    }
}

#[test]
fn a_published_package_is_found_and_can_be_fetched() {
    let mut fixture = Fixture::new();
    let receipt = fixture.publish("left-pad", "1.0.0").unwrap();
    let steps: Vec<_> = receipt.steps.iter().map(|(step, outcome)| (step, outcome.clone())).collect();
    let done = [Step::Archive, Step::Manifest, Step::Index, Step::Head].map(|step| (step, StepOutcome::Done));
    assert_eq!(steps, done);
    fixture.reopen();
    smol::block_on(async {
        let registry = fixture.registry();
        let package = registry.get_package(&id("left-pad")).await.unwrap().unwrap();
        assert_eq!((package.created(), package.updated()), (1000, 1000));
        assert_eq!((package.content_id(), package.contents().archive), (receipt.manifest, receipt.archive));
        assert_eq!((package.contents().files, package.contents().unpacked_size), (1, 3));
        registry.archive(&package).await.unwrap();
        assert!(registry.exists(&id("left-pad")).await.unwrap());
        let of_version = registry.get_package_version(&id("left-pad"), &version("1.0.0")).await.unwrap();
        assert_eq!(of_version.as_ref(), Some(&package));
        assert_eq!(registry.get_package_version(&id("left-pad"), &version("2.0.0")).await.unwrap(), None);
        let metadata = registry.metadata(&id("left-pad")).await.unwrap().unwrap();
        assert_eq!((metadata.title.as_str(), metadata.readme.as_str()), ("Pads", "r1.0.0"));
        let index = registry.index(&id("left-pad")).await.unwrap().unwrap();
        assert_eq!(index.content_id(), receipt.index);
    });
    assert_eq!(fixture.search("left"), ["left-pad 1.0.0"]);
}

#[test]
fn an_unpublished_package_does_not_exist() {
    let fixture = Fixture::new();
    smol::block_on(async {
        let registry: &dyn Registry = fixture.registry();
        assert_eq!(registry.get_package(&id("x")).await.unwrap(), None);
        assert_eq!(registry.get_package_version(&id("x"), &version("1.0.0")).await.unwrap(), None);
        assert_eq!(registry.list_versions(&id("x")).await.unwrap(), None);
        assert_eq!(registry.metadata(&id("x")).await.unwrap(), None);
        assert!(!registry.exists(&id("x")).await.unwrap());
        let yanked = registry.yank(&id("x"), &version("1.0.0")).await;
        assert!(matches!(yanked, Err(PublishError::NoSuchPackage(_))), "{yanked:?}");
        let fetched = registry.fetch(&id("x"), &ContentId::of(b"x"), 1).await;
        assert!(matches!(fetched, Err(GetError::Unavailable { .. })), "{fetched:?}");
    });
}

#[test]
fn the_newest_version_is_shown_and_older_ones_stay() {
    let fixture = Fixture::new();
    for number in ["1.0.0", "2.0.0", "3.0.0-rc.1"] {
        fixture.write(number);
        fixture.publish("left-pad", number).unwrap();
    }
    fixture.write("1.0.1");
    fixture.publish("left-pad", "1.0.1").unwrap();
    assert_eq!(fixture.get("left-pad").unwrap().version(), &version("2.0.0"));
    assert_eq!(fixture.search("r2"), ["left-pad 2.0.0"]);
    let versions = smol::block_on(fixture.registry().list_versions(&id("left-pad"))).unwrap().unwrap();
    let numbers: Vec<_> = versions.iter().map(|info| info.version.to_string()).collect();
    assert_eq!(numbers, ["3.0.0-rc.1", "2.0.0", "1.0.1", "1.0.0"]);
}

#[test]
fn publishing_the_same_again_changes_nothing_and_other_contents_are_rejected() {
    let fixture = Fixture::new();
    let first = fixture.publish("left-pad", "1.0.0").unwrap();
    let again = fixture.publish("left-pad", "1.0.0").unwrap();
    assert_eq!((again.manifest, again.index), (first.manifest, first.index));
    assert_eq!(again.steps.get(Step::Head), Some(&StepOutcome::AlreadyThere));
    fixture.write("two");
    let other = fixture.publish("left-pad", "1.0.0");
    assert!(matches!(other, Err(PublishError::Index(IndexError::VersionExists { .. }))), "{other:?}");
    assert_eq!(fixture.get("left-pad").unwrap().content_id(), first.manifest);
}

#[test]
fn only_the_publishers_own_packages_can_be_published() {
    let fixture = Fixture::new();
    let theirs = PackageId::new(keypair(2).public().to_peer_id(), "left-pad".parse().unwrap()).unwrap();
    let draft = Package::builder(theirs.clone(), version("1.0.0")).build().unwrap();
    let release = Release { draft, dir: fixture.files.path().to_owned() };
    smol::block_on(async {
        let published = fixture.registry().publish(release).await;
        assert!(matches!(published, Err(PublishError::OtherPublisher { .. })), "{published:?}");
        let yanked = fixture.registry().yank(&theirs, &version("1.0.0")).await;
        assert!(matches!(yanked, Err(PublishError::OtherPublisher { .. })), "{yanked:?}");
    });
}

#[test]
fn a_yanked_version_is_not_shown_and_can_still_be_fetched() {
    let fixture = Fixture::new();
    fixture.publish("left-pad", "1.0.0").unwrap();
    fixture.write("two");
    let two = fixture.publish("left-pad", "2.0.0").unwrap();
    let yank = |number: &str| smol::block_on(fixture.registry().yank(&id("left-pad"), &version(number)));
    let receipt = yank("2.0.0").unwrap();
    assert_eq!((receipt.manifest, receipt.archive), (two.manifest, two.archive));
    assert!(receipt.steps.all_succeeded() && receipt.steps.get(Step::Archive).is_none());
    assert_eq!(fixture.get("left-pad").unwrap().version(), &version("1.0.0"));
    assert_eq!(fixture.search("pads"), ["left-pad 1.0.0"]);
    assert_eq!(fixture.search("r1"), ["left-pad 1.0.0"]);
    let there = smol::block_on(fixture.registry().get_package_version(&id("left-pad"), &version("2.0.0")));
    assert_eq!(there.unwrap().unwrap().content_id(), two.manifest);
    let missing = yank("3.0.0");
    assert!(matches!(missing, Err(PublishError::Index(IndexError::NoSuchVersion { .. }))), "{missing:?}");
    // `delete` is the same under the user's word.
    smol::block_on(fixture.registry().delete(&id("left-pad"), &version("1.0.0"))).unwrap();
    assert_eq!(fixture.get("left-pad"), None);
    assert!(!smol::block_on(fixture.registry().exists(&id("left-pad"))).unwrap());
    assert_eq!(fixture.search("pads"), [""; 0]);
}

#[test]
fn an_unyanked_version_is_shown_again() {
    let fixture = Fixture::new();
    fixture.publish("left-pad", "1.0.0").unwrap();
    let (package, number) = (id("left-pad"), version("1.0.0"));
    smol::block_on(fixture.registry().yank(&package, &number)).unwrap();
    assert_eq!(fixture.search("pads"), [""; 0]);
    let receipt = smol::block_on(fixture.registry().unyank(&package, &number)).unwrap();
    assert!(receipt.steps.all_succeeded());
    assert_eq!(fixture.get("left-pad").unwrap().version(), &number);
    assert_eq!(fixture.search("pads"), ["left-pad 1.0.0"]);
    let missing = smol::block_on(fixture.registry().unyank(&package, &version("3.0.0")));
    assert!(matches!(missing, Err(PublishError::Index(IndexError::NoSuchVersion { .. }))), "{missing:?}");
}

#[test]
fn a_publication_that_fails_at_any_step_leaves_what_was_there_and_can_be_repeated() {
    // Ids of the second version.
    let expected = {
        let fixture = Fixture::new();
        fixture.publish("left-pad", "1.0.0").unwrap();
        fixture.write("two");
        fixture.publish("left-pad", "2.0.0").unwrap()
    };
    let ids = [(Step::Archive, expected.archive), (Step::Manifest, expected.manifest), (Step::Index, expected.index)];
    for (failing, content) in ids {
        let mut fixture = Fixture::new();
        fixture.publish("left-pad", "1.0.0").unwrap();
        fixture.write("two");
        let obstacle = fixture.obstruct(&content);
        match fixture.publish("left-pad", "2.0.0") {
            Err(PublishError::Failed { step, steps, .. }) => {
                assert_eq!(step, failing);
                assert!(!steps.all_succeeded() && steps.get(Step::Head).is_none());
            }
            other => panic!("{failing}: {other:?}"),
        }
        fixture.reopen();
        assert_eq!(fixture.get("left-pad").unwrap().version(), &version("1.0.0"));
        assert_eq!(fixture.search("pads"), ["left-pad 1.0.0"]);
        fs::remove_dir(obstacle).unwrap();
        assert_eq!(fixture.publish("left-pad", "2.0.0").unwrap(), expected);
        assert_eq!(fixture.search("pads"), ["left-pad 2.0.0"]);
    }
}

#[test]
fn a_database_that_fails_leaves_what_was_there() {
    let mut fixture = Fixture::new();
    fixture.publish("left-pad", "1.0.0").unwrap();
    let run = |fixture: &Fixture, sql: &'static str| {
        smol::block_on(fixture.registry().inner.database.transaction(move |database| database.execute_batch(sql)))
            .unwrap();
    };
    // The last table that publishing writes.
    run(&fixture, "CREATE TRIGGER full BEFORE INSERT ON labels BEGIN SELECT RAISE(ABORT, 'disk full'); END");
    fixture.write("two");
    let failed = fixture.publish("left-pad", "2.0.0");
    assert!(matches!(failed, Err(PublishError::Failed { step: Step::Head, .. })), "{failed:?}");
    fixture.reopen();
    assert_eq!(fixture.get("left-pad").unwrap().version(), &version("1.0.0"));
    assert_eq!(fixture.search("pads"), ["left-pad 1.0.0"]);
    let yanked = smol::block_on(fixture.registry().yank(&id("left-pad"), &version("1.0.0")));
    assert!(yanked.is_ok(), "a yank writes no labels: {yanked:?}");
    run(&fixture, "DROP TRIGGER full");
    fixture.publish("left-pad", "2.0.0").unwrap();
    assert_eq!(fixture.search("pads"), ["left-pad 2.0.0"]);
}

#[test]
fn a_concurrent_publication_is_not_overwritten() {
    let fixture = Fixture::new();
    fixture.publish("left-pad", "1.0.0").unwrap();
    let inner = &fixture.registry().inner;
    smol::block_on(async {
        let (head, index) = inner.newest(&id("left-pad")).await.unwrap();
        fixture.write("two");
        let two = fixture.release("left-pad", "2.0.0");
        fixture.registry().publish(two).await.unwrap();
        let mut steps = Steps::default();
        let put = inner.put_head(head, index.unwrap(), &mut steps).await;
        assert!(matches!(put, Err(PublishError::Failed { step: Step::Head, .. })), "{put:?}");
    });
    assert_eq!(fixture.get("left-pad").unwrap().version(), &version("2.0.0"));
}

#[test]
fn concurrent_publications_are_all_kept() {
    let fixture = Fixture::new();
    let numbers = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0"];
    let publish = numbers.map(|number| fixture.registry().publish(fixture.release("left-pad", number)));
    let published = smol::block_on(futures::future::join_all(publish));
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    let versions = smol::block_on(fixture.registry().list_versions(&id("left-pad"))).unwrap().unwrap();
    assert_eq!(versions.len(), numbers.len());
}

#[test]
fn superseded_indexes_are_deleted_when_the_registry_is_opened() {
    let mut fixture = Fixture::new();
    let one = fixture.publish("left-pad", "1.0.0").unwrap();
    let two = fixture.publish("left-pad", "2.0.0").unwrap();
    assert!(fixture.registry().blobs().contains(&one.index));
    fixture.reopen();
    let blobs = fixture.registry().blobs();
    assert!(!blobs.contains(&one.index) && blobs.contains(&two.index));
    assert!([one.manifest, one.archive, two.manifest].iter().all(|id| blobs.contains(id)));
}

#[test]
fn a_registry_is_for_one_process_at_a_time() {
    let fixture = Fixture::new();
    let second = smol::block_on(LocalRegistry::open(fixture.dir.path(), publisher()));
    assert!(matches!(second, Err(StorageError::InUse { .. })), "{second:?}");
    fixture.publish("left-pad", "1.0.0").unwrap();
}

#[test]
fn a_damaged_registry_is_an_error_and_nothing_is_deleted() {
    let mut fixture = Fixture::new();
    let receipt = fixture.publish("left-pad", "1.0.0").unwrap();
    fixture.registry = None;
    let database = fixture.dir.path().join("packages.db");
    fs::write(&database, "this is no database, whatever it was before. ".repeat(100)).unwrap();
    for file in ["packages.db-wal", "packages.db-shm"] {
        let _gone = fs::remove_file(fixture.dir.path().join(file));
    }
    let before = fs::read(&database).unwrap();
    let opened = smol::block_on(LocalRegistry::open(fixture.dir.path(), publisher()));
    assert!(matches!(opened, Err(StorageError::Damaged { .. })), "{opened:?}");
    assert_eq!(fs::read(&database).unwrap(), before);
    assert!(BlobStore::open(fixture.dir.path().join("content")).unwrap().contains(&receipt.archive));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let fixture = Fixture::new();
    let file = fixture.files.path().join("file.txt");
    let opened = smol::block_on(LocalRegistry::open(file.join("x"), publisher()));
    assert!(matches!(opened, Err(StorageError::Folder { .. })), "{opened:?}");
}

#[test]
fn damaged_content_is_an_error_and_never_none() {
    let fixture = Fixture::new();
    let receipt = fixture.publish("left-pad", "1.0.0").unwrap();
    smol::block_on(async {
        let registry = fixture.registry();
        let wrong = registry.fetch(&id("left-pad"), &receipt.archive, 1).await;
        assert!(matches!(wrong, Err(GetError::Size { expected: 1, .. })), "{wrong:?}");
        registry.blobs().remove(&receipt.manifest).unwrap();
        let got = registry.get_package(&id("left-pad")).await;
        assert!(matches!(got, Err(GetError::Unavailable { .. })), "{got:?}");
        registry.blobs().remove(&receipt.index).unwrap();
        let got = registry.get_package(&id("left-pad")).await;
        assert!(matches!(got, Err(GetError::Unavailable { .. })), "{got:?}");
        // Without the existing versions nothing is published.
        let published = registry.publish(fixture.release("left-pad", "2.0.0")).await;
        assert!(matches!(published, Err(PublishError::Versions(GetError::Unavailable { .. }))), "{published:?}");
    });
}

#[test]
fn invalid_heads_are_errors() {
    let fixture = Fixture::new();
    let receipt = fixture.publish("left-pad", "1.0.0").unwrap();
    fixture.publish("right-pad", "1.0.0").unwrap();
    let set_head = |content: String| {
        let set =
            move |database: &rusqlite::Transaction<'_>| database.execute("UPDATE heads SET content = ?", [content]);
        smol::block_on(fixture.registry().inner.database.transaction(set)).unwrap();
        smol::block_on(fixture.registry().index(&id("right-pad")))
    };
    let other = set_head(receipt.index.to_string());
    assert!(matches!(other, Err(GetError::OtherPackage { .. })), "{other:?}");
    let no_index = set_head(receipt.manifest.to_string());
    assert!(matches!(no_index, Err(GetError::Invalid { .. })), "{no_index:?}");
    let no_id = set_head("x".to_owned());
    assert!(matches!(no_id, Err(GetError::Storage(_))), "{no_id:?}");
}

#[test]
fn attack_a_manifest_of_another_version_is_refused() {
    let fixture = Fixture::new();
    let receipt = fixture.publish("left-pad", "1.0.0").unwrap();
    let size = fixture.get("left-pad").unwrap().to_json().len() as u64;
    smol::block_on(async {
        let registry = fixture.registry();
        for (package, number) in [(id("right-pad"), "1.0.0"), (id("left-pad"), "1.0.1")] {
            let read = registry.manifest(&package, &version(number), &receipt.manifest, size).await;
            assert!(matches!(read, Err(GetError::OtherPackage { .. })), "{read:?}");
        }
        let large = registry.manifest(&id("left-pad"), &version("1.0.0"), &receipt.manifest, u64::MAX).await;
        assert!(matches!(large, Err(GetError::Invalid { .. })), "{large:?}");
        let index = registry.blobs().size(&receipt.index).unwrap();
        let no_manifest = registry.manifest(&id("left-pad"), &version("1.0.0"), &receipt.index, index).await;
        assert!(matches!(no_manifest, Err(GetError::Invalid { .. })), "{no_manifest:?}");
    });
}

#[test]
fn folders_that_cannot_be_packed_are_rejected() {
    let fixture = Fixture::new();
    let mut release = fixture.release("left-pad", "1.0.0");
    release.dir = Path::new("/nowhere/at/all").to_owned();
    let published = smol::block_on(fixture.registry().publish(release));
    assert!(matches!(published, Err(PublishError::Pack(_))), "{published:?}");
}

#[test]
fn the_template_of_a_manifest_file_can_be_published() {
    let fixture = Fixture::new();
    let name: PackageName = "fresh".parse().unwrap();
    fs::write(fixture.files.path().join(MANIFEST_FILE), Draft::template(&name)).unwrap();
    smol::block_on(async {
        let release = Release::read(publisher(), fixture.files.path()).await.unwrap();
        fixture.registry().publish(release).await.unwrap();
    });
    assert_eq!(fixture.get("fresh").unwrap().contents().files, 2);
}

#[test]
fn a_registry_inside_of_a_package_is_not_published() {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("file.txt"), "x").unwrap();
    fs::write(files.path().join(".env"), "SECRET=1").unwrap();
    let registry = smol::block_on(LocalRegistry::open(files.path().join("mine"), publisher())).unwrap();
    let draft = Package::builder(id("a"), version("1.0.0")).build().unwrap();
    let release = Release { draft, dir: files.path().to_owned() };
    let receipt = smol::block_on(registry.publish(release)).unwrap();
    let excluded: Vec<&str> = receipt.excluded.iter().map(|excluded| excluded.path.as_str()).collect();
    assert_eq!(excluded, [".env", "mine"]);
    let package = smol::block_on(registry.get_package(&id("a"))).unwrap().unwrap();
    assert_eq!(package.contents().files, 1);
    let json = serde_json::to_value(&receipt).unwrap();
    assert_eq!(json["excluded"][0], serde_json::json!({ "path": ".env", "reason": "environment" }));
}
