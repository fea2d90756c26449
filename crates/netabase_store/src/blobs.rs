//! Large values: kept once, in files beside the database, named by their BLAKE3 hash, verified
//! whenever they are read.
//!
//! A record names a large value by a [`Blob`] in a field with `#[blob]`. A table of references
//! changes in the record's own transaction. A blob without references is deleted after a grace
//! period.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

mod backup;
mod collect;
mod error;
mod files;
mod limits;
mod partial;
mod recover;
mod store;
#[cfg(test)]
mod tests;
mod tree;

pub use backup::BlobBackup;
pub(crate) use collect::Collector;
pub use collect::{BlobReference, Collected};
pub use error::BlobError;
pub use partial::PartialBlob;
pub use store::{BlobHold, BlobStatistics, BlobStatus, BlobStore};
pub(crate) use tree::BLOB_GROUP_BYTES;

use crate::blobs::limits::{MAX_BLOB_BYTES, MAX_SLICE_GROUPS};
use crate::error::StoreError;
use crate::model::blob::{Blob, BlobHash};
use crate::options::StoreOptions;
use crate::platform;
use crate::version::clock::Clock;
use files::{Directory, PartId, Paths, PlacedFile, Source};
use partial::Partial;
use tree::{ReadFailure, TreeBuilder, groups_around, groups_of};

impl Blob {
    /// The size of a group: ranges of a blob are fetched and verified in whole groups. Only the
    /// last group of a blob is shorter.
    pub const GROUP_BYTES: u64 = BLOB_GROUP_BYTES;
    /// The largest blob: 256 GiB. A larger value has to be split before it is added.
    pub const MAX_BYTES: u64 = MAX_BLOB_BYTES;
}

/// The blobs of a store, and their files.
#[derive(Debug)]
pub(crate) struct Blobs {
    directory: Directory,
    clock: Clock,
    max_fetched: u64,
    state: Mutex<State>,
    #[cfg(test)]
    looked: collect::Looked,
}

#[derive(Debug, Default)]
struct State {
    whole: BTreeMap<BlobHash, Whole>,
    partial: BTreeMap<Blob, Part>,
    /// The number of handles of each blob that must not be deleted.
    held: HashMap<BlobHash, usize>,
    /// The bytes of blobs from peers.
    fetched_bytes: u64,
    generation: u64,
    /// The number of the files of the next part that is begun.
    next_part: u64,
}

#[derive(Debug)]
struct Whole {
    size: u64,
    source: Source,
    /// The time when it was last added, in milliseconds since the Unix epoch, which is the file's
    /// time of modification, too.
    touched: u64,
}

#[derive(Debug)]
struct Part {
    /// The number of the part among those that were begun.
    number: u64,
    present: u64,
    touched: u64,
    open: Weak<Partial>,
}

/// Keeps a blob while it lives.
#[derive(Debug)]
struct Hold {
    blobs: Arc<Blobs>,
    hash: BlobHash,
}

impl Hold {
    fn new(blobs: &Arc<Blobs>, hash: BlobHash) -> Self {
        *blobs.state.lock().held.entry(hash).or_default() += 1;
        Self { blobs: Arc::clone(blobs), hash }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.blobs.state.lock();
        if let Some(count) = state.held.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.hash);
            }
        }
    }
}

impl State {
    fn statistics(&self) -> BlobStatistics {
        let mut statistics = BlobStatistics {
            partial: u64::try_from(self.partial.len()).unwrap_or(u64::MAX),
            fetched_bytes: self.fetched_bytes,
            ..BlobStatistics::default()
        };
        for whole in self.whole.values() {
            match whole.source {
                Source::Added => {
                    statistics.added += 1;
                    statistics.added_bytes += whole.size;
                }
                Source::Fetched => statistics.fetched += 1,
            }
        }
        statistics
    }

    fn has(&self, blob: &Blob) -> bool {
        self.whole.get(&blob.hash).is_some_and(|whole| whole.size == blob.size)
    }

