//! What calls ask for beyond their defaults, and what they answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use netabase_store::replica::ExpectedVersion;
use netabase_store::{Author, Envelope, Lifetime, Refusal, Timestamp, Version};

/// What a put or a removal asks for beyond the defaults.
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
    /// How many peers must accept the version before the call returns, or as many as are found and
    /// answer if that is fewer. With 0 the call returns when the version is on this disk; it is on
    /// its way to peers then, and the outcome names none. Default: none, which means
    /// [`write_concern`](crate::DHTDiscoveryConfig::write_concern).
    pub write_concern: Option<usize>,
    /// How long to wait for peers. Default: none, which means
    /// [`call_timeout`](crate::NetabaseConfig::call_timeout).
    pub timeout: Option<Duration>,
    /// How long the record counts. Default: [`Lifetime::Default`], as its model or the
    /// configuration says.
    pub lifetime: Lifetime,
    /// What has to be here, or the call fails with
    /// [`StoreError::Conflict`](crate::StoreError::Conflict) and changes nothing. It is checked
    /// together with the write, on this node alone: a peer may write at the same time, and the
    /// later version wins. Default: none, whatever is here is replaced.
    pub expected: Option<ExpectedVersion>,
}

/// What a read asks for beyond the defaults.
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
    /// Whom to ask. Default: [`Consistency::LocalFirst`].
    pub consistency: Consistency,
    /// How long to wait for peers. Default: none, which means
    /// [`call_timeout`](crate::NetabaseConfig::call_timeout).
    pub timeout: Option<Duration>,
}

/// Whom a read asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// Nobody: what is here.
    Local,
    /// Peers only if nothing is here, or if this node was away and is not
    /// [current](crate::Node::is_current) yet.
    #[default]
    LocalFirst,
    /// Peers, until [`read_concern`](crate::DHTDiscoveryConfig::read_concern) of them have answered
    /// with a copy. Needs a running swarm.
    Newest,
    /// Each of the closest peers, and waits until all of them have answered or failed to. Needs a
    /// running swarm.
    All,
}

/// What one peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAnswer<A> {
    /// The peer.
    pub peer: PeerId,
    /// What it did.
    pub answer: A,
}

/// What a peer did with a version that it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteAnswer {
    /// It keeps the version.
    Accepted,
    /// It had this version already.
    Known,
    /// It does not keep the version.
    Refused(Refusal),
    /// It did not answer in time. It may have the version all the same.
    TimedOut,
    /// It could not be reached, or did not answer as this protocol does.
    Unreachable(Arc<str>),
    /// It had not answered when the call returned, and may answer later. A peer that has stopped to
    /// answer is not waited for; what it misses it is given when it answers again.
    Pending,
}

impl WriteAnswer {
    /// Whether the peer has the version.
    pub fn is_acceptance(&self) -> bool {
        matches!(self, Self::Accepted | Self::Known)
    }

    /// Whether the peer has a version that it was sent, or nothing that would change by it: an old
    /// tombstone is refused as expired where there is nothing that it deletes.
    pub(crate) fn is_heard(&self, sent: &Envelope) -> bool {
        self.is_acceptance() || (sent.is_tombstone() && *self == Self::Refused(Refusal::Expired))
    }
}

/// What a peer answered to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAnswer {
    /// It has this version, which was verified.
    Version(Version),
    /// It has none.
    Nothing,
    /// It sent something that was refused.
    Invalid(Refusal),
    /// It did not answer in time.
    TimedOut,
    /// It could not be reached, or did not answer as this protocol does.
    Unreachable(Arc<str>),
}

/// What became of a put or a removal.
///
/// Whenever one is returned, the version is durable in the local store, or a newer one that came in
/// the meantime is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOutcome {
    /// The version that was written.
    pub version: Version,
    /// Whether there was a live record here before, which the version replaced or removed.
    pub replaced: bool,
    /// The closest peers that were found, and are sent the version. Empty without peers: it is then
    /// published when there are some. Empty as well if nobody was waited for.
    pub asked: Vec<PeerId>,
    /// The peers that had accepted the version when the answer was given, or had it already; the
    /// others may follow.
    pub accepted: Vec<PeerId>,
    /// What each of the peers that were asked had done when the answer was given.
    pub peers: Vec<PeerAnswer<WriteAnswer>>,
}

impl WriteOutcome {
    /// Returns the peers that refused the version, and why.
    pub fn refused(&self) -> impl Iterator<Item = (PeerId, Refusal)> {
        self.peers.iter().filter_map(|PeerAnswer { peer, answer }| match answer {
            WriteAnswer::Refused(reason) => Some((*peer, *reason)),
            _ => None,
        })
    }
}

/// What a read has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOutcome<M> {
    /// The record; none if there is no version of it, or if the newest one is a removal.
    pub record: Option<M>,
    /// Who wrote the newest version that was found, a removal too.
    pub author: Option<Author>,
    /// The newest version that was found, a removal too.
    pub version: Option<Version>,
    /// Until when the record counts; none if it has no end.
    pub expires: Option<SystemTime>,
    /// Where the newest version was found; none if there is no version.
    pub source: Option<ReadSource>,
    /// What each of the peers answered that were asked and are known to have been.
    ///
    /// With [`Consistency::All`] these are all of the closest peers. Otherwise peers that have no
    /// copy or did not answer are not listed.
    pub peers: Vec<PeerAnswer<ReadAnswer>>,
}

/// Where a version was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadSource {
    /// In the local store.
    Local,
    /// In the local store, of a node that was away and has not compared it with its peers since:
    /// they may have changed the record meanwhile, and none of them has answered. See
    /// [`Node::is_current`](crate::Node::is_current).
    Unconfirmed,
    /// At a peer.
    Peer(PeerId),
}

/// Names a version of a record as peers tell each other of it, without its author and content.
///
/// The order is that of the timestamps; versions of the same timestamp may be ordered otherwise
/// than [`Version`] orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// When it was written.
    pub timestamp: Timestamp,
    /// The first bytes of [`Version::hash`].
    pub fingerprint: [u8; Envelope::FINGERPRINT_BYTES],
}

impl VersionId {
    /// Returns the name of an envelope's version; an unsigned envelope has none.
    pub fn of(envelope: &Envelope) -> Option<Self> {
        Some(Self { timestamp: envelope.timestamp()?, fingerprint: envelope.fingerprint() })
    }
}

/// How well a record is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The peers that should hold the record, the closest to its key, and what they have.
    pub holders: Vec<(PeerId, HolderState)>,
    /// How many of the holders have the newest version.
    pub current: usize,
    /// How many should: the replication factor, or all peers that were found if those are fewer.
    pub wanted: usize,
    /// The newest version that this node or a holder has, or says that it has.
    pub newest: Option<VersionId>,
    /// The version in the local store.
    pub local: Option<VersionId>,
    /// What the holders answered that were sent the newest version. Empty if no repair was asked
    /// for.
    pub repairs: Vec<PeerAnswer<WriteAnswer>>,
}

/// What a peer has of a record that it should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderState {
    /// It has the newest version.
    Current,
    /// It has an older version.
    Older(VersionId),
    /// It has no version.
    Missing,
    /// It could not be reached, or did not answer in time.
    Unreachable(Arc<str>),
    /// It says that it has a newer version than anybody else, and what it sent for it was refused.
    Invalid(Refusal),
}

/// Returns a time in milliseconds since the Unix epoch as what users expect.
pub(crate) fn system_time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
