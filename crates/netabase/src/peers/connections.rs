//! The limits of connections, and the choice of those to close above them.
//!
//! A few more connections than the limit are accepted, and then the event loop closes the least
//! valuable ones, by [`Worth`]: a connection that is denied at once may be the one that is needed,
//! which is unknown before the peer has sent something.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use crate::dht::address::{Prefix, Scope, ip, local_towards, scope};
use crate::event::remote_address;
use crate::peers::limits::{
    MAX_AGENT_BYTES, MAX_OF_LIMITED_PREFIX, NEWCOMER_SHARE, OUTGOING_SHARE, PREFIX_SHARE, QUIET_TIME,
};
use crate::peers::score::PeerScores;
use crate::platform::{self, Instant};
pub use info::ConnectionInfo;

mod info;

/// The behaviour that tracks all connections and denies those above the hard limit.
#[derive(Debug)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    /// The most established connections.
    max: usize,
    scores: PeerScores,
    established: HashMap<ConnectionId, Connection>,
}

/// An established connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: PeerId,
    pub(crate) since: Instant,
    since_time: SystemTime,
    remote: Multiaddr,
    /// The local address, if known.
    local: Option<IpAddr>,
    is_outgoing: bool,
    agent: Option<Arc<str>>,
    round_trip: Option<Duration>,
    /// Whether it is being closed in favour of others.
    is_closing: bool,
}

/// The value of a connection when there are too many, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// A connection of a peer outside the routing table, with the time since which it is quiet.
    Stranger(Instant),
    /// A connection of a peer in the routing table that has been quiet for a while.
    Quiet(Instant),
    /// The connection that was just established.
    Newcomer,
    /// A connection of an active peer in the routing table. It is never closed for others: peers
    /// that all serve each other would otherwise evict each other again and again.
    Busy,
}

impl Worth {
    /// Returns the value of a connection other than the newcomer.
    pub(crate) fn of(is_routed: bool, active: Instant, now: Instant) -> Self {
        if !is_routed {
            Self::Stranger(active)
        } else if now.saturating_duration_since(active) >= QUIET_TIME {
            Self::Quiet(active)
        } else {
            Self::Busy
        }
    }
}

/// The reason of a denied connection.
#[derive(Debug, Error)]
enum Denied {
    #[error("there are too many connections from the same network")]
    Prefix,
    #[error("there are too many connections")]
    Full,
}

impl Behaviour {
    pub(crate) fn new(max_established: u32, scores: PeerScores) -> Self {
        let max = usize::try_from(max_established).unwrap_or(usize::MAX);
        Self { max, scores, established: HashMap::new() }
    }

    /// Returns the prefix that a peer is connected from.
    pub(crate) fn prefix_of(&self, peer: &PeerId) -> Option<Prefix> {
        self.of(peer).find_map(|connection| Prefix::of(&connection.remote))
    }

    /// Returns the narrowest reach of a peer's connections.
    pub(crate) fn scope_of(&self, peer: &PeerId) -> Scope {
        self.of(peer).filter_map(|known| scope(&known.remote)).min().unwrap_or(Scope::Everywhere)
    }

    /// Returns the addresses at which this node has reached a peer.
    pub(crate) fn reached_at(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.of(peer).filter(|known| known.is_outgoing).map(|known| known.remote.clone()).collect()
    }

    /// Returns the connections whose local address is known.
    pub(crate) fn with_local_addresses(&self) -> Vec<(ConnectionId, PeerId, IpAddr)> {
        let known = self.established.iter();
        known.filter_map(|(id, known)| Some((*id, known.peer, known.local?))).collect()
    }

    /// Returns the dead connections of a peer that has moved: `connection` leads to one of its
    /// listen addresses, and they to none. Behind a router no connection leads to a listen address,
    /// and all count as alive.
    pub(crate) fn outdated(&self, connection: ConnectionId, listening: &[Multiaddr]) -> Vec<ConnectionId> {
        let listening: HashSet<IpAddr> = listening.iter().filter_map(ip).collect();
        let leads_there = |known: &Connection| ip(&known.remote).is_some_and(|ip| listening.contains(&ip));
        let Some(new) = self.established.get(&connection).filter(|new| leads_there(new)) else {
            return Vec::new();
        };
        let of_peer = self.established.iter().filter(|(_, known)| known.peer == new.peer);
        let elsewhere = of_peer.filter(|(_, known)| ip(&known.remote).is_some() && !leads_there(known));
        elsewhere.map(|(id, _)| *id).collect()
    }

