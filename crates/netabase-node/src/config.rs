//! Where settings come from: `netabase.toml`, the environment and flags, each stronger than the one
//! before.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use netabase::libp2p::multiaddr;
use netabase::{Author, DhtMode, Multiaddr, NetabaseConfig, StorageBackend, StoreOptions};
use serde_json::{Value, json};

use crate::backend::{Backend, Mode};
use crate::failure::Failure;

mod file;
mod flags;
mod nearest;
mod value;

pub(crate) use self::flags::{ApiFlags, SettingFlags, one};
pub(crate) use self::nearest::nearest;
pub(crate) use self::value::{Bytes, Given, Interval, Parse, Time};

/// The cache of a node that is run for others: a database of 100,000 records fits into 40 MiB with
/// it. Pages that it does not hold are mostly in the system's cache.
const CACHE_BYTES: u64 = 10 * 1024 * 1024;

/// The environment variable that names the configuration file.
const FILE_VARIABLE: &str = "NETABASE_CONFIG";
/// Where the API is unless it is told otherwise.
const API_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4080);

/// A setting and where its value comes from.
#[derive(Debug, Clone)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody has said anything.
    Default,
    /// A line of a configuration file.
    File { path: PathBuf, line: usize },
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag on the command line.
    Flag(&'static str),
}

impl Source {
    /// Shows the source to programs.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Default => json!({ "kind": "default" }),
            Self::File { path, line } => {
                json!({ "kind": "file", "path": path.display().to_string(), "line": line })
            }
            Self::Environment(variable) => json!({ "kind": "environment", "variable": variable }),
            Self::Flag(flag) => json!({ "kind": "flag", "flag": flag }),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// What is known of a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Its name in the file, with the table before the dot.
    pub(crate) name: &'static str,
    /// The variable of the environment.
    pub(crate) variable: &'static str,
    /// What it is for.
    pub(crate) about: &'static str,
}

/// A setting as it is shown.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) known: &'static Known,
    pub(crate) value: Value,
    pub(crate) source: &'a Source,
}

