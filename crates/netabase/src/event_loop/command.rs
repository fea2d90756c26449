//! The commands of the event loop.
//!
//! A command carries its reply channel. To add one: add a variant here, a line to
//! [`EventLoop::on_command`], and one function to the module of its subject.

use std::collections::HashSet;

use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use netabase_store::{Envelope, RecordKey, Scope, Version};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::Span;
use tracing::field::Empty;
use tracing::span::EnteredSpan;

use crate::admission::Offence;
use crate::config::DhtMode;
use crate::dht::holders::View;
use crate::error::NetabaseError;
use crate::event_loop::EventLoop;
use crate::outcome::{Health, PeerAnswer, ReadAnswer, WriteAnswer};
use crate::peers::connections::ConnectionInfo;
use crate::query::Holders;
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;
use crate::rpc::outbox::Silence;
use crate::swarm::{Deadline, PutPermit};
use crate::telemetry::trace_context::TraceContext;

mod local;
mod provider;
mod record;
mod repair;
mod routing;

/// The reply channel of a command. Dropping it answers [`NetabaseError::Closed`].
#[derive(Debug)]
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Result<T, NetabaseError>>,
    origin: Origin,
    /// Held until the answer, even if the caller has cancelled the call, since the query's cost is
    /// the same.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The call that a command belongs to.
#[derive(Debug)]
struct Origin {
    trace: Option<TraceContext>,
    span: Span,
    /// The span from the start in the event loop to the answer.
    query: Span,
}

impl Origin {
    fn here() -> Self {
        Self { trace: TraceContext::current(), span: Span::current(), query: Span::none() }
    }
}

/// The receiver of an answer.
pub(crate) type Answer<T> = oneshot::Receiver<Result<T, NetabaseError>>;

impl<T> Reply<T> {
    /// Creates a reply that holds a call's permit, if there is one.
    pub(crate) fn new(permit: Option<OwnedSemaphorePermit>) -> (Self, Answer<T>) {
        let (sender, answer) = oneshot::channel();
        (Self { sender, origin: Origin::here(), _permit: permit }, answer)
    }

    /// Returns the trace of the call.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.origin.trace
    }

    /// Starts the span of the work for a call.
    fn begin(&mut self, command: &'static str) -> EnteredSpan {
        let span = tracing::debug_span!(parent: &self.origin.span, "command", otel.name = command);
        self.origin.query = tracing::debug_span!(parent: &span, "in_flight", command, outcome = Empty);
        span.entered()
    }

    /// Returns whether a caller waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// A sender of commands for a node's tasks. It does not keep the swarm running: once the swarm has
/// ended, every call fails with [`NetabaseError::Closed`].
#[derive(Debug, Clone)]
pub(crate) struct Commands(mpsc::WeakSender<Command>);

impl Commands {
    pub(crate) fn new(sender: &mpsc::Sender<Command>) -> Self {
        Self(sender.downgrade())
    }

