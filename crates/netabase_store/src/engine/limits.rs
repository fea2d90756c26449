//! Bounds of the engines.

use std::time::Duration;

/// How long to wait between two attempts to open a database that is locked.
pub(crate) const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How much room there must be before a database that was full is written again.
pub(crate) const MIN_FREE_BYTES: usize = 1024 * 1024;

/// The most bytes of changes that are held: opening a database changes its header and little else.
pub(crate) const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
