use std::{io, ops::Range, time::Duration};

use bao_tree::{
    BaoTree, PostOrderOffset, blake3,
    blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
    io::sync::truncate_ranges,
    iter::{BaoChunk, ResponseIterRef},
};
use futures::{AsyncRead, AsyncReadExt};
use kadence::{Alarm, ElapsedError};

use crate::{
    ContentId,
    blob::{GROUPS, Pair, group_range},
};

/// Part of a blob, with the hash pairs that prove it.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) data: Vec<u8>,
    pub(super) proof: Vec<Pair>,
}

/// Error of receiving a slice.
#[derive(Debug)]
pub(super) enum SliceError {
    /// The data is not part of this blob, or of a blob of this size.
    Wrong,
    /// The stream ended or failed.
    Broken,
    /// A step took too long.
    Slow,
}

impl From<ElapsedError> for SliceError {
    fn from(_: ElapsedError) -> Self {
        Self::Slow
    }
}

impl From<io::Error> for SliceError {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Receives groups of a blob, and verifies each hash pair and each group before it reads the next. The groups must be
/// within the blob, whose size must not exceed [`MAX_BLOB_LEN`](super::wire::MAX_BLOB_LEN).
///
/// Each step may take the time `step`. Memory holds no more than the verified part of the request and one group.
pub(super) async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    alarm: &mut Alarm,
    step: Duration,
    id: &ContentId,
    size: u64,
    groups: &Range<u64>,
) -> Result<Slice, SliceError> {
    let tree = BaoTree::new(size, GROUPS);
    let ranges = group_range(groups);
    let steps = ResponseIterRef::new(tree, truncate_ranges(&ranges, size)).collect::<Vec<_>>();
    let mut expected = vec![id.hash()];
    let mut slice = Slice::default();
    let Slice { data, proof } = &mut slice;
    let len = steps.iter().map(|step| if let BaoChunk::Leaf { size, .. } = step { *size } else { 0 }).sum();
    // At most 1 MiB: the largest request.
    data.reserve_exact(len);
    for item in steps {
        let hash = expected.pop().ok_or(SliceError::Wrong)?;
        match item {
            BaoChunk::Parent { node, is_root, left, right, ranges: () } => {
                let mut pair = [0; 64];
                alarm.within(step, stream.read_exact(&mut pair)).await??;
                let (of_left, of_right) = halves(&pair);
                if parent(&of_left, &of_right, is_root) != hash {
                    return Err(SliceError::Wrong);
                }
                expected.extend(right.then(|| blake3::Hash::from_bytes(of_right)));
                expected.extend(left.then(|| blake3::Hash::from_bytes(of_left)));
                let offset = tree.post_order_offset(node).map(PostOrderOffset::value);
                proof.extend(offset.map(|offset| Pair { offset, hashes: pair }));
            }
            BaoChunk::Leaf { start_chunk, size, is_root, ranges: () } => {
                let before = data.len();
                data.resize(before + size, 0);
                let leaf = data.get_mut(before..).unwrap_or_default();
                alarm.within(step, stream.read_exact(leaf)).await??;
                if leaf_hash(start_chunk.0, leaf, is_root) != hash {
                    return Err(SliceError::Wrong);
                }
            }
        }
    }
    Ok(slice)
}

fn halves(pair: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (left, right) = pair.split_at(32);
    (left.try_into().unwrap_or_default(), right.try_into().unwrap_or_default())
}

fn parent(left: &[u8; 32], right: &[u8; 32], is_root: bool) -> blake3::Hash {
    if is_root {
        merge_subtrees_root(left, right, Mode::Hash)
    } else {
        merge_subtrees_non_root(left, right, Mode::Hash).into()
    }
}

fn leaf_hash(chunk: u64, bytes: &[u8], is_root: bool) -> blake3::Hash {
    if is_root {
        return blake3::hash(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(chunk.saturating_mul(1024));
    hasher.update(bytes);
    hasher.finalize_non_root().into()
}