    /// Sends a command without a reply; returns when it is queued.
    pub(crate) async fn send(&self, command: Command) -> Result<(), NetabaseError> {
        let sender = self.0.upgrade().ok_or(NetabaseError::Closed)?;
        sender.send(command).await.map_err(|_| NetabaseError::Closed)
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn call<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetabaseError> {
        let (reply, answer) = Reply::new(None);
        self.send(command(reply)).await?;
        answer.await.map_err(|_| NetabaseError::Closed)?
    }

    /// Sends a request to a peer and waits for the response.
    pub(crate) async fn ask(
        &self,
        protocol: Protocol,
        peer: PeerId,
        request: Frame,
    ) -> Result<Frame, Silence> {
        let ask = |reply| Command::Ask { protocol, peer, request, reply };
        self.call(ask).await.unwrap_or(Err(Silence::Stopped))
    }

    /// Reports a peer's refused records.
    pub(crate) async fn refuse(&self, peer: PeerId, refused: Vec<Offence>) -> Result<(), NetabaseError> {
        if refused.is_empty() { Ok(()) } else { self.send(Command::Refused { peer, refused }).await }
    }
}

/// A command to the event loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Sends a version that is in the local store to the closest peers.
    PutRecord {
        key: RecordKey,
        envelope: Envelope,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    },
    /// Fetches the newest version of a record from the network; it may be a tombstone.
    GetRecord { key: RecordKey, reply: Reply<Reading> },
    /// Fetches the copy of each of the closest peers.
    GetAllCopies { key: RecordKey, deadline: Deadline, reply: Reply<Reading> },
    /// Asks the closest peers for their versions, and sends the newest to those that lack it.
    Health { key: RecordKey, repair: bool, deadline: Deadline, reply: Reply<Health> },
    /// Sends a tombstone that is in the local store to the closest peers.
    RemoveRecord {
        key: RecordKey,
        tombstone: Envelope,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    },
    /// Announces this node as a provider of a key. The reply is whether a peer was told.
    StartProviding { key: Vec<u8>, reply: Reply<bool> },
    /// Stops announcing this node as a provider of a key.
    StopProviding { key: Vec<u8>, reply: Reply<()> },
    /// Asks the network for the providers of a key.
    GetProviders { key: Vec<u8>, reply: Reply<HashSet<PeerId>> },
    /// Fills the routing table by looking up this node's own id.
    Bootstrap { reply: Reply<usize> },
    /// Adds a peer's address to the routing table and starts to connect to the peer.
    AddAddress { peer: PeerId, address: Multiaddr, reply: Reply<()> },
    /// Adds a peer's address to the routing table and connects to the peer. The reply is the result
    /// of the dial.
    Connect { peer: PeerId, address: Multiaddr, reply: Reply<()> },
    /// Removes a peer's address from the routing table.
    RemoveAddress { peer: PeerId, address: Multiaddr, reply: Reply<bool> },
    /// Removes a peer from the routing table and disconnects from it.
    RemovePeer { peer: PeerId, reply: Reply<bool> },
    /// Returns the mode of the distributed hash table.
    Mode { reply: Reply<kad::Mode> },
    /// Sets the mode of the distributed hash table.
    SetMode { mode: DhtMode, reply: Reply<()> },
    /// Returns the protocol names of the distributed hash table.
    ProtocolNames { reply: Reply<Vec<StreamProtocol>> },
    /// Reads records of the local store.
    LocalStore { limit: Option<usize>, reply: Reply<Vec<(RecordKey, Envelope)>> },
    /// Returns the connected peers.
    ConnectedPeers { reply: Reply<Vec<PeerId>> },
    /// Returns the connections.
    Connections { reply: Reply<Vec<ConnectionInfo>> },
    /// Sends a request to a peer. The reply is the response, or the reason why there is none. A
    /// request whose caller has cancelled is not sent.
    Ask { protocol: Protocol, peer: PeerId, request: Frame, reply: Reply<Result<Frame, Silence>> },
    /// Connects to a peer whose addresses are unknown. The reply does not wait for the connection.
    Locate { peer: PeerId, reply: Reply<()> },
    /// Returns the view from which the holders of a key follow.
    View { reply: Reply<View> },
    /// Reports the records of a peer that a task has refused.
    Refused { peer: PeerId, refused: Vec<Offence> },
    /// Returns whether this node is one of the closest to a key.
    IsHolder { key: RecordKey, reply: Reply<bool> },
    /// Looks up the peers that may hold records of a scope, most of them within 5 s. The result is
    /// cached for 5 s, and concurrent lookups of a scope are joined.
    FindHolders { scope: Scope, reply: Reply<Holders> },
    /// Delivers the result of a lookup of holders.
    HoldersFound { scope: Scope, holders: Holders },
    /// Looks up the providers of a key, and sends the providers of each answer. The lookup ends
    /// when the receiver is dropped.
    LookUpProviders { key: Vec<u8>, providers: mpsc::Sender<HashSet<PeerId>> },
    /// Ends the swarm.
    Stop { reply: oneshot::Sender<()> },
}

/// The condition of a put's answer. Default: the configured number of peers has accepted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PutTerms {
    /// The number of peers that must accept.
    pub(crate) concern: Option<usize>,
    /// The time at which the put is answered in any case.
    pub(crate) deadline: Option<Deadline>,
    /// The treatment of a newer version that a holder has.
    pub(crate) newer: OnNewer,
}

/// The treatment of a newer version that a holder has and the author of a put did not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnNewer {
    /// The newer version wins: the put publishes an earlier write.
    #[default]
    Yield,
    /// The newer version wins, and the caller is told: the write had a condition.
    Report,
    /// The version is signed again after the newer one: a user has just written it, whatever this
    /// node knew.
    Overtake,
}

/// The outcome of sending a version to the closest peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Publication {
    /// The closest peers, and each peer's answer so far.
    pub(crate) peers: Vec<PeerAnswer<WriteAnswer>>,
    /// The version that was sent last, if it was signed again after a holder's.
    pub(crate) signed_again: Option<Version>,
    /// The newer version of a holder after which the version was not signed again.
    pub(crate) overtaken_by: Option<Version>,
}

impl Publication {
    /// Returns the peers that have accepted.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|peer| peer.answer.is_acceptance()).map(|peer| peer.peer)
    }
}

/// The result of reading a record from peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// The newest version, verified.
    pub(crate) newest: Option<Envelope>,
    /// The peer that sent it.
    pub(crate) from: Option<PeerId>,
    /// The peers' answers.
    pub(crate) peers: Vec<PeerAnswer<ReadAnswer>>,
}

