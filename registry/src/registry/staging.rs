use std::{io::Seek, path::Path};

use super::{PublishError, Step, StepOutcome, Steps};
use crate::{
    ContentId, Contents, Index, Package, Release,
    archive::{Excluded, PackOptions, PrivateKeys, pack},
    blob::{BlobError, BlobStore},
    model::limits::MAX_ARCHIVE_SIZE,
};

/// A version that is in the store with everything that a head needs: archive, manifest, and the index that has it.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) package: Package,
    /// The manifest's content id, which is that of the version if it was published before.
    pub(crate) manifest: ContentId,
    pub(crate) index: Index,
    /// Whether `index` is the one that was there before, since the version is in it.
    pub(crate) is_published: bool,
    /// Files and folders that are not in the archive.
    pub(crate) excluded: Vec<Excluded>,
    pub(crate) steps: Steps,
}

/// Brings a release into the store, in the order that leaves nothing named that is not there. It blocks.
///
/// `index` is the package's newest. If it has this version with the same files and the same text, that is the one that was
/// staged, so that a publication that was interrupted can be repeated. `now` is in unix seconds; `scratch` is a folder on a
/// disk with room for an archive.
pub(crate) fn stage(
    blobs: &BlobStore,
    scratch: &Path,
    release: Release,
    index: &Index,
    options: &PackOptions,
    now: u64,
) -> Result<Staged, PublishError> {
    let mut steps = Steps::default();
    let (contents, excluded) = archive(blobs, scratch, &release, options, &mut steps)?;

    let created = index.versions().values().map(|entry| entry.published).min().unwrap_or(now).min(now);
    let package = Package::new(release.draft, contents, created, now)?;
    if let Some(kind) = PrivateKeys::new(&options.private_keys).find(&package.to_json()) {
        return Err(PublishError::PrivateKey { kind });
    }
    if let Some(there) = published(blobs, index, &package) {
        for step in [Step::Manifest, Step::Index] {
            steps.set(step, StepOutcome::AlreadyThere);
        }
        let manifest = index.versions().get(there.version()).map_or_else(|| there.content_id(), |entry| entry.manifest);
        return Ok(Staged { package: there, manifest, index: index.clone(), is_published: true, excluded, steps });
    }
    // Before anything else is written: this is where a version with other contents is refused.
    let index = index.with_version(&package)?;

    let manifest = steps.record(Step::Manifest, blobs.put(&package.to_json()))?;
    steps.record(Step::Index, blobs.put(&index.to_json()))?;
    Ok(Staged { package, manifest, index, is_published: false, excluded, steps })
}

fn archive(
    blobs: &BlobStore,
    scratch: &Path,
    release: &Release,
    options: &PackOptions,
    steps: &mut Steps,
) -> Result<(Contents, Vec<Excluded>), PublishError> {
    let mut file = steps.record(Step::Archive, tempfile::tempfile_in(scratch))?;
    let packed = pack(&release.dir, options, &file)?;
    steps.record(Step::Archive, file.rewind())?;
    match blobs.put_reader(file, MAX_ARCHIVE_SIZE) {
        Err(BlobError::TooLarge { max }) => Err(PublishError::ArchiveTooLarge { max }),
        stored => {
            let (archive, archive_size) = steps.record(Step::Archive, stored)?;
            let contents = Contents { archive, archive_size, files: packed.files as u64, unpacked_size: packed.bytes };
            Ok((contents, packed.excluded))
        }
    }
}

/// The version as it was published before, if it says and contains the same.
fn published(blobs: &BlobStore, index: &Index, package: &Package) -> Option<Package> {
    let entry = index.versions().get(package.version())?;
    let json = blobs.read(&entry.manifest, entry.manifest_size).ok()?;
    Package::from_json(&json).ok().filter(|there| there.is_same_release(package))
}
