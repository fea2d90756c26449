//! What the application asks of the swarm.
//!
//! A command carries its reply channel. To add one: add a variant here, a line to
//! [`EventLoop::on_command`], and one function to the module of its subject.

use std::collections::HashSet;

use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use netabase_store::{Envelope, RecordKey, Scope};
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

/// Where the answer to a command goes. Dropping it answers [`NetabaseError::Closed`].
#[derive(Debug)]
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Result<T, NetabaseError>>,
    origin: Origin,
    /// Held until the answer, also for a caller that has gone away: a query in flight costs the
    /// same.
    _permit: Option<OwnedSemaphorePermit>,
}

/// To which call a command belongs.
#[derive(Debug)]
struct Origin {
    trace: Option<TraceContext>,
    span: Span,
    /// From when the event loop has begun to when the caller is answered.
    query: Span,
}

impl Origin {
    fn here() -> Self {
        Self { trace: TraceContext::current(), span: Span::current(), query: Span::none() }
    }
}

/// Where an answer comes from.
pub(crate) type Answer<T> = oneshot::Receiver<Result<T, NetabaseError>>;

impl<T> Reply<T> {
    /// Makes a reply that holds a call's permit, if it is a caller's.
    pub(crate) fn new(permit: Option<OwnedSemaphorePermit>) -> (Self, Answer<T>) {
        let (sender, answer) = oneshot::channel();
        (Self { sender, origin: Origin::here(), _permit: permit }, answer)
    }

    /// Returns the trace of the call.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.origin.trace
    }

    /// Begins the span of what is done for the call until it is answered.
    fn begin(&mut self, command: &'static str) -> EnteredSpan {
        let span = tracing::debug_span!(parent: &self.origin.span, "command", otel.name = command);
        self.origin.query = tracing::debug_span!(parent: &span, "in_flight", command, outcome = Empty);
        span.entered()
    }

    /// Whether anybody waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// Where tasks of a node send commands. It does not keep the swarm running: once that has ended,
/// every call fails with [`NetabaseError::Closed`].
#[derive(Debug, Clone)]
pub(crate) struct Commands(mpsc::WeakSender<Command>);

impl Commands {
    pub(crate) fn new(sender: &mpsc::Sender<Command>) -> Self {
        Self(sender.downgrade())
    }

    /// Sends a command that nobody waits for; returns when it is on its way.
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

    /// Sends a peer a request and waits for what it says.
    pub(crate) async fn ask(
        &self,
        protocol: Protocol,
        peer: PeerId,
        request: Frame,
    ) -> Result<Frame, Silence> {
        let ask = |reply| Command::Ask { protocol, peer, request, reply };
        self.call(ask).await.unwrap_or(Err(Silence::Stopped))
    }

    /// Has a peer judged for what it should not have sent.
    pub(crate) async fn refuse(&self, peer: PeerId, refused: Vec<Offence>) -> Result<(), NetabaseError> {
        if refused.is_empty() { Ok(()) } else { self.send(Command::Refused { peer, refused }).await }
    }
}

