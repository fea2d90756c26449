//! The composite behaviour: Kademlia, the protocols of Netabase, identify, ping, mDNS, and the
//! denial of connections.

use std::time::Duration;

use libp2p::kad::{self, Mode};
use libp2p::metrics::Registry;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, connection_limits, identify, ping};
use netabase_store::{Envelope, RecordKey};

use crate::blobs::limits::MAX_BLOB_FRAME_BYTES;
use crate::config::{DHTDiscoveryConfig, DhtMode};
use crate::connection::identify as bounded_identify;
use crate::connection::limits::MAX_PENDING_INCOMING;
use crate::dht::kademlia::PeerStore;
use crate::dht::{backoff, kademlia};
use crate::error::NetabaseError;
use crate::event_loop::limits::{
    BUCKET_SIZE, MAX_CONNECTIONS_PER_PEER, MAX_PENDING_DIALS, MESSAGE_OVERHEAD_BYTES,
};
use crate::mdns;
use crate::peers::{connections, score};
use crate::replication::{live, sync};
use crate::rpc::budget::ByteBudget;
use crate::rpc::frame;
use crate::rpc::limits::MAX_INCOMING_BYTES;
use crate::swarm::Parts;

/// The composite behaviour of a node.
#[derive(NetworkBehaviour)]
pub struct NetabaseBehaviour {
    /// First, so that a denied connection costs the other behaviours nothing.
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) scores: score::Behaviour,
    pub(crate) connections: connections::Behaviour,
    pub(crate) backoff: backoff::Behaviour,
    pub(crate) kad: kademlia::Behaviour,
    pub(crate) identify: bounded_identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) mdns: mdns::Behaviour,
    pub(crate) live: live::behaviour::Behaviour,
    /// After the behaviours that deny connections, since it hands queued requests to a new
    /// connection at once.
    pub(crate) records: frame::Behaviour,
    /// The query protocol, which is one of the last for the same reason, as are the following ones.
    pub(crate) query: frame::Behaviour,
    pub(crate) blobs: frame::Behaviour,
    pub(crate) sync: frame::Behaviour,
}

impl std::fmt::Debug for NetabaseBehaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetabaseBehaviour").field("kad_mode", &self.kad.mode()).finish_non_exhaustive()
    }
}

impl NetabaseBehaviour {
    pub(crate) fn new(
        parts: &Parts,
        kad_memory: ByteBudget,
        registry: &mut Registry,
    ) -> Result<Self, NetabaseError> {
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER))
            .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
            .with_max_pending_outgoing(Some(MAX_PENDING_DIALS));
        let longest_value = parts.config.store.max_value_bytes;
        let longest = sync::longest_frame(longest_value);
        let requests = ByteBudget::new(MAX_INCOMING_BYTES, longest);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            scores: score::Behaviour::new(parts.scores.clone(), parts.other_roots.clone()),
            connections: connections::Behaviour::new(
                parts.config.connections.max_established,
                parts.scores.clone(),
            ),
            backoff: backoff::Behaviour::default(),
            kad: kademlia(parts, kad_memory)?,
            identify: identify(parts),
            ping: ping(parts.config.connections.ping_interval),
            mdns: mdns::behaviour(&parts.identity, &parts.config.mdns)?,
            live: live::behaviour::Behaviour::new(
                protocol_name(&parts.network, "live"),
                parts.live.clone(),
                parts.scores.clone(),
                parts.processor.clone(),
                registry.sub_registry_with_prefix("libp2p_gossipsub"),
            )?,
            records: frame::behaviour(record_protocol_name(&parts.network)?, longest_value, requests.clone()),
            query: frame::behaviour(query_protocol_name(&parts.network)?, longest_value, requests.clone()),
            blobs: frame::framed(
                StreamProtocol::try_from_owned(protocol_name(&parts.network, "blob"))
                    .map_err(NetabaseError::network)?,
                MAX_BLOB_FRAME_BYTES,
                requests.clone(),
            ),
            sync: frame::framed(sync_protocol_name(&parts.network)?, longest, requests),
        })
    }
}

