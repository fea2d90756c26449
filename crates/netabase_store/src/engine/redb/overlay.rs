//! A database file that is read and never written.
//!
//! redb writes to a file that it opens, at the latest to note that it is open, and repairs one that
//! was not closed. Here its writes go to a temporary file, which is deleted with the database.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Bound, Range};
use std::path::Path;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::platform::files::{self, File};

/// The size of a block, which is copied when a part of it is written.
const BLOCK: u64 = 4096;

/// A file, and the blocks that were written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    /// Whether the file is locked. A caller that has the lock already opens it without.
    locks: bool,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// The blocks that were written, in their places.
    scratch: File,
    blocks: HashSet<u64>,
    len: u64,
    /// The length of the file that counts: bytes that were cut off do not come back.
    file_len: u64,
}

impl Overlay {
    pub(super) fn open(path: &Path, locks: bool) -> io::Result<Self> {
        let file = FileBackend::new(files::open(path)?).map_err(io::Error::other)?;
        let len = file.len()?;
        let scratch = files::temporary_file()?;
        let written = Mutex::new(Written { scratch, blocks: HashSet::new(), len, file_len: len });
        Ok(Self { file, locks, written })
    }

    /// Reads a range inside of one block.
    fn read_part(&self, written: &mut Written, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if written.blocks.contains(&(offset / BLOCK)) {
            written.scratch.seek(SeekFrom::Start(offset))?;
            return written.scratch.read_exact(out);
        }
        let there = written.file_len.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        let (there, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { self.file.read(offset, there) }
    }
}

/// Returns the parts of a range that are in one block each, as offsets into it.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = offset + u64::try_from(at).ok()?;
        let rest = usize::try_from(BLOCK - start % BLOCK).ok()?;
        let part = at..len.min(at + rest);
        at = part.end;
        (!part.is_empty()).then_some(part)
    })
}

fn offset_of(offset: u64, part: &Range<usize>) -> u64 {
    offset.saturating_add(u64::try_from(part.start).unwrap_or(u64::MAX))
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        let end = offset.saturating_add(u64::try_from(out.len()).unwrap_or(u64::MAX));
        if end > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for part in parts(offset, out.len()) {
            let at = offset_of(offset, &part);
            self.read_part(&mut written, at, out.get_mut(part).unwrap_or_default())?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.lock();
        written.scratch.set_len(len)?;
        written.len = len;
        written.file_len = written.file_len.min(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        for part in parts(offset, data.len()) {
            let at = offset_of(offset, &part);
            let block = at / BLOCK;
            if !written.blocks.contains(&block) {
                let start = block * BLOCK;
                let whole = usize::try_from(BLOCK.min(written.len.saturating_sub(start))).unwrap_or_default();
                let mut before = vec![0; whole];
                self.read_part(&mut written, start, &mut before)?;
                written.scratch.seek(SeekFrom::Start(start))?;
                written.scratch.write_all(&before)?;
                written.blocks.insert(block);
            }
            written.scratch.seek(SeekFrom::Start(at))?;
            written.scratch.write_all(data.get(part).unwrap_or_default())?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    /// Nothing is written: others may read the file, too, and a file that is opened to be read
    /// takes no other lock.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if self.locks { self.file.try_lock_shared_range(start, end) } else { Ok(true) }
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.locks { self.file.lock_shared_range(start, end) } else { Ok(()) }
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.locks { self.file.unlock_range(start, end) } else { Ok(()) }
    }
}
