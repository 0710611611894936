use std::{fs::File, io, ops::Range};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges, TreeNode, blake3,
    io::{
        EncodeError,
        sync::{Outboard, ReadAt, encode_ranges_validated},
    },
};

/// Group size of the hash trees: 16 chunks of 1 KiB. A tree takes 0.4 % of its blob, and a bad group wastes 16 KiB.
pub(crate) const GROUPS: BlockSize = BlockSize::from_chunk_log(4);

/// Size of a group in bytes. The last group of a blob can be shorter.
pub(crate) const GROUP_BYTES: u64 = 16 << 10;

/// The same as a length in memory.
pub(super) const GROUP_LEN: usize = GROUPS.bytes();

/// Returns the number of groups of a blob. An empty blob has one.
pub(crate) fn groups_in(size: u64) -> u64 {
    size.div_ceil(GROUP_BYTES).max(1)
}

/// Converts a range of groups to bao's chunks.
pub(crate) fn group_range(groups: &Range<u64>) -> ChunkRanges {
    let chunks = |group: u64| ChunkNum(group.saturating_mul(16));
    ChunkRanges::from(chunks(groups.start)..chunks(groups.end))
}

/// An open blob with its hash tree.
pub(super) struct Blob {
    pub(super) data: File,
    /// `None` for a blob of one group, which has no tree.
    pub(super) hashes: Option<File>,
    pub(super) root: blake3::Hash,
    pub(super) size: u64,
}

/// Error of encoding groups of a blob.
pub(super) enum EncodeGroupsError {
    /// The data, the tree and the root do not match.
    Mismatch,
    Io(io::Error),
}

impl Blob {
    /// Appends groups in bao's order, each after the hashes that prove it. Unverified bytes are never appended.
    pub(super) fn encode(&self, groups: &Range<u64>, into: &mut Vec<u8>) -> Result<(), EncodeGroupsError> {
        let before = into.len();
        let encoded = encode_ranges_validated(&self.data, self, &group_range(groups), &mut *into);
        encoded.map_err(|error| {
            into.truncate(before);
            match error {
                EncodeError::ParentHashMismatch(_) | EncodeError::LeafHashMismatch(_) | EncodeError::SizeMismatch => {
                    EncodeGroupsError::Mismatch
                }
                // The file has become shorter since it was opened.
                EncodeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => EncodeGroupsError::Mismatch,
                EncodeError::Io(error) => EncodeGroupsError::Io(error),
                EncodeError::ParentWrite(_) | EncodeError::LeafWrite(_) => {
                    EncodeGroupsError::Io(io::ErrorKind::ConnectionReset.into())
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
            // Missing hashes read as zeros, which prove nothing.
            let read = hashes.read_exact_at(at, &mut left).and_then(|()| hashes.read_exact_at(at + 32, &mut right));
            match read {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                _ => {}
            }
        }
        Ok(Some((left.into(), right.into())))
    }
}

/// Returns the length of a group in bytes.
pub(super) fn group_len(size: u64, group: u64) -> usize {
    let left = size.saturating_sub(group.saturating_mul(GROUP_BYTES)).min(GROUP_BYTES);
    usize::try_from(left).unwrap_or(usize::MAX)
}