    /// Returns when a blob was added or asked for last, in milliseconds since the Unix epoch;
    /// `None` if it is in use.
    fn touched(&self, hash: &BlobHash) -> Option<u64> {
        if self.held.contains_key(hash) {
            return None;
        }
        let whole = self.whole.get(hash).map_or(0, |whole| whole.touched);
        let parts = self.partial.range(Blob { hash: *hash, size: 0 }..=Blob { hash: *hash, size: u64::MAX });
        Some(parts.map(|(_, part)| part.touched).fold(whole, u64::max))
    }

    /// Forgets the parts of a blob; returns them with their fetches.
    fn take_parts(&mut self, hash: &BlobHash) -> Vec<(PartId, Weak<Partial>)> {
        let first = Blob { hash: *hash, size: 0 };
        let of_hash = self.partial.range(first..).take_while(|(blob, _)| blob.hash == *hash);
        let blobs: Vec<Blob> = of_hash.map(|(blob, _)| *blob).collect();
        let mut taken = Vec::new();
        for blob in blobs {
            if let Some(part) = self.partial.remove(&blob) {
                self.fetched_bytes -= part.present;
                taken.push((PartId { blob, number: part.number }, part.open));
            }
        }
        taken
    }
}

impl Blobs {
    /// Opens the directory beside a database, or a temporary one.
    pub(crate) fn open(beside: Option<&Path>, options: &StoreOptions) -> Result<Self, BlobError> {
        let beside = || {
            beside.map(|path| {
                let mut name = path.as_os_str().to_owned();
                name.push(".blobs");
                PathBuf::from(name)
            })
        };
        let blobs = Self {
            directory: Directory::new(options.blob_directory.clone().or_else(beside)),
            clock: options.clock.clone(),
            max_fetched: options.max_blob_bytes,
            state: Mutex::default(),
            #[cfg(test)]
            looked: collect::Looked::default(),
        };
        blobs.recover()?;
        Ok(blobs)
    }

    fn has(&self, blob: &Blob) -> bool {
        self.state.lock().has(blob)
    }

    fn status(&self, blob: &Blob) -> BlobStatus {
        let state = self.state.lock();
        match (state.whole.get(&blob.hash), state.partial.get(blob)) {
            (Some(whole), _) if whole.size == blob.size => BlobStatus::Whole,
            (_, Some(part)) => BlobStatus::Partial { present: part.present },
            _ => BlobStatus::Absent,
        }
    }

    fn whole_after(&self, after: Option<BlobHash>, limit: usize) -> Vec<Blob> {
        let state = self.state.lock();
        let after = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let rest = state.whole.range((after, std::ops::Bound::Unbounded));
        rest.take(limit).map(|(hash, whole)| Blob { hash: *hash, size: whole.size }).collect()
    }

    fn add(&self, mut reader: impl Read) -> Result<Blob, BlobError> {
        let temporary = self.directory.temporary()?;
        let file = || {
            let file = platform::files::named_file_in(&temporary);
            file.map_err(|error| BlobError::file(&temporary, error))
        };
        let (mut data, mut tree) = (file()?, file()?);
        let blob = copy(&mut reader, &mut data, &mut tree, &temporary)?;
        self.directory.sync_file(tree.path())?;
        self.directory.touch(data.path(), self.clock.unix_millis())?;
        let (_, data) = data.keep().map_err(|error| BlobError::file(&temporary, error.error))?;
        let (_, tree) = tree.keep().map_err(|error| BlobError::file(&temporary, error.error))?;
        let published = self.publish(&blob, &Paths { data: data.clone(), tree: tree.clone() });
        for path in [&data, &tree] {
            self.directory.remove(path)?;
        }
        published.map(|()| blob)
    }

