use std::io::{self, Read};

use super::{BlobStore, tree::groups_in};
use crate::ContentId;

/// A blob that is verified while it is read, 16 KiB at a time: what it hands out is right.
///
/// If the blob has gone bad on the disk, reading ends with an error of the kind `InvalidData` that has a
/// [`BlobError::Damaged`](super::BlobError::Damaged) in it.
#[derive(Debug)]
pub struct BlobReader {
    store: BlobStore,
    id: ContentId,
    size: u64,
    next_group: u64,
    encoded: Vec<u8>,
    /// Where in `encoded` that begins which was not handed out.
    at: usize,
}

impl BlobReader {
    pub(super) fn new(store: BlobStore, id: ContentId, size: u64) -> Self {
        Self { store, id, size, next_group: 0, encoded: Vec::new(), at: 0 }
    }

    /// The blob's size in bytes.
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
            return Err(io::Error::new(io::ErrorKind::InvalidData, super::BlobError::Damaged(self.id)));
        }
        // The hashes are in front of what they prove.
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
