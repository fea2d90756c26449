//! Limits of the history of changes.

/// The size in bytes from which a row takes no more changes.
pub(crate) const ROW_BYTES: usize = 30 * 1024;

/// The most bytes by which the history is longer than configured while followers have not had time
/// to read it.
pub(crate) const UNREAD_BYTES: u64 = 64 * 1024 * 1024;

/// The most histories that a database knows: the newest ones. Positions of earlier ones are lost.
pub(crate) const MAX_HISTORIES: usize = 256;

/// The most changes of other records that one poll passes over before other tasks run.
pub(crate) const POLL_CHANGES: usize = 256;

// A row fits eight pages of redb with their headers, and sled keeps it in its log.
const _: () = assert!(ROW_BYTES + 1024 < 8 * 4096);
// Followers that are behind find many rows.
const _: () = assert!(UNREAD_BYTES >= 1024 * ROW_BYTES as u64);
