//! The limits of live changes.

use std::time::Duration;

use crate::rpc::pool::Limits;

/// The most topics that a node subscribes to; with more values than that it follows their models
/// instead.
pub const MAX_TOPICS: usize = 256;
/// The most topics of values of one model; with more the model's own takes their place.
pub(crate) const MAX_VALUE_TOPICS: usize = 64;
/// How many versions wait to be published live; further ones are left to the comparison of sets.
pub(crate) const MAX_WAITING_VERSIONS: usize = 8192;
/// And how many bytes of them.
pub(crate) const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Of how many versions it is remembered on which topics they were published.
pub(crate) const MAX_PUBLISHED: usize = 16_384;

/// What a request of gossipsub may have beyond one message: topic and lengths, and the beginning of
/// the next request, which it counts as well when both were read at once.
pub(crate) const GOSSIP_OVERHEAD_BYTES: usize = 16 * 1024;
/// The most topics of one peer; what it says at once is ignored if that made it more.
pub(crate) const MAX_TOPICS_PER_PEER: usize = MAX_TOPICS;
/// The most messages of one request. Ours have one.
pub(crate) const MAX_MESSAGES_PER_REQUEST: usize = 16;
/// The most ids in one offer of messages: as many as gossipsub takes of another, in bytes.
pub(crate) const MAX_OFFERED: usize = 500;
/// How many messages wait to be sent to a peer; further ones are not sent to it.
pub(crate) const QUEUE_MESSAGES: usize = 512;
/// For how long the id of a message is remembered.
pub(crate) const DUPLICATE_TIME: Duration = Duration::from_secs(30);
/// For how many heartbeats, of a second each, a message is kept for those who have missed it.
pub(crate) const HISTORY_BEATS: usize = 5;
/// For how many of them it is offered.
pub(crate) const HISTORY_BEATS_OFFERED: usize = 3;
/// How many bytes of a message cost its sender as much as one record.
pub(crate) const LIVE_BYTES_PER_RECORD: usize = 256;
/// To how many peers a message is passed on, about: enough to reach all in few hops, and few enough
/// that nobody is sent it many times.
pub(crate) const MESH: usize = 4;
/// With how few or many such peers others are looked for, or let go.
pub(crate) const MESH_LOW: usize = 3;
pub(crate) const MESH_HIGH: usize = 8;
/// How long a peer is not asked to pass on messages after it has refused to, and after one has left
/// a topic.
pub(crate) const PRUNE_BACKOFF: Duration = Duration::from_secs(10);
pub(crate) const UNSUBSCRIBE_BACKOFF: Duration = Duration::from_secs(1);

/// How many records are fetched at a time that were too large for a message; of others a node
/// learns when it compares what it has.
pub(crate) const MAX_FETCHES: usize = 16;
/// How soon a peer is told that it was not sent everything, and how long after that it is told once
/// more: what was not sent may not have been on the disk yet when it compared.
pub(crate) const FIRST_NOTICE: Duration = Duration::from_millis(100);
pub(crate) const NEXT_NOTICE: Duration = Duration::from_secs(2);
/// How often it is told.
pub(crate) const NOTICES: u8 = 2;
/// How many of them from one peer.
pub(crate) const MAX_FETCHES_OF_PEER: usize = 4;

/// The most messages that wait for a thread, and of one peer. Later ones are not passed on.
pub(crate) const JUDGE_LIMITS: Limits = Limits { waiting: 512, of_peer: 128 };
/// Of how many versions it is remembered what was said of them: what comes on several topics is
/// checked once.
pub(crate) const MAX_JUDGED: usize = 16_384;
/// How many records can be judged at the same time.
pub(crate) const JUDGE_TURNS: usize = 64;
/// For how long a version that is here already is passed on; a later repetition has reached
/// everybody.
pub(crate) const NEWS_TIME: Duration = Duration::from_secs(10 * 60);

/// The most peers that wait to be compared with; of what others have a node learns when it is due.
pub(crate) const MAX_OVERRUN_PEERS: usize = 1024;

/// How many bytes of messages are taken in and sent out in a second, by all together: what the
/// history of gossipsub holds is as many times that as it has seconds.
pub(crate) const LIVE_BYTES_PER_SECOND: f64 = 16.0 * 1024.0 * 1024.0;
/// How many messages, which bounds the ids that are remembered.
pub(crate) const LIVE_MESSAGES_PER_SECOND: f64 = 20_000.0;
/// How much of both is for what this node publishes; it may take of the rest as well.
pub(crate) const OWN_SHARE: f64 = 0.25;
/// How much of both one peer may use.
pub(crate) const SENDER_SHARE: f64 = 0.25;
/// How many topics a peer may subscribe to or leave at once, and in a second after that.
pub(crate) const SUBSCRIPTION_BURST: usize = 2 * MAX_TOPICS;
pub(crate) const SUBSCRIPTIONS_PER_SECOND: usize = 16;
/// After how long without a message all that a sender may use is there again, so that it can be
/// forgotten.
pub(crate) const QUIET_SENDER_TIME: Duration =
    Duration::from_secs((SUBSCRIPTION_BURST / SUBSCRIPTIONS_PER_SECOND) as u64 + 1);
/// The most senders that are known; further ones have to wait until one has been quiet.
pub(crate) const MAX_SENDERS: usize = 1024;

const _: () = assert!(MAX_VALUE_TOPICS <= MAX_TOPICS);
// On which topics a waiting version was published is remembered until it is sent, and longer.
const _: () = assert!(MAX_WAITING_VERSIONS < MAX_PUBLISHED);
const _: () = assert!(MAX_FETCHES_OF_PEER <= MAX_FETCHES && JUDGE_LIMITS.of_peer <= JUDGE_LIMITS.waiting);
const _: () = assert!(MESH_LOW <= MESH && MESH <= MESH_HIGH && HISTORY_BEATS_OFFERED <= HISTORY_BEATS);
// Four senders do not use up what there is, and this node has its part in any case.
const _: () = assert!(OWN_SHARE + SENDER_SHARE < 1.0);
// An id is remembered for longer than its message is offered.
const _: () = assert!(HISTORY_BEATS as u64 <= DUPLICATE_TIME.as_secs());
const _: () = assert!(FIRST_NOTICE.as_millis() < NEXT_NOTICE.as_millis());
