//! The event loop: the only owner of the swarm.

pub(crate) mod behaviour;
pub(crate) mod calls;
pub(crate) mod command;
pub(crate) mod event;
mod holders;
pub(crate) mod limits;
pub(crate) mod listen;
#[cfg_attr(all(target_family = "wasm", target_os = "unknown"), path = "event_loop/transport/browser.rs")]
mod transport;
pub(crate) mod wake;

use std::sync::Arc;

use futures::StreamExt;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::identity::Keypair;
use libp2p::metrics::{Recorder, Registry};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, Transport, kad};
use netabase_store::NetabaseStore;
use parking_lot::RwLock;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::admission::Admission;
use crate::config::NetabaseConfig;
use crate::connection::handshakes::Bounded;
use crate::connection::muxer::{Shared, kad_memory};
use crate::dht::Dht;
use crate::dht::kademlia;
use crate::dht::kademlia::PeerStore;
use crate::error::NetabaseError;
use crate::event::{NetabaseSwarmEvent, remote_address};
use crate::event_loop::behaviour::{NetabaseBehaviour, NetabaseBehaviourEvent};
use crate::event_loop::calls::Calls;
use crate::event_loop::command::{Command, Reply, answer};
use crate::event_loop::limits::{MAX_ADDRESS_PARTS, REJOIN_INTERVAL, SAMPLE_INTERVAL};
use crate::event_loop::listen::{Listening, listen};
use crate::event_loop::transport::{swarm_config, transport};
use crate::event_loop::wake::WakeDetector;
use crate::mdns::Mdns;
use crate::peers::Peers;
use crate::platform::{self, MissedTickBehavior, at, interval};
use crate::replication::ReplicationState;
use crate::replication::repair::news::PeerNews;
use crate::rpc::Protocol;
use crate::rpc::Rpc;
use crate::rpc::frame::max_frame_bytes;
use crate::swarm::{Parts, PutBudget};
use crate::telemetry::Telemetry;

/// The task that owns the swarm. It answers commands until it is stopped or every handle is
/// dropped.
///
/// Dropping it answers every caller in flight with [`NetabaseError::Closed`], because that drops
/// their reply channels.
pub(crate) struct EventLoop {
    pub(crate) swarm: Swarm<NetabaseBehaviour>,
    pub(crate) store: NetabaseStore,
    pub(crate) admission: Admission,
    pub(crate) config: Arc<NetabaseConfig>,
    /// The key that signs this run's statements about other nodes.
    pub(crate) identity: Keypair,
    /// The application's calls in flight.
    pub(crate) calls: Calls,
    pub(crate) dht: Dht,
    pub(crate) mdns: Mdns,
    pub(crate) peers: Peers,
    pub(crate) replication: ReplicationState,
    pub(crate) rpc: Rpc,
    pub(crate) telemetry: Telemetry,
    pub(crate) listening: Listening,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<NetabaseSwarmEvent>,
    pub(crate) stopping: Option<oneshot::Sender<()>>,
}

impl EventLoop {
    /// Creates the swarm; `ready` is answered once the swarm listens.
    pub(crate) fn new(
        parts: &Parts,
        commands: mpsc::Receiver<Command>,
        puts: PutBudget,
        addresses: Arc<RwLock<Vec<Multiaddr>>>,
        new_peer: Arc<Notify>,
        peer_news: Arc<PeerNews>,
        ready: Reply<()>,
    ) -> Result<Self, NetabaseError> {
        let mut registry = Registry::default();
        let mut swarm = build_swarm(parts, &mut registry)?;
        let swarm_metrics = libp2p::metrics::Metrics::new(&mut registry);
        parts.metrics.begin_swarm(registry);
        let listeners = listen(&mut swarm, &parts.config.listen_addresses)?;
        let limit = max_frame_bytes(parts.config.store.max_value_bytes);
        let mut event_loop = Self {
            swarm,
            store: parts.store.clone(),
            admission: parts.admission(),
            config: Arc::clone(&parts.config),
            identity: parts.identity.clone(),
            calls: Calls::new(puts),
            dht: Dht::new(parts.known_peers.clone()),
            mdns: Mdns::new(&parts.config.mdns),
            peers: Peers::new(parts, new_peer, peer_news),
            replication: ReplicationState::new(parts),
            rpc: Rpc::new(parts, limit)?,
            telemetry: Telemetry::new(parts, swarm_metrics),
            listening: Listening::new(addresses, listeners, ready),
            commands,
            events: parts.events.clone(),
            stopping: None,
        };
        event_loop.note_start();
        event_loop.begin_live();
        event_loop.answer_when_listening();
        Ok(event_loop)
    }

