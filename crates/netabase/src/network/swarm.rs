//! The event loop: the only owner of the swarm.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, ListenerId, MemoryTransport};
use libp2p::core::upgrade;
use libp2p::identity::Keypair;
use libp2p::kad::{PeerInfo, QueryId};
use libp2p::metrics::{Recorder, Registry};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, Transport, dns, kad, noise, quic, tcp, yamux,
};
use netabase_store::NetabaseStore;
use parking_lot::RwLock;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::bandwidth;
use super::behaviour::{NetabaseBehaviour, NetabaseBehaviourEvent, record_protocol_name, sync_protocol_name};
use super::blobs::Traffic;
use super::command::{Command, Reply, answer};
use super::find::holders::Lookups;
use super::find::link::PagesInFlight;
use super::ingest::Ingest;
use super::kademlia::{self, PeerStore};
use super::known_peers::KnownPeers;
use super::listen::listen;
use super::live::exchange::Exchange;
use super::members::MemberNews;
use super::outbox::Outbox;
use super::query::{Queries, Waiting};
use super::record_protocol::max_frame_bytes;
use super::sync::{self, SyncPeers};
use super::{Deadline, NetabaseConfig, Parts, PutBudget, Sanctions, Traces};
use crate::config::split_peer;
use crate::error::NetabaseError;
use crate::event::NetabaseSwarmEvent;
use crate::metrics::Meters;

/// How often a node without connections looks for its bootstrap peers and for its local network.
const REJOIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is measured how late the loop is.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How many parts an address has at most whose form libp2p counts.
const MAX_ADDRESS_PARTS: usize = 4;
/// The most peers of earlier times that are dialled at once.
const MAX_KNOWN_DIALS: usize = 16;

/// Owns the swarm and answers commands until it is told to stop or every handle is gone.
///
/// Dropping it answers every caller in flight with [`NetabaseError::Closed`], because their reply
/// channels are dropped with it.
pub(super) struct EventLoop {
    pub(super) swarm: Swarm<NetabaseBehaviour>,
    pub(super) store: NetabaseStore,
    pub(super) config: Arc<NetabaseConfig>,
    pub(super) queries: Queries,
    pub(super) puts: PutBudget,
    pub(super) members: MemberNews,
    /// What peers ask of us by the record protocol.
    pub(super) ingest: Ingest,
    /// What we ask of them.
    pub(super) outbox: Outbox,
    /// What is asked about blobs, of us and by us.
    pub(super) blobs: Traffic,
    /// Live changes, of others and of ours.
    pub(super) exchange: Exchange,
    /// The name of the record protocol.
    pub(super) record_protocol: StreamProtocol,
    /// Who is asked for the records of a scope.
    pub(super) lookups: Lookups,
    /// Questions for records under way.
    pub(super) pages: PagesInFlight,
    /// What our sessions have asked by the sync protocol, its name, and who speaks it.
    pub(super) sync_asked: sync::Asked,
    pub(super) sync_protocol: StreamProtocol,
    pub(super) sync_peers: SyncPeers,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<NetabaseSwarmEvent>,
    /// What the handle reads.
    pub(super) addresses: Arc<RwLock<Vec<Multiaddr>>>,
    /// Tells the republisher that there is somebody to publish to.
    pub(super) new_peer: Arc<Notify>,
    /// Tells the repairer that peers have entered the routing table or left it.
    pub(super) view_changed: Arc<Notify>,
    /// Connected peers that have not been in the routing table since.
    pub(super) newly_connected: HashSet<PeerId>,
    /// The listeners that the start waits for, and who waits.
    pub(super) starting: Option<(HashSet<ListenerId>, Reply<()>)>,
    /// The closest peers to any key, while those are the whole network.
    pub(super) whole_network: Option<WholeNetwork>,
    /// Gets that have a copy, in the order of the times at which they need no more.
    pub(super) settling: VecDeque<(Instant, QueryId)>,
    /// Calls whose callers wait no longer than that.
    deadlines: BTreeSet<(Instant, Waiting)>,
    pub(super) stopping: Option<oneshot::Sender<()>>,
    pub(super) sanctions: Sanctions,
    pub(super) traces: Traces,
    pub(super) meters: Arc<Meters>,
    /// libp2p's own numbers.
    swarm_metrics: libp2p::metrics::Metrics,
    /// The peers that are dialled when nobody is connected.
    pub(super) known_peers: KnownPeers,
}

