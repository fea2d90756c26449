//! The limits of messages.

use netabase_store::RecordKey;
use netabase_store::schema::IndexKeys;

use crate::replication::sync::limits::SYNC_FRAME_BYTES;
use crate::rpc::limits::{MAX_SHARED_QUESTIONS, SMALL_RESPONSE_BYTES};

/// The longest message.
pub(crate) const MAX_MESSAGE_BYTES: usize = 32 * 1024;
/// The most records of a message.
pub(crate) const MAX_RECORDS_PER_MESSAGE: usize = 256;

/// The most records of a page.
pub(crate) const MAX_PAGE_RECORDS: usize = 1024;
/// The longest entry: a secondary key and a primary one, and a byte more for the one behind it.
pub(crate) const MAX_ENTRY_BYTES: usize = IndexKeys::MAX_KEY_BYTES + RecordKey::MAX_PRIMARY_KEY_BYTES + 1;

/// The most records of one put.
pub(crate) const MAX_RECORDS_PER_REQUEST: usize = 256;
/// The most keys of one get or one question for versions.
pub(crate) const MAX_KEYS_PER_REQUEST: usize = 1024;

/// The most fields of a hello.
pub(crate) const MAX_HELLO_FIELDS: usize = 32;
/// The longest hello; the longest that this program sends has less than half of it.
pub(crate) const MAX_HELLO_BYTES: usize = 1024;
/// How many runs of a peer, and how many witnesses of them, a hello tells of.
pub(crate) const MAX_RUNS: usize = 2;

/// The most ranges of one fetch.
pub(crate) const MAX_NEEDS: usize = 4096;
/// The most ids of one range of a fetch; where more are missing, everything in the range is asked
/// for.
pub(crate) const MAX_NEED_IDS: usize = 256;
/// The most records of one answer, of one gift, and versions of one question for later ones.
pub(crate) const MAX_SYNC_RECORDS: usize = 8192;

// The answer to a put of as many records as may be has at most three bytes for each.
const _: () = assert!(MAX_RECORDS_PER_REQUEST * 3 <= SMALL_RESPONSE_BYTES);
// Questions about one key each share a request.
const _: () = assert!(MAX_SHARED_QUESTIONS <= MAX_KEYS_PER_REQUEST);
// A live message is shorter than what has to be fetched.
const _: () = assert!(MAX_MESSAGE_BYTES < SYNC_FRAME_BYTES);