    /// Runs until the loop is stopped or every handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut rejoin = interval(REJOIN_INTERVAL);
        let mut sample = interval(SAMPLE_INTERVAL);
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wakes = WakeDetector::new(SAMPLE_INTERVAL, platform::now(), platform::system_time());
        while self.stopping.is_none() {
            tokio::select! {
                biased; // our own work before the network's
                // Before the calls whose delay it measures; it runs once a second.
                due = sample.tick() => {
                    self.telemetry.meters.was_late(platform::since(due));
                    self.measure_levels();
                    if let Some(slept) = wakes.tick(platform::now(), platform::system_time()) {
                        self.on_wake(slept);
                    }
                    if std::mem::take(&mut self.listening.interfaces_changed) {
                        self.on_interfaces_changed();
                    }
                    self.disconnect_strangers();
                    self.greet_due();
                    self.look_for_twins();
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = at(self.calls.next_settled()) => self.on_settled(),
                () = at(self.peers.silence.next_due()) => self.look_for_silence(),
                () = at(self.dht.watched.front().map(|(time, _)| *time)) => self.look_at_query(),
                () = self.peers.members.changed() => self.on_members_changed(),
                _ = rejoin.tick() => {
                    if self.config.dht.repair_interval.is_none() && self.is_connected() {
                        // No comparison will follow. If this node's absence was too long, the
                        // republisher discards its records.
                        self.store.replica().note_online();
                    }
                    self.rejoin();
                    self.renew_members();
                    self.remember_peers();
                }
                () = at(self.calls.next_deadline()) => self.on_deadline(),
                event = self.replication.exchange.next() => self.on_live_event(event),
                done = self.rpc.server.next() => self.on_request_done(done),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                addresses = self.mdns.twins.hear() => self.on_mdns_answer(addresses),
            }
        }
        self.remember_peers();
        self.dht.known_peers.save_at_the_end().await;
        // Answers the callers in flight, and releases the database, before it answers the stop.
        let Self {
            swarm,
            store,
            admission,
            calls,
            dht,
            rpc,
            replication,
            telemetry,
            commands,
            events,
            stopping,
            ..
        } = self;
        let (Rpc { server, outbox, .. }, meters) = (rpc, telemetry.meters);
        drop((commands, calls, dht, swarm, store, admission, outbox));
        server.stop().await;
        replication.exchange.stop().await;
        for level in [&meters.connected_peers, &meters.waiting_commands, &meters.outbox] {
            level.set(0);
        }
        let _ = events.send(NetabaseSwarmEvent::Stopped);
        if let Some(reply) = stopping {
            let _ = reply.send(());
        }
    }

    fn measure_levels(&self) {
        self.telemetry.meters.connected_peers.set(self.swarm.connected_peers().count());
        self.telemetry.meters.waiting_commands.set(self.commands.len());
        self.telemetry.meters.outbox.set(self.rpc.outbox.len());
    }

    /// Sends an event to the subscribers.
    pub(crate) fn broadcast(&self, event: NetabaseSwarmEvent) {
        // Sending fails only without subscribers.
        let _ = self.events.send(event);
    }

    pub(crate) fn kad(&mut self) -> &mut kad::Behaviour<PeerStore> {
        &mut self.swarm.behaviour_mut().kad
    }

    /// Answers the caller of the start once every listener has an address.
    pub(crate) fn answer_when_listening(&mut self) {
        if let Some((_, ready)) = self.listening.starting.take_if(|(listeners, _)| listeners.is_empty()) {
            self.broadcast(NetabaseSwarmEvent::Started);
            answer(ready, Ok(()));
        }
    }

