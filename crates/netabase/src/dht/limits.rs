//! The limits of the distributed hash table.

use std::time::Duration;

use crate::event_loop::limits::{MAX_CONNECTIONS_PER_PEER, MAX_PENDING_CONNECTIONS};
use crate::rpc::backoff::Backoff;

/// The most addresses of one peer that are kept, and that one dial tries.
pub(crate) const MAX_ADDRESSES_PER_PEER: usize = 16;
/// The most bytes of them: what one peer claims is told to every peer that asks for it.
pub(crate) const MAX_ADDRESS_BYTES_PER_PEER: usize = 1024;

/// How long a peer is left alone after a failed dial, and at most.
pub(crate) const DIAL_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(30), max: Duration::from_secs(30 * 60) };
/// By how much more the time may be, in percent, so that nodes that lost a peer together do not all
/// come back to it together.
pub(crate) const DIAL_JITTER_PERCENT: u32 = 25;
/// The most peers whose failed dials are remembered.
pub(crate) const MAX_FAILED_PEERS: usize = 4096;

/// The most dials of a node's own accord at a time; a few of the connections in the making are left
/// to queries.
pub(crate) const MAX_DIALS: usize = 56;
/// The most dials to one peer at a time. The second goes on while the first waits for an address
/// that does not answer, or was begun before the network was there.
pub(crate) const MAX_DIALS_OF_PEER: usize = 2;
/// The most dials to one peer at a time where there is news of it.
pub(crate) const MAX_DIALS_WITH_NEWS: usize = 4;
/// The most peers that wait to be dialled.
pub(crate) const MAX_WAITING_DIALS: usize = 1024;
/// The most peers that are missed; the ones that were missed last are kept.
pub(crate) const MAX_MISSED_DIALS: usize = 256;

/// The part of the replication factor by which a node may miss being a holder and still keep its
/// copy.
pub(crate) const HOLDER_MARGIN: usize = 4;

/// How many refusals wait for the event loop; it takes them after every event of a connection.
pub(crate) const MAX_WAITING_REFUSALS: usize = 1024;

/// The most peers that are saved, those that were connected last.
pub(crate) const MAX_SAVED_PEERS: usize = 64;
/// The largest file that is read.
pub(crate) const MAX_PEERS_FILE_BYTES: u64 = 1024 * 1024;
/// How often the times in the file are renewed.
pub(crate) const SAVE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The most peers of the local network that an isolated node dials at once.
pub(crate) const MAX_LOCAL_DIALS: usize = 32;
/// The most peers of earlier times that are dialled at once.
pub(crate) const MAX_KNOWN_DIALS: usize = 16;
/// The most bootstrap peers that an isolated node dials at once however often that has failed.
pub(crate) const MAX_BOOTSTRAP_DIALS: usize = 16;
/// So many of the peers of earlier times, the ones that were connected last, are dialled by a
/// isolated node however often that has failed.
pub(crate) const MAX_EAGER_DIALS: usize = 4;
/// How long an isolated node asks the local network at each attempt to rejoin.
pub(crate) const EAGER_TIME: Duration = Duration::from_secs(10 * 60);
/// How often it asks after that.
pub(crate) const PATIENT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a peer has for its second chance to answer a ping, see
/// [`ping`](crate::event_loop::event).
pub(crate) const SECOND_PING: Duration = Duration::from_secs(10);

// Some connections in the making are left to queries.
const _: () = assert!(MAX_DIALS < MAX_PENDING_CONNECTIONS as usize);
const _: () = assert!(MAX_DIALS_OF_PEER < MAX_DIALS_WITH_NEWS);
// Whatever is dialled may become a connection.
const _: () = assert!(MAX_DIALS_WITH_NEWS <= MAX_CONNECTIONS_PER_PEER as usize);
// A isolated node dials everybody that it knows without losing one of them.
const _: () = assert!(MAX_LOCAL_DIALS + MAX_KNOWN_DIALS + MAX_BOOTSTRAP_DIALS <= MAX_WAITING_DIALS);
const _: () = assert!(MAX_EAGER_DIALS <= MAX_KNOWN_DIALS && MAX_KNOWN_DIALS <= MAX_SAVED_PEERS);
// What is saved can be read: an address as text has at most eight times the bytes.
const _: () = assert!((MAX_SAVED_PEERS * MAX_ADDRESS_BYTES_PER_PEER * 8) as u64 <= MAX_PEERS_FILE_BYTES);
