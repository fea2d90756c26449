//! The tree of hashes over a large value, and the verification against it.
//!
//! The geometry, the outboard (the pairs of hashes, in post order) and the encoding of slices are
//! those of `bao-tree`, with groups of 16 KiB. A tree of a value of unknown length is built here,
//! in one pass.

use std::io::{self, Cursor, Write};
use std::ops::Range;

use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{DecodeResponseIter, Outboard, ReadAt, encode_ranges_validated};
use bao_tree::io::{BaoContentItem, EncodeError, Leaf, Parent};
use bao_tree::iter::BaoChunk;
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges, TreeNode};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::model::blob::{Blob, BlobHash};

/// The number of bytes that are hashed, verified and kept together.
pub(crate) const BLOB_GROUP_BYTES: u64 = 16 * 1024;
/// Chunks of BLAKE3, of 1 KiB, in a group, as a power of two.
const GROUP_LOG: u8 = 4;
const GROUP_CHUNKS: u64 = 1 << GROUP_LOG;
/// The length of a pair of hashes.
const PAIR_BYTES: u64 = 64;

/// Returns the number of groups of a value of `size` bytes; an empty one has one.
pub(super) fn groups_of(size: u64) -> u64 {
    size.div_ceil(BLOB_GROUP_BYTES).max(1)
}

/// Returns the length of the outboard of a value of `size` bytes.
pub(super) fn outboard_bytes(size: u64) -> u64 {
    (groups_of(size) - 1) * PAIR_BYTES
}

/// Returns the bytes of a range of groups.
pub(super) fn bytes_of(groups: &Range<u64>, size: u64) -> Range<u64> {
    groups.start.saturating_mul(BLOB_GROUP_BYTES).min(size)
        ..groups.end.saturating_mul(BLOB_GROUP_BYTES).min(size)
}

/// Returns the groups that a range of bytes touches.
pub(super) fn groups_around(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOB_GROUP_BYTES..bytes.end.div_ceil(BLOB_GROUP_BYTES)
}

fn tree_of(size: u64) -> BaoTree {
    BaoTree::new(size, BlockSize::from_chunk_log(GROUP_LOG))
}

fn outboard<T>(blob: &Blob, data: T) -> PostOrderOutboard<T> {
    let root = blake3::Hash::from_bytes(*blob.hash.as_bytes());
    PostOrderOutboard { root, tree: tree_of(blob.size), data }
}

fn chunks_of(groups: &Range<u64>) -> ChunkRanges {
    let chunk = |group: u64| ChunkNum(group.saturating_mul(GROUP_CHUNKS));
    ChunkRanges::from(chunk(groups.start)..chunk(groups.end))
}

/// Builds the tree of a value from its groups in order, and writes its outboard.
pub(super) struct TreeBuilder<W> {
    outboard: W,
    /// The subtrees that are complete, the largest first.
    stack: Vec<[u8; 32]>,
    groups: u64,
    bytes: u64,
}

impl<W: Write> TreeBuilder<W> {
    pub(super) fn new(outboard: W) -> Self {
        Self { outboard, stack: Vec::new(), groups: 0, bytes: 0 }
    }

    /// Adds a group; all but the last have [`BLOB_GROUP_BYTES`]. `is_only` marks the only group.
    pub(super) fn push(&mut self, group: &[u8], is_only: bool) -> io::Result<()> {
        // Not before another one comes: the last merge is that of the root.
        while self.stack.len() > usize::try_from(self.groups.count_ones()).unwrap_or(usize::MAX) {
            self.merge(false)?;
        }
        let hash = if is_only {
            *blake3::hash(group).as_bytes()
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(self.bytes);
            hasher.update(group).finalize_non_root()
        };
        self.stack.push(hash);
        self.groups += 1;
        self.bytes += u64::try_from(group.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Returns the name of the whole value, and the writer of the outboard.
    pub(super) fn finish(mut self) -> io::Result<(Blob, W)> {
        while self.stack.len() > 1 {
            let is_root = self.stack.len() == 2;
            self.merge(is_root)?;
        }
        let hash = self.stack.pop().unwrap_or_else(|| *blake3::hash(&[]).as_bytes());
        self.outboard.flush()?;
        Ok((Blob { hash: BlobHash::from_bytes(hash), size: self.bytes }, self.outboard))
    }

    fn merge(&mut self, is_root: bool) -> io::Result<()> {
        let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) else { return Ok(()) };
        self.outboard.write_all(&left)?;
        self.outboard.write_all(&right)?;
        self.stack.push(if is_root {
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        });
        Ok(())
    }
}

/// The reason why a slice cannot be read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The approximate offset of bytes that do not match the hash.
    Damaged(u64),
    Io(io::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        // A file that was cut off.
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Damaged(0) } else { Self::Io(error) }
    }
}

