//! The limits of peers: connections, hellos, scores and silence.

use std::time::Duration;

use netabase_store::Clock;

use crate::mdns::limits::CLAIM_RENEWAL;
use crate::protocol::limits::MAX_RUNS;
use crate::replication::limits::{REPUBLISH_BATCH, REPUBLISH_PAUSE};
use crate::rpc::limits::REQUEST_TIMEOUT;

/// The share of all connections that is reserved for outgoing ones: one in this many.
pub(crate) const OUTGOING_SHARE: usize = 4;
/// The share of all connections that incoming ones of one prefix may have: one in this many.
pub(crate) const PREFIX_SHARE: usize = 4;
/// The time for which a peer in the routing table must be quiet before its connection may be closed
/// in favour of a newcomer.
pub(crate) const QUIET_TIME: Duration = Duration::from_secs(60);
/// The share of all connections, one in this many, that is open beyond the limit to newcomers until
/// others are closed. With fewer connections than that, newcomers are denied above the limit.
pub(crate) const NEWCOMER_SHARE: usize = 8;
/// The most incoming connections of a prefix that several banned peers came from.
pub(crate) const MAX_OF_LIMITED_PREFIX: usize = 4;
/// The most bytes of the name of a peer's program. The rest is cut off.
pub(crate) const MAX_AGENT_BYTES: usize = 128;

/// The time between two hellos to a connected peer.
pub(crate) const HELLO_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between two hellos to a peer, whatever happens.
pub(crate) const MIN_HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// The cost of a hello to its sender, in records of its quota.
pub(crate) const HELLO_COST: usize = 64;
/// The time that a banned peer has to learn of its ban when it connects, before it is disconnected.
pub(crate) const BAN_NOTICE_TIME: Duration = Duration::from_secs(5);

/// The time after the last news of a run until the run is forgotten.
pub(crate) const TWIN_MEMORY: Duration = Duration::from_secs(3 * 60);
/// The most peers whose runs are remembered. Those without news for longest are dropped.
pub(crate) const MAX_TWIN_PEERS: usize = 1024;
/// The most remembered runs of one node. The latest are kept.
pub(crate) const MAX_TWIN_RUNS: usize = MAX_RUNS;

/// The most attempts to send the member list to a peer that does not accept it, until there is a
/// newer list or the peer reconnects.
pub(crate) const MAX_LIST_ATTEMPTS: u32 = 3;
/// The number of first peers after the start whose arrival makes this node look for a newer member
/// list.
pub(crate) const FIRST_LIST_PEERS: usize = 3;
/// The time between two questions for the member list of a node that has none, or that no peer can
/// push one to because it does not serve.
pub(crate) const LIST_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// The time for which a peer with another root is not contacted, after which it may have been
/// reconfigured.
pub(crate) const STRANGER_LEFT_ALONE: Duration = Duration::from_secs(30);
/// The time after its last contact for which a peer with another root is reported.
pub(crate) const STRANGER_REPORTED: Duration = Duration::from_secs(10 * 60);
/// The most remembered peers with another root.
pub(crate) const MAX_STRANGERS: usize = 1024;

/// The score from which a peer is slowed, until its score is below half of it.
pub const SLOW_AT: u32 = 40;
/// The score of grave offences from which a peer is banned.
pub const BAN_AT: u32 = 100;
/// The duration of the first ban. Each further one is twice as long, up to [`MAX_BAN`].
pub const BAN: Duration = Duration::from_secs(10 * 60);
/// The longest duration of a ban.
pub const MAX_BAN: Duration = Duration::from_secs(12 * 60 * 60);
/// The most peers whose scores are kept. The longest quiet one is dropped first, a banned one last.
pub const MAX_TRACKED_PEERS: usize = 4096;
/// The most records that a peer may send per second: half of the number of signatures that a core
/// can verify. Further records are refused unseen, as
/// [`Refusal::TooFast`](netabase_store::Refusal::TooFast).
pub const RECORDS_PER_SECOND: u32 = 10_000;
/// The most records that a quiet peer may send in a burst.
pub const RECORD_BURST: u32 = 50_000;

/// The default of the new records of one author a second that peers may send: as many as a node
/// publishes of what was written without peers.
pub(crate) const AUTHOR_RECORDS_PER_SECOND: u32 = 256;
/// The default of the new records of a quiet author that peers may send in a burst, which authors
/// that write much at the same time share.
pub(crate) const AUTHOR_RECORD_BURST: u32 = 10_240;
/// The least burst of an author, however many write much at the same time.
pub(crate) const MIN_AUTHOR_BURST: u32 = 1024;
/// The most authors whose rates are kept. The one without news for longest is dropped first.
pub(crate) const MAX_TRACKED_AUTHORS: usize = 4096;
/// The time after the last refusal for which an author is reported as too fast.
pub(crate) const AUTHOR_REFUSED_FOR: Duration = Duration::from_secs(10 * 60);

