//! The limits of live changes.

use std::time::Duration;

use crate::rpc::pool::Limits;

/// The most topics that a node subscribes to. With more values than that the node subscribes to the
/// topics of their models instead.
pub const MAX_TOPICS: usize = 256;
/// The most value topics of one model. With more, the topic of the model replaces them.
pub(crate) const MAX_VALUE_TOPICS: usize = 64;
/// The most versions that wait for publication. Further ones are left to sync.
pub(crate) const MAX_WAITING_VERSIONS: usize = 8192;
/// The most bytes of versions that wait for publication.
pub(crate) const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// The most versions whose topics of publication are remembered.
pub(crate) const MAX_PUBLISHED: usize = 16_384;

/// The bytes of a gossipsub request beyond one message: topic and lengths, and the beginning of the
/// next request, which gossipsub counts as well if both were read at once.
pub(crate) const GOSSIP_OVERHEAD_BYTES: usize = 16 * 1024;
/// The most topics of one peer. A set of subscriptions that would exceed it is ignored.
pub(crate) const MAX_TOPICS_PER_PEER: usize = MAX_TOPICS;
/// The most messages of one received request. This node sends one per request.
pub(crate) const MAX_MESSAGES_PER_REQUEST: usize = 16;
/// The most ids in one offer of messages: as many, in bytes, as gossipsub accepts.
pub(crate) const MAX_OFFERED: usize = 500;
/// The most messages in the send queue of a peer. Further ones are not sent to the peer.
pub(crate) const QUEUE_MESSAGES: usize = 512;
/// The time for which the id of a message is remembered.
pub(crate) const DUPLICATE_TIME: Duration = Duration::from_secs(30);
/// The number of heartbeats, of one second each, for which a message is kept for peers that missed
/// it.
pub(crate) const HISTORY_BEATS: usize = 5;
/// The number of heartbeats for which a message is offered.
pub(crate) const HISTORY_BEATS_OFFERED: usize = 3;
/// The bytes of a message that cost its sender as much as one record.
pub(crate) const LIVE_BYTES_PER_RECORD: usize = 256;
/// The target number of peers that a message is forwarded to: enough to reach all in few hops, and
/// few enough that a peer receives few duplicates.
pub(crate) const MESH: usize = 4;
/// The number of mesh peers below which others are added.
pub(crate) const MESH_LOW: usize = 3;
/// The number of mesh peers above which some are removed.
pub(crate) const MESH_HIGH: usize = 8;
/// The time for which a peer is not asked to join the mesh after it has refused.
pub(crate) const PRUNE_BACKOFF: Duration = Duration::from_secs(10);
/// The time for which a peer is not asked to join the mesh after this node has left a topic.
pub(crate) const UNSUBSCRIBE_BACKOFF: Duration = Duration::from_secs(1);

/// The most concurrent fetches of records that were too large for a message. Sync finds the others.
pub(crate) const MAX_FETCHES: usize = 16;
/// The time before the first notice to a peer that it was not sent every change.
pub(crate) const FIRST_NOTICE: Duration = Duration::from_millis(100);
/// The time before a further notice to a peer that it was not sent every change: unsent versions
/// may not have been durable when the peer compared after the first notice.
pub(crate) const NEXT_NOTICE: Duration = Duration::from_secs(2);
/// The most notices to a peer that it was not sent every change.
pub(crate) const NOTICES: u8 = 2;
/// The most concurrent fetches of too large records from one peer.
pub(crate) const MAX_FETCHES_OF_PEER: usize = 4;

/// The most messages that wait for a thread, in total and of one peer. Further ones are not
/// forwarded.
pub(crate) const JUDGE_LIMITS: Limits = Limits { waiting: 512, of_peer: 128 };
/// The most versions whose verdicts are remembered, so that a version on several topics is verified
/// once.
pub(crate) const MAX_JUDGED: usize = 16_384;
/// The most records that are judged concurrently.
pub(crate) const JUDGE_TURNS: usize = 64;
/// The time for which a version that is already stored is still forwarded. Every peer has received
/// a later repetition.
pub(crate) const NEWS_TIME: Duration = Duration::from_secs(10 * 60);

/// The most peers that wait for a comparison because messages were lost. Others are compared when
/// they are due.
pub(crate) const MAX_OVERRUN_PEERS: usize = 1024;

/// The most bytes of messages that are received, and that are sent, per second. Gossipsub's history
/// holds this times the seconds that it covers.
pub(crate) const LIVE_BYTES_PER_SECOND: f64 = 16.0 * 1024.0 * 1024.0;
/// The most messages per second, which bounds the remembered ids.
pub(crate) const LIVE_MESSAGES_PER_SECOND: f64 = 20_000.0;
/// The share of both rates that is reserved for this node's own messages, which may use the rest,
/// too.
pub(crate) const OWN_SHARE: f64 = 0.25;
/// The share of both rates that one sender may use.
pub(crate) const SENDER_SHARE: f64 = 0.25;
/// The most topics that a peer may subscribe to or leave in a burst.
pub(crate) const SUBSCRIPTION_BURST: usize = 2 * MAX_TOPICS;
/// The most topics that a peer may subscribe to or leave per second after a burst.
pub(crate) const SUBSCRIPTIONS_PER_SECOND: usize = 16;
/// The time without messages after which a sender's quota is full again, so that the sender can be
/// dropped.
pub(crate) const QUIET_SENDER_TIME: Duration =
    Duration::from_secs((SUBSCRIPTION_BURST / SUBSCRIPTIONS_PER_SECOND) as u64 + 1);
/// The most known senders. Further ones wait until one has been quiet.
pub(crate) const MAX_SENDERS: usize = 1024;

const _: () = assert!(MAX_VALUE_TOPICS <= MAX_TOPICS);
// The topics of a waiting version are remembered until it is sent, and longer.
const _: () = assert!(MAX_WAITING_VERSIONS < MAX_PUBLISHED);
const _: () = assert!(MAX_FETCHES_OF_PEER <= MAX_FETCHES && JUDGE_LIMITS.of_peer <= JUDGE_LIMITS.waiting);
const _: () = assert!(MESH_LOW <= MESH && MESH <= MESH_HIGH && HISTORY_BEATS_OFFERED <= HISTORY_BEATS);
// One sender does not use up the common rate, and this node has its share in any case.
const _: () = assert!(OWN_SHARE + SENDER_SHARE < 1.0);
// An id is remembered for longer than its message is offered.
const _: () = assert!(HISTORY_BEATS as u64 <= DUPLICATE_TIME.as_secs());
const _: () = assert!(FIRST_NOTICE.as_millis() < NEXT_NOTICE.as_millis());