impl EventLoop {
    /// Sets the swarm up; `ready` is answered once it listens.
    pub(super) fn new(
        parts: &Parts,
        commands: mpsc::Receiver<Command>,
        puts: PutBudget,
        addresses: Arc<RwLock<Vec<Multiaddr>>>,
        new_peer: Arc<Notify>,
        view_changed: Arc<Notify>,
        ready: Reply<()>,
    ) -> Result<Self, NetabaseError> {
        let mut registry = Registry::default();
        let mut swarm = build_swarm(parts, &mut registry)?;
        let swarm_metrics = libp2p::metrics::Metrics::new(&mut registry);
        parts.metrics.begin_swarm(registry);
        let listeners = listen(&mut swarm, &parts.config.listen_addresses)?;
        let mut event_loop = Self {
            swarm,
            store: parts.store.clone(),
            config: Arc::clone(&parts.config),
            queries: Queries::default(),
            puts,
            members: MemberNews::new(&parts.store, Arc::clone(&parts.members_news)),
            ingest: Ingest::new(parts, max_frame_bytes(parts.config.max_value_bytes)),
            outbox: Outbox::default(),
            blobs: Traffic::new(parts),
            exchange: Exchange::new(parts),
            record_protocol: record_protocol_name(&parts.network)?,
            lookups: Lookups::default(),
            pages: PagesInFlight::default(),
            sync_asked: sync::Asked::new(),
            sync_protocol: sync_protocol_name(&parts.network)?,
            sync_peers: parts.replications.peers().clone(),
            commands,
            events: parts.events.clone(),
            addresses,
            new_peer,
            view_changed,
            newly_connected: HashSet::new(),
            starting: Some((listeners, ready)),
            whole_network: None,
            settling: VecDeque::new(),
            deadlines: BTreeSet::new(),
            stopping: None,
            sanctions: parts.sanctions.clone(),
            traces: parts.traces.clone(),
            meters: Arc::clone(parts.metrics.meters()),
            swarm_metrics,
            known_peers: KnownPeers::load(parts.known_peers.clone()),
        };
        event_loop.begin_live();
        event_loop.answer_when_listening();
        Ok(event_loop)
    }

    /// Runs until it is told to stop or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut rejoin = interval(REJOIN_INTERVAL);
        let mut sample = interval(SAMPLE_INTERVAL);
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stopping.is_none() {
            tokio::select! {
                biased; // our own work before the network's
                // Before the calls that it counts; once a second, it keeps nobody waiting.
                due = sample.tick() => {
                    self.meters.was_late(due.elapsed());
                    self.measure_levels();
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = at(self.settling.front()) => self.on_settled(),
                () = self.members.changed() => self.on_members_changed(),
                _ = rejoin.tick() => {
                    if self.config.dht.repair_interval.is_none() && self.is_connected() {
                        // No comparison will ever say more. If it does not count, the republisher discards what
                        // was missed.
                        self.store.note_online();
                    }
                    self.rejoin();
                    self.renew_members();
                    self.remember_peers();
                }
                () = at(self.deadlines.first()) => self.on_deadline(),
                errand = self.exchange.next() => self.on_live_errand(errand),
                done = self.ingest.next() => self.on_request_done(done),
                done = self.blobs.next() => self.on_blob_request_done(done),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
            }
        }
        self.remember_peers();
        self.known_peers.save_at_the_end().await;
        // Callers in flight are answered, and nothing of the database is held, before the stop is.
        let Self {
            swarm,
            store,
            queries,
            ingest,
            blobs,
            exchange,
            commands,
            events,
            stopping,
            sync_asked,
            meters,
            ..
        } = self;
        drop((commands, queries, swarm, store, sync_asked));
        ingest.stop().await;
        blobs.stop().await;
        exchange.stop().await;
        for level in [&meters.connected_peers, &meters.waiting_commands, &meters.outbox] {
            level.set(0);
        }
        let _ = events.send(NetabaseSwarmEvent::Stopped);
        if let Some(reply) = stopping {
            let _ = reply.send(());
        }
    }