/// Reads a range of groups, each verified, and gives `take` the offset and the bytes of each.
pub(super) fn read_verified<D: ReadAt, O: ReadAt>(
    blob: &Blob,
    data: D,
    tree: O,
    groups: &Range<u64>,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ReadFailure> {
    let (outboard, chunks) = (outboard(blob, tree), chunks_of(groups));
    let mut expected = vec![*blob.hash.as_bytes()];
    let mut buffer = vec![0; usize::try_from(BLOB_GROUP_BYTES).unwrap_or_default()];
    for item in outboard.tree.ranges_pre_order_chunks_iter_ref(&chunks, 0) {
        let hash = expected.pop().ok_or(ReadFailure::Damaged(0))?;
        match item {
            BaoChunk::Parent { is_root, left, right, node, .. } => {
                let place = node.chunk_range().start.to_bytes();
                let (left_hash, right_hash) = outboard.load(node)?.ok_or(ReadFailure::Damaged(place))?;
                let (left_hash, right_hash) = (*left_hash.as_bytes(), *right_hash.as_bytes());
                let actual = if is_root {
                    *merge_subtrees_root(&left_hash, &right_hash, Mode::Hash).as_bytes()
                } else {
                    merge_subtrees_non_root(&left_hash, &right_hash, Mode::Hash)
                };
                if actual != hash {
                    return Err(ReadFailure::Damaged(place));
                }
                expected.extend(right.then_some(right_hash));
                expected.extend(left.then_some(left_hash));
            }
            BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                let offset = start_chunk.to_bytes();
                let group = buffer.get_mut(..size).ok_or(ReadFailure::Damaged(offset))?;
                data.read_exact_at(offset, group).map_err(|error| match ReadFailure::from(error) {
                    ReadFailure::Damaged(_) => ReadFailure::Damaged(offset),
                    failure @ ReadFailure::Io(_) => failure,
                })?;
                let actual = if is_root {
                    *blake3::hash(group).as_bytes()
                } else {
                    let mut hasher = blake3::Hasher::new();
                    hasher.set_input_offset(offset);
                    hasher.update(group).finalize_non_root()
                };
                if actual != hash {
                    return Err(ReadFailure::Damaged(offset));
                }
                take(offset, group)?;
            }
        }
    }
    Ok(())
}

/// Verifies a range of groups and encodes it with the hashes that prove it.
pub(super) fn encode<D: ReadAt, O: ReadAt>(
    blob: &Blob,
    data: D,
    tree: O,
    groups: &Range<u64>,
) -> Result<Vec<u8>, ReadFailure> {
    let mut slice = Vec::new();
    encode_ranges_validated(data, outboard(blob, tree), &chunks_of(groups), &mut slice).map_err(|error| {
        match error {
            EncodeError::LeafHashMismatch(chunk) => ReadFailure::Damaged(chunk.to_bytes()),
            EncodeError::ParentHashMismatch(node) => {
                ReadFailure::Damaged(node.chunk_range().start.to_bytes())
            }
            EncodeError::Io(error) => error.into(),
            error => ReadFailure::Io(io::Error::other(error)),
        }
    })?;
    Ok(slice)
}

/// Received groups that match the hash.
pub(super) struct VerifiedSlice {
    /// The offset of the first one, in bytes.
    pub(super) offset: u64,
    pub(super) data: Vec<u8>,
    /// The pairs of hashes that prove them, with their offsets in the outboard.
    pub(super) pairs: Vec<(u64, [u8; 64])>,
}

