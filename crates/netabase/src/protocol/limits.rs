//! The limits of messages.

use netabase_store::RecordKey;
use netabase_store::schema::IndexKeys;

use crate::rpc::limits::{MAX_SHARED_QUESTIONS, SMALL_RESPONSE_BYTES};

/// The most bytes of a live message.
pub(crate) const MAX_MESSAGE_BYTES: usize = 32 * 1024;
/// The most records of a live message.
pub(crate) const MAX_RECORDS_PER_MESSAGE: usize = 256;

/// The most records of a query's page.
pub(crate) const MAX_PAGE_RECORDS: usize = 1024;
/// The most bytes of an index entry: a secondary and a primary key, and one byte to step behind it.
pub(crate) const MAX_ENTRY_BYTES: usize = IndexKeys::MAX_KEY_BYTES + RecordKey::MAX_PRIMARY_KEY_BYTES + 1;

/// The most records of one put.
pub(crate) const MAX_RECORDS_PER_REQUEST: usize = 256;
/// The most keys of one get or one question for versions.
pub(crate) const MAX_KEYS_PER_REQUEST: usize = 1024;

/// The most fields of a hello.
pub(crate) const MAX_HELLO_FIELDS: usize = 32;
/// The most bytes of a hello. The longest one that this version sends has less than half of them.
pub(crate) const MAX_HELLO_BYTES: usize = 1024;
/// The most runs of a peer, and the most witnesses of them, in a hello.
pub(crate) const MAX_RUNS: usize = 2;

/// The most ranges of one fetch.
pub(crate) const MAX_NEEDS: usize = 4096;
/// The most ids of one range of a fetch. If more are missing, the fetch asks for the whole range.
pub(crate) const MAX_NEED_IDS: usize = 256;
/// The most records of one fetched page or one gift, and the most versions of one question for
/// later ones.
pub(crate) const MAX_SYNC_RECORDS: usize = 8192;

// The response to a put of the most records has at most three bytes for each.
const _: () = assert!(MAX_RECORDS_PER_REQUEST * 3 <= SMALL_RESPONSE_BYTES);
// Single-key questions that share a request fit into it.
const _: () = assert!(MAX_SHARED_QUESTIONS <= MAX_KEYS_PER_REQUEST);
