//! The events of a Netabase.

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

/// An event of the swarm or the store. Cloning is cheap: clones share their contents.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NetabaseSwarmEvent {
    /// The swarm listens and accepts commands.
    Started,
    /// The swarm has stopped.
    Stopped,
    /// The machine or this program was suspended and resumes. Connections may be lost, and the
    /// changes that peers made meanwhile are missing here.
    Woke {
        /// The approximate duration. Setting the wall clock forward looks the same.
        slept: Duration,
    },
    /// A record changed in the local store, by this node or a peer; sent after the commit.
    Record(RecordEvent),
    /// A newer member list of this closed network was committed. A member list causes no
    /// [`Record`](Self::Record) event.
    MembersChanged(SignedMembers),
    /// A record from a peer was refused, and nothing changed.
    RecordRefused {
        /// The peer that sent the record, or answered with it, if known.
        peer: Option<PeerId>,
        /// The key of the record, if the peer sent a valid one.
        key: Option<RecordKey>,
        /// Why it was refused.
        reason: Refusal,
    },
    /// A peer's closed network has the name of this node's network and another root. Either two
    /// networks share a name, or one of the nodes is configured with a wrong root. Sent once for
    /// each peer and root. If both nodes have a root, this node does not speak to the peer; see
    /// [`NetabaseConfig::network`](crate::NetabaseConfig::network).
    OtherRoot(OtherRoot),
    /// A repair pass has ended, which compared all local records with their other holders; see
    /// [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval).
    Repaired(RepairReport),
    /// A sync session with a peer has started for a scope that this node replicates, see
    /// [`Netabase::replicate`](crate::Node::replicate). A definition has a session for each model.
    SyncStarted {
        /// The model, or the value.
        scope: Scope,
        /// The peer.
        peer: PeerId,
    },
    /// A sync session has received records.
    SyncProgress {
        /// The model, or the value.
        scope: Scope,
        /// The peer.
        peer: PeerId,
        /// The progress of the session.
        report: SyncReport,
    },
    /// A sync session has ended.
    SyncFinished {
        /// The model, or the value.
        scope: Scope,
        /// The peer.
        peer: PeerId,
        /// The result.
        report: SyncReport,
        /// Why the session ended early, or `None` if it completed.
        failure: Option<SyncFailure>,
    },
    /// A peer has sent so many bad records that this node refuses most of its records unseen.
    PeerSlowed {
        /// The peer.
        peer: PeerId,
    },
    /// A peer has sent what no honest peer sends; this node bans it for a while.
    PeerBanned {
        /// The peer.
        peer: PeerId,
        /// The end of the ban.
        until: SystemTime,
        /// The refusal of its last record.
        reason: Refusal,
    },
    /// The clock of this node differs from its peers' clocks by a minute or more, or from that of
    /// its only peer. Peers refuse the records of a node that is ten minutes ahead.
    ClockDiffers(ClockComparison),
    /// The clock of this node agrees with its peers' clocks again.
    ClockAgrees,
    /// A peer slows this node for what it has sent: the peer refuses most of its records.
    SlowedBy {
        /// The peer.
        peer: PeerId,
        /// The remaining time.
        rest: Duration,
    },
    /// A peer has banned this node for what it has sent: the peer denies its connections.
    BannedBy {
        /// The peer.
        peer: PeerId,
        /// The remaining time.
        rest: Duration,
        /// The refusal of the last record that this node sent to the peer.
        reason: Refusal,
    },
    /// Two running nodes have the same identity. If it is this node's, the node stops writing until
    /// one of the two is stopped.
    IdentityShared {
        /// The peer, or this node, that has the identity.
        peer: PeerId,
    },
    /// A connection was established.
    ConnectionEstablished {
        /// The peer at the other end.
        peer: PeerId,
        /// The address that this node dialled, or that the peer came from.
        address: Multiaddr,
        /// Whether this node dialled.
        outgoing: bool,
        /// The number of connections to the peer, including this one.
        connections: u32,
    },
    /// A connection was closed.
    ConnectionClosed {
        /// The peer at the other end.
        peer: PeerId,
        /// The address that this node dialled, or that the peer came from.
        address: Multiaddr,
        /// The number of remaining connections to the peer.
        connections: u32,
        /// The error, if there was one.
        cause: Option<Arc<str>>,
    },
    /// A peer has answered a ping, see
    /// [`ping_interval`](crate::ConnectionConfig::ping_interval).
    RoundTrip {
        /// The peer.
        peer: PeerId,
        /// The round trip time.
        time: Duration,
    },
    /// A peer is connecting to this node.
    IncomingConnection {
        /// The listen address.
        local_address: Multiaddr,
        /// The remote address.
        remote_address: Multiaddr,
    },
    /// An incoming connection failed.
    IncomingConnectionError {
        /// The remote address.
        remote_address: Multiaddr,
        /// The error.
        cause: Arc<str>,
    },
    /// An outgoing connection failed.
    OutgoingConnectionError {
        /// The peer, if known.
        peer: Option<PeerId>,
        /// The error.
        cause: Arc<str>,
    },
    /// This node dials a peer.
    Dialing {
        /// The peer, if known.
        peer: Option<PeerId>,
    },
    /// The node listens on an address.
    NewListenAddress(Multiaddr),
    /// The node no longer listens on an address.
    ExpiredListenAddress(Multiaddr),
    /// A listener has ended.
    ListenerClosed {
        /// The addresses of the listener.
        addresses: Arc<[Multiaddr]>,
        /// The error, if there was one.
        cause: Option<Arc<str>>,
    },
    /// A listener has failed temporarily and continues.
    ListenerError {
        /// The error.
        cause: Arc<str>,
    },
    /// A peer has reported an address at which this node may be reachable.
    ExternalAddressCandidate(Multiaddr),
    /// An address at which this node is reachable from outside is confirmed.
    ExternalAddressConfirmed(Multiaddr),
    /// An external address has expired.
    ExternalAddressExpired(Multiaddr),
    /// A peer was connected at a new address.
    PeerAddress {
        /// The peer.
        peer: PeerId,
        /// The address.
        address: Multiaddr,
    },
    /// An event of the distributed hash table.
    Kad(Arc<kad::Event>),
    /// A peer has identified itself.
    Identify(Arc<identify::Event>),
    /// Peers appeared on the local network or disappeared from it. Not sent in a browser.
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

    /// Returns the kind of change: stored, updated, removed or expired.
    pub fn kind(&self) -> ChangeKind {
        self.0.kind
    }

    /// Returns the record's key.
    pub fn key(&self) -> &RecordKey {
        &self.0.key
    }

    /// Returns the origin of the version: this program or a peer.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Returns the author that signed the version.
    pub fn author(&self) -> Option<Author> {
        self.envelope().and_then(Envelope::author)
    }

    /// Returns the peer that signed the version.
    pub fn author_peer(&self) -> Option<PeerId> {
        let key = ed25519::PublicKey::try_from_bytes(self.author()?.as_bytes()).ok()?;
        Some(PublicKey::from(key).to_peer_id())
    }

    /// Returns the stored version: a tombstone if the record was removed.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.0.envelope.as_ref()
    }

    /// Decodes the record, or its last version before its removal, as model `M`; `None` if the
    /// record belongs to another model.
    pub fn model<M: NetabaseModel>(&self) -> Option<Result<M, ValueError>> {
        let ours = self.0.key.is_of::<M>();
        ours.then(|| self.last_live().map(|envelope| decode_payload(envelope.payload()))).flatten()
    }

    /// Decodes the record, or its last version before its removal; `None` if the record belongs to
    /// another definition.
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

/// The reason why a subscription has no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EventError {
    /// The subscriber was too slow; the next call returns the oldest event that is kept.
    #[error("{missed} events were missed")]
    Lagged {
        /// The number of lost events.
        missed: u64,
    },
    /// Every handle of the Netabase was dropped.
    #[error("the netabase is closed")]
    Closed,
}

/// A subscription to the events of a Netabase.
///
/// A subscription survives stopping and starting the swarm. It buffers up to
/// [`EVENT_CAPACITY`](crate::limits::EVENT_CAPACITY) events for a slow subscriber.
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

    /// Waits for the next event. This method is cancel safe.
    pub async fn recv(&mut self) -> Result<NetabaseSwarmEvent, EventError> {
        self.receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => self.lagged(missed),
            broadcast::error::RecvError::Closed => EventError::Closed,
        })
    }

    /// Returns the next event, or `None` if there is none yet.
    pub fn try_recv(&mut self) -> Result<Option<NetabaseSwarmEvent>, EventError> {
        match self.receiver.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::TryRecvError::Empty) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(self.lagged(missed)),
            Err(broadcast::error::TryRecvError::Closed) => Err(EventError::Closed),
        }
    }
}
