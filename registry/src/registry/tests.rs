use std::{fs, path::Path, sync::Arc};

use super::{
    fake::{FakeRegistry, id, version},
    *,
};
use crate::{StorageError, archive::PackOptions, blob::BlobError};

/// A store, a scratch folder and a folder with a file to publish.
struct Fixture {
    blobs: BlobStore,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path().join("store")).unwrap();
        fs::create_dir(dir.path().join("files")).unwrap();
        fs::write(dir.path().join("files/a"), "a").unwrap();
        Self { blobs, dir }
    }

    fn stage(&self, number: &str, index: &Index, now: u64) -> Result<Staged, PublishError> {
        self.stage_with(self.dir.path(), number, index, now)
    }

    fn stage_with(&self, scratch: &Path, number: &str, index: &Index, now: u64) -> Result<Staged, PublishError> {
        let draft = FakeRegistry::draft("a", number, &[]);
        let release = Release { draft, dir: self.dir.path().join("files") };
        stage(&self.blobs, scratch, release, index, &PackOptions::default(), now)
    }
}

#[test]
fn staged_content_is_stored_before_a_head_names_it() {
    let fixture = Fixture::new();
    let staged = fixture.stage("1.0.0", &Index::new(id("a")), 10).unwrap();
    for content in [staged.package.contents().archive, staged.manifest, staged.index.content_id()] {
        assert!(fixture.blobs.contains(&content));
    }
    assert!(!staged.is_published && staged.steps.all_succeeded());
    assert_eq!(staged.steps.iter().map(|(step, _)| step).collect::<Vec<_>>(), Step::ALL[..3]);
}

#[test]
fn the_creation_time_of_a_package_is_that_of_its_first_version() {
    let fixture = Fixture::new();
    let one = fixture.stage("1.0.0", &Index::new(id("a")), 10).unwrap();
    let two = fixture.stage("2.0.0", &one.index, 20).unwrap();
    assert_eq!((two.package.created(), two.package.updated()), (10, 20));
    // Even if the clock was set back in between.
    let three = fixture.stage("3.0.0", &one.index, 5).unwrap();
    assert_eq!((three.package.created(), three.package.updated()), (5, 5));
}

#[test]
fn a_published_version_is_staged_unchanged() {
    let fixture = Fixture::new();
    let one = fixture.stage("1.0.0", &Index::new(id("a")), 10).unwrap();
    let again = fixture.stage("1.0.0", &one.index, 20).unwrap();
    assert!(again.is_published);
    assert_eq!((again.manifest, &again.package, &again.index), (one.manifest, &one.package, &one.index));
    // Without the published manifest, the versions cannot be compared.
    fixture.blobs.remove(&one.manifest).unwrap();
    let unknown = fixture.stage("1.0.0", &one.index, 20);
    assert!(matches!(unknown, Err(PublishError::Index(_))), "{unknown:?}");
}

#[test]
fn a_disk_without_room_is_a_failed_step() {
    let fixture = Fixture::new();
    let nowhere = fixture.dir.path().join("nowhere");
    let failed = fixture.stage_with(&nowhere, "1.0.0", &Index::new(id("a")), 10);
    assert!(matches!(failed, Err(PublishError::Failed { step: Step::Archive, .. })), "{failed:?}");
}

#[test]
fn a_private_key_is_published_neither_in_a_file_nor_in_the_manifest() {
    let fixture = Fixture::new();
    let key = libp2p_identity::Keypair::generate_ed25519();
    let secret = key.clone().try_into_ed25519().unwrap().secret();
    let text: String = secret.as_ref().iter().map(|byte| format!("{byte:02x}\n")).collect();
    let options = PackOptions { private_keys: vec![key], ..PackOptions::default() };
    let stage = |draft: crate::Draft| {
        let release = Release { draft, dir: fixture.dir.path().join("files") };
        stage(&fixture.blobs, fixture.dir.path(), release, &Index::new(id("a")), &options, 10)
    };
    let draft = FakeRegistry::draft("a", "1.0.0", &[]);
    let error = stage(draft.clone().with_readme(text.as_str()).unwrap()).unwrap_err();
    assert!(matches!(error, PublishError::PrivateKey { .. }), "{error}");
    fs::write(fixture.dir.path().join("files/notes"), text).unwrap();
    let error = stage(draft.clone()).unwrap_err();
    assert!(matches!(error, PublishError::Pack(crate::archive::PackError::PrivateKey { .. })), "{error}");
    fs::remove_file(fixture.dir.path().join("files/notes")).unwrap();
    stage(draft).unwrap();
}

#[test]
fn a_receipt_can_be_read_by_programs() {
    let content = ContentId::of(b"x");
    let mut steps = Steps::default();
    steps.set(Step::Announce, StepOutcome::Failed { reason: "nobody there".to_owned() });
    steps.set(Step::Head, StepOutcome::Confirmed { by: 15, of: 20 });
    steps.set(Step::Archive, StepOutcome::Done);
    assert!(!steps.all_succeeded());
    let (package, number) = (id("a"), version("1.0.0"));
    let receipt = Receipt {
        package,
        version: number,
        manifest: content,
        archive: content,
        index: content,
        steps,
        excluded: Vec::new(),
    };
    let json = serde_json::to_string(&receipt).unwrap();
    let steps = r#""steps":{"archive":"done","head":{"confirmed":{"by":15,"of":20}},"announce":{"failed":{"reason":"nobody there"}}}"#;
    assert!(json.contains(steps), "{json}");
    let names = Step::ALL.map(|step| step.to_string());
    assert_eq!(names, ["archive", "manifest", "index", "provide", "head", "read back", "announce"]);
}

#[test]
fn a_missing_blob_is_unavailable_and_a_failing_disk_is_a_storage_error() {
    let content = ContentId::of(b"x");
    for missing in [BlobError::NotFound(content), BlobError::Damaged(content)] {
        assert!(matches!(GetError::from(missing), GetError::Unavailable { .. }));
    }
    let full = BlobError::Io { path: "x".into(), source: std::io::Error::other("full") };
    match GetError::from(full) {
        GetError::Storage(error) => assert!(matches!(&*error, StorageError::Blob(BlobError::Io { .. }))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn registry_is_a_trait_object() {
    let mut fake = FakeRegistry::new();
    fake.add("a", "1.0.0", &[]);
    let registry: Arc<dyn Registry> = Arc::new(fake);
    smol::block_on(async {
        let package = registry.get_package(&id("a")).await.unwrap().unwrap();
        registry.archive(&package).await.unwrap();
        assert!(registry.blobs().contains(&package.contents().archive));
        assert!(matches!(registry.search(&Query::text("").unwrap()).await, Err(GetError::Closed)));
        let versions = registry.list_versions(&id("a")).await.unwrap().unwrap();
        let json = serde_json::to_value(&versions).unwrap();
        assert_eq!((&json[0]["version"], &json[0]["yanked"]), (&"1.0.0".into(), &false.into()));
    });
}