/// A request to the swarm.
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
    /// Asks the network for a record and returns the newest version, a tombstone too.
    GetRecord { key: RecordKey, reply: Reply<Reading> },
    /// Asks every one of the closest peers for its copy of a record.
    GetAllCopies { key: RecordKey, deadline: Deadline, reply: Reply<Reading> },
    /// Asks the closest peers which version they have, and sends the newest to those that lack it.
    Health { key: RecordKey, repair: bool, deadline: Deadline, reply: Reply<Health> },
    /// Sends a tombstone that is in the local store to the closest peers.
    RemoveRecord {
        key: RecordKey,
        tombstone: Envelope,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    },
    /// Announces this node as a provider of a key; the answer is whether there was anybody to tell.
    StartProviding { key: Vec<u8>, reply: Reply<bool> },
    /// Stops announcing this node as a provider of a key.
    StopProviding { key: Vec<u8>, reply: Reply<()> },
    /// Asks the network who provides a key.
    GetProviders { key: Vec<u8>, reply: Reply<HashSet<PeerId>> },
    /// Fills the routing table by looking for ourselves.
    Bootstrap { reply: Reply<usize> },
    /// Adds a peer's address to the routing table and begins to connect to it.
    AddAddress { peer: PeerId, address: Multiaddr, reply: Reply<()> },
    /// Adds a peer's address to the routing table and connects to it; the answer is what has become
    /// of the dial.
    Connect { peer: PeerId, address: Multiaddr, reply: Reply<()> },
    /// Removes a peer's address from the routing table.
    RemoveAddress { peer: PeerId, address: Multiaddr, reply: Reply<bool> },
    /// Removes a peer from the routing table and disconnects from it.
    RemovePeer { peer: PeerId, reply: Reply<bool> },
    /// Asks for the mode of the distributed hash table.
    Mode { reply: Reply<kad::Mode> },
    /// Changes the mode of the distributed hash table.
    SetMode { mode: DhtMode, reply: Reply<()> },
    /// Asks for the protocol names of the distributed hash table.
    ProtocolNames { reply: Reply<Vec<StreamProtocol>> },
    /// Reads records of the local store.
    LocalStore { limit: Option<usize>, reply: Reply<Vec<(RecordKey, Envelope)>> },
    /// Asks which peers are connected.
    ConnectedPeers { reply: Reply<Vec<PeerId>> },
    /// Asks for the connections, and what is known of each.
    Connections { reply: Reply<Vec<ConnectionInfo>> },
    /// Sends a peer a request; the answer is what it says, or why it says nothing. A request whose
    /// caller has gone away is not sent.
    Ask { protocol: Protocol, peer: PeerId, request: Frame, reply: Reply<Result<Frame, Silence>> },
    /// Connects to a peer whose addresses are not known here; the answer does not wait for the
    /// connection.
    Locate { peer: PeerId, reply: Reply<()> },
    /// Asks who holds what.
    View { reply: Reply<View> },
    /// Tells what the repair has refused of a peer.
    Refused { peer: PeerId, refused: Vec<Offence> },
    /// Asks whether this node is one of the closest to a key.
    IsHolder { key: RecordKey, reply: Reply<bool> },
    /// Asks which peers may hold records of a scope, nearly all of them within 5 s. The answer is
    /// used again for as long; equal questions at a time are one.
    FindHolders { scope: Scope, reply: Reply<Holders> },
    /// Tells what a lookup of holders has found.
    HoldersFound { scope: Scope, holders: Holders },
    /// Asks the network who provides a key, and tells of the providers as peers name them. Who
    /// reads them is the first to end it.
    LookUpProviders { key: Vec<u8>, providers: mpsc::Sender<HashSet<PeerId>> },
    /// Ends the swarm.
    Stop { reply: oneshot::Sender<()> },
}

/// When a put is answered; by default when as many peers have accepted as the configuration says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PutTerms {
    /// How many peers are to accept.
    pub(crate) concern: Option<usize>,
    /// When it is answered in any case.
    pub(crate) deadline: Option<Deadline>,
}

/// What became of a version that was sent to the closest peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Publication {
    /// The closest peers that were found, and what each had done when the answer was given.
    pub(crate) peers: Vec<PeerAnswer<WriteAnswer>>,
}

impl Publication {
    /// Returns the peers that have accepted.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|peer| peer.answer.is_acceptance()).map(|peer| peer.peer)
    }
}

/// What was found of a record at other peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// The newest version, verified.
    pub(crate) newest: Option<Envelope>,
    /// Who sent it.
    pub(crate) from: Option<PeerId>,
    /// What the peers answered.
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
    /// Begins the spans of a command that a call waits for.
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

/// Answers a caller; one that has gone away in the meantime needs no answer.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T, NetabaseError>) {
    reply.origin.query.record("outcome", if result.is_ok() { "ok" } else { "error" });
    let _ = reply.sender.send(result);
}