/// Verifies an encoded range of groups against the hash; `None` if it is not exactly that range of
/// that value.
pub(super) fn decode(blob: &Blob, groups: &Range<u64>, slice: &[u8]) -> Option<VerifiedSlice> {
    let (tree, chunks) = (tree_of(blob.size), chunks_of(groups));
    let bytes = bytes_of(groups, blob.size);
    let mut verified = VerifiedSlice {
        offset: bytes.start,
        data: Vec::with_capacity(usize::try_from(bytes.end - bytes.start).ok()?.min(slice.len())),
        pairs: Vec::new(),
    };
    let root = blake3::Hash::from_bytes(*blob.hash.as_bytes());
    let mut input = Cursor::new(slice);
    for item in DecodeResponseIter::new(root, tree, &mut input, &chunks) {
        match item.ok()? {
            BaoContentItem::Parent(Parent { node, pair: (left, right) }) => {
                let mut pair = [0; 64];
                let (first, second) = pair.split_at_mut(32);
                first.copy_from_slice(left.as_bytes());
                second.copy_from_slice(right.as_bytes());
                verified.pairs.push((pair_offset(&tree, node)?, pair));
            }
            BaoContentItem::Leaf(Leaf { offset, data }) => {
                if offset != bytes.start + u64::try_from(verified.data.len()).ok()? {
                    return None;
                }
                verified.data.extend_from_slice(&data);
            }
        }
    }
    let is_all = input.position() == u64::try_from(slice.len()).ok()?
        && u64::try_from(verified.data.len()).ok()? == bytes.end - bytes.start;
    is_all.then_some(verified)
}

fn pair_offset(tree: &BaoTree, node: TreeNode) -> Option<u64> {
    Some(tree.post_order_offset(node)?.value() * PAIR_BYTES)
}

#[cfg(test)]
mod tests {
    use bao_tree::io::outboard::PostOrderMemOutboard;

    use super::*;

    const GROUP: usize = 16 * 1024;

    fn value(size: usize) -> Vec<u8> {
        (0..size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    fn built(value: &[u8]) -> (Blob, Vec<u8>) {
        let mut builder = TreeBuilder::new(Vec::new());
        let groups: Vec<&[u8]> = value.chunks(GROUP).collect();
        for group in &groups {
            builder.push(group, groups.len() == 1).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_tree_built_in_one_pass_is_that_of_the_crate() {
        for size in [
            0,
            1,
            GROUP - 1,
            GROUP,
            GROUP + 1,
            2 * GROUP,
            3 * GROUP,
            5 * GROUP + 7,
            64 * GROUP,
            129 * GROUP - 1,
        ] {
            let value = value(size);
            let (blob, outboard) = built(&value);
            let theirs = PostOrderMemOutboard::create(&value, BlockSize::from_chunk_log(GROUP_LOG));
            assert_eq!(blob, Blob::of(&value), "{size} bytes");
            assert_eq!(outboard, theirs.data, "{size} bytes");
            assert_eq!(outboard_bytes(blob.size), outboard.len() as u64, "{size} bytes");
        }
    }

    #[test]
    fn a_slice_is_taken_only_for_the_range_and_the_value_that_it_is_of() {
        let value = value(20 * GROUP + 5);
        let (blob, outboard) = built(&value);
        let slice = encode(&blob, &value[..], &outboard[..], &(3..9)).unwrap();
        assert_eq!(decode(&blob, &(3..9), &slice).unwrap().data, value[3 * GROUP..9 * GROUP]);
        assert!(decode(&blob, &(3..8), &slice).is_none());
        assert!(decode(&blob, &(2..9), &slice).is_none());
        assert!(decode(&Blob { size: blob.size + 1, ..blob }, &(18..21), &slice).is_none());
        assert!(decode(&Blob::of(b"other"), &(0..1), &slice).is_none());
        let last = encode(&blob, &value[..], &outboard[..], &(20..21)).unwrap();
        assert_eq!(decode(&blob, &(20..21), &last).unwrap().data, value[20 * GROUP..]);
        assert!(decode(&blob, &(3..9), &[slice.as_slice(), &[0]].concat()).is_none(), "bytes left over");
    }
}
