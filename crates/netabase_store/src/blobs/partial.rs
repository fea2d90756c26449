//! Large values of which only a part is here.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bao_tree::io::sync::{ReadAt, WriteAt};
use parking_lot::Mutex;

use super::error::BlobError;
use super::files::{Files, PartId, PlacedFile, Source};
use super::tree::{self, BLOB_GROUP_BYTES, VerifiedSlice, bytes_of, groups_of};
use super::{Blobs, Hold};
use crate::blobs::limits::CHECKPOINT_BYTES;
use crate::model::blob::Blob;
use crate::platform::files::{self, File};

/// The length of a map before its bits: the size of the blob.
const MAP_HEADER_BYTES: u64 = 8;
/// The groups in a byte of a map.
const GROUPS_PER_BYTE: u64 = 8;

/// The present part of a blob that is being fetched, shared by all its fetches.
#[derive(Debug)]
pub(super) struct Partial {
    id: PartId,
    blobs: Arc<Blobs>,
    state: Mutex<State>,
    /// The blob is whole, and its files are elsewhere.
    is_whole: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// A bit for each group that was verified and written.
    bits: Bits,
    /// The bytes of the map that are not on the disk yet.
    changed: Option<Range<usize>>,
    /// The bytes received since the map was written.
    unwritten: u64,
}

/// A set of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    groups: u64,
    present: u64,
}

impl Bits {
    pub(super) fn new(groups: u64) -> Self {
        let bytes = usize::try_from(groups.div_ceil(GROUPS_PER_BYTE)).unwrap_or(usize::MAX);
        Self { bytes: vec![0; bytes], groups, present: 0 }
    }

    fn parse(bytes: Vec<u8>, groups: u64) -> Self {
        let mut bits = Self { bytes, groups, present: 0 };
        // Bits after the last group mean nothing.
        let unused = bits.groups.next_multiple_of(GROUPS_PER_BYTE) - bits.groups;
        if let Some(last) = bits.bytes.last_mut() {
            *last &= u8::MAX >> unused;
        }
        bits.present = bits.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
        bits
    }

    fn place(group: u64) -> (usize, u8) {
        let byte = usize::try_from(group / GROUPS_PER_BYTE).unwrap_or(usize::MAX);
        (byte, 1 << (group % GROUPS_PER_BYTE))
    }

    fn has(&self, group: u64) -> bool {
        #[cfg(test)]
        tests::LOOKS.set(tests::LOOKS.get() + 1);
        let (byte, bit) = Self::place(group);
        group < self.groups && self.bytes.get(byte).is_some_and(|byte| byte & bit != 0)
    }

    fn add(&mut self, group: u64) -> bool {
        let (byte, bit) = Self::place(group);
        let is_new = group < self.groups && !self.has(group);
        if let Some(byte) = self.bytes.get_mut(byte).filter(|_| is_new) {
            *byte |= bit;
            self.present += 1;
        }
        is_new
    }

    pub(super) fn is_full(&self) -> bool {
        self.present == self.groups
    }

