//! A storage that outlives the databases opened on it, and that can hold changes back.
//!
//! redb changes a file while it opens it, and after a write has failed it reads nothing more. Here
//! is what stands between the two: while changes are held, they are in memory, over a file that
//! stays as it is. So a file that is refused is left alone, and after a failure the database is
//! opened anew, for its readers, on a disk that takes nothing.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use redb::{BackendError, StorageBackend};

use crate::engine::limits::MAX_HELD_BYTES;

/// A storage that several databases are opened on, one after another. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct HeldStorage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: Box<dyn StorageBackend>,
    /// Whether changes go to `held`.
    is_holding: AtomicBool,
    held: RwLock<Held>,
    /// Whether the locks of the first database are kept for the next one.
    keeps_locks: AtomicBool,
    /// The first failure of the base to take a change.
    failure: RwLock<Option<Failure>>,
    closed: OnceLock<()>,
}

/// Changes that the base does not have.
#[derive(Debug, Default)]
struct Held {
    changes: Vec<Change>,
    bytes: usize,
    len: u64,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Sync,
}

/// The reason why a storage takes no more changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    code: Option<i32>,
    /// Whether the disk was full, so that the file has all synced changes and can be written again
    /// once there is space. A system that fails to sync may have dropped pages that it was to
    /// write.
    pub(super) is_full: bool,
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        self.code.map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}

impl HeldStorage {
    /// Begins to hold changes to `base`.
    pub(super) fn holding(base: impl StorageBackend) -> io::Result<Self> {
        let len = base.len()?;
        Ok(Self(Arc::new(Inner {
            base: Box::new(base),
            is_holding: AtomicBool::new(true),
            held: RwLock::new(Held { len, ..Held::default() }),
            keeps_locks: AtomicBool::new(false),
            failure: RwLock::default(),
            closed: OnceLock::new(),
        })))
    }

    /// Forgets held changes, and begins to hold new ones. No write may be in progress.
    pub(super) fn hold(&self) -> io::Result<()> {
        let mut held = self.0.held.write();
        *held = Held { len: self.0.base.len()?, ..Held::default() };
        self.0.is_holding.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes the changes that were held, in their order, and holds no more.
    ///
    /// After an error they are still held, and can be made again from the first one on.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut held = self.0.held.write();
        for change in &held.changes {
            self.0.make(change)?;
        }
        *held = Held::default();
        *self.0.failure.write() = None;
        self.0.is_holding.store(false, Ordering::Release);
        Ok(())
    }

    /// Returns whether changes are held.
    pub(super) fn is_holding(&self) -> bool {
        self.0.is_holding.load(Ordering::Acquire)
    }

    /// Returns why the base took no more changes, if it does not since the last
    /// [`HeldStorage::release`].
    pub(super) fn failure(&self) -> Option<Failure> {
        *self.0.failure.read()
    }

    /// Keeps the locks that were taken until [`HeldStorage::close`]; the databases opened from now
    /// on have them already.
    pub(super) fn keep_locks(&self) {
        self.0.keeps_locks.store(true, Ordering::Release);
    }

    /// Releases the base, once, even with readers.
    pub(super) fn close_base(&self) {
        self.0.close();
    }
}

impl Inner {
    fn close(&self) {
        if self.closed.set(()).is_ok()
            && let Err(error) = self.base.close()
        {
            tracing::warn!(%error, "the storage of a database was not closed in order");
        }
    }

    fn make(&self, change: &Change) -> io::Result<()> {
        let (made, is_sync) = match change {
            Change::Write { offset, bytes } => (self.base.write(*offset, bytes), false),
            Change::SetLen(len) => (self.base.set_len(*len), false),
            Change::Sync => (self.base.sync_data(), true),
        };
        made.inspect_err(|error| self.failed(error, is_sync))
    }

    fn failed(&self, error: &io::Error, is_sync: bool) {
        let (kind, code) = (error.kind(), error.raw_os_error());
        let is_full = matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let is_full = is_full && !is_sync;
        let mut failure = self.failure.write();
        match &mut *failure {
            // The worst of several counts.
            Some(first) if !is_full => first.is_full = false,
            Some(_) => {}
            None => *failure = Some(Failure { kind, code, is_full }),
        }
    }

    /// Makes a change, or holds it.
    fn change<'a>(&self, bytes: usize, change: impl FnOnce() -> Change + 'a) -> io::Result<()> {
        let change = change();
        if !self.is_holding.load(Ordering::Acquire) {
            return self.make(&change);
        }
        let mut held = self.held.write();
        if held.bytes.saturating_add(bytes) > MAX_HELD_BYTES {
            return Err(io::Error::other("too many changes are held back"));
        }
        match &change {
            Change::Write { offset, bytes } => {
                held.len = held.len.max(offset.saturating_add(len_of(bytes)));
            }
            Change::SetLen(len) => held.len = *len,
            Change::Sync => {}
        }
        held.bytes += bytes;
        held.changes.push(change);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Held {
    /// Reads bytes as if the held changes were in the base.
    fn read(&self, base: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(len_of(out));
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = base.len()?.clamp(offset, end) - offset;
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        let (from_base, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if !from_base.is_empty() {
            base.read(offset, from_base)?;
        }
        for change in &self.changes {
            match change {
                Change::Write { offset: at, bytes } => copy_overlap(*at, bytes, offset, out),
                Change::SetLen(len) => {
                    let kept = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
                    out.iter_mut().skip(kept).for_each(|byte| *byte = 0);
                }
                Change::Sync => {}
            }
        }
        Ok(())
    }
}

/// Copies what `bytes` at `from` have in common with `out` at `to`.
fn copy_overlap(from: u64, bytes: &[u8], to: u64, out: &mut [u8]) {
    let (ahead, behind) = (to.saturating_sub(from), from.saturating_sub(to));
    let skip = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let bytes = bytes.get(skip(ahead)..).unwrap_or_default();
    let out = out.get_mut(skip(behind)..).unwrap_or_default();
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = *byte;
    }
}

fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl StorageBackend for HeldStorage {
    fn len(&self) -> io::Result<u64> {
        if self.is_holding() {
            let held = self.0.held.read();
            if self.is_holding() {
                return Ok(held.len);
            }
        }
        self.0.base.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_holding() {
            let held = self.0.held.read();
            if self.is_holding() {
                return held.read(&*self.0.base, offset, out);
            }
        }
        self.0.base.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(0, || Change::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(0, || Change::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if !self.is_holding() {
            return self.0.base.write(offset, data).inspect_err(|error| self.0.failed(error, false));
        }
        self.0.change(data.len(), || Change::Write { offset, bytes: data.to_vec() })
    }

    /// The base stays open for the next database.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if self.keeps_locks() { Ok(true) } else { self.0.base.try_lock_range(start, end) }
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if self.keeps_locks() { Ok(true) } else { self.0.base.try_lock_shared_range(start, end) }
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.keeps_locks() { Ok(()) } else { self.0.base.lock_range(start, end) }
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.keeps_locks() { Ok(()) } else { self.0.base.lock_shared_range(start, end) }
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.keeps_locks() { Ok(()) } else { self.0.base.unlock_range(start, end) }
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        // No other program can have the lock that is held here.
        if self.keeps_locks() { Ok(false) } else { self.0.base.query_lock_range(start, end) }
    }
}

impl HeldStorage {
    fn keeps_locks(&self) -> bool {
        self.0.keeps_locks.load(Ordering::Acquire)
    }
}
