//! The swarm's events of connections and listeners.

use std::io::ErrorKind;
use std::sync::Arc;

use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, ListenError};
use libp2p::{Multiaddr, PeerId};
use netabase_store::Refusal;

use crate::admission::Severity;
use crate::connection::streams::Flood;
use crate::dht::address::Prefix;
use crate::dht::rejoin::reason;
use crate::error::NetabaseError;
use crate::event::{NetabaseSwarmEvent, remote_address};
use crate::event_loop::EventLoop;
use crate::event_loop::command::answer;
use crate::event_loop::limits::MAX_FAILED_DIALS;
use crate::peers::connections::Worth;
use crate::platform::{self};

impl EventLoop {
    pub(crate) fn on_connection_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        connections: u32,
    ) {
        let (address, outgoing) = (remote_address(endpoint).clone(), endpoint.is_dialer());
        self.broadcast(NetabaseSwarmEvent::ConnectionEstablished { peer, address, outgoing, connections });
        self.dht.newly_connected.insert(peer);
        self.dht.servers.connected(peer, remote_address(endpoint), outgoing);
        self.dht.dials.forget(&peer);
        self.on_dial_ended(connection, Ok(()));
        self.peers.greetings.connected(connection);
        self.mdns.twins.established(connection);
        self.make_room(connection);
        if self.peers.scores.is_banned(&peer) {
            self.notify_of_ban(peer, connection);
        }
    }

    /// Closes the least valuable connections while there are too many. The newcomer may be one of
    /// them.
    fn make_room(&mut self, newcomer: ConnectionId) {
        let now = platform::now();
        loop {
            let connections = self.swarm.behaviour().connections.making_room();
            let open: Vec<_> = connections.map(|(id, known)| (id, known.peer, known.since)).collect();
            let worth = |(id, peer, since)| {
                let active = self.swarm.behaviour().kad.last_active(&peer).unwrap_or(since);
                let worth = Worth::of(self.is_routed(peer), active, now);
                (if id == newcomer { Worth::Newcomer } else { worth }, since, id)
            };
            match open.into_iter().map(worth).min_by_key(|(worth, since, _)| (*worth, *since)) {
                None | Some((Worth::Busy, ..)) => return,
                Some((_, _, connection)) => {
                    self.swarm.behaviour_mut().connections.closing(connection);
                    self.swarm.close_connection(connection);
                }
            }
        }
    }

    pub(crate) fn on_connection_closed(
        &mut self,
        peer: PeerId,
        endpoint: &ConnectedPoint,
        connections: u32,
        cause: Option<&ConnectionError>,
    ) {
        if connections == 0 {
            self.dht.newly_connected.remove(&peer);
            if self.is_routed(peer) && !self.is_connected() {
                self.peers.presence.was_away();
            }
            self.dht.has_left(&peer);
            self.peers.members.forget(&peer);
            self.replication.exchange.forget(&peer);
            self.peers.silence.disconnected(&peer);
            self.replication.sync_peers.set(peer, false);
            if cause.is_some_and(is_silence) {
                self.dht.dials.miss(peer);
            }
            if self.dht.dials.is_missed(&peer) {
                self.dht.dials.add([peer]);
                self.dial_waiting();
            }
            self.forget_claims(peer);
            self.compare_clocks();
        }
        if cause.is_some_and(is_flood) {
            self.on_flood(peer, endpoint);
        }
        let (address, cause) = (remote_address(endpoint).clone(), cause.map(text));
        self.broadcast(NetabaseSwarmEvent::ConnectionClosed { peer, address, connections, cause });
    }

    /// Records that this node was suspended, and schedules a comparison with every peer, now or
    /// when it is connected again, since this node lacks the changes that peers made meanwhile.
    pub(crate) fn catch_up(&mut self) {
        self.peers.presence.was_away();
        self.compare_with_connected();
    }

    /// Schedules a comparison with the connected peers soon.
    pub(crate) fn compare_with_connected(&mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            self.peers.news.has_returned(peer);
        }
        self.replication.replications.sync_all();
    }

    pub(crate) fn on_incoming_connection(&mut self, local_address: Multiaddr, remote_address: Multiaddr) {
        self.broadcast(NetabaseSwarmEvent::IncomingConnection { local_address, remote_address });
    }

    pub(crate) fn on_incoming_connection_error(&mut self, remote_address: Multiaddr, error: &ListenError) {
        self.broadcast(NetabaseSwarmEvent::IncomingConnectionError { remote_address, cause: text(error) });
    }

    pub(crate) fn on_outgoing_connection_error(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        error: &DialError,
    ) {
        if let Some(peer) = peer {
            if self.swarm.is_connected(&peer) {
                // Another address may lead nowhere.
                self.swarm.behaviour_mut().backoff.allow(&peer);
            }
            self.forget_dead_peer(peer);
            let failed = || NetabaseError::NotReached { peer, reason: reason(error).into() };
            self.on_dial_ended(connection, Err(&failed));
        }
        self.broadcast(NetabaseSwarmEvent::OutgoingConnectionError { peer, cause: text(error) });
    }

    /// Answers the caller that waits for a dial, and starts the next dial.
    fn on_dial_ended(&mut self, connection: ConnectionId, outcome: Result<(), &dyn Fn() -> NetabaseError>) {
        if let Some(reply) = self.dht.dials.ended(connection) {
            answer(reply, outcome.map_err(|failed| failed()));
        }
        self.dial_waiting();
    }

    /// Forgets the addresses that a peer has claimed before it left, and that nothing has shown to
    /// be its own.
    fn forget_claims(&mut self, peer: PeerId) {
        self.dht.servers.set_serves(&peer, false);
        let routed = self.routed_addresses(peer);
        let (own, claimed): (Vec<_>, Vec<_>) =
            routed.into_iter().partition(|address| self.dht.servers.is_at(&peer, address));
        if own.is_empty() {
            if !claimed.is_empty() {
                self.kad().remove_peer(&peer);
                self.peers.news.view_has_changed();
            }
            return;
        }
        for address in &claimed {
            self.kad().remove_address(&peer, address);
        }
    }

    /// Counts a grave offence of a peer whose connection was closed for what it has cost.
    fn on_flood(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        let prefix = Prefix::of(remote_address(endpoint));
        self.on_offence(peer, prefix, None, Refusal::TooFast, Severity::Grave);
    }

    /// Removes a dead peer from the routing table, where it would delay every put. A peer that this
    /// node has never reached has one attempt, unless this node is cut off itself.
    fn forget_dead_peer(&mut self, peer: PeerId) {
        let is_claim = !self.dht.servers.is_proven(&peer) && self.is_connected();
        let most = if is_claim { 1 } else { MAX_FAILED_DIALS };
        if self.swarm.behaviour().backoff.failures(&peer) >= most && !self.swarm.is_connected(&peer) {
            self.kad().remove_peer(&peer);
            self.peers.news.view_has_changed();
        }
    }

    pub(crate) fn on_dialing(&mut self, peer: Option<PeerId>) {
        self.broadcast(NetabaseSwarmEvent::Dialing { peer });
    }

    pub(crate) fn on_new_listen_address(&mut self, listener: ListenerId, address: Multiaddr) {
        tracing::info!(%address, "listening");
        self.listening.addresses.write().push(address.clone());
        self.mdns.twins.join(&self.listening.addresses.read());
        self.listening.interfaces_changed |= self.listening.starting.is_none();
        self.broadcast(NetabaseSwarmEvent::NewListenAddress(address));
        if let Some((listeners, _)) = &mut self.listening.starting {
            listeners.remove(&listener);
        }
        self.answer_when_listening();
    }

    pub(crate) fn on_expired_listen_address(&mut self, address: Multiaddr) {
        self.listening.addresses.write().retain(|known| *known != address);
        self.listening.interfaces_changed = true;
        self.broadcast(NetabaseSwarmEvent::ExpiredListenAddress(address));
    }

    pub(crate) fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        addresses: Vec<Multiaddr>,
        error: Option<&std::io::Error>,
    ) {
        self.listening.addresses.write().retain(|known| !addresses.contains(known));
        let cause = error.map(text);
        if let Some((_, ready)) =
            self.listening.starting.take_if(|(listeners, _)| listeners.contains(&listener))
        {
            let kind = error.map_or(ErrorKind::ConnectionAborted, std::io::Error::kind);
            let said = cause.as_deref().unwrap_or("the listener was closed").to_owned();
            let address = addresses.first().cloned().unwrap_or_else(Multiaddr::empty);
            let source = Arc::new(std::io::Error::new(kind, said));
            answer(ready, Err(NetabaseError::Listen { address, source }));
        }
        self.broadcast(NetabaseSwarmEvent::ListenerClosed { addresses: addresses.into(), cause });
    }

    pub(crate) fn on_listener_error(&mut self, error: &std::io::Error) {
        self.broadcast(NetabaseSwarmEvent::ListenerError { cause: text(error) });
    }
}

/// Returns whether a connection has ended because no data arrived any more, and not because the
/// peer has closed it.
fn is_silence(cause: &ConnectionError) -> bool {
    match cause {
        ConnectionError::IO(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => true,
            // libp2p's error wraps QUIC's.
            _ => error.to_string().contains("timed out"),
        },
        ConnectionError::KeepAliveTimeout => false,
    }
}

/// Returns whether a connection was closed since its peer has opened streams without using them.
fn is_flood(cause: &ConnectionError) -> bool {
    let ConnectionError::IO(error) = cause else { return false };
    let mut outer = Some(error);
    while let Some(inner) = outer.and_then(|error| error.get_ref()) {
        if inner.is::<Flood>() {
            return true;
        }
        outer = inner.downcast_ref();
    }
    false
}

fn text(error: &(impl std::fmt::Display + ?Sized)) -> Arc<str> {
    error.to_string().into()
}