    /// Returns the ranges inside of `groups` that are in the set, or that are not, up to `limit`
    /// ranges.
    fn runs(&self, groups: &Range<u64>, present: bool, limit: usize) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let (mut group, end) = (groups.start, groups.end.min(self.groups));
        while group < end {
            if self.has(group) != present {
                group += if self.is_byte_of(group, !present) { GROUPS_PER_BYTE } else { 1 };
            } else if let Some(last) = runs.last_mut().filter(|last| last.end == group) {
                last.end += 1;
                group += 1;
            } else if runs.len() == limit {
                break;
            } else {
                runs.push(group..group + 1);
                group += 1;
            }
        }
        runs
    }

    /// Returns the first groups inside of `groups` that are not in the set, one after another, at
    /// most `most`. The search ends there.
    fn first_missing(&self, groups: &Range<u64>, most: u64) -> Option<Range<u64>> {
        let (mut start, end) = (groups.start, groups.end.min(self.groups));
        while start < end && self.has(start) {
            start += if self.is_byte_of(start, true) { GROUPS_PER_BYTE } else { 1 };
        }
        let most = start..end.min(start.saturating_add(most));
        let missing = most.take_while(|group| !self.has(*group)).last()?;
        Some(start..missing + 1)
    }

    /// Returns whether a byte begins with `group` and has all of its groups, or none. There may be
    /// many such bytes.
    fn is_byte_of(&self, group: u64, present: bool) -> bool {
        let (byte, _) = Self::place(group);
        let expected = if present { u8::MAX } else { 0 };
        group.is_multiple_of(GROUPS_PER_BYTE) && self.bytes.get(byte) == Some(&expected)
    }

    /// Returns the number of bytes in the set, of a blob of `size` bytes.
    pub(super) fn present_bytes(&self, size: u64) -> u64 {
        let last = self.groups - 1;
        let of_last = size - last * BLOB_GROUP_BYTES;
        let whole = self.present - u64::from(self.has(last));
        whole * BLOB_GROUP_BYTES + if self.has(last) { of_last } else { 0 }
    }
}

/// Reads the map of a blob that is not whole; `None` if it is damaged, or was not complete.
pub(super) fn read_map(mut file: File, blob: &Blob) -> std::io::Result<Option<Bits>> {
    let groups = groups_of(blob.size);
    let bits = Bits::new(groups);
    let expected = MAP_HEADER_BYTES + u64::try_from(bits.bytes.len()).unwrap_or(u64::MAX);
    if file.metadata()?.len() != expected {
        return Ok(None);
    }
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let mut bytes = Vec::with_capacity(bits.bytes.len());
    file.read_to_end(&mut bytes)?;
    Ok((u64::from_be_bytes(size) == blob.size && bytes.len() == bits.bytes.len())
        .then(|| Bits::parse(bytes, groups)))
}

/// Returns whether a map has the groups; `false` if the map is incomplete.
pub(super) fn map_has(file: &PlacedFile, blob: &Blob, groups: &Range<u64>) -> std::io::Result<bool> {
    let all = groups_of(blob.size);
    if file.file().metadata()?.len() != MAP_HEADER_BYTES + all.div_ceil(GROUPS_PER_BYTE) {
        return Ok(false);
    }
    let bytes = groups.start / GROUPS_PER_BYTE..groups.end.min(all).div_ceil(GROUPS_PER_BYTE);
    let first = bytes.start * GROUPS_PER_BYTE;
    let mut part = vec![0; usize::try_from(bytes.end.saturating_sub(bytes.start)).unwrap_or_default()];
    file.read_exact_at(MAP_HEADER_BYTES + bytes.start, &mut part)?;
    let bits = Bits { bytes: part, groups: groups.end.saturating_sub(first), present: 0 };
    Ok(bits.first_missing(&(groups.start - first..groups.end.saturating_sub(first)), 1).is_none())
}

impl Partial {
    pub(super) fn new(blobs: &Arc<Blobs>, id: PartId, bits: Bits, is_whole: bool) -> Self {
        let state = Mutex::new(State { bits, changed: None, unwritten: 0 });
        Self { id, blobs: Arc::clone(blobs), state, is_whole: is_whole.into() }
    }

    fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire)
    }

    /// Records the received groups on the disk.
    fn checkpoint(&self) -> Result<(), BlobError> {
        let mut state = self.state.lock();
        if self.is_whole() || state.changed.is_none() {
            Ok(())
        } else if self.blobs.is_current(&self.id) {
            self.blobs.write_map(&self.id, &mut state)
        } else {
            Err(BlobError::Missing { blob: self.id.blob })
        }
    }

    /// Marks the part as superseded by the complete blob, whose files have replaced its own.
    pub(super) fn supersede(&self) {
        self.is_whole.store(true, Ordering::Release);
    }
}