/// Returns the name of the protocol `kind`, which differs from network to network.
fn protocol_name(network: &str, kind: &str) -> String {
    format!("/netabase/{network}/{kind}/1.0.0")
}

/// Returns the name of the record protocol.
pub(crate) fn record_protocol_name(network: &str) -> Result<StreamProtocol, NetabaseError> {
    StreamProtocol::try_from_owned(protocol_name(network, "record")).map_err(NetabaseError::network)
}

/// Returns the name of the query protocol.
fn query_protocol_name(network: &str) -> Result<StreamProtocol, NetabaseError> {
    StreamProtocol::try_from_owned(protocol_name(network, "query")).map_err(NetabaseError::network)
}

/// Returns the name of the sync protocol.
pub(crate) fn sync_protocol_name(network: &str) -> Result<StreamProtocol, NetabaseError> {
    StreamProtocol::try_from_owned(protocol_name(network, "sync")).map_err(NetabaseError::network)
}

fn kademlia(parts: &Parts, memory: ByteBudget) -> Result<kademlia::Behaviour, NetabaseError> {
    let protocol = StreamProtocol::try_from_owned(protocol_name(&parts.network, "kad"));
    let peer = parts.identity.public().to_peer_id();
    let config = kad_config(protocol.map_err(NetabaseError::network)?, parts);
    let store = PeerStore::new(parts.store.clone(), parts.scores.clone(), parts.admission(), memory);
    let mut kad = kad::Behaviour::with_config(peer, store, config);
    kad.set_mode(Some(kad_mode(parts.config.dht.mode)));
    Ok(kademlia::Behaviour::new(kad, parts.processor.clone()))
}

/// Returns kad's configuration. Kad's own jobs are off: they read the whole store inside the
/// swarm's poll.
fn kad_config(protocol: StreamProtocol, parts: &Parts) -> kad::Config {
    let DHTDiscoveryConfig {
        bootstrap_peers: _,
        mode: _,
        replication_factor,
        write_concern: _,
        read_concern: _,
        parallelism,
        query_timeout,
        bootstrap_interval,
        repair_interval: _,
        republish_interval: _,
        provider_lifetime,
        non_exhaustive: _,
    } = &parts.config.dht;
    let mut config = kad::Config::new(protocol);
    config
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_provider_record_ttl(Some(*provider_lifetime))
        .set_record_filtering(kad::StoreInserts::Unfiltered)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_kbucket_size(BUCKET_SIZE)
        .set_replication_factor(*replication_factor)
        .set_parallelism(*parallelism)
        .set_query_timeout(*query_timeout)
        .set_periodic_bootstrap_interval(*bootstrap_interval)
        .set_max_packet_size(longest_kad_message(parts.config.store.max_value_bytes));
    config
}

/// Returns the bytes of the longest message of Kademlia.
pub(crate) const fn longest_kad_message(max_value_bytes: usize) -> usize {
    max_value_bytes + Envelope::OVERHEAD_BYTES + 2 * RecordKey::MAX_BYTES + MESSAGE_OVERHEAD_BYTES
}

/// Returns kad's mode. Without a mode kad would stay a client until an external address is
/// confirmed, and no peer could store records on a local network.
pub(crate) fn kad_mode(mode: DhtMode) -> Mode {
    match mode {
        DhtMode::Server => Mode::Server,
        DhtMode::Client => Mode::Client,
    }
}

fn identify(parts: &Parts) -> bounded_identify::Behaviour {
    let agent = parts.other_roots.agent(concat!("netabase/", env!("CARGO_PKG_VERSION")));
    let config = identify::Config::new(protocol_name(&parts.network, "id"), parts.identity.public())
        .with_agent_version(agent)
        .with_push_listen_addr_updates(true)
        // Its addresses are not judged, and the routing table has those that are.
        .with_cache_size(0);
    bounded_identify::Behaviour::new(identify::Behaviour::new(config), parts.processor.clone())
}

fn ping(interval: Duration) -> ping::Behaviour {
    ping::Behaviour::new(ping::Config::new().with_interval(interval).with_timeout(interval))
}
