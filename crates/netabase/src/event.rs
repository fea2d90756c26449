//! What a Netabase tells its subscribers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libp2p::core::ConnectedPoint;
use libp2p::identity::{PublicKey, ed25519};
use libp2p::{Multiaddr, PeerId, identify, kad};
use netabase_store::members::SignedMembers;
use netabase_store::schema::decode_payload;
use netabase_store::{
    Author, Change, ChangeKind, Envelope, NetabaseDefinition, NetabaseModel, Origin, RecordKey, Refusal,
    Scope, ValueError,
};
use thiserror::Error;
use tokio::sync::broadcast;

use crate::peers::other_roots::OtherRoot;
use crate::peers::standing::ClockComparison;
use crate::replication::repair::RepairReport;
use crate::replication::sync::{SyncFailure, SyncReport};
use crate::telemetry::metrics::Meters;

/// Something that happened in the swarm or in the store. Cloning is cheap: contents are shared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NetabaseSwarmEvent {
    /// The swarm listens and takes commands.
    Started,
    /// The swarm has stopped.
    Stopped,
    /// The machine or this program was suspended and goes on; connections may be lost, and what
    /// peers wrote meanwhile is missing here.
    Woke {
        /// For how long, about. A wall clock that is set forward looks the same.
        slept: Duration,
    },
    /// A record changed in the local store, by this node or by a peer; sent after the commit.
    Record(RecordEvent),
    /// A newer member list of this closed network was committed, which is no
    /// [`Record`](Self::Record) event.
    MembersChanged(SignedMembers),
    /// A record from a peer was refused, and nothing changed.
    RecordRefused {
        /// The peer that sent it, or answered with it, if that is known.
        peer: Option<PeerId>,
        /// The key it was sent under, if that was one.
        key: Option<RecordKey>,
        /// Why it was refused.
        reason: Refusal,
    },
    /// A peer's closed network has the name of this node's network, and another root: two networks
    /// that should have names of their own, or a node that is set up with a wrong root. Sent once
    /// for each peer and root. If both have a root the peer is not spoken to; see
    /// [`NetabaseConfig::network`](crate::NetabaseConfig::network).
    OtherRoot(OtherRoot),
    /// Everything that is kept here was compared with its other holders once more, see
    /// [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval).
    Repaired(RepairReport),
    /// A scope that this node keeps is being compared with a peer, see
    /// [`Netabase::replicate`](crate::Node::replicate); of a definition, one of its models.
    SyncStarted {
        /// The model, or the value.
        scope: Scope,
        /// The peer.
        peer: PeerId,
    },
    /// Some of what this node lacked has come.
    SyncProgress {
        /// The model, or the value.
        scope: Scope,
        /// The peer.
        peer: PeerId,
        /// What was done in the session until now.
        report: SyncReport,
    },
    /// A session has ended.
    SyncFinished {
        /// The model, or the value.
        scope: Scope,
        /// The peer.
        peer: PeerId,
        /// What was done.
        report: SyncReport,
        /// Why it has ended before everything was here that the peer has; none if it has not.
        failure: Option<SyncFailure>,
    },
    /// A peer has sent so much of what it should not that most of its records are refused unseen.
    PeerSlowed {
        /// The peer.
        peer: PeerId,
    },
    /// A peer has sent what no honest peer sends, and is not connected to for a while.
    PeerBanned {
        /// The peer.
        peer: PeerId,
        /// When it may come back.
        until: SystemTime,
        /// Why its last record was refused.
        reason: Refusal,
    },
    /// The clock of this node differs from its peers' by a minute or more, or from that of its only
    /// peer. The records of a node that is ten minutes ahead are refused.
    ClockDiffers(ClockComparison),
    /// The clock of this node does not differ from its peers' any more.
    ClockAgrees,
    /// A peer has slowed this node for what it has sent: it refuses most of what comes.
    SlowedBy {
        /// The peer.
        peer: PeerId,
        /// For how much longer.
        rest: Duration,
    },
    /// A peer has banned this node for what it has sent: it does not let it connect.
    BannedBy {
        /// The peer.
        peer: PeerId,
        /// For how much longer.
        rest: Duration,
        /// Why it refused the last record that this node sent it.
        reason: Refusal,
    },
    /// Two running nodes have the identity of a peer, or of this node, which then writes nothing
    /// until one of the two is stopped.
    IdentityShared {
        /// The peer, or this node.
        peer: PeerId,
    },
    /// A connection was established.
    ConnectionEstablished {
        /// The peer at the other end.
        peer: PeerId,
        /// The address it was reached at, or came from.
        address: Multiaddr,
        /// Whether this node dialled.
        outgoing: bool,
        /// How many connections to the peer there are now.
        connections: u32,
    },
    /// A connection was closed.
    ConnectionClosed {
        /// The peer at the other end.
        peer: PeerId,
        /// The address it was reached at, or came from.
        address: Multiaddr,
        /// How many connections to the peer are left.
        connections: u32,
        /// What went wrong, if anything did.
        cause: Option<Arc<str>>,
    },
    /// A peer has given a sign of life, see
    /// [`ping_interval`](crate::ConnectionConfig::ping_interval).
    RoundTrip {
        /// The peer.
        peer: PeerId,
        /// How long it took from the question to the answer.
        time: Duration,
    },
    /// Somebody is connecting to this node.
    IncomingConnection {
        /// The listen address they came to.
        local_address: Multiaddr,
        /// The address they came from.
        remote_address: Multiaddr,
    },
    /// Somebody failed to connect to this node.
    IncomingConnectionError {
        /// The address they came from.
        remote_address: Multiaddr,
        /// What went wrong.
        cause: Arc<str>,
    },
    /// This node failed to connect to somebody.
    OutgoingConnectionError {
        /// The peer, if it is known.
        peer: Option<PeerId>,
        /// What went wrong.
        cause: Arc<str>,
    },
    /// This node is connecting to somebody.
    Dialing {
        /// The peer, if it is known.
        peer: Option<PeerId>,
    },
    /// The node listens on an address.
    NewListenAddress(Multiaddr),
    /// The node listens on an address no more.
    ExpiredListenAddress(Multiaddr),
    /// A listener has ended.
    ListenerClosed {
        /// The addresses it had.
        addresses: Arc<[Multiaddr]>,
        /// What went wrong, if anything did.
        cause: Option<Arc<str>>,
    },
    /// A listener has failed once and goes on.
    ListenerError {
        /// What went wrong.
        cause: Arc<str>,
    },
    /// A peer told us an address at which this node may be reachable.
    ExternalAddressCandidate(Multiaddr),
    /// An address at which this node is reachable from outside was confirmed.
    ExternalAddressConfirmed(Multiaddr),
    /// An external address has expired.
    ExternalAddressExpired(Multiaddr),
    /// A peer was connected to at a new address.
    PeerAddress {
        /// The peer.
        peer: PeerId,
        /// The address.
        address: Multiaddr,
    },
    /// The distributed hash table says something.
    Kad(Arc<kad::Event>),
    /// A peer was identified.
    Identify(Arc<identify::Event>),
    /// Peers appeared on the local network or disappeared from it; not in a browser.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    Mdns(Arc<libp2p::mdns::Event>),
}