/// A large value that is being fetched, and its present part.
///
/// Each slice is verified against the hash before it is written. A crash loses at most the last 32
/// MiB; dropping the last handle loses nothing. With its last slice the blob is complete. While
/// there is a handle, the blob is not [collected](crate::blob::BlobStore::collect).
#[derive(Debug, Clone)]
pub struct PartialBlob {
    inner: Arc<Partial>,
    _hold: Arc<Hold>,
}

/// Received groups are recorded when the last handle is dropped.
impl Drop for Partial {
    fn drop(&mut self) {
        // A blob that was removed has no map to write.
        if let Err(error) = self.checkpoint()
            && !matches!(error, BlobError::Missing { .. })
        {
            tracing::warn!(%error, "the groups of a blob that were received last are lost");
        }
    }
}

impl PartialBlob {
    pub(super) fn new(inner: Arc<Partial>) -> Self {
        let hold = Arc::new(Hold::new(&inner.blobs, inner.id.blob.hash));
        Self { inner, _hold: hold }
    }

    /// Returns which blob it is.
    pub fn blob(&self) -> Blob {
        self.inner.id.blob
    }

    /// Returns whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.inner.is_whole()
    }

    /// Returns the number of present bytes.
    pub fn present_bytes(&self) -> u64 {
        let (state, size) = (self.inner.state.lock(), self.inner.id.blob.size);
        if self.inner.is_whole() { size } else { state.bits.present_bytes(size) }
    }

    /// Returns the first ranges of groups of 16 KiB inside of `groups` that are not here, at most
    /// `limit`.
    pub fn missing(&self, groups: Range<u64>, limit: usize) -> Vec<Range<u64>> {
        let state = self.inner.state.lock();
        if self.inner.is_whole() { Vec::new() } else { state.bits.runs(&groups, false, limit) }
    }

    /// Returns the first groups of 16 KiB inside of `groups` that are not here, one after another,
    /// at most `most`.
    ///
    /// The search ends there, so a caller that goes through a large blob looks at each group once.
    pub fn first_missing(&self, groups: Range<u64>, most: u64) -> Option<Range<u64>> {
        let state = self.inner.state.lock();
        if self.inner.is_whole() { None } else { state.bits.first_missing(&groups, most) }
    }

    /// Verifies an encoded range of groups and stores it; returns the number of new bytes.
    ///
    /// Blocks on the disk.
    ///
    /// The call hashes the slice and blocks on the disk at each checkpoint, so call it on a
    /// blocking thread. Fails with [`BlobError::Invalid`] if the slice is not these groups of this
    /// blob, and changes nothing; with [`BlobError::Full`] if the quota for fetched blobs is full.
    pub fn write_slice(&self, groups: Range<u64>, slice: &[u8]) -> Result<u64, BlobError> {
        let (id, blob) = (self.inner.id, self.inner.id.blob);
        let invalid = BlobError::Invalid { hash: blob.hash };
        if groups.is_empty() || groups.end > groups_of(blob.size) {
            return Err(invalid);
        }
        let verified = tree::decode(&blob, &groups, slice).ok_or(invalid)?;
        let mut state = self.inner.state.lock();
        let new = state.bits.runs(&groups, false, usize::MAX);
        if self.inner.is_whole() || new.is_empty() {
            return Ok(0);
        }
        let new_bytes =
            new.iter().map(|run| bytes_of(run, blob.size)).map(|bytes| bytes.end - bytes.start).sum();
        self.inner.blobs.check_space(new_bytes)?;
        let directory = &self.inner.blobs.directory;
        let Some(files) = directory.open(&directory.partial(&id), blob.size, true)? else {
            return self.gone();
        };
        self.write(files, &verified)?;
        for group in new.into_iter().flatten() {
            if state.bits.add(group) {
                let (byte, _) = Bits::place(group);
                let changed = state.changed.take().unwrap_or(byte..byte);
                state.changed = Some(changed.start.min(byte)..changed.end.max(byte + 1));
            }
        }
        state.unwritten += new_bytes;
        self.inner.blobs.note_present(&id, state.bits.present_bytes(blob.size));
        if state.bits.is_full() {
            self.inner.blobs.complete(&id, &mut state)?;
            self.inner.supersede();
        } else if state.unwritten >= CHECKPOINT_BYTES {
            self.inner.blobs.write_map(&id, &mut state)?;
        }
        Ok(new_bytes)
    }

    /// Fails with [`BlobError::Full`] if the quota for fetched blobs does not admit the rest of it.
    pub fn check_room(&self) -> Result<(), BlobError> {
        self.inner.blobs.check_space(self.inner.id.blob.size.saturating_sub(self.present_bytes()))
    }

    /// Blocks until all received groups are on the disk and recorded there.
    ///
    /// Fails with [`BlobError::Missing`] if the blob was [removed](crate::blob::BlobStore::remove)
    /// since.
    pub fn flush(&self) -> Result<(), BlobError> {
        self.inner.checkpoint()
    }

    fn write(&self, mut files: Files<'_>, verified: &VerifiedSlice) -> Result<(), BlobError> {
        let paths = self.inner.blobs.directory.partial(&self.inner.id);
        self.inner.blobs.directory.step(&paths.data)?;
        let written = files.data.write_all_at(verified.offset, &verified.data);
        written.map_err(|error| BlobError::file(&paths.data, error))?;
        self.inner.blobs.directory.step(&paths.tree)?;
        for (offset, pair) in &verified.pairs {
            let written = files.tree.write_all_at(*offset, pair);
            written.map_err(|error| BlobError::file(&paths.tree, error))?;
        }
        Ok(())
    }

    /// Handles missing files: the blob was added in another way, or was removed.
    fn gone(&self) -> Result<u64, BlobError> {
        if self.inner.blobs.has(&self.inner.id.blob) {
            self.inner.supersede();
            Ok(0)
        } else {
            Err(BlobError::Missing { blob: self.inner.id.blob })
        }
    }
}