/// The points of a grave offence: five in quick succession lead to a ban.
pub(crate) const GRAVE_POINTS: u32 = 20;
/// The points of a slight offence.
pub(crate) const SLIGHT_POINTS: u32 = 5;
/// The time in which a score decays by one point: a ban's worth in five minutes.
pub(crate) const POINT_LIFETIME: Duration = Duration::from_secs(3);
/// The highest score of either kind, so that every score decays within ten minutes.
pub(crate) const MAX_POINTS: u32 = 200;
/// The least time between two processed requests of a slowed peer.
pub(crate) const SLOWED_INTERVAL: Duration = Duration::from_secs(1);
/// The time of good conduct after which earlier bans do not lengthen the next one.
pub(crate) const FORGET_BANS_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The number of banned peers of one prefix from which the prefix is limited.
pub(crate) const BANNED_PER_PREFIX: usize = 3;

/// The least time to wait for the answer of a peer, which usually takes milliseconds.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_millis(700);
/// The factor of a peer's usual answer time for which it is waited for, if that is longer.
pub(crate) const USUAL_FACTOR: u32 = 8;
/// The longest time to wait for the answer of a peer, at which requests time out.
pub(crate) const MAX_ANSWER_PATIENCE: Duration = REQUEST_TIMEOUT;
/// The time to wait for a dial: some round trips, and a handshake.
pub(crate) const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// The bytes per second of a request over a slow line.
pub(crate) const SLOW_LINE_BYTES_PER_SECOND: usize = 128 * 1024;
/// The lateness from which the event loop itself counts as late. It may not have processed answers
/// that have arrived.
pub(crate) const LOOP_LATENESS: Duration = Duration::from_millis(200);
/// The most silent peers at a time. Further ones are waited for.
pub(crate) const MAX_SILENT: usize = 1024;

/// The difference between clocks, in milliseconds, from which they count as different: a tenth of
/// the difference for which peers refuse records, and more than a slow connection can cause.
pub(crate) const CLOCK_TOLERANCE_MILLIS: u64 = 60 * 1000;
/// The time after the last refusal for which it is reported that peers refuse versions of this
/// node.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(10 * 60);
/// The time after the last proof for which it is reported that two nodes have one identity. Proofs
/// are renewed every minute.
pub(crate) const SHARED_FOR: Duration = Duration::from_secs(3 * 60);
/// The most peers of each notice. The notice that ends first is dropped.
pub(crate) const MAX_NOTICES: usize = 256;

// Five grave offences in quick succession lead to a ban.
const _: () = assert!(BAN_AT == 5 * GRAVE_POINTS && SLIGHT_POINTS < GRAVE_POINTS);
const _: () = assert!(SLOW_AT < BAN_AT && BAN_AT <= MAX_POINTS);
// Every score decays within ten minutes, the length of the first ban.
const _: () = assert!(MAX_POINTS as u64 * POINT_LIFETIME.as_secs() <= BAN.as_secs());
const _: () = assert!(BAN.as_secs() < MAX_BAN.as_secs() && MAX_BAN.as_secs() < FORGET_BANS_AFTER.as_secs());
const _: () = assert!(RECORDS_PER_SECOND <= RECORD_BURST);
// One author gets a part of what a peer may send, so that a peer can pass on others' records.
const _: () = assert!(AUTHOR_RECORDS_PER_SECOND < RECORDS_PER_SECOND && AUTHOR_RECORD_BURST < RECORD_BURST);
// Several authors share a burst before they have the least.
const _: () = assert!(MIN_AUTHOR_BURST * 2 <= AUTHOR_RECORD_BURST);
// What a node publishes late is not refused for its rate.
const _: () = assert!(
    REPUBLISH_BATCH as u128 * 1000 <= AUTHOR_RECORDS_PER_SECOND as u128 * REPUBLISH_PAUSE.as_millis()
);
// A hello is affordable whatever else a peer sends.
const _: () = assert!(HELLO_COST < RECORDS_PER_SECOND as usize);
const _: () = assert!(MIN_HELLO_INTERVAL.as_secs() < HELLO_INTERVAL.as_secs());
// The wait for a dial is longer than that for an answer.
const _: () = assert!(ANSWER_PATIENCE.as_millis() < DIAL_PATIENCE.as_millis());
const _: () = assert!(DIAL_PATIENCE.as_millis() < MAX_ANSWER_PATIENCE.as_millis());
const _: () = assert!(LOOP_LATENESS.as_millis() < ANSWER_PATIENCE.as_millis());
// Two hellos may be lost before a run, or a shared identity, is forgotten.
const _: () = assert!(TWIN_MEMORY.as_secs() > 2 * HELLO_INTERVAL.as_secs());
const _: () = assert!(SHARED_FOR.as_secs() > 2 * CLAIM_RENEWAL.as_secs());
const _: () = assert!(STRANGER_LEFT_ALONE.as_secs() < STRANGER_REPORTED.as_secs());
// Clocks count as different long before peers refuse records for it.
const _: () = assert!(CLOCK_TOLERANCE_MILLIS as u128 * 10 <= Clock::MAX_SKEW.as_millis());