/// A committed change to one record; read it with [`RecordEvent::model`] or
/// [`RecordEvent::record`].
#[derive(Clone)]
pub struct RecordEvent(Arc<Change>);

impl RecordEvent {
    pub(crate) fn new(change: Change) -> Self {
        Self(Arc::new(change))
    }

    /// Returns what happened: stored, updated, removed or expired.
    pub fn kind(&self) -> ChangeKind {
        self.0.kind
    }

    /// Returns the record's key.
    pub fn key(&self) -> &RecordKey {
        &self.0.key
    }

    /// Returns whether this program or a peer wrote the version.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Returns who signed the version.
    pub fn author(&self) -> Option<Author> {
        self.envelope().and_then(Envelope::author)
    }

    /// Returns the peer that signed the version.
    pub fn author_peer(&self) -> Option<PeerId> {
        let key = ed25519::PublicKey::try_from_bytes(self.author()?.as_bytes()).ok()?;
        Some(PublicKey::from(key).to_peer_id())
    }

    /// Returns the version that is stored now: a tombstone where the record was removed.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.0.envelope.as_ref()
    }

    /// Decodes the record, or what it was before it was removed, as model `M`; `None` if it belongs
    /// to another model.
    pub fn model<M: NetabaseModel>(&self) -> Option<Result<M, ValueError>> {
        let ours = self.0.key.is_of::<M>();
        ours.then(|| self.last_live().map(|envelope| decode_payload(envelope.payload()))).flatten()
    }

    /// Decodes the record, or what it was before it was removed; `None` if it belongs to another
    /// definition.
    pub fn record<D: NetabaseDefinition>(&self) -> Option<Result<D, ValueError>> {
        let ours = self.0.key.definition() == D::SCHEMA.name;
        ours.then(|| self.last_live().map(|envelope| D::decode(self.0.key.model(), envelope.payload())))
            .flatten()
    }

    fn last_live(&self) -> Option<&Envelope> {
        self.envelope().filter(|envelope| !envelope.is_tombstone()).or(self.0.previous.as_ref())
    }
}

impl fmt::Debug for RecordEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordEvent")
            .field("kind", &self.kind())
            .field("key", self.key())
            .field("origin", &self.origin())
            .finish_non_exhaustive()
    }
}

/// Returns the address at the other end of a connection.
pub(crate) fn remote_address(endpoint: &ConnectedPoint) -> &Multiaddr {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
    }
}

/// Why a subscription has no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EventError {
    /// The subscriber was too slow; the next call returns the oldest event that is left.
    #[error("{missed} events were missed")]
    Lagged {
        /// How many events were lost.
        missed: u64,
    },
    /// Every handle of the Netabase is gone.
    #[error("the netabase is gone")]
    Closed,
}

/// A subscription to the events of a Netabase, from when it was made.
///
/// It goes on when the swarm is stopped and started, and keeps up to [`EVENT_CAPACITY`](crate::limits::EVENT_CAPACITY) events for
/// a subscriber that is slow.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<NetabaseSwarmEvent>,
    meters: Arc<Meters>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<NetabaseSwarmEvent>, meters: Arc<Meters>) -> Self {
        Self { receiver, meters }
    }

    fn lagged(&self, missed: u64) -> EventError {
        self.meters.events_lost.add(missed);
        EventError::Lagged { missed }
    }

    /// Waits for the next event. Cancelling the call loses nothing.
    pub async fn recv(&mut self) -> Result<NetabaseSwarmEvent, EventError> {
        self.receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => self.lagged(missed),
            broadcast::error::RecvError::Closed => EventError::Closed,
        })
    }

    /// Returns the next event if there is one already.
    pub fn try_recv(&mut self) -> Result<Option<NetabaseSwarmEvent>, EventError> {
        match self.receiver.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::TryRecvError::Empty) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(self.lagged(missed)),
            Err(broadcast::error::TryRecvError::Closed) => Err(EventError::Closed),
        }
    }
}