impl Blobs {
    /// Says that groups are here, once they are on the disk.
    fn write_map(&self, id: &PartId, state: &mut State) -> Result<(), BlobError> {
        let (paths, map) = (self.directory.partial(id), self.directory.map(id));
        self.directory.sync_file(&paths.data)?;
        if id.blob.size > BLOB_GROUP_BYTES {
            self.directory.sync_file(&paths.tree)?;
        }
        self.directory.step(&map)?;
        let failed = |error| BlobError::file(&map, error);
        let mut file = PlacedFile::open_to_write(&map).map_err(failed)?;
        let Some(changed) = state.changed.clone() else { return Ok(()) };
        let offset = MAP_HEADER_BYTES + u64::try_from(changed.start).unwrap_or(u64::MAX);
        let bytes = state.bits.bytes.get(changed).unwrap_or_default();
        file.write_all_at(offset, bytes).and_then(|()| file.file().sync_all()).map_err(failed)?;
        (state.changed, state.unwritten) = (None, 0);
        Ok(())
    }

    /// Completes a blob of which every part is here.
    fn complete(&self, id: &PartId, state: &mut State) -> Result<(), BlobError> {
        self.write_map(id, state)?;
        self.move_complete(id)?;
        self.note_complete(id)
    }

    /// Moves the files of a blob of which every part is here and on the disk. The data is moved
    /// last but for the map: its directory determines the source of the blob.
    pub(super) fn move_complete(&self, id: &PartId) -> Result<(), BlobError> {
        let (directory, from) = (&self.directory, self.directory.partial(id));
        directory.move_whole(&id.blob, &from, Source::Fetched)?;
        directory.remove(&from.tree)?;
        directory.remove(&directory.map(id))?;
        directory.sync(&directory.of_partial())
    }

