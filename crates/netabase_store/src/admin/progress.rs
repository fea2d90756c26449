//! Reports the progress of long operations.

use std::ops::ControlFlow;

use crate::error::{AdminError, StoreError};

#[cfg(feature = "import-export")]
mod callback;

#[cfg(feature = "import-export")]
pub use callback::ProgressCallback;

/// The progress of a long operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of processed entries of the database.
    pub done: u64,
    /// The number of all entries, as far as it is known.
    pub total: u64,
}

/// The callback that is called with the progress.
pub(crate) type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Counts processed entries, and reports them at intervals.
pub(crate) struct Pace<'a> {
    progress: Progress,
    tell: &'a mut OnProgress<'a>,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(total: u64, tell: &'a mut OnProgress<'a>) -> Self {
        Self { progress: Progress { done: 0, total }, tell }
    }

    /// Counts an entry; fails with [`AdminError::Stopped`](crate::admin::AdminError::Stopped) if
    /// that was asked for.
    pub(crate) fn step(&mut self) -> Result<(), StoreError> {
        // The callback is called once in so many entries.
        const STEP: u64 = 1024;
        self.progress.done += 1;
        self.progress.total = self.progress.total.max(self.progress.done);
        if self.progress.done.is_multiple_of(STEP) { self.tell() } else { Ok(()) }
    }

    /// Reports that the operation is complete.
    pub(crate) fn finish(&mut self) -> Result<(), StoreError> {
        self.progress.total = self.progress.done;
        self.tell()
    }

    fn tell(&mut self) -> Result<(), StoreError> {
        match (self.tell)(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(StoreError::Admin(AdminError::Stopped)),
        }
    }
}