    /// Gives a blob that was added its name, unless it is here.
    fn publish(&self, blob: &Blob, from: &Paths) -> Result<(), BlobError> {
        let touched = self.clock.unix_millis();
        let mut state = self.state.lock();
        let known = state.whole.get_mut(&blob.hash).map(|known| {
            known.touched = touched;
            known.source
        });
        if known == Some(Source::Added) {
            return self.directory.touch(&self.directory.whole(&blob.hash, Source::Added).data, touched);
        }
        self.directory.move_whole(blob, from, Source::Added)?;
        if known == Some(Source::Fetched) {
            state.fetched_bytes -= blob.size;
        }
        let whole = Whole { size: blob.size, source: Source::Added, touched };
        state.whole.insert(blob.hash, whole);
        state.generation += 1;
        let parts = state.take_parts(&blob.hash);
        if known == Some(Source::Fetched) {
            // Not before the other copy is on the disk.
            self.directory.remove_whole(&blob.hash, Source::Fetched)?;
        }
        drop(state);
        self.remove_parts(parts, Some(blob))
    }

    /// Deletes the files of parts, which have been taken; fetches of the blob are told if it is
    /// complete.
    fn remove_parts(
        &self,
        parts: Vec<(PartId, Weak<Partial>)>,
        whole: Option<&Blob>,
    ) -> Result<(), BlobError> {
        for (id, open) in parts {
            if let Some(open) = open.upgrade().filter(|_| whole == Some(&id.blob)) {
                open.supersede();
            }
            let paths = self.directory.partial(&id);
            for path in [&self.directory.map(&id), &paths.data, &paths.tree] {
                self.directory.remove(path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, hash: &BlobHash) -> Result<bool, BlobError> {
        self.remove_if(hash, |_| Ok(true))
    }

    /// Removes a blob if `may_go` returns `true`, under the lock that adding and using it take.
    fn remove_if(
        &self,
        hash: &BlobHash,
        may_go: impl FnOnce(&State) -> Result<bool, StoreError>,
    ) -> Result<bool, BlobError> {
        let mut state = self.state.lock();
        if !may_go(&state)? {
            return Ok(false);
        }
        let whole = state.whole.remove(hash);
        let parts = state.take_parts(hash);
        if let Some(whole) = &whole {
            state.generation += 1;
            if whole.source == Source::Fetched {
                state.fetched_bytes -= whole.size;
            }
            // Before anybody can add it again.
            self.directory.remove_whole(hash, whole.source)?;
        }
        drop(state);
        let found = whole.is_some() || !parts.is_empty();
        self.remove_parts(parts, None)?;
        Ok(found)
    }

    fn partial(self: &Arc<Self>, blob: &Blob) -> Result<PartialBlob, BlobError> {
        if blob.size > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { size: blob.size, limit: MAX_BLOB_BYTES });
        }
        loop {
            let known = {
                let state = self.state.lock();
                if state.has(blob) {
                    drop(state);
                    let (id, bits) =
                        (PartId { blob: *blob, number: 0 }, partial::Bits::new(groups_of(blob.size)));
                    return Ok(PartialBlob::new(Arc::new(Partial::new(self, id, bits, true))));
                }
                let part = state.partial.get(blob);
                if let Some(open) = part.and_then(|part| part.open.upgrade()) {
                    drop(state);
                    return Ok(PartialBlob::new(open));
                }
                part.map(|part| part.number)
            };
            // Others go on while the files are read or made.
            let readable = known.map(|number| self.read_map(&PartId { blob: *blob, number }));
            let (id, bits) = match (known, readable.transpose()?.flatten()) {
                (Some(number), Some(bits)) => (PartId { blob: *blob, number }, bits),
                _ => self.create_partial(blob)?,
            };
            if let Some(inner) = self.begin(id, bits, known)? {
                return Ok(PartialBlob::new(inner));
            }
        }
    }

    /// Registers a part whose files were read or made, unless another thread has registered it
    /// first. `known` is the part that was here.
    fn begin(
        self: &Arc<Self>,
        id: PartId,
        bits: partial::Bits,
        known: Option<u64>,
    ) -> Result<Option<Arc<Partial>>, BlobError> {
        let touched = self.clock.unix_millis();
        let is_new = known != Some(id.number);
        let mut state = self.state.lock();
        let part = state.partial.get(&id.blob);
        let is_as_it_was = part.map(|part| part.number) == known
            && part.is_none_or(|part| part.open.strong_count() == 0)
            && !state.has(&id.blob);
        if !is_as_it_was {
            drop(state);
            let superfluous = is_new.then(|| (id, Weak::new()));
            self.remove_parts(superfluous.into_iter().collect(), None)?;
            return Ok(None);
        }
        let present = bits.present_bytes(id.blob.size);
        let inner = Arc::new(Partial::new(self, id, bits, false));
        let part = Part { number: id.number, present, touched, open: Arc::downgrade(&inner) };
        let before = state.partial.insert(id.blob, part);
        let bytes_before = before.as_ref().map_or(0, |before| before.present);
        state.fetched_bytes = state.fetched_bytes + present - bytes_before;
        drop(state);
        // Its map was damaged.
        let unreadable = before.filter(|_| is_new);
        let unreadable =
            unreadable.map(|before| (PartId { blob: id.blob, number: before.number }, Weak::new()));
        self.remove_parts(unreadable.into_iter().collect(), None)?;
        Ok(Some(inner))
    }

    fn read_map(&self, id: &PartId) -> Result<Option<partial::Bits>, BlobError> {
        let map = self.directory.map(id);
        match platform::files::open(&map) {
            Ok(file) => partial::read_map(file, &id.blob).map_err(|error| BlobError::file(&map, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::file(&map, error)),
        }
    }

    /// Returns whether a map on the disk has the groups; reads only their part of it.
    fn map_has(&self, id: &PartId, groups: &Range<u64>) -> Result<bool, BlobError> {
        let map = self.directory.map(id);
        let has = PlacedFile::open(&map).and_then(|file| partial::map_has(&file, &id.blob, groups));
        match has {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::file(&map, error)),
            has => Ok(has.unwrap_or(false)),
        }
    }

    /// Refuses bytes from peers that exceed the quota.
    fn check_space(&self, bytes: u64) -> Result<(), BlobError> {
        let fetched = self.state.lock().fetched_bytes;
        if fetched.saturating_add(bytes) > self.max_fetched {
            return Err(BlobError::Full { limit: self.max_fetched });
        }
        Ok(())
    }

    fn note_present(&self, id: &PartId, present: u64) {
        let mut state = self.state.lock();
        let part = state.partial.get_mut(&id.blob).filter(|part| part.number == id.number);
        let Some(part) = part else { return };
        let before = std::mem::replace(&mut part.present, present);
        state.fetched_bytes = state.fetched_bytes + present - before;
    }

    /// Returns whether the files of a part are those that are used.
    fn is_current(&self, id: &PartId) -> bool {
        self.state.lock().partial.get(&id.blob).is_some_and(|part| part.number == id.number)
    }

    /// Registers a blob from peers whose files are in the directory of complete blobs.
    fn note_complete(&self, id: &PartId) -> Result<(), BlobError> {
        let (blob, touched) = (&id.blob, self.clock.unix_millis());
        let mut state = self.state.lock();
        // Some were fetched with a size that is a lie.
        let mut others = state.take_parts(&blob.hash);
        others.retain(|(other, _)| other != id);
        if state.whole.contains_key(&blob.hash) {
            // This program has added it meanwhile.
            return self.directory.remove_whole(&blob.hash, Source::Fetched);
        }
        state.fetched_bytes += blob.size;
        state.whole.insert(blob.hash, Whole { size: blob.size, source: Source::Fetched, touched });
        state.generation += 1;
        drop(state);
        self.remove_parts(others, Some(blob))
    }

    /// Returns the place of a blob's files, if the whole range is here. The call does not keep a
    /// part that no fetch uses from being deleted when it is old.
    fn place(&self, blob: &Blob, bytes: &Range<u64>) -> Result<Option<Paths>, BlobError> {
        let (id, open) = {
            let state = self.state.lock();
            if let Some(whole) = state.whole.get(&blob.hash).filter(|whole| whole.size == blob.size) {
                return Ok(Some(self.directory.whole(&blob.hash, whole.source)));
            }
            let Some(part) = state.partial.get(blob) else { return Ok(None) };
            (PartId { blob: *blob, number: part.number }, part.open.upgrade())
        };
        let groups = groups_around(bytes);
        let has = match open {
            Some(open) => PartialBlob::new(open).first_missing(groups, 1).is_none(),
            None => self.map_has(&id, &groups)?,
        };
        Ok(has.then(|| self.directory.partial(&id)))
    }

    /// Calls `act` with the open files of a blob.
    fn with_files<T>(
        self: &Arc<Self>,
        blob: &Blob,
        bytes: &Range<u64>,
        act: impl FnOnce(&PlacedFile, &PlacedFile) -> Result<T, ReadFailure>,
    ) -> Result<T, BlobError> {
        // The blob may move to another directory meanwhile: when it becomes complete, and when it
        // is added.
        for _ in 0..3 {
            let Some(paths) = self.place(blob, bytes)? else { break };
            let Some(files) = self.directory.open(&paths, blob.size, false)? else { continue };
            return act(&files.data, &files.tree).map_err(|failure| match failure {
                ReadFailure::Damaged(offset) => BlobError::Damaged { hash: blob.hash, offset },
                ReadFailure::Io(error) => BlobError::file(&paths.data, error),
            });
        }
        Err(BlobError::Missing { blob: *blob })
    }

    fn read(
        self: &Arc<Self>,
        blob: &Blob,
        bytes: Range<u64>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), BlobError> {
        if bytes.start > blob.size {
            return Err(BlobError::OutOfRange { start: bytes.start, size: blob.size });
        }
        let bytes = bytes.start..bytes.end.min(blob.size);
        if bytes.is_empty() && blob.size > 0 {
            return Ok(());
        }
        // An empty blob is one group, which is empty.
        let groups = if blob.size == 0 { 0..1 } else { groups_around(&bytes) };
        self.with_files(blob, &bytes, |data, tree| {
            tree::read_verified(blob, data, tree, &groups, |offset, group| {
                let within = |at: u64| {
                    usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX).min(group.len())
                };
                take(group.get(within(bytes.start)..within(bytes.end)).unwrap_or_default())
            })
        })
    }