    /// Creates the files of a blob without a present part.
    pub(super) fn create_partial(&self, blob: &Blob) -> Result<(PartId, Bits), BlobError> {
        self.directory.make()?;
        let number = {
            let mut state = self.state.lock();
            state.next_part += 1;
            state.next_part - 1
        };
        let id = PartId { blob: *blob, number };
        match self.create_files(&id) {
            Ok(bits) => Ok((id, bits)),
            Err(error) => {
                // The next opening deletes the rest of them at the latest.
                let _ = self.remove_parts(vec![(id, Weak::new())], None);
                Err(error)
            }
        }
    }

    /// The map is deleted last: without it the part does not exist.
    fn create_files(&self, id: &PartId) -> Result<Bits, BlobError> {
        let (paths, map) = (self.directory.partial(id), self.directory.map(id));
        let bits = Bits::new(groups_of(id.blob.size));
        for path in [&paths.data, &paths.tree] {
            self.directory.step(path)?;
            files::create(path).map_err(|error| BlobError::file(path, error))?;
        }
        self.directory.step(&map)?;
        let failed = |error| BlobError::file(&map, error);
        let mut file = PlacedFile::create(&map).map_err(failed)?;
        let empty = [&id.blob.size.to_be_bytes()[..], &bits.bytes].concat();
        file.write_all_at(0, &empty).and_then(|()| file.file().sync_all()).map_err(failed)?;
        self.directory.sync(&self.directory.of_partial())?;
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// The number of groups that were looked at.
        pub(super) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    #[test]
    fn whoever_goes_through_what_is_missing_looks_at_each_group_a_few_times() {
        type Next = fn(&Bits, Range<u64>) -> Option<Range<u64>>;
        const SLICE: u64 = 32;
        let groups = 1 << 14;
        let looks = |next: Next| {
            let (bits, mut rest, mut found) = (Bits::new(groups), 0..groups, 0);
            let before = LOOKS.get();
            while let Some(run) = next(&bits, rest.clone()) {
                rest.start = run.end.min(run.start + SLICE);
                found += rest.start - run.start;
            }
            assert_eq!(found, groups);
            LOOKS.get() - before
        };
        let step = looks(|bits, rest| bits.first_missing(&rest, SLICE));
        assert!(step <= 2 * groups, "{step}");
        // The call that it replaces.
        let all = looks(|bits, rest| bits.runs(&rest, false, 1).pop());
        assert!(all > 100 * groups, "{all}");
    }

    proptest! {
        #[test]
        fn runs_are_those_of_a_list(
            members in prop::collection::vec(any::<bool>(), 1..80), blocks in prop::collection::vec(any::<bool>(), 0..8),
            range in (0..150_u64, 0..150_u64), present in any::<bool>(), limit in 1..5_usize,
        ) {
            let members: Vec<bool> =
                blocks.iter().flat_map(|member| [*member; 8]).chain(members).collect();
            let mut bits = Bits::new(members.len() as u64);
            for (group, _) in members.iter().enumerate().filter(|(_, member)| **member) {
                prop_assert!(bits.add(group as u64));
            }
            let wanted = range.0.min(range.1)..range.0.max(range.1);
            let expected: Vec<u64> = (0..members.len())
                .filter(|group| members[*group] == present && wanted.contains(&(*group as u64)))
                .map(|group| group as u64)
                .collect();
            let all = bits.runs(&wanted, present, usize::MAX);
            prop_assert_eq!(all.iter().cloned().flatten().collect::<Vec<_>>(), expected);
            prop_assert!(all.windows(2).all(|two| two[0].end < two[1].start));
            if !present {
                let most = limit as u64;
                let first = all.first().map(|run| run.start..run.end.min(run.start + most));
                prop_assert_eq!(bits.first_missing(&wanted, most), first);
            }
            prop_assert_eq!(bits.runs(&wanted, present, limit), all[..limit.min(all.len())].to_vec());
        }
    }
}