    /// Returns the number of connections to a peer.
    pub(crate) fn count_of(&self, peer: &PeerId) -> usize {
        self.of(peer).count()
    }

    /// Returns all connections, the oldest first.
    pub(crate) fn all(&self) -> Vec<ConnectionInfo> {
        let mut all: Vec<_> = self.established.values().collect();
        all.sort_by_key(|connection| connection.since);
        let told = |connection: &Connection| ConnectionInfo {
            peer: connection.peer,
            address: connection.remote.clone(),
            outgoing: connection.is_outgoing,
            since: connection.since_time,
            agent: connection.agent.clone(),
            round_trip: connection.round_trip,
        };
        all.into_iter().map(told).collect()
    }

    /// Records the agent of a peer.
    pub(crate) fn identified(&mut self, connection: ConnectionId, agent: &str) {
        if let Some(known) = self.established.get_mut(&connection) {
            let end = (0..=MAX_AGENT_BYTES.min(agent.len())).rev().find(|end| agent.is_char_boundary(*end));
            known.agent = end.and_then(|end| agent.get(..end)).map(Into::into);
        }
    }

    /// Records a ping's round trip time.
    pub(crate) fn answered(&mut self, connection: ConnectionId, round_trip: Duration) {
        if let Some(known) = self.established.get_mut(&connection) {
            known.round_trip = Some(round_trip);
        }
    }

    fn of(&self, peer: &PeerId) -> impl Iterator<Item = &Connection> {
        self.established.values().filter(move |connection| connection.peer == *peer)
    }

    /// Returns the connections of which one is to be closed, if there are too many: incoming ones
    /// if those are too many, any if all are.
    pub(crate) fn making_room(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        let (incoming, all) = self.count();
        let (too_many, too_many_incoming) = (all > self.max, incoming > self.max_incoming());
        let open = self.established.iter().filter(move |(_, known)| {
            !known.is_closing && (too_many || too_many_incoming && !known.is_outgoing)
        });
        open.map(|(id, known)| (*id, known))
    }

    /// Records that a connection is being closed.
    pub(crate) fn closing(&mut self, connection: ConnectionId) {
        if let Some(known) = self.established.get_mut(&connection) {
            known.is_closing = true;
        }
    }

    fn max_incoming(&self) -> usize {
        self.max - self.max / OUTGOING_SHARE
    }

    /// Returns the numbers of incoming and of all connections, without those that are being closed.
    fn count(&self) -> (usize, usize) {
        let open = self.established.values().filter(|known| !known.is_closing);
        let all = open.clone().count();
        (open.filter(|known| !known.is_outgoing).count(), all)
    }

    /// Denies a connection above the share for newcomers, whatever is being closed.
    fn check_room(&self, max: usize, established: usize) -> Result<(), ConnectionDenied> {
        if established >= max + self.max / NEWCOMER_SHARE {
            Err(ConnectionDenied::new(Denied::Full))
        } else {
            Ok(())
        }
    }

    /// Denies a connection of a prefix that has used up its share.
    fn check_share(&self, prefix: Prefix) -> Result<(), ConnectionDenied> {
        let of_prefix = self
            .established
            .values()
            .filter(|known| !known.is_outgoing && Prefix::of(&known.remote) == Some(prefix))
            .count();
        let share = (self.max / PREFIX_SHARE).max(1);
        let share = if self.scores.is_limited(prefix) { share.min(MAX_OF_LIMITED_PREFIX) } else { share };
        if of_prefix >= share { Err(ConnectionDenied::new(Denied::Prefix)) } else { Ok(()) }
    }
}

