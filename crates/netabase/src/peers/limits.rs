//! The limits of what peers may do.

use std::time::Duration;

use netabase_store::Clock;

use crate::mdns::limits::CLAIM_RENEWAL;
use crate::protocol::limits::MAX_RUNS;
use crate::rpc::limits::REQUEST_TIMEOUT;

/// One in so many connections is kept for those that this node makes itself.
pub(crate) const OUTGOING_SHARE: usize = 4;
/// One prefix may have one in so many of all connections as incoming ones.
pub(crate) const PREFIX_SHARE: usize = 4;
/// For how long a peer in the routing table has to be quiet before its connection may make room.
pub(crate) const QUIET_TIME: Duration = Duration::from_secs(60);
/// One in so many connections is there for newcomers until room is made for them. With fewer
/// connections than that, newcomers are denied when there is no room.
pub(crate) const NEWCOMER_SHARE: usize = 8;
/// The most incoming connections of a prefix that several banned peers came from.
pub(crate) const MAX_OF_LIMITED_PREFIX: usize = 4;
/// The most incoming connections of one prefix that are in the making.
pub(crate) const MAX_PENDING_PER_PREFIX: usize = 16;
/// The longest name of a peer's program that is kept, in bytes; the rest is cut off.
pub(crate) const MAX_AGENT_BYTES: usize = 128;

/// How often a connected peer is greeted.
pub(crate) const HELLO_INTERVAL: Duration = Duration::from_secs(60);
/// How often at most, whatever happens.
pub(crate) const MIN_HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// What it costs a peer to greet this node, in records of its allowance.
pub(crate) const HELLO_COST: usize = 64;
/// How far the wall clock may move against the time that passes, from one look to the next, without
/// being said to have been set.
pub(crate) const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(5);
/// How long a banned peer that came back has to hear why, before it is disconnected.
pub(crate) const BAN_NOTICE_TIME: Duration = Duration::from_secs(5);

/// For how long a run counts that is not heard of.
pub(crate) const TWIN_MEMORY: Duration = Duration::from_secs(3 * 60);
/// Of how many peers the runs are remembered; those that were not heard of for longest are
/// forgotten.
pub(crate) const MAX_TWIN_PEERS: usize = 1024;
/// How many runs of one node are remembered, the latest.
pub(crate) const MAX_TWIN_RUNS: usize = MAX_RUNS;

/// How often a peer is given a version that it has not taken, until there is another one or it
/// connects anew.
pub(crate) const MAX_LIST_ATTEMPTS: u32 = 3;
/// Of how many of the first peers after the start each makes this node ask for the list.
pub(crate) const FIRST_LIST_PEERS: usize = 3;
/// How often a node asks that has no list, or that nobody can give one to, as it serves nothing.
pub(crate) const LIST_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// How long a peer with another root is left alone; it may have been mended by then.
pub(crate) const STRANGER_LEFT_ALONE: Duration = Duration::from_secs(30);
/// For how long after it was last seen a peer with another root is reported.
pub(crate) const STRANGER_REPORTED: Duration = Duration::from_secs(10 * 60);
/// The most peers with another root that are remembered.
pub(crate) const MAX_STRANGERS: usize = 1024;

/// The points from which a peer is slowed, until it is below half of them.
pub const SLOW_AT: u32 = 40;
/// The points of grave offences at which a peer is banned.
pub const BAN_AT: u32 = 100;
/// How long the first ban is; each further one is twice as long, up to [`MAX_BAN`].
pub const BAN: Duration = Duration::from_secs(10 * 60);
/// The longest ban.
pub const MAX_BAN: Duration = Duration::from_secs(12 * 60 * 60);
/// The most peers that are remembered; the one that was quiet for longest is forgotten, a banned
/// one last.
pub const MAX_TRACKED_PEERS: usize = 4096;
/// How many records a peer may send in a second, which is half of what a core can check the
/// signatures of, where a record has one; more are refused unseen, as
/// [`Refusal::TooFast`](netabase_store::Refusal::TooFast).
pub const RECORDS_PER_SECOND: u32 = 10_000;
/// How many records a peer that was quiet may send at once.
pub const RECORD_BURST: u32 = 50_000;