    fn measure_levels(&self) {
        self.meters.connected_peers.set(self.swarm.connected_peers().count());
        self.meters.waiting_commands.set(self.commands.len());
        self.meters.outbox.set(self.outbox.len());
    }

    /// Sends an event to the subscribers, if there are any.
    pub(super) fn broadcast(&self, event: NetabaseSwarmEvent) {
        // Without subscribers there is nobody to miss it.
        let _ = self.events.send(event);
    }

    pub(super) fn kad(&mut self) -> &mut kad::Behaviour<PeerStore> {
        &mut self.swarm.behaviour_mut().kad
    }

    /// Connects to a peer that there is news of.
    pub(super) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.swarm.behaviour_mut().backoff.allow(&peer);
        match self.swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build()) {
            // Being connected, or about to be, is what the dial was for.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => tracing::debug!(%error, "cannot dial"),
        }
    }

    /// Answers a caller at the deadline, if it is not answered before.
    pub(super) fn answer_late(&mut self, waiting: Waiting, deadline: Option<Deadline>) {
        self.deadlines.extend(deadline.map(|deadline| (deadline.at, waiting)));
    }

    /// Nobody waits any more.
    pub(super) fn forget_deadline(&mut self, waiting: Waiting, deadline: Option<Deadline>) {
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline.at, waiting));
        }
    }

    fn on_deadline(&mut self) {
        match self.deadlines.pop_first() {
            Some((_, Waiting::Put(id))) => self.on_put_deadline(id),
            Some((_, Waiting::Ask(id))) => self.on_ask_deadline(id),
            None => {}
        }
    }

    /// Answers the start once every listener has an address.
    pub(super) fn answer_when_listening(&mut self) {
        if let Some((_, ready)) = self.starting.take_if(|(listeners, _)| listeners.is_empty()) {
            self.broadcast(NetabaseSwarmEvent::Started);
            answer(ready, Ok(()));
        }
    }

    /// Looks for peers while none is connected: at the start, and after everybody was lost.
    ///
    /// Bootstrap peers enter the routing table at once, since the operator vouches for them. mDNS tells
    /// of a peer only once.
    fn rejoin(&mut self) {
        if self.is_connected() {
            return;
        }
        self.dial_discovered();
        let config = Arc::clone(&self.config);
        for (peer, address) in config.dht.bootstrap_peers.iter().filter_map(split_peer) {
            self.kad().add_address(&peer, address.clone());
            self.dial(peer, vec![address]);
        }
        self.dial_known_peers();
    }

    /// Dials peers that were good to know, unless the last dials to them have failed.
    fn dial_known_peers(&mut self) {
        let backoff = &self.swarm.behaviour().backoff;
        let known = self.known_peers.to_dial().into_iter().filter(|(peer, _)| !backoff.is_left_alone(peer));
        let known: Vec<_> = known.take(MAX_KNOWN_DIALS).collect();
        for (peer, addresses) in known {
            // Being connected, or about to be, is what the dial was for.
            let _ = self.swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build());
        }
    }

    /// Keeps in mind which peers are connected and in the routing table, for when nobody is.
    fn remember_peers(&mut self) {
        let routed: Vec<(PeerId, Vec<Multiaddr>)> = self
            .kad()
            .kbuckets()
            .flat_map(|bucket| {
                let peers = bucket.iter().map(|entry| {
                    (*entry.node.key.preimage(), entry.node.value.iter().cloned().collect::<Vec<_>>())
                });
                peers.collect::<Vec<_>>()
            })
            .collect();
        let now = SystemTime::now();
        for (peer, addresses) in routed {
            if self.swarm.is_connected(&peer) {
                self.known_peers.saw(peer, addresses, now);
            }
        }
        self.known_peers.save_if_due();
    }

    /// Whether any peer of our network is connected.
    fn is_connected(&mut self) -> bool {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        connected.into_iter().any(|peer| self.is_routed(peer))
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<NetabaseBehaviourEvent>) {
        if is_countable(&event) {
            self.swarm_metrics.record(&event);
        }
        match &event {
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Kad(kademlia::Event::Kad(event))) => {
                self.swarm_metrics.record(event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Identify(event)) => {
                self.swarm_metrics.record(event);
            }
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Ping(event)) => self.swarm_metrics.record(event),
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
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Records(event)) => self.on_record_protocol(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Query(event)) => self.on_query_protocol(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Blobs(event)) => self.on_blob_protocol(event),
            SwarmEvent::Behaviour(NetabaseBehaviourEvent::Sync(event)) => self.on_sync(event),
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                self.on_connection_established(peer_id, connection_id, &endpoint, num_established.get());
            }
            SwarmEvent::ConnectionClosed { peer_id, endpoint, num_established, cause, .. } => {
                self.on_connection_closed(peer_id, &endpoint, num_established, cause.as_ref());
            }
            SwarmEvent::IncomingConnection { local_addr, send_back_addr, .. } => {
                self.on_incoming_connection(local_addr, send_back_addr);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_incoming_connection_error(send_back_addr, &error);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.on_outgoing_connection_error(peer_id, &error);
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
            event => tracing::debug!(?event, "a swarm event without a meaning for us"),
        }
    }
}

