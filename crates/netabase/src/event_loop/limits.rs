//! The limits of the event loop.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::kad;

use crate::query::limits::MAX_LISTED_PROVIDERS;
use crate::rpc::limits::REQUEST_TIMEOUT;

/// The time between two attempts of a node without connections to find peers by every means.
pub(crate) const REJOIN_INTERVAL: Duration = Duration::from_secs(5);
/// The time between two measurements of the loop's lateness, which detect a suspension, too.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The most parts of an address whose form libp2p counts.
pub(crate) const MAX_ADDRESS_PARTS: usize = 4;

/// The most connections to one peer. Two peers that dial each other simultaneously need two, or
/// four if each learns of the other's addresses one by one. As many more may be broken and not have
/// timed out when the peer comes back from another address. With a limit of one, simultaneous dials
/// close each other.
pub(crate) const MAX_CONNECTIONS_PER_PEER: u32 = 8;
/// The most dials in flight.
pub(crate) const MAX_PENDING_DIALS: u32 = 64;
/// The most peers of a bucket of the routing table. With [`kad::K_VALUE`] two neighbours would know
/// different peers just beyond their own part of the keyspace, and would disagree on the holders of
/// a record.
pub(crate) const BUCKET_SIZE: NonZeroUsize = kad::K_VALUE.saturating_mul(NonZeroUsize::MIN.saturating_add(1));
/// The bytes of a Kademlia message beyond key and value: the key in the record, and peers.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;

/// The most times that a put is signed again after a newer version of a holder.
pub(crate) const MAX_SIGNED_AGAIN: u32 = 3;
/// The most callers that share a get. The next caller starts another get.
pub(crate) const MAX_GET_CALLERS: usize = 1024;
/// The time during which a caller can join a get. A get misses versions that are written to peers
/// after they have answered.
pub(crate) const JOIN_TIME: Duration = Duration::from_secs(1);
/// The time that a get waits for further copies after the first one.
pub(crate) const SETTLING_TIME: Duration = Duration::from_millis(300);

/// The number of consecutive failed dials after which a peer leaves the routing table.
pub(crate) const MAX_FAILED_DIALS: u32 = 3;

/// The most peers of one prefix in a bucket of the routing table: a quarter of a bucket, so that an
/// owner of many addresses cannot fill it, while the nodes of one data centre still find each
/// other.
pub(crate) const MAX_PEERS_PER_PREFIX: usize = 10;

/// The most providers from one peer's answer that are dialled: the number of providers that an
/// honest peer keeps of a key.
pub(crate) const MAX_PROVIDER_DIALS: usize = MAX_LISTED_PROVIDERS;

/// The time between two checks of a query, and the time without an answer after which a query may
/// be waiting for silent peers alone.
pub(crate) const QUERY_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The factor of the slowest peer's usual answer time after which a query counts as stalled.
pub(crate) const SLOWEST_FACTOR: u32 = 4;
/// The time after which a query goes on without a peer that is being dialled: four round trips
/// around the world.
pub(crate) const DIAL_PATIENCE: Duration = Duration::from_secs(1);
/// The longest time without an answer before a query counts as stalled.
pub(crate) const MAX_STALL: Duration = Duration::from_secs(2);
/// The most peers that are probed at once because a query has stalled.
pub(crate) const MAX_PROBES: usize = 20;
/// The time after a message of a peer during which the peer is not probed.
pub(crate) const PROBE_QUIET_TIME: Duration = Duration::from_secs(1);

/// The time during which calls reuse the result of a lookup that found the whole network. A put
/// during that time misses a peer that has joined since and is not connected.
pub(crate) const WHOLE_NETWORK_LIFETIME: Duration = Duration::from_secs(1);
/// The time after that during which a put does not wait for the next lookup, while all peers that
/// were found are connected.
pub(crate) const STALE_NETWORK_LIFETIME: Duration = Duration::from_secs(30);
/// The most connected peers beyond the holders of a record that a get asks if no holder has it.
pub(crate) const MAX_ASKED_BEYOND: usize = 8;

/// The idle timeout of QUIC in milliseconds. As over TCP, pings detect a dead connection earlier.
/// QUIC's default of 10 s would close the connection, with its requests, during a pause.
pub(crate) const QUIC_IDLE_MILLIS: u32 = 60_000;

/// The shortest suspension that is detected. The event loop is never busy for that long, and no
/// peer gives this node up during a shorter one.
pub(crate) const MIN_SLEEP: Duration = Duration::from_secs(5);

const _: () = assert!(MAX_PEERS_PER_PREFIX * 4 == BUCKET_SIZE.get());
// A query that waits for silent peers ends before a request to one of them times out.
const _: () = assert!(MAX_STALL.as_millis() < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(QUERY_LOOK_INTERVAL.as_millis() < MAX_STALL.as_millis());
// A suspension is longer than any lateness of the loop, and a shorter one costs no connection.
const _: () = assert!(SAMPLE_INTERVAL.as_millis() < MIN_SLEEP.as_millis());
const _: () = assert!(MIN_SLEEP.as_millis() < QUIC_IDLE_MILLIS as u128);
