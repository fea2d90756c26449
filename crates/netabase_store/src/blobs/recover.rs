//! Reads the directory when a store is opened, also after a crash.

use std::path::Path;
use std::sync::Weak;
use std::time::UNIX_EPOCH;

use super::error::BlobError;
use super::files::{PartId, Source, TREE, names};
use super::tree::{BLOB_GROUP_BYTES, outboard_bytes};
use super::{Blobs, Part, Whole};
use crate::blobs::limits::MAX_BLOB_BYTES;
use crate::model::blob::BlobHash;
use crate::platform::files;
use crate::write::writer::millis;

impl Blobs {
    /// Reads the directory, and deletes files that are no blob.
    pub(super) fn recover(&self) -> Result<(), BlobError> {
        if self.directory.existing().is_none() {
            return Ok(());
        }
        let temporary = self.directory.temporary()?;
        for name in names(&temporary)? {
            self.directory.remove(&temporary.join(name))?;
        }
        self.recover_partial()?;
        for source in [Source::Added, Source::Fetched] {
            self.recover_whole(source)?;
        }
        self.remove_superseded_parts()
    }

    fn recover_whole(&self, source: Source) -> Result<(), BlobError> {
        let directory = self.directory.of_source(source);
        for name in names(&directory)? {
            let Ok(hash) = name.parse::<BlobHash>() else {
                self.remove_tree_without_data(&directory, &name)?;
                continue;
            };
            if self.state.lock().whole.contains_key(&hash) {
                // The program has added a fetched blob, and has ended before the second copy was
                // removed.
                self.directory.remove_whole(&hash, source)?;
                continue;
            }
            let paths = self.directory.whole(&hash, source);
            let size = length(&paths.data)?;
            if size > BLOB_GROUP_BYTES && length(&paths.tree)? != outboard_bytes(size) {
                // The tree comes before the data and goes after it, so this was no crash.
                tracing::warn!(blob = %hash, "a blob has lost its tree of hashes and is left out");
                continue;
            }
            let touched = self.touched_at(&paths.data)?;
            let mut state = self.state.lock();
            if source == Source::Fetched {
                state.fetched_bytes += size;
            }
            state.whole.insert(hash, Whole { size, source, touched });
        }
        Ok(())
    }

    /// Returns when a file was written or its blob was added, in milliseconds since the Unix epoch;
    /// not later than now.
    fn touched_at(&self, path: &Path) -> Result<u64, BlobError> {
        let modified = files::metadata(path).and_then(|metadata| metadata.modified());
        let modified = modified.map_err(|error| BlobError::file(path, error))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(millis(since).min(self.clock.unix_millis()))
    }

    /// Removes parts of blobs that are complete by now.
    fn remove_superseded_parts(&self) -> Result<(), BlobError> {
        let parts = {
            let mut state = self.state.lock();
            let of_whole = state.partial.keys().map(|blob| blob.hash);
            let whole: Vec<BlobHash> = of_whole.filter(|hash| state.whole.contains_key(hash)).collect();
            whole.iter().flat_map(|hash| state.take_parts(hash)).collect()
        };
        self.remove_parts(parts, None)
    }

    fn remove_tree_without_data(&self, directory: &Path, name: &str) -> Result<(), BlobError> {
        let hash = name.strip_suffix(TREE).filter(|hash| hash.parse::<BlobHash>().is_ok());
        if hash.is_some_and(|hash| !files::exists(&directory.join(hash))) {
            self.directory.remove(&directory.join(name))?;
        }
        Ok(())
    }

    fn recover_partial(&self) -> Result<(), BlobError> {
        let directory = self.directory.of_partial();
        let names = names(&directory)?;
        let mut parts: Vec<PartId> = names.iter().filter_map(|name| PartId::parse(name)).collect();
        // Of two, the first was removed and the second begun since.
        parts.sort_unstable_by_key(|id| id.number);
        for id in &parts {
            self.recover_part(id)?;
        }
        let mut state = self.state.lock();
        state.next_part = parts.last().map_or(0, |last| last.number.saturating_add(1));
        for name in &names {
            let of_part = name.rsplit_once('.').map(|(name, _)| format!("{name}.map"));
            let id = of_part.as_deref().and_then(PartId::parse);
            let is_part =
                |id: PartId| state.partial.get(&id.blob).is_some_and(|part| part.number == id.number);
            if !id.is_some_and(is_part) {
                self.directory.remove(&directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Registers a part if its files are complete, and completes a part that a crash has
    /// interrupted while it became a complete blob.
    fn recover_part(&self, id: &PartId) -> Result<(), BlobError> {
        let blob = &id.blob;
        if blob.size > MAX_BLOB_BYTES {
            return Ok(());
        }
        let paths = self.directory.partial(id);
        let Some(bits) = self.read_map(id)?.filter(|_| files::exists(&paths.data)) else { return Ok(()) };
        let whole = self.directory.whole(&blob.hash, Source::Fetched);
        if bits.is_full()
            && length(&paths.data)? == blob.size
            && (files::exists(&paths.tree) || files::exists(&whole.tree))
        {
            return self.move_complete(id);
        }
        if files::exists(&paths.tree) {
            let (present, touched) = (bits.present_bytes(blob.size), self.touched_at(&paths.data)?);
            let mut state = self.state.lock();
            state.fetched_bytes += present;
            let part = Part { number: id.number, present, touched, open: Weak::new() };
            let before = state.partial.insert(*blob, part);
            state.fetched_bytes -= before.map_or(0, |before| before.present);
        }
        Ok(())
    }
}

/// Returns the length of a file, or 0 if it does not exist.
fn length(path: &Path) -> Result<u64, BlobError> {
    match files::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(BlobError::file(path, error)),
    }
}
