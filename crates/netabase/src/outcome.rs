//! Options and outcomes of calls.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use netabase_store::replica::ExpectedVersion;
use netabase_store::{Author, Envelope, Lifetime, Refusal, Timestamp, Version};

/// The options of a put or a removal.
///
/// ```
/// use std::time::Duration;
///
/// let mut options = netabase::PutOptions::default();
/// options.write_concern = Some(5);
/// options.timeout = Some(Duration::from_secs(2));
/// options.lifetime = netabase::Lifetime::Lease(Duration::from_secs(24 * 60 * 60));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// The number of peers that must accept the version before the call returns, or all peers that
    /// are found and answer if those are fewer. With 0 the call returns when the version is durable
    /// here; the outcome then names no peers, and publication continues. Default: `None`, which
    /// means [`write_concern`](crate::DHTDiscoveryConfig::write_concern).
    pub write_concern: Option<usize>,
    /// The time to wait for peers. Default: `None`, which means
    /// [`call_timeout`](crate::NetabaseConfig::call_timeout).
    pub timeout: Option<Duration>,
    /// The lifetime of the record. Default: [`Lifetime::Default`], that of its model or of the
    /// configuration.
    pub lifetime: Lifetime,
    /// The version that must be stored here. Otherwise the call fails with
    /// [`WriteError::Conflict`](netabase_store::WriteError::Conflict) and changes nothing. The
    /// check is atomic with the write, on this node alone: a peer may write concurrently, and the
    /// later version wins. Default: `None`, which replaces any version.
    pub expected: Option<ExpectedVersion>,
}

/// The options of a read.
///
/// ```
/// use netabase::{Consistency, GetOptions};
///
/// let mut options = GetOptions::default();
/// options.consistency = Consistency::Newest;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetOptions {
    /// Which peers to ask. Default: [`Consistency::LocalFirst`].
    pub consistency: Consistency,
    /// The time to wait for peers. Default: `None`, which means
    /// [`call_timeout`](crate::NetabaseConfig::call_timeout).
    pub timeout: Option<Duration>,
}

/// Which peers a read asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// Reads the local store alone.
    Local,
    /// Reads the local store, and asks peers if it has no version, or if this node was away and is
    /// not [current](crate::Node::is_current) yet.
    #[default]
    LocalFirst,
    /// Asks peers until [`read_concern`](crate::DHTDiscoveryConfig::read_concern) of them have
    /// answered with a copy. Needs a running swarm.
    Newest,
    /// Asks each of the closest peers, and waits until all of them have answered or failed to.
    /// Needs a running swarm.
    All,
}

/// The answer of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAnswer<A> {
    /// The peer.
    pub peer: PeerId,
    /// Its answer.
    pub answer: A,
}

/// A peer's answer to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteAnswer {
    /// The peer stores the version.
    Accepted,
    /// The peer had this version already.
    Known,
    /// The peer does not store the version.
    Refused(Refusal),
    /// The peer did not answer in time. It may have stored the version nevertheless.
    TimedOut,
    /// The peer was unreachable, answered with a failure, or could not be asked. The text says why.
    Unreachable(Arc<str>),
    /// The peer had not answered when the call returned, and may answer later. A silent peer is not
    /// waited for; it receives the versions that it missed when it answers again.
    Pending,
}

impl WriteAnswer {
    /// Returns whether the peer has the version.
    pub fn is_acceptance(&self) -> bool {
        matches!(self, Self::Accepted | Self::Known)
    }

    /// Returns whether the peer needs the version no more: it has the version, or refuses an old
    /// tombstone as expired since it has nothing that the tombstone deletes.
    pub(crate) fn is_heard(&self, sent: &Envelope) -> bool {
        self.is_acceptance() || (sent.is_tombstone() && *self == Self::Refused(Refusal::Expired))
    }
}

/// A peer's answer to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAnswer {
    /// The peer has this version, which was verified.
    Version(Version),
    /// The peer has no version.
    Nothing,
    /// The peer sent a version that was refused.
    Invalid(Refusal),
    /// The peer did not answer in time.
    TimedOut,
    /// The peer was unreachable, answered with a failure, or could not be asked. The text says why.
    Unreachable(Arc<str>),
}

