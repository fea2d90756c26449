//! Configuration.

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
use crate::peers::limits::{AUTHOR_RECORD_BURST, AUTHOR_RECORDS_PER_SECOND};

mod file;

/// The configuration of a [`Netabase`](crate::Netabase), in code or from a [file](Self::from_file).
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
    /// The options of the store: its backend, its cache, its limits, and the root of a closed
    /// network. The node replaces [`identity`](StoreOptions::identity) and
    /// [`position`](StoreOptions::position) by its own [`identity`](Self::identity), and always
    /// runs the [`writer`](StoreOptions::writer) in a thread.
    pub store: StoreOptions,
    /// The path of the database: a file for redb, a directory for sled. Default: `None`, which
    /// means a path in [`directory`](Self::directory) that is the definition's name with the
    /// backend's name as its extension.
    pub database_path: Option<PathBuf>,
    /// The directory of the database if [`database_path`](Self::database_path) is `None`. The node
    /// creates a missing directory. The option `--path` of the program `netabase` names such a
    /// directory. Default: `None`, which means the current directory.
    pub directory: Option<PathBuf>,
    /// The key that names this peer and signs its records. Default: `None`, which means the key in
    /// the identity file beside the database, which is created at the first start.
    pub identity: Option<Keypair>,
    /// The name of the network. Nodes of other networks are not spoken to. Closed networks of the
    /// same name and different roots detect each other and stay apart, see `docs/trust.md`.
    /// Default: `None`, which means the definition's name.
    pub network: Option<String>,
    /// The addresses to listen on. Default: TCP and QUIC on every IPv4 interface, on ports that the
    /// system chooses.
    pub listen_addresses: Vec<Multiaddr>,
    /// The settings of the distributed hash table.
    pub dht: DHTDiscoveryConfig,
    /// The settings of discovery on the local network.
    pub mdns: MDNSDiscoveryConfig,
    /// The limits of connections.
    pub connections: ConnectionConfig,
    /// The time between two sync sessions of a replicated scope with one of its holders, plus or
    /// minus a fifth. A session also starts when a holder connects; see
    /// [`Netabase::replicate`](crate::Node::replicate). Default: 5 minutes.
    pub sync_interval: Duration,
    /// The most new records of one author a second that peers may send to this node, all together.
    /// A further one is refused as [`TooFast`](netabase_store::Refusal::TooFast) and comes again
    /// later. Only records of which no version is here count, and neither this node's own, nor
    /// those that it fetches to catch up, nor those of a closed network. Default: 256; 0 sets no
    /// limit.
    pub author_records_per_second: u32,
    /// The most new records of a quiet author that peers may send in a burst. Authors that write
    /// much at the same time share it, and each has 1024 of it at least. Default: 10,240.
    pub author_record_burst: u32,
    /// The timeout of every call that waits for the network. Default: 30 s.
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
            author_records_per_second: AUTHOR_RECORDS_PER_SECOND,
            author_record_burst: AUTHOR_RECORD_BURST,
            call_timeout: Duration::from_secs(30),
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

/// Whether a node serves the distributed hash table or is only its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DhtMode {
    /// Stores records and answers requests of other nodes. The default, because a network needs
    /// servers.
    #[default]
    Server,
    /// Only sends requests to other nodes.
    Client,
}

/// Settings of the Kademlia distributed hash table.
#[derive(Debug, Clone)]
pub struct DHTDiscoveryConfig {
    /// Peers to connect to at the start. Each address ends with `/p2p/<peer id>`. Default: empty.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// Whether to serve the hash table. Default: [`DhtMode::Server`].
    pub mode: DhtMode,
    /// The number of closest peers that hold each record: Kademlia's `k`, 1 to 20. Default: 20.
    pub replication_factor: NonZeroUsize,
    /// The number of peers that must accept a record before a put returns, or all peers that are
    /// found and answer if those are fewer. The put is sent to all holders nevertheless. With 0 a
    /// put returns when the record is durable here. Default: 3.
    pub write_concern: usize,
    /// The number of copies of a record that a get collects before it answers. A get answers with
    /// fewer copies if there are no more, and 300 ms after the first. Default: 3.
    pub read_concern: NonZeroUsize,
    /// The number of peers that a query asks concurrently: Kademlia's alpha. Default: 3.
    pub parallelism: NonZeroUsize,
    /// The timeout of a query. Default: 20 s.
    pub query_timeout: Duration,
    /// The time between refreshes of the routing table. `None` refreshes only when the table grows.
    /// Default: 5 minutes.
    pub bootstrap_interval: Option<Duration>,
    /// The duration of a repair pass, which compares all local records with their other holders, so
    /// that each record has enough replicas. `None` repairs only when
    /// [`Netabase::repair`](crate::Node::repair) is called. Default: 1 hour.
    pub repair_interval: Option<Duration>,
    /// The time after which the author of a record publishes it again, plus or minus a tenth: the
    /// author asks the holders for their versions and sends the record to those that lack it. A
    /// record that the author itself holds and [repairs](Self::repair_interval) is not published
    /// again. Default: 24 hours.
    pub republish_interval: Duration,
    /// The TTL of this node's provider records at other peers. Default: 48 hours.
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

/// The settings of multicast DNS, which discovers peers on the local network.
#[derive(Debug, Clone)]
pub struct MDNSDiscoveryConfig {
    /// Whether to use multicast DNS. Default: `true`.
    pub enabled: bool,
    /// The time between queries for peers. A query is also sent when an interface comes up.
    /// Default: 5 minutes.
    pub query_interval: Duration,
    /// The TTL of this node's answers. Default: 6 minutes.
    pub ttl: Duration,
    /// Whether to use IPv6 instead of IPv4. Default: `false`.
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

/// The limits of connections.
///
/// Further limits are fixed: 8 connections to one peer (two peers that dial each other
/// simultaneously need more than one), and 64 pending connections in each direction.
///
/// Incoming connections may be three quarters of all, and those from one IPv4 /24 or IPv6 /64 a
/// quarter, except from private networks and this machine. Above the limit the node closes the
/// least valuable incoming connections: those of peers outside the routing table, the longest quiet
/// first.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// The most established connections. An eighth more are accepted until others are closed.
    /// Default: 256.
    pub max_established: u32,
    /// The time after which a connection without streams is closed. Default: 5 minutes.
    pub idle_timeout: Duration,
    /// The time between pings of a connection, and the timeout of a ping. The node closes a
    /// connection after two consecutive pings without an answer; the timeout of the second is 10 s.
    /// The first ping is sent at once. Default: 20 s.
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
    /// Checks every value. [`Netabase::new_with_config`](crate::Netabase::new_with_config) does the
    /// same.
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
        /// Longer durations would overflow the arithmetic of time.
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
            (self.author_record_burst >= 1, "author_record_burst", "at least 1"),
            (self.connections.max_established >= 1, "connections.max_established", "at least 1"),
        ];
        match checks.into_iter().find(|(holds, _, _)| !holds) {
            Some((_, field, expected)) => Err(ConfigError::OutOfRange { field, expected }),
            None => Ok(()),
        }
    }
}

/// Splits the peer id off the end of an address.
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