/// All peers of a network that is smaller than the number of holders of a record.
#[derive(Debug)]
pub(super) struct WholeNetwork {
    pub(super) peers: Vec<PeerInfo>,
    pub(super) until: Instant,
}

/// Waits until the time of an entry, for ever if there is none.
async fn at<T>(entry: Option<&(Instant, T)>) {
    match entry {
        Some((time, _)) => tokio::time::sleep_until(*time).await,
        None => std::future::pending().await,
    }
}

/// Whether libp2p may count an event under the form of its address. Peers choose what they call ours, and what they
/// claim as theirs, and each form would be a label.
fn is_countable(event: &SwarmEvent<NetabaseBehaviourEvent>) -> bool {
    match event {
        SwarmEvent::ConnectionEstablished { endpoint, .. } => has_usual_form(endpoint.get_remote_address()),
        SwarmEvent::NewExternalAddrCandidate { address }
        | SwarmEvent::ExternalAddrConfirmed { address }
        | SwarmEvent::ExternalAddrExpired { address } => has_usual_form(address),
        _ => true,
    }
}

/// Whether an address is a host, a port and at most one peer.
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

/// TCP with noise and yamux, QUIC, and libp2p's memory transport for nodes in one process; DNS
/// names in addresses are looked up, and bytes are counted.
fn build_swarm(parts: &Parts, registry: &mut Registry) -> Result<Swarm<NetabaseBehaviour>, NetabaseError> {
    let transport = transport(&parts.identity, parts.metrics.meters())?;
    let behaviour = NetabaseBehaviour::new(parts, registry)?;
    let builder = SwarmBuilder::with_existing_identity(parts.identity.clone())
        .with_tokio()
        .with_other_transport(|_| transport)
        .map_err(NetabaseError::network)?;
    let swarm = builder.with_behaviour(|_| behaviour).map_err(NetabaseError::network)?;
    let idle_timeout = parts.config.connections.idle_timeout;
    Ok(swarm.with_swarm_config(|config| config.with_idle_connection_timeout(idle_timeout)).build())
}

fn transport(
    identity: &Keypair,
    meters: &Arc<Meters>,
) -> Result<Boxed<(PeerId, bandwidth::Counted)>, NetabaseError> {
    let noise = || noise::Config::new(identity).map_err(NetabaseError::network);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default()).upgrade(upgrade::Version::V1Lazy);
    let tcp = tcp.authenticate(noise()?).multiplex(yamux::Config::default());
    let quic = quic::tokio::Transport::new(quic::Config::new(identity));
    let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
    let memory = memory.authenticate(noise()?).multiplex(yamux::Config::default());
    let boxed = |(peer, connection), _| (peer, StreamMuxerBox::new(connection));
    let both = tcp
        .map(boxed)
        .or_transport(quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))));
    let both = both.map(|either, _| either.into_inner());
    let all = both.or_transport(memory.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))));
    let all = all.map(|either, _| either.into_inner());
    let meters = Arc::clone(meters);
    let named = dns::tokio::Transport::system(all).map_err(NetabaseError::network)?;
    let counted = named
        .map(move |(peer, connection), _| (peer, bandwidth::Counted::new(connection, Arc::clone(&meters))));
    Ok(counted.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

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