    fn slice(self: &Arc<Self>, blob: &Blob, groups: &Range<u64>) -> Result<Vec<u8>, BlobError> {
        let all = groups_of(blob.size);
        if groups.is_empty() || groups.end > all || groups.end - groups.start > MAX_SLICE_GROUPS {
            let start = groups.start.saturating_mul(BLOB_GROUP_BYTES);
            return Err(BlobError::OutOfRange { start, size: blob.size });
        }
        let bytes = tree::bytes_of(groups, blob.size);
        self.with_files(blob, &bytes, |data, tree| tree::encode(blob, data, tree, groups))
    }
}

/// Copies a value group by group, and writes its tree.
fn copy(
    reader: &mut impl Read,
    data: &mut impl Write,
    tree: &mut impl Write,
    path: &Path,
) -> Result<Blob, BlobError> {
    let failed = |error| BlobError::file(path, error);
    let mut builder = TreeBuilder::new(BufWriter::new(tree));
    let (mut group, mut next) = (read_group(reader)?, read_group(reader)?);
    let is_only = next.is_empty();
    let mut size = 0;
    loop {
        size += u64::try_from(group.len()).unwrap_or(u64::MAX);
        if size > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { size, limit: MAX_BLOB_BYTES });
        }
        data.write_all(&group).map_err(failed)?;
        builder.push(&group, is_only).map_err(failed)?;
        if next.is_empty() {
            break;
        }
        group = std::mem::replace(&mut next, read_group(reader)?);
    }
    builder.finish().map(|(blob, _)| blob).map_err(failed)
}

/// Reads a whole group, or the rest.
fn read_group(reader: &mut impl Read) -> Result<Vec<u8>, BlobError> {
    let mut group = Vec::with_capacity(usize::try_from(BLOB_GROUP_BYTES).unwrap_or_default());
    let read = reader.take(BLOB_GROUP_BYTES).read_to_end(&mut group);
    read.map_err(|error| BlobError::Input(Arc::new(error)))?;
    Ok(group)
}
