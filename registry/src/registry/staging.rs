use std::{io::Seek, path::Path};

use super::{PublishError, Step, StepOutcome, Steps};
use crate::{
    ContentId, Contents, Index, Package, Release,
    archive::{Excluded, PackOptions, PrivateKeys, pack},
    blob::{BlobError, BlobStore},
    model::limits::MAX_ARCHIVE_SIZE,
};

/// A version whose archive, manifest and index are stored: everything that a head needs.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) package: Package,
    /// Content id of the manifest: the published one, if the version was published before.
    pub(crate) manifest: ContentId,
    pub(crate) index: Index,
    /// True if the version was published before. `index` is then the existing index.
    pub(crate) is_published: bool,
    /// Files and folders that are not in the archive.
    pub(crate) excluded: Vec<Excluded>,
    pub(crate) steps: Steps,
}

/// Stores a release: archive, manifest and index, in this order, so that no stored document refers to missing content.
/// Blocks.
///
/// `index` is the package's newest index. If it lists this version with the same files and the same text, the result is
/// the published version, so that an interrupted publication can be repeated. `now` is in Unix seconds. `scratch` is a
/// folder on a disk with room for an archive.
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
    if let Some(existing) = published(blobs, index, &package) {
        for step in [Step::Manifest, Step::Index] {
            steps.set(step, StepOutcome::AlreadyThere);
        }
        let manifest =
            index.versions().get(existing.version()).map_or_else(|| existing.content_id(), |entry| entry.manifest);
        return Ok(Staged { package: existing, manifest, index: index.clone(), is_published: true, excluded, steps });
    }
    // First: this rejects a version that exists with other contents.
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

/// Returns the published version, if it has the same text and contents.
fn published(blobs: &BlobStore, index: &Index, package: &Package) -> Option<Package> {
    let entry = index.versions().get(package.version())?;
    let json = blobs.read(&entry.manifest, entry.manifest_size).ok()?;
    Package::from_json(&json).ok().filter(|existing| existing.is_same_release(package))
}
