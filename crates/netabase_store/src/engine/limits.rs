//! Limits of the engines.

use std::time::Duration;

/// The pause between two attempts to open a locked database.
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The free disk space, in bytes, that a database needs before it is written again after the disk
/// was full.
pub(super) const MIN_FREE_BYTES: usize = 1024 * 1024;

/// The most bytes of changes that are held back while a database is opened. Opening changes the
/// header and little else.
pub(super) const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