/// The points of a grave offence: five in short order are a ban.
pub(crate) const GRAVE_POINTS: u32 = 20;
/// The points of a slight offence.
pub(crate) const SLIGHT_POINTS: u32 = 5;
/// How long it takes until a point is forgotten: a ban's worth in five minutes.
pub(crate) const POINT_LIFETIME: Duration = Duration::from_secs(3);
/// The most points of either kind, so that what is over is over within ten minutes.
pub(crate) const MAX_POINTS: u32 = 200;
/// How often a slowed peer's request is looked at.
pub(crate) const SLOWED_INTERVAL: Duration = Duration::from_secs(1);
/// After how much good conduct earlier bans do not make the next one longer.
pub(crate) const FORGET_BANS_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How many banned peers of one prefix limit it.
pub(crate) const BANNED_PER_PREFIX: usize = 3;

/// How long a peer that answers in milliseconds is waited for.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_millis(700);
/// How many times as long as it usually takes a peer is waited for, if that is longer.
pub(crate) const USUAL_FACTOR: u32 = 8;
/// The longest that a peer is waited for; requests end then.
pub(crate) const MAX_ANSWER_PATIENCE: Duration = REQUEST_TIMEOUT;
/// How long a dial to a peer is waited for: some round trips, and a handshake.
pub(crate) const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// How many bytes of a request take a second on a slow line.
pub(crate) const SLOW_LINE_BYTES_PER_SECOND: usize = 128 * 1024;
/// The event loop itself was late if it looks so long after the time, and has not seen the answers
/// that are there.
pub(crate) const LOOP_LATENESS: Duration = Duration::from_millis(200);
/// The most peers that are silent at a time; further ones are waited for.
pub(crate) const MAX_SILENT: usize = 1024;

/// The difference between clocks, in milliseconds, from which on they are said to differ: a tenth
/// of what makes peers refuse records, and more than a slow connection can make of equal clocks.
pub(crate) const CLOCK_TOLERANCE_MILLIS: u64 = 60 * 1000;
/// For how long it is said that peers have refused versions of this node, after the last of them.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(10 * 60);
/// For how long it is said that two nodes have one identity, after the last proof of it. Proofs are
/// renewed every minute.
pub(crate) const SHARED_FOR: Duration = Duration::from_secs(3 * 60);
/// Of how many peers each notice is kept; the one that ends first goes.
pub(crate) const MAX_NOTICES: usize = 256;

// Five grave offences in short order are a ban; slight ones alone never are.
const _: () = assert!(BAN_AT == 5 * GRAVE_POINTS && SLIGHT_POINTS < GRAVE_POINTS);
const _: () = assert!(SLOW_AT < BAN_AT && BAN_AT <= MAX_POINTS);
// What is over is over within ten minutes, the length of the first ban.
const _: () = assert!(MAX_POINTS as u64 * POINT_LIFETIME.as_secs() <= BAN.as_secs());
const _: () = assert!(BAN.as_secs() < MAX_BAN.as_secs() && MAX_BAN.as_secs() < FORGET_BANS_AFTER.as_secs());
const _: () = assert!(RECORDS_PER_SECOND <= RECORD_BURST);
// A greeting is affordable whatever else a peer sends.
const _: () = assert!(HELLO_COST < RECORDS_PER_SECOND as usize);
const _: () = assert!(MIN_HELLO_INTERVAL.as_secs() < HELLO_INTERVAL.as_secs());
// A connection takes longer than an answer, and both less than the longest wait.
const _: () = assert!(ANSWER_PATIENCE.as_millis() < DIAL_PATIENCE.as_millis());
const _: () = assert!(DIAL_PATIENCE.as_millis() < MAX_ANSWER_PATIENCE.as_millis());
const _: () = assert!(LOOP_LATENESS.as_millis() < ANSWER_PATIENCE.as_millis());
// Two hellos may be lost before a run, or a shared identity, is forgotten.
const _: () = assert!(TWIN_MEMORY.as_secs() > 2 * HELLO_INTERVAL.as_secs());
const _: () = assert!(SHARED_FOR.as_secs() > 2 * CLAIM_RENEWAL.as_secs());
const _: () = assert!(STRANGER_LEFT_ALONE.as_secs() < STRANGER_REPORTED.as_secs());
// Clocks are said to differ long before peers refuse records for it.
const _: () = assert!(CLOCK_TOLERANCE_MILLIS as u128 * 10 <= Clock::MAX_SKEW.as_millis());