/// Returns the local address of a connection, or `None` if it is unknown. libp2p does not report it
/// to a dialler, nor for QUIC; then it is the address from which packets to `remote` go.
fn local_address(endpoint: &ConnectedPoint, remote: &Multiaddr) -> Option<IpAddr> {
    let told = match endpoint {
        ConnectedPoint::Dialer { .. } => None,
        ConnectedPoint::Listener { local_addr, .. } => ip(local_addr),
    };
    told.filter(|local| !local.is_unspecified()).or_else(|| local_towards(ip(remote)?))
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Prefix::of(remote).map_or(Ok(()), |prefix| self.check_share(prefix))?;
        let incoming = self.established.values().filter(|known| !known.is_outgoing).count();
        self.check_room(self.max_incoming(), incoming)?;
        self.check_room(self.max, self.established.len())?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_room(self.max, self.established.len())?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id,
                endpoint,
                ..
            }) => {
                let (remote, is_outgoing) = (remote_address(endpoint).clone(), endpoint.is_dialer());
                let connection = Connection {
                    peer,
                    since: platform::now(),
                    since_time: platform::system_time(),
                    local: local_address(endpoint, &remote),
                    remote,
                    is_outgoing,
                    agent: None,
                    round_trip: None,
                    is_closing: false,
                };
                self.established.insert(connection_id, connection);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            // Other events, and those that libp2p adds, do not concern established connections.
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn behaviour(max: u32) -> Behaviour {
        Behaviour::new(max, PeerScores::default())
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// Accepts an incoming connection, from its first packet to its establishment.
    fn accept(
        behaviour: &mut Behaviour,
        peer: PeerId,
        remote: &str,
    ) -> Result<ConnectionId, ConnectionDenied> {
        let (id, local, remote) = (id(), address("/ip4/192.0.2.1/tcp/1"), address(remote));
        behaviour.handle_established_inbound_connection(id, peer, &local, &remote)?;
        let endpoint = ConnectedPoint::Listener { local_addr: local, send_back_addr: remote };
        establish(behaviour, id, peer, &endpoint);
        Ok(id)
    }

    fn dial(behaviour: &mut Behaviour, peer: PeerId, remote: &str) -> Result<(), ConnectionDenied> {
        let (id, address) = (id(), address(remote));
        let (role_override, port_use) = (Endpoint::Dialer, PortUse::New);
        behaviour.handle_established_outbound_connection(id, peer, &address, role_override, port_use)?;
        establish(behaviour, id, peer, &ConnectedPoint::Dialer { address, role_override, port_use });
        Ok(())
    }

    fn id() -> ConnectionId {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        ConnectionId::new_unchecked(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn close(behaviour: &mut Behaviour, id: ConnectionId, peer: PeerId, remote: &str) {
        let (local_addr, send_back_addr) = (address("/ip4/192.0.2.1/tcp/1"), address(remote));
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: id,
            endpoint: &ConnectedPoint::Listener { local_addr, send_back_addr },
            cause: None,
            remaining_established: 1,
        }));
    }

    fn establish(behaviour: &mut Behaviour, id: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    #[test]
    fn connections_to_where_a_peer_is_no_more_are_outdated() {
        let (mut behaviour, peer) = (behaviour(64), PeerId::random());
        let before = accept(&mut behaviour, peer, "/ip4/10.0.0.2/tcp/4711").unwrap();
        let after = accept(&mut behaviour, peer, "/ip4/10.0.0.12/tcp/4712").unwrap();
        let also = accept(&mut behaviour, peer, "/ip4/192.168.0.2/tcp/4713").unwrap();
        accept(&mut behaviour, PeerId::random(), "/ip4/10.0.0.2/tcp/1").unwrap();
        let says = ["/ip4/10.0.0.12/tcp/1", "/ip4/192.168.0.2/udp/1/quic-v1", "/memory/1"].map(address);
        assert_eq!(behaviour.outdated(after, &says), [before]);
        assert_eq!(behaviour.outdated(also, &says), [before]);
        assert_eq!(behaviour.outdated(before, &says), [], "it may be behind a router");
        assert_eq!(behaviour.outdated(after, &["/ip4/172.16.0.1/tcp/1".parse().unwrap()]), []);
    }

    #[test]
    fn one_prefix_has_a_quarter_of_all_connections() {
        let mut behaviour = behaviour(64);
        for host in 1..=16 {
            accept(&mut behaviour, PeerId::random(), &format!("/ip4/198.51.100.{host}/tcp/1")).unwrap();
        }
        assert!(accept(&mut behaviour, PeerId::random(), "/ip4/198.51.100.99/tcp/1").is_err());
        accept(&mut behaviour, PeerId::random(), "/ip4/203.0.113.1/tcp/1").unwrap();
        for host in 1..=20 {
            accept(&mut behaviour, PeerId::random(), &format!("/ip4/10.0.0.{host}/tcp/1")).unwrap();
        }
    }

    #[test]
    fn a_prefix_of_banned_peers_has_few_connections_and_not_none() {
        use crate::admission::Severity;
        use netabase_store::Refusal;
        let mut behaviour = behaviour(64);
        let prefix = Prefix::of(&address("/ip4/198.51.100.1/tcp/1"));
        for _ in 0..3 {
            let peer = PeerId::random();
            for _ in 0..5 {
                behaviour.scores.refused(peer, prefix, Refusal::InvalidSignature, Severity::Grave);
            }
        }
        for host in 1..=4 {
            accept(&mut behaviour, PeerId::random(), &format!("/ip4/198.51.100.{host}/tcp/1")).unwrap();
        }
        assert!(accept(&mut behaviour, PeerId::random(), "/ip4/198.51.100.5/tcp/1").is_err());
    }

    #[test]
    fn incoming_connections_leave_room_for_outgoing_ones() {
        let mut behaviour = behaviour(16);
        while accept(&mut behaviour, PeerId::random(), "/memory/1").is_ok() {
            while let Some((id, _)) = behaviour.making_room().min_by_key(|(_, known)| known.since) {
                behaviour.closing(id);
            }
        }
        assert_eq!(behaviour.count(), (12, 12), "without those that are being closed");
        assert_eq!(behaviour.established.len(), 14, "and with them");
        behaviour.established.retain(|_, known| !known.is_closing);
        for _ in 0..4 {
            dial(&mut behaviour, PeerId::random(), "/memory/2").unwrap();
        }
        assert_eq!(behaviour.making_room().count(), 0);
        dial(&mut behaviour, PeerId::random(), "/memory/2").unwrap();
        assert_eq!(behaviour.making_room().count(), 17, "one of all makes room");
    }

    #[test]
    fn strangers_make_room_first_and_busy_peers_never() {
        let start = platform::now();
        let (later, now) = (start + QUIET_TIME, start + QUIET_TIME * 2);
        let order = [
            Worth::of(false, start, now),
            Worth::of(false, now, now),
            Worth::of(true, start, now),
            Worth::of(true, later, now),
            Worth::Newcomer,
            Worth::of(true, now, now),
        ];
        assert!(order.is_sorted());
        assert_eq!(order[5], Worth::Busy);
        assert_eq!(order[3], Worth::Quiet(later));
    }

    #[test]
    fn of_two_connections_with_one_address_the_other_stays_when_one_is_closed() {
        let (mut behaviour, peer, remote) = (behaviour(16), PeerId::random(), "/ip4/198.51.100.1/tcp/1");
        let first = accept(&mut behaviour, peer, remote).unwrap();
        let second = accept(&mut behaviour, peer, remote).unwrap();
        behaviour.identified(second, &"\u{e4}".repeat(MAX_AGENT_BYTES));
        behaviour.answered(second, Duration::from_millis(7));
        assert_eq!(behaviour.all().len(), 2);
        close(&mut behaviour, first, peer, remote);
        // A late event belongs to no connection.
        behaviour.answered(first, Duration::from_millis(9));
        let all = behaviour.all();
        let [info] = &all[..] else { panic!("{all:?}") };
        assert_eq!((info.peer, info.outgoing, &info.address), (peer, false, &address(remote)));
        assert_eq!(info.agent.as_deref().map(str::len), Some(MAX_AGENT_BYTES));
        assert_eq!(info.round_trip, Some(Duration::from_millis(7)));
    }

    #[test]
    fn a_peer_is_known_by_its_connections() {
        let (mut behaviour, peer) = (behaviour(16), PeerId::random());
        assert_eq!(behaviour.scope_of(&peer), Scope::Everywhere);
        dial(&mut behaviour, peer, "/ip4/198.51.100.1/tcp/1").unwrap();
        accept(&mut behaviour, peer, "/ip4/192.168.0.7/tcp/1").unwrap();
        assert_eq!(behaviour.scope_of(&peer), Scope::Network);
        assert_eq!(behaviour.prefix_of(&peer), Prefix::of(&address("/ip4/198.51.100.200/tcp/1")));
        assert_eq!(behaviour.reached_at(&peer), [address("/ip4/198.51.100.1/tcp/1")]);
    }
}
