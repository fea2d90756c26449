//! The limits of the distributed hash table.

use std::time::Duration;

use crate::event_loop::limits::{MAX_CONNECTIONS_PER_PEER, MAX_PENDING_DIALS};
use crate::rpc::backoff::Backoff;

/// The most addresses of one peer that are kept, and that one dial tries.
pub(crate) const MAX_ADDRESSES_PER_PEER: usize = 16;
/// The most bytes of one peer's addresses, which are returned to every peer that asks for them.
pub(crate) const MAX_ADDRESS_BYTES_PER_PEER: usize = 1024;

/// The most addresses of a peer at other hosts than those that it has connected from.
pub(crate) const MAX_CLAIMED_ADDRESSES: usize = 4;
/// The most dials at a time to peers that were never reached: to those that have left, and to
/// connected ones that claim other hosts.
pub(crate) const MAX_CLAIM_DIALS: usize = 16;
/// The rate of dials to peers of which other peers have told, and the most at once: a lookup in a
/// large network takes some tens, and a dial by QUIC sends some kilobytes.
pub(crate) const CLAIMED_DIALS_PER_SECOND: f64 = 8.0;
pub(crate) const CLAIMED_DIAL_BURST: f64 = 128.0;

/// The back-off of a peer after a failed dial.
pub(crate) const DIAL_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(30), max: Duration::from_secs(30 * 60) };
/// The most random addition to the back-off, in percent, so that nodes that lost a peer together do
/// not all return to it together.
pub(crate) const DIAL_JITTER_PERCENT: u32 = 25;
/// The most peers whose failed dials are remembered.
pub(crate) const MAX_FAILED_PEERS: usize = 4096;

/// The most concurrent dials of a node's own accord. The remaining pending connections are left to
/// queries.
pub(crate) const MAX_DIALS: usize = 56;
/// The most concurrent dials to one peer. The second runs while the first waits for an address that
/// does not answer, or started before the network was up.
pub(crate) const MAX_DIALS_OF_PEER: usize = 2;
/// The most concurrent dials to one peer with new addresses.
pub(crate) const MAX_DIALS_WITH_NEWS: usize = 4;
/// The most peers that wait to be dialled.
pub(crate) const MAX_WAITING_DIALS: usize = 1024;
/// The most peers that are remembered as missing a connection, to be dialled again. The latest ones
/// are kept.
pub(crate) const MAX_MISSED_DIALS: usize = 256;

/// The divisor of the replication factor that gives the distance in rank by which a node may miss
/// being a holder and still keep its copy.
pub(crate) const HOLDER_MARGIN: usize = 4;

/// The most refusals that wait for the event loop, which takes them after every event of a
/// connection.
pub(crate) const MAX_WAITING_REFUSALS: usize = 1024;

/// The most peers that are saved. The last connected ones are kept.
pub(crate) const MAX_SAVED_PEERS: usize = 64;
/// The most bytes of the file of saved peers.
pub(crate) const MAX_PEERS_FILE_BYTES: u64 = 1024 * 1024;
/// The time between two renewals of the times in the file of saved peers.
pub(crate) const SAVE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The most peers of the local network that an isolated node dials at once.
pub(crate) const MAX_LOCAL_DIALS: usize = 32;
/// The most saved peers that an isolated node dials at once.
pub(crate) const MAX_KNOWN_DIALS: usize = 16;
/// The most bootstrap peers that an isolated node dials at once, however often that has failed.
pub(crate) const MAX_BOOTSTRAP_DIALS: usize = 16;
/// The most saved peers, the last connected ones, that an isolated node dials however often that
/// has failed.
pub(crate) const MAX_EAGER_DIALS: usize = 4;
/// The time for which an isolated node queries the local network at each attempt to rejoin.
pub(crate) const EAGER_TIME: Duration = Duration::from_secs(10 * 60);
/// The time between two later queries of the local network by an isolated node.
pub(crate) const PATIENT_INTERVAL: Duration = Duration::from_secs(60);
/// The timeout of the second ping, see [`ping`](crate::event_loop::event).
pub(crate) const SECOND_PING: Duration = Duration::from_secs(10);

// Some pending connections are left to queries.
const _: () = assert!(MAX_DIALS < MAX_PENDING_DIALS as usize);
const _: () = assert!(MAX_DIALS_OF_PEER < MAX_DIALS_WITH_NEWS);
// Every dial may become a connection.
const _: () = assert!(MAX_DIALS_WITH_NEWS <= MAX_CONNECTIONS_PER_PEER as usize);
// An isolated node dials all peers that it knows without dropping one.
const _: () = assert!(MAX_LOCAL_DIALS + MAX_KNOWN_DIALS + MAX_BOOTSTRAP_DIALS <= MAX_WAITING_DIALS);
const _: () = assert!(MAX_EAGER_DIALS <= MAX_KNOWN_DIALS && MAX_KNOWN_DIALS <= MAX_SAVED_PEERS);
// Saved addresses can be read: as text an address has less than 16 times the bytes.
const _: () = assert!((MAX_SAVED_PEERS * MAX_ADDRESS_BYTES_PER_PEER * 16) as u64 <= MAX_PEERS_FILE_BYTES);