macro_rules! settings {
    ($($field:ident: $kind:ty = $default:expr, $name:literal, $variable:literal, $about:literal;)+) => {
        /// All settings.
        #[derive(Debug, Clone)]
        pub(crate) struct Config {
            /// The file that was read, if there is one.
            pub(crate) file: Option<PathBuf>,
            $(#[doc = $about] pub(crate) $field: Setting<$kind>,)+
        }

        /// All settings, in the order in which they are shown.
        pub(crate) const SETTINGS: &[Known] =
            &[$(Known { name: $name, variable: $variable, about: $about },)+];

        impl Default for Config {
            fn default() -> Self {
                Self { file: None, $($field: Setting { value: $default, source: Source::Default },)+ }
            }
        }

        impl Config {
            /// Sets the setting `name`; fails with what is expected instead.
            fn set(&mut self, name: &str, given: &Given<'_>, source: Source) -> Result<(), &'static str> {
                match name {
                    $($name => {
                        let value = <$kind>::parse(given).ok_or(<$kind as Parse>::EXPECTED)?;
                        self.$field = Setting { value, source };
                        Ok(())
                    })+
                    _ => Err("a setting that exists"),
                }
            }

            /// Returns all settings as they are to be shown.
            pub(crate) fn entries(&self) -> Vec<Entry<'_>> {
                let shown = [$((self.$field.value.json(), &self.$field.source),)+];
                SETTINGS.iter().zip(shown).map(|(known, (value, source))| Entry { known, value, source }).collect()
            }
        }
    };
}

settings! {
    path: Option<PathBuf> = None, "path", "NETABASE_PATH",
        "The directory of the database and of the node's identity";
    backend: Backend = Backend::Redb, "backend", "NETABASE_BACKEND",
        "The database: redb or sled";
    schema: Option<PathBuf> = None, "schema", "NETABASE_SCHEMA",
        "The models, as a schema.toml; without one the built-in schema `packages`";
    network: Option<String> = None, "network", "NETABASE_NETWORK",
        "The network to be part of; without one the name of the schema";
    root: Option<Author> = None, "root", "NETABASE_ROOT",
        "The public key whose list says who may write; without one anybody may";
    listen: Vec<String> = default_listen(), "listen", "NETABASE_LISTEN",
        "Where peers connect to this node";
    peers: Vec<String> = Vec::new(), "peers", "NETABASE_PEERS",
        "Peers to connect to at the start, with /p2p/ and the peer's name at the end";
    mode: Mode = Mode::Server, "mode", "NETABASE_MODE",
        "Whether to store and answer for others: server or client";
    replicate: Vec<String> = Vec::new(), "replicate", "NETABASE_REPLICATE",
        "What to keep whole and current on this node: `all`, or names of models";
    replicate_blobs: Bytes = Bytes(0), "replicate_blobs", "NETABASE_REPLICATE_BLOBS",
        "How many bytes of large values to fetch with what is replicated, for each name; 0 for none";
    log: Option<String> = None, "log", "RUST_LOG",
        "What is logged, such as netabase=debug";
    call_timeout: Time = Time::seconds(30), "call_timeout", "NETABASE_CALL_TIMEOUT",
        "How long a call may wait for the network";
    lock_timeout: Time = Time(StoreOptions::default().lock_timeout), "lock_timeout", "NETABASE_LOCK_TIMEOUT",
        "How long to wait for another program that has the database open";
    stop_timeout: Time = Time::seconds(10), "stop_timeout", "NETABASE_STOP_TIMEOUT",
        "How long the node may take to stop and to finish its writes";
    api_enabled: bool = true, "api.enabled", "NETABASE_API_ENABLED",
        "Whether the node has an HTTP API and a dashboard";
    api_listen: SocketAddr = API_LISTEN, "api.listen", "NETABASE_API_LISTEN",
        "Where the HTTP API is served; anywhere but on loopback it needs a token";
    api_url: Option<String> = None, "api.url", "NETABASE_API",
        "Where commands find the node; without one they look at api.listen";
    token_file: Option<PathBuf> = None, "api.token_file", "NETABASE_TOKEN_FILE",
        "The file with the bearer token of the API";
    allow_origins: Vec<String> = Vec::new(), "api.allow_origins", "NETABASE_API_ALLOW_ORIGINS",
        "Web pages of other origins that may call the API";
    hosts: Vec<String> = Vec::new(), "api.hosts", "NETABASE_API_HOSTS",
        "Further names that the API is called by, beside its address and localhost";
    backup_directory: Option<PathBuf> = None, "api.backup_directory", "NETABASE_API_BACKUP_DIRECTORY",
        "Where the node writes backups; without one beside its database";
    cache_bytes: Bytes = Bytes(CACHE_BYTES), "store.cache_bytes", "NETABASE_STORE_CACHE_BYTES",
        "How much memory the database may use as cache";
    max_value_bytes: Bytes = Bytes(to_u64(StoreOptions::default().max_value_bytes)), "store.max_value_bytes", "NETABASE_STORE_MAX_VALUE_BYTES",
        "The largest value that is stored and sent; the same on all nodes of a network";
    record_lifetime: Interval = Interval(None), "store.record_lifetime", "NETABASE_STORE_RECORD_LIFETIME",
        "How long a record counts where its model says nothing; never for until it is removed";
    tombstone_floor: Time = Time(StoreOptions::default().tombstone_floor), "store.tombstone_floor", "NETABASE_STORE_TOMBSTONE_FLOOR",
        "How long a deletion is remembered; the same on all nodes of a network";
    max_replica_bytes: Bytes = Bytes(StoreOptions::default().max_replica_bytes), "store.max_replica_bytes", "NETABASE_STORE_MAX_REPLICA_BYTES",
        "How much room copies of others' records may take";
    max_author_bytes: Bytes = Bytes(StoreOptions::default().max_author_bytes), "store.max_author_bytes", "NETABASE_STORE_MAX_AUTHOR_BYTES",
        "How much room copies of one author's records may take";
    max_blob_bytes: Bytes = Bytes(StoreOptions::default().max_blob_bytes), "store.max_blob_bytes", "NETABASE_STORE_MAX_BLOB_BYTES",
        "How much room large values may take";
    blob_grace: Time = Time(StoreOptions::default().blob_grace), "store.blob_grace", "NETABASE_STORE_BLOB_GRACE",
        "How long a large value stays that no record names";
    set_aside_other_policy: bool = false, "store.set_aside_other_policy", "NETABASE_STORE_SET_ASIDE_OTHER_POLICY",
        "Whether a database opens that has records of a model under another policy than the schema's";
    replication_factor: NonZeroUsize = NetabaseConfig::default().dht.replication_factor, "dht.replication_factor", "NETABASE_DHT_REPLICATION_FACTOR",
        "How many peers hold a record, 1 to 20";
    write_concern: usize = NetabaseConfig::default().dht.write_concern, "dht.write_concern", "NETABASE_DHT_WRITE_CONCERN",
        "How many peers a put waits for, 0 for none";
    read_concern: NonZeroUsize = NetabaseConfig::default().dht.read_concern, "dht.read_concern", "NETABASE_DHT_READ_CONCERN",
        "How many peers a read of the newest version asks";
    parallelism: NonZeroUsize = NetabaseConfig::default().dht.parallelism, "dht.parallelism", "NETABASE_DHT_PARALLELISM",
        "How many peers a lookup asks at a time";
    query_timeout: Time = Time(NetabaseConfig::default().dht.query_timeout), "dht.query_timeout", "NETABASE_DHT_QUERY_TIMEOUT",
        "How long a lookup may take";
    bootstrap_interval: Interval = Interval(NetabaseConfig::default().dht.bootstrap_interval), "dht.bootstrap_interval", "NETABASE_DHT_BOOTSTRAP_INTERVAL",
        "How often the routing table is filled anew";
    repair_interval: Interval = Interval(NetabaseConfig::default().dht.repair_interval), "dht.repair_interval", "NETABASE_DHT_REPAIR_INTERVAL",
        "How often everything here is compared with its other holders";
    republish_interval: Time = Time(NetabaseConfig::default().dht.republish_interval), "dht.republish_interval", "NETABASE_DHT_REPUBLISH_INTERVAL",
        "How often one's own records are published anew";
    provider_lifetime: Time = Time(NetabaseConfig::default().dht.provider_lifetime), "dht.provider_lifetime", "NETABASE_DHT_PROVIDER_LIFETIME",
        "How long others remember what this node says it holds";
    mdns_enabled: bool = true, "mdns.enabled", "NETABASE_MDNS_ENABLED",
        "Whether to look for peers on the local network";
    mdns_query_interval: Time = Time(NetabaseConfig::default().mdns.query_interval), "mdns.query_interval", "NETABASE_MDNS_QUERY_INTERVAL",
        "How often to look for them";
    mdns_ttl: Time = Time(NetabaseConfig::default().mdns.ttl), "mdns.ttl", "NETABASE_MDNS_TTL",
        "How long they remember this node";
    mdns_ipv6: bool = false, "mdns.ipv6", "NETABASE_MDNS_IPV6",
        "Whether to look over IPv6 instead of IPv4";
    max_connections: u32 = NetabaseConfig::default().connections.max_established, "connections.max_established", "NETABASE_CONNECTIONS_MAX_ESTABLISHED",
        "The most connections to peers at a time";
    idle_timeout: Time = Time(NetabaseConfig::default().connections.idle_timeout), "connections.idle_timeout", "NETABASE_CONNECTIONS_IDLE_TIMEOUT",
        "How long a connection stays that nothing uses";
    sync_interval: Time = Time(NetabaseConfig::default().sync_interval), "sync.interval", "NETABASE_SYNC_INTERVAL",
        "How often what is replicated is compared with its holders";
}

impl Config {
    /// Puts together what the file, the environment and `flags` say. The file is `named`, else the
    /// one that `NETABASE_CONFIG` names, else `netabase.toml` in the current directory if it is
    /// there.
    pub(crate) fn load(named: Option<&Path>, flags: &[Flag]) -> Result<Self, Failure> {
        Self::load_inner(named, flags).map_err(Failure::usage)
    }

    fn load_inner(named: Option<&Path>, flags: &[Flag]) -> anyhow::Result<Self> {
        let mut config = Self::default();
        let variable = env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        config.file = file::load(&mut config, named.or(variable.as_deref()))?;
        config.load_environment()?;
        for flag in flags {
            let source = Source::Flag(flag.written);
            let told = flag.texts.join(" ");
            config
                .set(&flag.name, &Given::Flags(&flag.texts), source)
                .map_err(|expected| anyhow!("{} {told}: it must be {expected}", flag.written))?;
        }
        Ok(config)
    }

    fn load_environment(&mut self) -> anyhow::Result<()> {
        for known in SETTINGS {
            let Some(text) = env::var_os(known.variable) else { continue };
            let text = text.into_string().map_err(|_| anyhow!("{} is not UTF-8 text", known.variable))?;
            self.set(known.name, &Given::Text(&text), Source::Environment(known.variable))
                .map_err(|expected| anyhow!("{}={text}: it must be {expected}", known.variable))?;
        }
        Ok(())
    }

    /// Returns the variables of the environment that look like settings and are none.
    pub(crate) fn unknown_variables() -> Vec<String> {
        let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let unknown = names.filter(|name| {
            name.starts_with("NETABASE_")
                && name != FILE_VARIABLE
                && !SETTINGS.iter().any(|known| known.variable == name)
        });
        let mut unknown: Vec<_> = unknown.collect();
        unknown.sort_unstable();
        unknown
    }

    /// Returns the directory of the database.
    pub(crate) fn directory(&self) -> Result<&Path, Failure> {
        self.path.value.as_deref().ok_or_else(|| {
            Failure::usage(anyhow!(
                "no directory for the database is given; add --path DIR, set NETABASE_PATH, or write \
                 path = \"DIR\" in {}",
                file::DEFAULT
            ))
        })
    }

    /// Returns where commands find the node's API.
    pub(crate) fn api_url(&self) -> String {
        self.api_url.value.clone().unwrap_or_else(|| {
            let mut address = self.api_listen.value;
            if address.ip().is_unspecified() {
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
            }
            format!("http://{address}")
        })
    }

    /// Whether somebody has said where the API is.
    pub(crate) fn has_api_url(&self) -> bool {
        self.api_url.value.is_some()
    }

    /// Whether the command line says which database the node is to have.
    pub(crate) fn is_by_path(&self) -> bool {
        matches!(self.path.source, Source::Flag(_))
    }

    /// Returns the configuration of a node whose database is at `database`.
    pub(crate) fn node(&self, database: PathBuf) -> Result<NetabaseConfig, Failure> {
        self.node_inner(database).map_err(Failure::usage)
    }

    fn node_inner(&self, database: PathBuf) -> anyhow::Result<NetabaseConfig> {
        let mut config = NetabaseConfig {
            store: StoreOptions {
                backend: StorageBackend::from(self.backend.value),
                cache_bytes: usize::try_from(self.cache_bytes.value.0).unwrap_or(usize::MAX),
                max_value_bytes: usize::try_from(self.max_value_bytes.value.0).unwrap_or(usize::MAX),
                record_lifetime: self.record_lifetime.value.0,
                tombstone_floor: self.tombstone_floor.value.0,
                max_replica_bytes: self.max_replica_bytes.value.0,
                max_author_bytes: self.max_author_bytes.value.0,
                max_blob_bytes: self.max_blob_bytes.value.0,
                blob_grace: self.blob_grace.value.0,
                set_aside_other_policy: self.set_aside_other_policy.value,
                root: self.root.value,
                lock_timeout: self.lock_timeout.value.0,
                ..StoreOptions::default()
            },
            database_path: Some(database),
            network: self.network.value.clone(),
            listen_addresses: addresses("listen", &self.listen)?,
            sync_interval: self.sync_interval.value.0,
            call_timeout: self.call_timeout.value.0,
            ..NetabaseConfig::default()
        };
        config.dht.bootstrap_peers = addresses("peers", &self.peers)?;
        config.dht.mode = DhtMode::from(self.mode.value);
        config.dht.replication_factor = self.replication_factor.value;
        config.dht.write_concern = self.write_concern.value;
        config.dht.read_concern = self.read_concern.value;
        config.dht.parallelism = self.parallelism.value;
        config.dht.query_timeout = self.query_timeout.value.0;
        config.dht.bootstrap_interval = self.bootstrap_interval.value.0;
        config.dht.repair_interval = self.repair_interval.value.0;
        config.dht.republish_interval = self.republish_interval.value.0;
        config.dht.provider_lifetime = self.provider_lifetime.value.0;
        config.mdns.enabled = self.mdns_enabled.value;
        config.mdns.query_interval = self.mdns_query_interval.value.0;
        config.mdns.ttl = self.mdns_ttl.value.0;
        config.mdns.enable_ipv6 = self.mdns_ipv6.value;
        config.connections.max_established = self.max_connections.value;
        config.connections.idle_timeout = self.idle_timeout.value.0;
        config.validate()?;
        Ok(config)
    }

    /// Returns how long the node may take to stop.
    pub(crate) fn stop_timeout(&self) -> Duration {
        self.stop_timeout.value.0
    }
}

/// A setting that the command line gives.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    /// The setting.
    pub(crate) name: String,
    /// The flag as it is written, such as `--path`.
    pub(crate) written: &'static str,
    pub(crate) texts: Vec<String>,
}

fn addresses(name: &str, setting: &Setting<Vec<String>>) -> anyhow::Result<Vec<Multiaddr>> {
    let what = match &setting.source {
        Source::Flag(flag) => (*flag).to_owned(),
        Source::Environment(variable) => (*variable).to_owned(),
        source @ (Source::File { .. } | Source::Default) => format!("{source}: `{name}`"),
    };
    let parse = |text: &String| {
        text.parse().map_err(|error: multiaddr::Error| {
            anyhow!("{what} {text} is not an address; write it like /ip4/192.0.2.7/tcp/4001 ({error})")
        })
    };
    setting.value.iter().map(parse).collect()
}

fn default_listen() -> Vec<String> {
    NetabaseConfig::default().listen_addresses.iter().map(ToString::to_string).collect()
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
