//! The limits of connections: handshakes, streams, the memory of Kademlia's messages, and the
//! processor's time.

use std::time::Duration;

/// The most incoming connections whose handshakes are running, of TCP and of QUIC each: a sender of
/// QUIC packets may choose its addresses. The oldest of the address with the most makes room.
pub(crate) const MAX_HANDSHAKES: usize = 256;
/// The most incoming connections that libp2p knows of and that are not established: those above,
/// and those that have ended without libp2p having heard of it.
pub(crate) const MAX_PENDING_INCOMING: u32 = 1024;
/// The time that a connection has for its handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The rate of streams that a peer may open on a connection, and the most at once. Then nothing of
/// the connection is read for [`STREAM_PAUSE`].
pub(crate) const STREAMS_PER_SECOND: f64 = 4000.0;
pub(crate) const STREAM_BURST: f64 = 8000.0;
/// The time for which a connection pauses whose peer opens too many streams.
pub(crate) const STREAM_PAUSE: Duration = Duration::from_millis(20);
/// The streams of all connections whose peers have not agreed on a protocol yet, each of which
/// holds up to 256 KiB that are not read. A connection may have half of what is free of them, and
/// [`LEAST_UNUSED_STREAMS`] in any case. Further ones end.
pub(crate) const MAX_UNUSED_STREAMS: usize = 128;
pub(crate) const LEAST_UNUSED_STREAMS: usize = 4;
/// The rate of streams that may end without a protocol, and the most at once. Then the connection
/// is closed, which counts as a grave offence of its peer.
pub(crate) const WASTED_STREAMS_PER_SECOND: f64 = 8.0;
pub(crate) const WASTED_STREAM_BURST: f64 = 128.0;
/// The most bytes that this node writes before a protocol is agreed on: some refusals, and a list
/// of its protocols. Then the stream ends.
pub(crate) const MAX_NEGOTIATION_BYTES: usize = 1024;

/// The bytes of Kademlia's messages that a stream holds without a share of the memory: those of a
/// usual lookup.
pub(crate) const SMALL_KAD_BYTES: usize = 8 * 1024;
/// The most bytes of larger messages of Kademlia in memory, read or not sent yet, and the least
/// number of peers that may each have the longest one and its answer there. Further ones end their
/// streams. Nodes of this program send records by a protocol of their own.
pub(crate) const MAX_KAD_BYTES: usize = 8 * 1024 * 1024;
pub(crate) const MIN_KAD_PEERS: usize = 3;
/// The time that a large record has from the store to its stream, which then pays for it. What is
/// read of the store meanwhile is counted together, as if one peer had it.
pub(crate) const PROMISE_TIME: Duration = Duration::from_millis(100);
/// The most messages of Kademlia on one stream, which then ends. libp2p sends one, and others open
/// a new stream: what waits in a stream is read even while its connection pauses, since it would
/// hold memory.
pub(crate) const MAX_KAD_MESSAGES: usize = 8;
/// The time that a peer has to send or read the next piece of a message. Then the stream ends.
pub(crate) const PIECE_TIMEOUT: Duration = Duration::from_secs(20);
/// The rate at which a peer may identify itself on a connection, and be told of this node, and the
/// most at once. Of further ones the last waits for its turn.
pub(crate) const IDENTIFY_PER_SECOND: f64 = 0.5;
pub(crate) const IDENTIFY_BURST: f64 = 8.0;

/// The part of the machine's cores that peers may take together: with what cannot be ascribed to a
/// peer, such as the beginning of handshakes, they take half. While they take more, nothing is
/// read of those that take more than their share, for [`SHORTEST_PAUSE`] to [`LONGEST_PAUSE`].
pub(crate) const PEER_CORES: f64 = 0.35;
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The time after which the task of a connection lets others have their turn.
pub(crate) const LONGEST_TURN: Duration = Duration::from_micros(100);
/// The most bytes of its socket that the task of a TCP connection reads in one turn.
pub(crate) const MAX_READ_BYTES: usize = 64 * 1024;
/// The time after which half of the time that a peer has taken is forgotten.
pub(crate) const TIME_HALF_LIFE: Duration = Duration::from_millis(200);
/// The shares of a peer whose time is all useful; of others it is one. A record that is accepted,
/// given out or received makes so much time useful.
pub(crate) const USEFUL_SHARES: f64 = 16.0;
pub(crate) const USEFUL_TIME: Duration = Duration::from_millis(1);
/// The bytes of an answer, in protocols that do not count records, that are as useful as a record.
pub(crate) const USEFUL_BYTES: usize = 512;
/// The time between two calculations of the share.
pub(crate) const JUDGE_INTERVAL: Duration = Duration::from_millis(5);
/// The most peers without a connection whose time is kept. The one with the least is dropped.
pub(crate) const MAX_ACCOUNTS: usize = 1024;

/// The time that a connection has to close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

const _: () = assert!(MAX_PENDING_INCOMING as usize >= 4 * MAX_HANDSHAKES);
const _: () = assert!(LEAST_UNUSED_STREAMS < MAX_UNUSED_STREAMS / 2);
const _: () = assert!(STREAM_BURST >= STREAMS_PER_SECOND && WASTED_STREAM_BURST >= WASTED_STREAMS_PER_SECOND);
