//! The limits of the event loop.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::kad;

use crate::query::limits::MAX_LISTED_PROVIDERS;
use crate::rpc::limits::REQUEST_TIMEOUT;

/// How often a node without connections looks for peers, by every means that it has.
pub(crate) const REJOIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is measured how late the loop is, and looked whether the node was suspended.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How many parts an address has at most whose form libp2p counts.
pub(crate) const MAX_ADDRESS_PARTS: usize = 4;

/// The most connections to one peer: two peers that dial each other at once need two, or four where
/// each hears of the other's addresses one by one, and as many may be broken and not have timed out
/// when the peer comes back from another address. With only one, simultaneous dials close each
/// other.
pub(crate) const MAX_CONNECTIONS_PER_PEER: u32 = 8;
/// The most connections in the making, in each direction.
pub(crate) const MAX_PENDING_CONNECTIONS: u32 = 64;
/// How many peers a bucket of the routing table has room for: with [`kad::K_VALUE`] of them two
/// neighbours would know different ones of the peers just beyond their own part of the keyspace,
/// and disagree on who holds what.
pub(crate) const BUCKET_SIZE: NonZeroUsize = kad::K_VALUE.saturating_mul(NonZeroUsize::MIN.saturating_add(1));
/// What a Kademlia message needs beyond key and value: the key once more in the record, peers.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;

/// The most callers that share a get; the next one begins another.
pub(crate) const MAX_GET_CALLERS: usize = 1024;
/// How long a get can be joined: what is written meanwhile at peers that have answered already is
/// missing from it.
pub(crate) const JOIN_TIME: Duration = Duration::from_secs(1);
/// How long a get waits for further copies after the first one.
pub(crate) const SETTLING_TIME: Duration = Duration::from_millis(300);

/// After how many failed dials in a row a peer leaves the routing table.
pub(crate) const MAX_FAILED_DIALS: u32 = 3;

/// The most peers of one prefix in a bucket of the routing table, a quarter of a bucket: one owner
/// of many addresses cannot take all of it, and the nodes of one data centre still find each other.
pub(crate) const MAX_PEERS_PER_PREFIX: usize = 10;

/// How many of the providers that one peer names are dialled: as many as an honest one has of a
/// key.
pub(crate) const MAX_PROVIDER_DIALS: usize = MAX_LISTED_PROVIDERS;

/// How often a query is looked at, and after how long without an answer it may be waiting for
/// silent peers alone.
pub(crate) const QUERY_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How many times as long as the slowest peer usually takes to answer a query may be without an
/// answer.
pub(crate) const SLOWEST_FACTOR: u32 = 4;
/// The longest of that.
pub(crate) const MAX_STALL: Duration = Duration::from_secs(2);
/// The most peers that are asked for a sign of life at a time because a query has stalled.
pub(crate) const MAX_PROBES: usize = 20;
/// Who was heard of so lately is not asked for a sign of life.
pub(crate) const PROBE_QUIET_TIME: Duration = Duration::from_secs(1);

/// How long calls reuse what a lookup has found, if that is the whole network. A peer that joins in
/// the meantime, and that this node is not connected to, is not sent what is put.
pub(crate) const WHOLE_NETWORK_LIFETIME: Duration = Duration::from_secs(1);

/// After how long without a packet QUIC gives a connection up. As over TCP, pings find out before
/// that; with QUIC's usual 10 s a pause would cost the connection and what is under way on it.
pub(crate) const QUIC_IDLE_MILLIS: u32 = 60_000;

/// The shortest suspension that is noticed. The event loop is never busy for that long, and a
/// shorter one ends before any peer has given the node up.
pub(crate) const MIN_SLEEP: Duration = Duration::from_secs(5);

const _: () = assert!(MAX_PEERS_PER_PREFIX * 4 == BUCKET_SIZE.get());
// A query that waits for silent peers ends before a request to one of them would.
const _: () = assert!(MAX_STALL.as_millis() < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(QUERY_LOOK_INTERVAL.as_millis() < MAX_STALL.as_millis());
// A suspension is longer than the loop is ever late, and a short one costs no connection.
const _: () = assert!(SAMPLE_INTERVAL.as_millis() < MIN_SLEEP.as_millis());
const _: () = assert!(MIN_SLEEP.as_millis() < QUIC_IDLE_MILLIS as u128);
