use std::{fs::File, io, ops::Range};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges, TreeNode, blake3,
    io::{
        EncodeError,
        sync::{Outboard, ReadAt, encode_ranges_validated},
    },
};

/// Hashes are kept for groups of 16 chunks of 1 KiB: the tree takes 0.4 % of the blob, and one bad group wastes 16 KiB.
pub(crate) const GROUPS: BlockSize = BlockSize::from_chunk_log(4);

/// The bytes of a group, but for the last of a blob.
pub(crate) const GROUP_BYTES: u64 = 16 << 10;

/// The same, of what is in memory.
pub(super) const GROUP_LEN: usize = GROUPS.bytes();

/// How many groups a blob of this size has. Even the empty one has one.
pub(crate) fn groups_in(size: u64) -> u64 {
    size.div_ceil(GROUP_BYTES).max(1)
}

/// Groups as bao counts: in chunks.
pub(crate) fn group_range(groups: &Range<u64>) -> ChunkRanges {
    let chunks = |group: u64| ChunkNum(group.saturating_mul(16));
    ChunkRanges::from(chunks(groups.start)..chunks(groups.end))
}

/// A blob that is open, and its tree.
pub(super) struct Blob {
    pub(super) data: File,
    /// `None`: a blob of one group has none.
    pub(super) hashes: Option<File>,
    pub(super) root: blake3::Hash,
    pub(super) size: u64,
}

/// Why a part of a blob was not encoded.
pub(super) enum Unproven {
    /// Data and tree do not fit each other or the root.
    Mismatch,
    Io(io::Error),
}

impl Blob {
    /// Appends these groups, each after the hashes that prove it, in bao's order. Nothing is appended that was not
    /// verified.
    pub(super) fn encode(&self, groups: &Range<u64>, into: &mut Vec<u8>) -> Result<(), Unproven> {
        let before = into.len();
        let encoded = encode_ranges_validated(&self.data, self, &group_range(groups), &mut *into);
        encoded.map_err(|error| {
            into.truncate(before);
            match error {
                EncodeError::ParentHashMismatch(_) | EncodeError::LeafHashMismatch(_) | EncodeError::SizeMismatch => {
                    Unproven::Mismatch
                }
                // It has become shorter since it was opened.
                EncodeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Unproven::Mismatch,
                EncodeError::Io(error) => Unproven::Io(error),
                EncodeError::ParentWrite(_) | EncodeError::LeafWrite(_) => {
                    Unproven::Io(io::ErrorKind::ConnectionReset.into())
                }
            }
        })
    }
}

impl Outboard for Blob {
    fn root(&self) -> blake3::Hash {
        self.root
    }

    fn tree(&self) -> BaoTree {
        BaoTree::new(self.size, GROUPS)
    }

    fn load(&self, node: TreeNode) -> io::Result<Option<(blake3::Hash, blake3::Hash)>> {
        let Some(offset) = self.tree().post_order_offset(node) else { return Ok(None) };
        let (mut left, mut right) = ([0; 32], [0; 32]);
        if let Some(hashes) = &self.hashes {
            let at = offset.value().saturating_mul(64);
            // Where the tree's file is too short there are zeros, which prove nothing.
            let read = hashes.read_exact_at(at, &mut left).and_then(|()| hashes.read_exact_at(at + 32, &mut right));
            match read {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                _ => {}
            }
        }
        Ok(Some((left.into(), right.into())))
    }
}

/// The bytes of one group of a blob of this size.
pub(super) fn group_len(size: u64, group: u64) -> usize {
    let left = size.saturating_sub(group.saturating_mul(GROUP_BYTES)).min(GROUP_BYTES);
    usize::try_from(left).unwrap_or(usize::MAX)
}
