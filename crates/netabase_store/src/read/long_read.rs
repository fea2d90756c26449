//! Reads at the pace of a client, such as an export over a slow connection.
//!
//! While a snapshot lives, redb cannot use the space of versions that were replaced since. So a
//! long read gives its snapshot up when much was written meanwhile, and continues with a newer one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::engine::{Engine, Snapshot};
use crate::error::StoreError;
use crate::read::limits::MAX_PINNED_BYTES;

/// The long reads that are under way.
#[derive(Debug, Default)]
pub(crate) struct LongReads {
    reads: Mutex<Vec<Weak<Mutex<Pin>>>>,
    /// Whether there are any, so that the writer needs no lock where there are none.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Pin {
    /// Gone once too much was written.
    snapshot: Option<Snapshot>,
    /// The bytes that were written since it was taken.
    written: usize,
}

/// A read that shows one moment as long as little is written, and then a later one.
#[derive(Debug)]
pub(crate) struct LongRead {
    pin: Arc<Mutex<Pin>>,
}

impl LongReads {
    pub(crate) fn begin(&self) -> LongRead {
        let pin = Arc::default();
        let mut reads = self.reads.lock();
        reads.retain(|read| read.strong_count() > 0);
        reads.push(Arc::downgrade(&pin));
        self.any.store(true, Ordering::Release);
        LongRead { pin }
    }

    /// Says that so many bytes are about to be written.
    pub(crate) fn note_written(&self, bytes: usize) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut reads = self.reads.lock();
        reads.retain(|read| {
            let Some(read) = read.upgrade() else { return false };
            let mut pin = read.lock();
            pin.written = pin.written.saturating_add(bytes);
            if pin.written > MAX_PINNED_BYTES {
                pin.snapshot = None;
            }
            true
        });
        self.any.store(!reads.is_empty(), Ordering::Release);
    }
}

impl LongRead {
    /// Returns the moment that is read, and whether it is another one than before. To be dropped
    /// soon.
    pub(crate) fn snapshot(&self, engine: &Engine) -> Result<(Snapshot, bool), StoreError> {
        let mut pin = self.pin.lock();
        if let Some(snapshot) = &pin.snapshot {
            return Ok((snapshot.clone(), false));
        }
        let snapshot = engine.snapshot()?;
        *pin = Pin { snapshot: Some(snapshot.clone()), written: 0 };
        Ok((snapshot, true))
    }
}
