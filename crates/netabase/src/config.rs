//! How a Netabase is set up.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use netabase_store::__private::NonExhaustive;
use netabase_store::StoreOptions;
use netabase_store::key::is_name;

use crate::error::ConfigError;
use crate::limits::MAX_VALUE_BYTES;

mod file;

/// How to set up a [`Netabase`](crate::Netabase), in code or from a [file](Self::from_file).
///
/// ```
/// use netabase::{DHTDiscoveryConfig, MDNSDiscoveryConfig, NetabaseConfig};
///
/// let config = NetabaseConfig {
///     database_path: Some("chat.redb".into()),
///     network: Some("my-chat".into()),
///     mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
///     dht: DHTDiscoveryConfig {
///         bootstrap_peers: vec![
///             "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".parse()?,
///         ],
///         ..DHTDiscoveryConfig::default()
///     },
///     ..NetabaseConfig::default()
/// };
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct NetabaseConfig {
    /// How the store is opened: its backend, its cache, its limits, and the root of a closed
    /// network. The node sets [`identity`](StoreOptions::identity) and
    /// [`position`](StoreOptions::position) of it by its own [`identity`](Self::identity), and its
    /// [`writer`](StoreOptions::writer) has a thread.
    pub store: StoreOptions,
    /// Where the database is: a file for redb, a directory for sled. Default: the definition's name
    /// with the backend's name as its ending, in [`directory`](Self::directory).
    pub database_path: Option<PathBuf>,
    /// The directory of the database, if [`database_path`](Self::database_path) does not say where
    /// it is; it is created if there is none. The program `netabase` looks for a database there
    /// with `--path`. Default: the current directory.
    pub directory: Option<PathBuf>,
    /// The key that names this peer and signs its records. Default: none, which means the key in
    /// the file beside the database, made at the first start.
    pub identity: Option<Keypair>,
    /// The name of the network; nodes of other networks are not spoken to. Closed networks of one
    /// name and different roots notice each other and keep apart, see `docs/trust.md`. Default:
    /// none, which means the definition's name.
    pub network: Option<String>,
    /// Where to listen. Default: TCP and QUIC on every IPv4 interface, on ports that the system
    /// chooses.
    pub listen_addresses: Vec<Multiaddr>,
    /// The distributed hash table.
    pub dht: DHTDiscoveryConfig,
    /// Discovery on the local network.
    pub mdns: MDNSDiscoveryConfig,
    /// How many connections are kept.
    pub connections: ConnectionConfig,
    /// How often a scope that this node keeps is compared with each of its holders, beyond when one
    /// connects, give or take a fifth; see [`Netabase::replicate`](crate::Node::replicate).
    /// Default: 5 minutes.
    pub sync_interval: Duration,
    /// The deadline of every call that waits for the network. Default: 30 s.
    pub call_timeout: Duration,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for NetabaseConfig {
    fn default() -> Self {
        let any = Multiaddr::from(std::net::Ipv4Addr::UNSPECIFIED);
        Self {
            store: StoreOptions::default(),
            database_path: None,
            directory: None,
            identity: None,
            network: None,
            listen_addresses: vec![
                any.clone().with(Protocol::Tcp(0)),
                any.with(Protocol::Udp(0)).with(Protocol::QuicV1),
            ],
            dht: DHTDiscoveryConfig::default(),
            mdns: MDNSDiscoveryConfig::default(),
            connections: ConnectionConfig::default(),
            sync_interval: Duration::from_secs(5 * 60),
            call_timeout: Duration::from_secs(30),
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

/// Whether a node serves the distributed hash table or only uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DhtMode {
    /// Stores and answers for others. The default, because a network needs nodes that do.
    #[default]
    Server,
    /// Only asks others.
    Client,
}

/// Settings of the Kademlia distributed hash table.
#[derive(Debug, Clone)]
pub struct DHTDiscoveryConfig {
    /// Peers to connect to at the start; each address ends with `/p2p/<peer id>`. Default: none.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// Whether to serve. Default: [`DhtMode::Server`].
    pub mode: DhtMode,
    /// How many of the closest peers hold each record: Kademlia's `k`, 1 to 20. Default: 20.
    pub replication_factor: NonZeroUsize,
    /// How many peers must accept a record before a put returns, or as many as are found and answer
    /// if that is fewer; the others are still sent it. With 0 a put returns when the record is on
    /// this disk. Default: 3.
    pub write_concern: usize,
    /// How many copies of a record a get collects before it answers, or as many as there are; it
    /// answers with fewer 300 ms after the first. Default: 3.
    pub read_concern: NonZeroUsize,
    /// How many peers a query asks at a time: Kademlia's alpha. Default: 3.
    pub parallelism: NonZeroUsize,
    /// When a query gives up. Default: 20 s.
    pub query_timeout: Duration,
    /// How often the routing table is refreshed. Default: 5 minutes; none means only when it grows.
    pub bootstrap_interval: Option<Duration>,
    /// In how much time everything that is kept here is compared once with its other holders, so
    /// that each record is kept by as many as it should be. Default: 1 hour; with `None` only when
    /// [`Netabase::repair`](crate::Node::repair) is called.
    pub repair_interval: Option<Duration>,
    /// How often the author of a record takes care that its holders have it, give or take a tenth:
    /// it asks them and sends it to those that lack it, unless it holds the record itself and
    /// [repairs](Self::repair_interval) it. Default: 24 hours.
    pub republish_interval: Duration,
    /// How long other peers keep a provider record. Default: 48 hours.
    pub provider_lifetime: Duration,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for DHTDiscoveryConfig {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const THREE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
        Self {
            bootstrap_peers: Vec::new(),
            mode: DhtMode::default(),
            replication_factor: libp2p::kad::K_VALUE,
            write_concern: 3,
            read_concern: THREE,
            parallelism: libp2p::kad::ALPHA_VALUE,
            query_timeout: Duration::from_secs(20),
            bootstrap_interval: Some(Duration::from_secs(5 * 60)),
            repair_interval: Some(HOUR),
            republish_interval: 24 * HOUR,
            provider_lifetime: 48 * HOUR,
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

/// Settings of multicast DNS, which finds peers on the local network.
#[derive(Debug, Clone)]
pub struct MDNSDiscoveryConfig {
    /// Whether to use it. Default: yes.
    pub enabled: bool,
    /// How often to ask for peers, beyond asking when an interface comes up. Default: 5 minutes.
    pub query_interval: Duration,
    /// How long others remember this node's answers. Default: 6 minutes.
    pub ttl: Duration,
    /// Whether to use IPv6 instead of IPv4. Default: no.
    pub enable_ipv6: bool,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for MDNSDiscoveryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            query_interval: Duration::from_secs(5 * 60),
            ttl: Duration::from_secs(6 * 60),
            enable_ipv6: false,
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

/// How many connections are kept, and for how long.
///
/// Beside these, a peer may have 8 connections (two peers that dial each other at once need more
/// than one) and 64 may be in the making in each direction.
///
/// Incoming connections may have three quarters of all, and those from one IPv4 /24 or IPv6 /64 a
/// quarter, except from private networks and this machine. When there are too many, the incoming
/// ones that are worth least are closed: those of peers that are not in the routing table, the
/// longest quiet first.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// The most established connections; an eighth more may be there until room is made.
    /// Default: 256.
    pub max_established: u32,
    /// How long a connection without streams is kept. Default: 5 minutes.
    pub idle_timeout: Duration,
    /// How often the peer at the other end of a connection is asked for a sign of life, and how
    /// long it may take to give it. A connection is closed when two in a row are not given; for the
    /// second, the peer has 10 s. The first is asked for at once. Default: 20 s.
    pub ping_interval: Duration,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            max_established: 256,
            idle_timeout: Duration::from_secs(5 * 60),
            ping_interval: Duration::from_secs(20),
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

impl NetabaseConfig {
    /// Checks every value; [`Netabase::new_with_config`](crate::Netabase::new_with_config) does so
    /// too.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(name) = self.network.as_ref().filter(|name| !is_name(name.as_bytes())) {
            return Err(ConfigError::NetworkName { name: name.clone() });
        }
        if self.identity.as_ref().is_some_and(|identity| identity.clone().try_into_ed25519().is_err()) {
            return Err(ConfigError::IdentityKind);
        }
        for address in &self.dht.bootstrap_peers {
            split_peer(address).ok_or_else(|| ConfigError::BootstrapAddress { address: address.clone() })?;
        }
        self.validate_ranges()
    }

    fn validate_ranges(&self) -> Result<(), ConfigError> {
        /// Longer ones would overflow the arithmetic of time.
        const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
        const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
        const MILLIS: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
        let checks = [
            (
                (1..=MAX_VALUE_BYTES).contains(&self.store.max_value_bytes),
                "store.max_value_bytes",
                "1 byte to 16 MiB",
            ),
            (self.store.identity.is_none(), "store.identity", "none; set `identity`"),
            (self.dht.replication_factor <= libp2p::kad::K_VALUE, "dht.replication_factor", "1 to 20"),
            (self.dht.read_concern <= libp2p::kad::K_VALUE, "dht.read_concern", "1 to 20"),
            (
                self.dht.bootstrap_interval.is_none_or(|interval| SECONDS.contains(&interval)),
                "dht.bootstrap_interval",
                "1 s to 10 years, or none",
            ),
            (
                self.store.record_lifetime.is_none_or(|lifetime| SECONDS.contains(&lifetime)),
                "store.record_lifetime",
                "1 s to 10 years, or none",
            ),
            (
                self.dht.repair_interval.is_none_or(|interval| SECONDS.contains(&interval)),
                "dht.repair_interval",
                "1 s to 10 years, or none",
            ),
            (self.store.blob_grace <= LONGEST, "store.blob_grace", "at most 10 years"),
            (self.store.lock_timeout <= LONGEST, "store.lock_timeout", "at most 10 years"),
            (SECONDS.contains(&self.store.tombstone_floor), "store.tombstone_floor", "1 s to 10 years"),
            (SECONDS.contains(&self.sync_interval), "sync_interval", "1 s to 10 years"),
            (MILLIS.contains(&self.call_timeout), "call_timeout", "1 ms to 10 years"),
            (MILLIS.contains(&self.dht.query_timeout), "dht.query_timeout", "1 ms to 10 years"),
            (SECONDS.contains(&self.dht.republish_interval), "dht.republish_interval", "1 s to 10 years"),
            (SECONDS.contains(&self.dht.provider_lifetime), "dht.provider_lifetime", "1 s to 10 years"),
            (SECONDS.contains(&self.mdns.query_interval), "mdns.query_interval", "1 s to 10 years"),
            (SECONDS.contains(&self.mdns.ttl), "mdns.ttl", "1 s to 10 years"),
            (self.connections.idle_timeout <= LONGEST, "connections.idle_timeout", "at most 10 years"),
            (
                SECONDS.contains(&self.connections.ping_interval),
                "connections.ping_interval",
                "1 s to 10 years",
            ),
            (self.connections.max_established >= 1, "connections.max_established", "at least 1"),
        ];
        match checks.into_iter().find(|(holds, _, _)| !holds) {
            Some((_, field, expected)) => Err(ConfigError::OutOfRange { field, expected }),
            None => Ok(()),
        }
    }
}

/// Takes the peer off the end of an address.
pub(crate) fn split_peer(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut address = address.clone();
    match address.pop()? {
        Protocol::P2p(peer) => Some((peer, address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut NetabaseConfig)) -> ConfigError {
        let mut config = NetabaseConfig::default();
        config.validate().unwrap();
        change(&mut config);
        config.validate().unwrap_err()
    }

    #[test]
    fn a_value_out_of_range_names_its_field() {
        assert_eq!(
            refused(|config| config.store.max_value_bytes = MAX_VALUE_BYTES + 1),
            ConfigError::OutOfRange { field: "store.max_value_bytes", expected: "1 byte to 16 MiB" }
        );
        assert_eq!(
            refused(|config| config.mdns.query_interval = Duration::ZERO).to_string(),
            "`mdns.query_interval` must be 1 s to 10 years"
        );
    }

    #[test]
    fn an_identity_of_the_store_alone_is_refused() {
        let key = netabase_store::SigningKey::from_bytes(&[7; 32]);
        let error = refused(|config| config.store.identity = Some(key));
        assert_eq!(error.to_string(), "`store.identity` must be none; set `identity`");
    }

    #[test]
    fn a_network_name_that_is_no_protocol_name_is_refused() {
        let error = refused(|config| config.network = Some("my chat/1".into()));
        assert_eq!(error, ConfigError::NetworkName { name: "my chat/1".into() });
    }

    #[test]
    fn a_bootstrap_address_without_a_peer_is_refused() {
        let error =
            refused(|config| config.dht.bootstrap_peers = vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()]);
        assert_eq!(
            error.to_string(),
            "the bootstrap address /ip4/192.0.2.1/tcp/1 must end with /p2p/<peer id>"
        );
    }
}