/// The outcome of a put or a removal.
///
/// The version, or a newer one that was stored meanwhile, is durable in the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOutcome {
    /// The version that was written, or as which it was signed again.
    pub version: Version,
    /// Whether the version replaced or removed a live record.
    pub replaced: bool,
    /// The closest peers, to which the version is sent. Empty if there were none, in which case the
    /// version is published later, and if the call did not wait for peers.
    pub asked: Vec<PeerId>,
    /// The peers that have the version, as far as known when the call returned. Others may follow.
    pub accepted: Vec<PeerId>,
    /// The answer of each asked peer when the call returned.
    pub peers: Vec<PeerAnswer<WriteAnswer>>,
    /// The newer version of a holder that wins over this write, or `None` if no holder has proved
    /// one. Read the record, and decide again.
    ///
    /// A write without a condition is signed again after a version that this node did not know, up
    /// to 3 times, and wins. `Some` means that the write had a condition, or that the holder got
    /// newer versions meanwhile.
    pub overtaken_by: Option<Version>,
}

impl WriteOutcome {
    /// Returns the peers that refused the version, with the reason.
    pub fn refused(&self) -> impl Iterator<Item = (PeerId, Refusal)> {
        self.peers.iter().filter_map(|PeerAnswer { peer, answer }| match answer {
            WriteAnswer::Refused(reason) => Some((*peer, *reason)),
            _ => None,
        })
    }
}

/// The outcome of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOutcome<M> {
    /// The record, or `None` if there is no version of it, or if the newest one is a tombstone.
    pub record: Option<M>,
    /// The author of the newest version, which may be a tombstone.
    pub author: Option<Author>,
    /// The newest version, which may be a tombstone.
    pub version: Option<Version>,
    /// The time at which the record expires, or `None` if it does not.
    pub expires: Option<SystemTime>,
    /// The source of the newest version, or `None` if there is no version.
    pub source: Option<ReadSource>,
    /// The answers of the peers that were asked.
    ///
    /// With [`Consistency::All`] these are all of the closest peers. Otherwise peers that have no
    /// copy or did not answer are not listed.
    pub peers: Vec<PeerAnswer<ReadAnswer>>,
}

/// The source of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadSource {
    /// The local store.
    Local,
    /// The local store of a node that was away and has not compared it with its peers since. Peers
    /// may have changed the record meanwhile, and none of them has answered. See
    /// [`Node::is_current`](crate::Node::is_current).
    Unconfirmed,
    /// A peer.
    Peer(PeerId),
}

/// The id of a version in messages between peers: its timestamp and a fingerprint, without author
/// and content.
///
/// Ids are ordered by timestamp; versions of the same timestamp may be ordered otherwise than
/// [`Version`] orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The time of the write.
    pub timestamp: Timestamp,
    /// The first bytes of [`Version::hash`].
    pub fingerprint: [u8; Envelope::FINGERPRINT_BYTES],
}

impl VersionId {
    /// Returns the id of an envelope's version, or `None` if the envelope is unsigned.
    pub fn of(envelope: &Envelope) -> Option<Self> {
        Some(Self { timestamp: envelope.timestamp()?, fingerprint: envelope.fingerprint() })
    }
}

/// The state of a record's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The record's holders, the peers closest to its key, and the version that each has.
    pub holders: Vec<(PeerId, HolderState)>,
    /// The number of holders that have the newest version.
    pub current: usize,
    /// The number of holders that should have it: the replication factor, or the number of peers
    /// that were found if that is smaller.
    pub wanted: usize,
    /// The newest version that this node has or that a holder claims to have.
    pub newest: Option<VersionId>,
    /// The version in the local store.
    pub local: Option<VersionId>,
    /// The answers of the holders to which the newest version was sent. Empty without a repair.
    pub repairs: Vec<PeerAnswer<WriteAnswer>>,
}

/// The version that a holder has of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderState {
    /// The holder has the newest version.
    Current,
    /// The holder has an older version.
    Older(VersionId),
    /// The holder has no version.
    Missing,
    /// The holder was unreachable, or did not answer in time.
    Unreachable(Arc<str>),
    /// The holder claims a newer version than any other, and the copy that it sent was refused.
    Invalid(Refusal),
}

/// Converts milliseconds since the Unix epoch into a [`SystemTime`].
pub(crate) fn system_time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
