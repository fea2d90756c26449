//! The limits of the interface that are not configurable, and how the places of connections are
//! shared.

use std::time::Duration;

use netabase::limits::MAX_VALUE_BYTES;

/// The most headers of a request.
pub(crate) const MAX_HEADERS: usize = 64;
/// The smallest limit of a request's head that the parser takes, in bytes.
pub(crate) const MIN_HEAD_BYTES: usize = 8 * 1024;
/// The share of all connections, one in this many, that stays with those that have not shown the
/// token.
pub(crate) const STRANGER_SHARE: usize = 4;
/// The share of all connections, one in this many, that those without the token may have from one
/// address.
pub(crate) const ADDRESS_SHARE: usize = 4;
/// The most connections that were replaced and are not closed yet. Beyond it, the server closes
/// them before it accepts another.
pub(crate) const MAX_CLOSING: usize = 64;
/// The time for which a failure to accept a connection is reported.
pub(crate) const RECENT: Duration = Duration::from_secs(10 * 60);
/// The most client addresses whose rates are kept. Beyond it, the clients with full buckets are
/// forgotten, or else the one with the fullest bucket.
pub(crate) const MAX_CLIENTS: usize = 4096;

/// The time that a client may take in all to read answers, beyond that for their bytes at
/// [`MIN_READ_RATE`].
pub(crate) const READ_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// The slowest rate at which a client may read answers, in bytes a second.
pub(crate) const MIN_READ_RATE: u64 = 16 * 1024;
/// The size of the pieces in which an answer is passed to its connection, in bytes.
pub(crate) const ANSWER_PIECE_BYTES: usize = 64 * 1024;
/// The memory for answers of more than one piece that clients have not read yet, in KiB. A further
/// one is refused.
pub(crate) const ANSWERS_KIB: u32 = 64 * 1024;

/// The most imports at the same time, each of which occupies a thread.
pub(crate) const MAX_IMPORTS: usize = 4;
/// The most exports at the same time.
pub(crate) const MAX_EXPORTS: usize = 4;
/// The most checks and backups at the same time.
pub(crate) const MAX_CHECKS: usize = 1;
/// The most pages of records that are read at the same time. Further requests wait.
pub(crate) const MAX_PAGES: usize = 16;

/// The time for which an answer waits for the event loop, if it can do without.
pub(crate) const LATE_AFTER: Duration = Duration::from_secs(1);

// A record of the largest size can be answered, even if its JSON is several times as large.
const _: () = assert!(ANSWERS_KIB as usize * 1024 >= 4 * MAX_VALUE_BYTES);
