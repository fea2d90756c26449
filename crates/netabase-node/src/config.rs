//! The settings of the program, from `netabase.toml`, the environment and flags. Each source
//! overrides the one before.

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

/// The default cache of a node. With it, a node with 100,000 records fits into 40 MiB. Other pages
/// are mostly in the cache of the system.
const CACHE_BYTES: u64 = 10 * 1024 * 1024;

/// The environment variable that names the configuration file.
const FILE_VARIABLE: &str = "NETABASE_CONFIG";
/// The default address of the API.
const API_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4080);

/// The value of a setting and its source.
#[derive(Debug, Clone)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The default.
    Default,
    /// A line of a configuration file.
    File { path: PathBuf, line: usize },
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag on the command line.
    Flag(&'static str),
}

impl Source {
    /// Returns the source as JSON.
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

/// The description of a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The name in the file, with the table before the dot.
    pub(crate) name: &'static str,
    /// The environment variable.
    pub(crate) variable: &'static str,
    /// The purpose of the setting.
    pub(crate) about: &'static str,
}

/// A setting in the output of `netabase config`.
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
            /// The file that was read, if any.
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
            /// Sets the setting `name`, or fails with a description of the expected value.
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

            /// Returns all settings with their values.
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
        "The storage backend of the database: redb or sled";
    schema: Option<PathBuf> = None, "schema", "NETABASE_SCHEMA",
        "The file with the models, a schema.toml; by default the built-in schema `packages`";
    network: Option<String> = None, "network", "NETABASE_NETWORK",
        "The name of the network to join; by default the name of the schema";
    root: Option<Author> = None, "root", "NETABASE_ROOT",
        "The public key that signs the list of members, who may write; by default anybody may write";
    listen: Vec<String> = default_listen(), "listen", "NETABASE_LISTEN",
        "The addresses at which peers connect to this node";
    peers: Vec<String> = Vec::new(), "peers", "NETABASE_PEERS",
        "The addresses of peers to connect to at the start, each with /p2p/ and the peer id at the end";
    mode: Mode = Mode::Server, "mode", "NETABASE_MODE",
        "Whether to store records for other nodes and answer them: server or client";
    replicate: Vec<String> = Vec::new(), "replicate", "NETABASE_REPLICATE",
        "The scopes to keep complete and current on this node: `all`, or names of models";
    replicate_blobs: Bytes = Bytes(0), "replicate_blobs", "NETABASE_REPLICATE_BLOBS",
        "The most bytes of large values to fetch for each replicated scope; 0 for none";
    log: Option<String> = None, "log", "RUST_LOG",
        "The log filter, such as netabase=debug";
    call_timeout: Time = Time::seconds(30), "call_timeout", "NETABASE_CALL_TIMEOUT",
        "The longest time that a call waits for the network";
    lock_timeout: Time = Time(StoreOptions::default().lock_timeout), "lock_timeout", "NETABASE_LOCK_TIMEOUT",
        "The longest time to wait for another program that has the database open";
    stop_timeout: Time = Time::seconds(10), "stop_timeout", "NETABASE_STOP_TIMEOUT",
        "The longest time that the node takes to finish its writes and stop";
    api_enabled: bool = true, "api.enabled", "NETABASE_API_ENABLED",
        "Whether the node has an HTTP API and a dashboard";
    api_listen: SocketAddr = API_LISTEN, "api.listen", "NETABASE_API_LISTEN",
        "The address of the HTTP API; other addresses than loopback need a token";
    api_url: Option<String> = None, "api.url", "NETABASE_API",
        "The URL at which commands find the node; by default that of api.listen";
    token_file: Option<PathBuf> = None, "api.token_file", "NETABASE_TOKEN_FILE",
        "The file with the bearer token of the API";
    allow_origins: Vec<String> = Vec::new(), "api.allow_origins", "NETABASE_API_ALLOW_ORIGINS",
        "The origins of other sites whose web pages may call the API";
    hosts: Vec<String> = Vec::new(), "api.hosts", "NETABASE_API_HOSTS",
        "Host names that requests to the API may use, besides its address and localhost";
    backup_directory: Option<PathBuf> = None, "api.backup_directory", "NETABASE_API_BACKUP_DIRECTORY",
        "The directory of backups; by default that of the database";
    cache_bytes: Bytes = Bytes(CACHE_BYTES), "store.cache_bytes", "NETABASE_STORE_CACHE_BYTES",
        "The memory that the database uses as cache";
    max_value_bytes: Bytes = Bytes(to_u64(StoreOptions::default().max_value_bytes)), "store.max_value_bytes", "NETABASE_STORE_MAX_VALUE_BYTES",
        "The largest value that is stored and sent; the same on all nodes of a network";
    record_lifetime: Interval = Interval(None), "store.record_lifetime", "NETABASE_STORE_RECORD_LIFETIME",
        "The lifetime of records whose model sets none; never for no end";
    tombstone_floor: Time = Time(StoreOptions::default().tombstone_floor), "store.tombstone_floor", "NETABASE_STORE_TOMBSTONE_FLOOR",
        "How long tombstones are kept; the same on all nodes of a network";
    max_replica_bytes: Bytes = Bytes(StoreOptions::default().max_replica_bytes), "store.max_replica_bytes", "NETABASE_STORE_MAX_REPLICA_BYTES",
        "The most space for copies of other authors' records";
    max_author_bytes: Bytes = Bytes(StoreOptions::default().max_author_bytes), "store.max_author_bytes", "NETABASE_STORE_MAX_AUTHOR_BYTES",
        "The most space for copies of one author's records";
    refused_authors: Vec<Author> = Vec::new(), "store.refused_authors", "NETABASE_STORE_REFUSED_AUTHORS",
        "Authors whose records are refused and removed; `netabase authors` changes the list of a running node";
    max_blob_bytes: Bytes = Bytes(StoreOptions::default().max_blob_bytes), "store.max_blob_bytes", "NETABASE_STORE_MAX_BLOB_BYTES",
        "The most space for large values";
    blob_grace: Time = Time(StoreOptions::default().blob_grace), "store.blob_grace", "NETABASE_STORE_BLOB_GRACE",
        "How long a large value is kept without a record that names it";
    set_aside_other_policy: bool = false, "store.set_aside_other_policy", "NETABASE_STORE_SET_ASIDE_OTHER_POLICY",
        "Whether to open a database with records of a model under another policy, and set those aside";
    keep_unread_versions: bool = false, "store.keep_unread_versions", "NETABASE_STORE_KEEP_UNREAD_VERSIONS",
        "Whether to open a database with records of versions that the schema cannot read, and leave those unread";
    replication_factor: NonZeroUsize = NetabaseConfig::default().dht.replication_factor, "dht.replication_factor", "NETABASE_DHT_REPLICATION_FACTOR",
        "The number of peers that hold a record, 1 to 20";
    write_concern: usize = NetabaseConfig::default().dht.write_concern, "dht.write_concern", "NETABASE_DHT_WRITE_CONCERN",
        "The number of peers that a put waits for, 0 for none";
    read_concern: NonZeroUsize = NetabaseConfig::default().dht.read_concern, "dht.read_concern", "NETABASE_DHT_READ_CONCERN",
        "The number of peers that a read of the newest version asks";
    parallelism: NonZeroUsize = NetabaseConfig::default().dht.parallelism, "dht.parallelism", "NETABASE_DHT_PARALLELISM",
        "The number of peers that a lookup asks at a time";
    query_timeout: Time = Time(NetabaseConfig::default().dht.query_timeout), "dht.query_timeout", "NETABASE_DHT_QUERY_TIMEOUT",
        "The longest time that a lookup takes";
    bootstrap_interval: Interval = Interval(NetabaseConfig::default().dht.bootstrap_interval), "dht.bootstrap_interval", "NETABASE_DHT_BOOTSTRAP_INTERVAL",
        "The interval at which the routing table is refreshed";
    repair_interval: Interval = Interval(NetabaseConfig::default().dht.repair_interval), "dht.repair_interval", "NETABASE_DHT_REPAIR_INTERVAL",
        "The interval at which all records are compared with their other holders";
    republish_interval: Time = Time(NetabaseConfig::default().dht.republish_interval), "dht.republish_interval", "NETABASE_DHT_REPUBLISH_INTERVAL",
        "The interval at which this node's own records are republished";
    provider_lifetime: Time = Time(NetabaseConfig::default().dht.provider_lifetime), "dht.provider_lifetime", "NETABASE_DHT_PROVIDER_LIFETIME",
        "How long peers keep this node's provider records";
    mdns_enabled: bool = true, "mdns.enabled", "NETABASE_MDNS_ENABLED",
        "Whether to look for peers on the local network";
    mdns_query_interval: Time = Time(NetabaseConfig::default().mdns.query_interval), "mdns.query_interval", "NETABASE_MDNS_QUERY_INTERVAL",
        "The interval between mDNS queries";
    mdns_ttl: Time = Time(NetabaseConfig::default().mdns.ttl), "mdns.ttl", "NETABASE_MDNS_TTL",
        "How long peers on the local network remember this node";
    mdns_ipv6: bool = false, "mdns.ipv6", "NETABASE_MDNS_IPV6",
        "Whether mDNS uses IPv6 instead of IPv4";
    max_connections: u32 = NetabaseConfig::default().connections.max_established, "connections.max_established", "NETABASE_CONNECTIONS_MAX_ESTABLISHED",
        "The most connections to peers at the same time";
    idle_timeout: Time = Time(NetabaseConfig::default().connections.idle_timeout), "connections.idle_timeout", "NETABASE_CONNECTIONS_IDLE_TIMEOUT",
        "How long an unused connection is kept";
    sync_interval: Time = Time(NetabaseConfig::default().sync_interval), "sync.interval", "NETABASE_SYNC_INTERVAL",
        "The interval at which replicated scopes are compared with their holders";
    author_records_per_second: u32 = NetabaseConfig::default().author_records_per_second, "authors.records_per_second", "NETABASE_AUTHORS_RECORDS_PER_SECOND",
        "The most new records of one author a second that peers may send, all together; 0 for no limit";
    author_record_burst: u32 = NetabaseConfig::default().author_record_burst, "authors.burst", "NETABASE_AUTHORS_BURST",
        "The most new records of a quiet author that peers may send in a burst; authors that write much at the same time share it";
}