    /// Records that a node that has known peers and has records was away until now. Without repair
    /// the mark would never be cleared.
    fn note_start(&self) {
        let dht = &self.config.dht;
        let knows_others = !dht.bootstrap_peers.is_empty() || !self.dht.known_peers.to_dial().is_empty();
        let has_records = self.store.replica().positions_len().is_ok_and(|records| records > 0);
        if dht.repair_interval.is_none() {
            self.peers.presence.is_never_compared();
        } else if knows_others && has_records {
            self.peers.presence.was_away();
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<NetabaseBehaviourEvent>) {
        if is_countable(&event) {
            self.telemetry.swarm_metrics.record(&event);
        }
        match &event {
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Kad(kademlia::Event::Kad(event))) => {
                self.telemetry.swarm_metrics.record(event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Identify(event)) => {
                self.telemetry.swarm_metrics.record(event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Ping(event)) => {
                self.telemetry.swarm_metrics.record(event);
            }
            SwarmEvent::ConnectionEstablished { .. } | SwarmEvent::ConnectionClosed { .. } => {
                self.measure_levels();
            }
            _ => {}
        }
        match event {
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Kad(kademlia::Event::Kad(event))) => {
                self.on_kad(event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Kad(kademlia::Event::Refused(refused))) => {
                self.on_refused(refused.peer, refused.offence);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Ping(event)) => self.on_ping(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Mdns(event)) => self.on_mdns(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Live(event)) => self.on_live(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Records(event)) => {
                self.on_rpc(Protocol::Records, event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Query(event)) => {
                self.on_rpc(Protocol::Query, event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Blobs(event)) => {
                self.on_rpc(Protocol::Blobs, event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Sync(event)) => self.on_rpc(Protocol::Sync, event),
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                self.on_connection_established(peer_id, connection_id, &endpoint, num_established.get());
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, endpoint, num_established, cause } => {
                self.peers.greetings.closed(&peer_id, connection_id, num_established == 0);
                self.on_connection_closed(peer_id, &endpoint, num_established, cause.as_ref());
            }
            SwarmEvent::IncomingConnection { connection_id, local_addr, send_back_addr } => {
                self.note_incoming(connection_id);
                self.on_incoming_connection(local_addr, send_back_addr);
            }
            SwarmEvent::IncomingConnectionError { connection_id, send_back_addr, error, .. } => {
                self.note_refused(connection_id, &error);
                self.on_incoming_connection_error(send_back_addr, &error);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.note_dialled(connection_id, &error);
                self.on_outgoing_connection_error(connection_id, peer_id, &error);
            }
            SwarmEvent::Dialing { peer_id, .. } => self.on_dialing(peer_id),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.on_new_listen_address(listener_id, address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_expired_listen_address(address),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listener_closed(listener_id, addresses, reason.as_ref().err());
            }
            SwarmEvent::ListenerError { error, .. } => self.on_listener_error(&error),
            SwarmEvent::NewExternalAddrCandidate { address } => {
                self.broadcast(NetabaseSwarmEvent::ExternalAddressCandidate(address));
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                self.broadcast(NetabaseSwarmEvent::ExternalAddressConfirmed(address));
            }
            SwarmEvent::ExternalAddrExpired { address } => {
                self.broadcast(NetabaseSwarmEvent::ExternalAddressExpired(address));
            }
            SwarmEvent::NewExternalAddrOfPeer { peer_id, address } => {
                self.broadcast(NetabaseSwarmEvent::PeerAddress { peer: peer_id, address });
            }
            // libp2p may add events in a minor release.
            event => tracing::debug!(?event, "an unknown swarm event"),
        }
    }
}

/// Returns whether libp2p may count an event under the form of its address. Peers choose the
/// addresses that they report, and each form is a label of a metric.
fn is_countable(event: &SwarmEvent<NetabaseBehaviourEvent>) -> bool {
    match event {
        SwarmEvent::ConnectionEstablished { endpoint, .. } => has_usual_form(endpoint.get_remote_address()),
        SwarmEvent::NewExternalAddrCandidate { address }
        | SwarmEvent::ExternalAddrConfirmed { address }
        | SwarmEvent::ExternalAddrExpired { address } => has_usual_form(address),
        _ => true,
    }
}

/// Returns whether an address is a host, a port and at most one peer.
fn has_usual_form(address: &Multiaddr) -> bool {
    let forms: Vec<&str> = address.protocol_stack().take(MAX_ADDRESS_PARTS + 1).collect();
    let host = forms.strip_suffix(&["p2p"]).unwrap_or(&forms);
    matches!(
        host,
        ["memory"]
            | ["ip4" | "ip6" | "dns" | "dns4" | "dns6", "tcp"]
            | ["ip4" | "ip6" | "dns" | "dns4" | "dns6", "udp", "quic-v1"]
    )
}

/// Creates a swarm whose connections are bounded and counted.
fn build_swarm(parts: &Parts, registry: &mut Registry) -> Result<Swarm<NetabaseBehaviour>, NetabaseError> {
    let meters = Arc::clone(parts.metrics.meters());
    let kad_memory = kad_memory(behaviour::longest_kad_message(parts.config.store.max_value_bytes));
    let shared = Shared::new(meters, kad_memory.clone(), parts.processor.clone());
    let bounded = Bounded::new(transport(&parts.identity)?);
    let bounded = Transport::map(bounded, move |(peer, connection), endpoint| {
        let connection = shared.connection(peer, remote_address(&endpoint), connection);
        (peer, StreamMuxerBox::new(connection))
    });
    let behaviour = NetabaseBehaviour::new(parts, kad_memory, registry)?;
    let config = swarm_config(parts.processor.clone())
        .with_idle_connection_timeout(parts.config.connections.idle_timeout);
    Ok(Swarm::new(Transport::boxed(bounded), behaviour, parts.identity.public().to_peer_id(), config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    #[test]
    fn addresses_that_peers_make_up_are_of_no_usual_form() {
        let peer = PeerId::random();
        let usual = ["/memory/1", "/ip4/10.0.0.1/tcp/1", "/ip6/::1/udp/1/quic-v1", "/dns4/host/tcp/1"];
        for address in usual.map(|address| address.parse::<Multiaddr>().unwrap()) {
            assert!(has_usual_form(&address) && has_usual_form(&address.clone().with_p2p(peer).unwrap()));
            let mut twice = address.with_p2p(peer).unwrap();
            twice.push(libp2p::multiaddr::Protocol::P2p(peer));
            assert!(!has_usual_form(&twice), "{twice}");
        }
        for address in ["", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/1", "/tcp/1/tcp/1", "/memory/1/ws"] {
            assert!(!has_usual_form(&address.parse().unwrap()), "{address}");
        }
    }
}