impl Command {
    /// Returns the command that sends a version to the closest peers.
    pub(crate) fn publish(
        key: RecordKey,
        envelope: Envelope,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) -> Self {
        if envelope.is_tombstone() {
            Self::RemoveRecord { key, tombstone: envelope, terms, permit, reply }
        } else {
            Self::PutRecord { key, envelope, terms, permit, reply }
        }
    }
}

impl Command {
    /// Starts the spans of a command that a call waits for.
    fn begin(&mut self) -> Option<EnteredSpan> {
        Some(match self {
            Self::PutRecord { reply, .. } => reply.begin("put_record"),
            Self::GetRecord { reply, .. } => reply.begin("get_record"),
            Self::GetAllCopies { reply, .. } => reply.begin("get_all_copies"),
            Self::Health { reply, .. } => reply.begin("health"),
            Self::RemoveRecord { reply, .. } => reply.begin("remove_record"),
            Self::StartProviding { reply, .. } => reply.begin("start_providing"),
            Self::StopProviding { reply, .. } => reply.begin("stop_providing"),
            Self::GetProviders { reply, .. } => reply.begin("get_providers"),
            Self::Bootstrap { reply } => reply.begin("bootstrap"),
            Self::Ask { reply, .. } => reply.begin("ask"),
            Self::Locate { reply, .. } => reply.begin("locate"),
            Self::FindHolders { reply, .. } => reply.begin("find_holders"),
            Self::Connect { reply, .. } => reply.begin("connect"),
            Self::AddAddress { .. }
            | Self::RemoveAddress { .. }
            | Self::RemovePeer { .. }
            | Self::Mode { .. }
            | Self::SetMode { .. }
            | Self::ProtocolNames { .. }
            | Self::LocalStore { .. }
            | Self::ConnectedPeers { .. }
            | Self::Connections { .. }
            | Self::View { .. }
            | Self::Refused { .. }
            | Self::IsHolder { .. }
            | Self::HoldersFound { .. }
            | Self::LookUpProviders { .. }
            | Self::Stop { .. } => return None,
        })
    }
}

impl EventLoop {
    /// Carries out a command, or starts the query that will answer it.
    pub(crate) fn on_command(&mut self, mut command: Command) {
        let _span = command.begin();
        match command {
            Command::PutRecord { key, envelope, terms, permit, reply } => {
                self.put_record(key, envelope, terms, permit, reply);
            }
            Command::GetRecord { key, reply } => self.get_record(key, reply),
            Command::GetAllCopies { key, deadline, reply } => self.get_all_copies(key, deadline, reply),
            Command::Health { key, repair, deadline, reply } => self.health(key, repair, deadline, reply),
            Command::RemoveRecord { key, tombstone, terms, permit, reply } => {
                self.put_record(key, tombstone, terms, permit, reply);
            }
            Command::StartProviding { key, reply } => self.start_providing(key, reply),
            Command::StopProviding { key, reply } => self.stop_providing(key, reply),
            Command::GetProviders { key, reply } => self.get_providers(key, reply),
            Command::Bootstrap { reply } => self.bootstrap(reply),
            Command::AddAddress { peer, address, reply } => self.add_address(peer, address, reply),
            Command::Connect { peer, address, reply } => self.connect(peer, address, reply),
            Command::RemoveAddress { peer, address, reply } => self.remove_address(peer, &address, reply),
            Command::RemovePeer { peer, reply } => self.remove_peer(peer, reply),
            Command::Mode { reply } => self.mode(reply),
            Command::SetMode { mode, reply } => self.set_mode(mode, reply),
            Command::ProtocolNames { reply } => self.protocol_names(reply),
            Command::LocalStore { limit, reply } => self.local_store(limit, reply),
            Command::ConnectedPeers { reply } => self.connected_peers(reply),
            Command::Connections { reply } => self.connections(reply),
            Command::Ask { protocol, peer, request, reply } => {
                self.ask_peer(protocol, peer, request, reply);
            }
            Command::Locate { peer, reply } => self.locate(peer, reply),
            Command::View { reply } => self.tell_view(reply),
            Command::Refused { peer, refused } => self.refused(peer, refused),
            Command::IsHolder { key, reply } => {
                let is_holder = self.is_holder(&key);
                answer(reply, Ok(is_holder));
            }
            Command::FindHolders { scope, reply } => self.find_scope(scope, reply),
            Command::HoldersFound { scope, holders } => self.on_scope_found(scope, holders),
            Command::LookUpProviders { key, providers } => self.look_up_providers(key, providers),
            Command::Stop { reply } => self.stop(reply),
        }
    }
}

/// Answers a caller, which may have cancelled the call.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T, NetabaseError>) {
    reply.origin.query.record("outcome", if result.is_ok() { "ok" } else { "error" });
    let _ = reply.sender.send(result);
}