impl Config {
    /// Loads the settings from the file, the environment and `flags`. The file is `named`, or else
    /// that of `NETABASE_CONFIG`, or else `netabase.toml` in the current directory if it exists.
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

    /// Returns the `NETABASE_*` variables of the environment that are not settings.
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

    /// Returns the URL at which commands find the API of the node.
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

    /// Returns whether the URL of the API is set.
    pub(crate) fn has_api_url(&self) -> bool {
        self.api_url.value.is_some()
    }

    /// Returns whether the command line names the database.
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
                refused_authors: self.refused_authors.value.clone(),
                max_blob_bytes: self.max_blob_bytes.value.0,
                blob_grace: self.blob_grace.value.0,
                set_aside_other_policy: self.set_aside_other_policy.value,
                keep_unread_versions: self.keep_unread_versions.value,
                root: self.root.value,
                lock_timeout: self.lock_timeout.value.0,
                ..StoreOptions::default()
            },
            database_path: Some(database),
            network: self.network.value.clone(),
            listen_addresses: addresses("listen", &self.listen)?,
            sync_interval: self.sync_interval.value.0,
            author_records_per_second: self.author_records_per_second.value,
            author_record_burst: self.author_record_burst.value,
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

    /// Returns the longest time that the node takes to stop.
    pub(crate) fn stop_timeout(&self) -> Duration {
        self.stop_timeout.value.0
    }
}

/// A setting on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    /// The name of the setting.
    pub(crate) name: String,
    /// The name of the flag, such as `--path`.
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
