use std::io::{self, Read};

use super::{BlobError, BlobStore, tree::groups_in};
use crate::ContentId;

/// Reader of a blob that verifies each 16 KiB before it returns them. Created by [`BlobStore::open_reader`].
///
/// Errors of reading have the kind `InvalidData` and contain a [`BlobError`]: [`BlobError::Damaged`] if the blob is
/// damaged on the disk, [`BlobError::NotFound`] if it was removed from the store in the meantime, [`BlobError::Io`] if
/// the file system fails.
#[derive(Debug)]
pub struct BlobReader {
    store: BlobStore,
    id: ContentId,
    size: u64,
    next_group: u64,
    encoded: Vec<u8>,
    /// Position in `encoded` of the first byte that was not read yet.
    at: usize,
}

impl BlobStore {
    /// Opens a blob for reading in pieces, each of which is verified when it is read.
    ///
    /// # Errors
    ///
    /// [`BlobError::NotFound`] or [`BlobError::Io`]. Damage is detected while reading.
    pub fn open_reader(&self, id: &ContentId) -> Result<BlobReader, BlobError> {
        let size = self.blob(id)?.size;
        let (store, id) = (self.clone(), *id);
        Ok(BlobReader { store, id, size, next_group: 0, encoded: Vec::new(), at: 0 })
    }
}

impl BlobReader {
    /// Returns the blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> io::Result<()> {
        self.encoded.clear();
        let group = self.next_group;
        let size = self.store.encode(&self.id, group..group + 1, &mut self.encoded).map_err(|error| {
            self.encoded.clear();
            self.at = 0;
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        if size != self.size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, BlobError::Damaged(self.id)));
        }
        // The hashes precede the bytes that they prove.
        let data = super::tree::group_len(size, group);
        self.at = self.encoded.len().saturating_sub(data);
        self.next_group += 1;
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.at == self.encoded.len() && self.next_group < groups_in(self.size) {
            self.next()?;
        }
        let mut rest = self.encoded.get(self.at..).unwrap_or_default();
        let read = rest.read(into)?;
        self.at += read;
        Ok(read)
    }
}
