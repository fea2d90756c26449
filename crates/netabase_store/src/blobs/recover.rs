//! What is in the directory when a store is opened, after a crash too.

use std::fs;
use std::path::Path;
use std::sync::Weak;
use std::time::UNIX_EPOCH;

use super::blob::{Blob, BlobHash};
use super::error::BlobError;
use super::files::{Source, TREE, names};
use super::partial::parse_map_name;
use super::tree::{BLOB_GROUP_BYTES, outboard_bytes};
use super::{Blobs, MAX_BLOB_BYTES, Part, Whole};
use crate::writer::millis;

impl Blobs {
    /// Finds out what is here, and deletes what is no blob.
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
                // The program has added what was fetched, and has ended before the second copy was removed.
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

    /// Returns when a file was written or its blob was added, in milliseconds since the Unix epoch; not later than now.
    fn touched_at(&self, path: &Path) -> Result<u64, BlobError> {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let modified = modified.map_err(|error| BlobError::file(path, error))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(millis(since).min(self.clock.unix_millis()))
    }

    /// Removes parts of what has come to be here as a whole.
    fn remove_superseded_parts(&self) -> Result<(), BlobError> {
        let parts = {
            let mut state = self.state.lock();
            let of_whole = state.partial.keys().map(|blob| blob.hash);
            let whole: Vec<BlobHash> = of_whole.filter(|hash| state.whole.contains_key(hash)).collect();
            whole.iter().flat_map(|hash| state.take_parts(hash)).collect()
        };
        self.remove_parts(parts, true)
    }

    fn remove_tree_without_data(&self, directory: &Path, name: &str) -> Result<(), BlobError> {
        let hash = name.strip_suffix(TREE).filter(|hash| hash.parse::<BlobHash>().is_ok());
        if hash.is_some_and(|hash| !directory.join(hash).exists()) {
            self.directory.remove(&directory.join(name))?;
        }
        Ok(())
    }

    fn recover_partial(&self) -> Result<(), BlobError> {
        let directory = self.directory.of_partial();
        let names = names(&directory)?;
        for name in &names {
            if let Some(blob) = parse_map_name(name) {
                self.recover_part(&blob)?;
            }
        }
        let state = self.state.lock();
        for name in &names {
            let of_part = name.rsplit_once('.').map(|(name, _)| format!("{name}.map"));
            let part = of_part.as_deref().and_then(parse_map_name);
            if part.is_none_or(|part| !state.partial.contains_key(&part)) {
                self.directory.remove(&directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Takes in a part, if it has all that it needs; one that was about to become whole becomes it.
    fn recover_part(&self, blob: &Blob) -> Result<(), BlobError> {
        if blob.size > MAX_BLOB_BYTES {
            return Ok(());
        }
        let paths = self.directory.partial(blob);
        let Some(bits) = self.read_map(blob)?.filter(|_| paths.data.exists()) else { return Ok(()) };
        let whole = self.directory.whole(&blob.hash, Source::Fetched);
        if bits.is_full() && length(&paths.data)? == blob.size && (paths.tree.exists() || whole.tree.exists())
        {
            return self.move_complete(blob);
        }
        if paths.tree.exists() {
            let (present, touched) = (bits.present_bytes(blob.size), self.touched_at(&paths.data)?);
            let mut state = self.state.lock();
            state.fetched_bytes += present;
            state.partial.insert(*blob, Part { present, touched, open: Weak::new() });
        }
        Ok(())
    }
}

/// Returns the length of a file; 0 if there is none.
fn length(path: &Path) -> Result<u64, BlobError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(BlobError::file(path, error)),
    }
}
