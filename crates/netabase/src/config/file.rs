//! The settings file, whose names are those of the program `netabase`.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libp2p::Multiaddr;
use netabase_store::{Author, StorageBackend};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny};

use crate::config::{DhtMode, NetabaseConfig};
use crate::error::{ConfigError, NetabaseError, file_error};
use crate::limits::MAX_SETTINGS_FILE_BYTES;
use crate::platform::files;
use crate::units::{Bytes, Interval, Time};

/// All settings of a file. A missing setting keeps its default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    path: Option<PathBuf>,
    backend: Option<StorageBackend>,
    network: Option<String>,
    root: Option<Parsed<Author>>,
    listen: Option<Vec<Parsed<Multiaddr>>>,
    peers: Option<Vec<Parsed<Multiaddr>>>,
    mode: Option<Mode>,
    call_timeout: Option<Time>,
    lock_timeout: Option<Time>,
    store: Store,
    dht: Dht,
    mdns: Mdns,
    connections: Connections,
    sync: Syncing,
    authors: AuthorRate,
    // Settings of the program alone, and of applications.
    schema: Option<IgnoredAny>,
    replicate: Option<IgnoredAny>,
    replicate_blobs: Option<IgnoredAny>,
    log: Option<IgnoredAny>,
    stop_timeout: Option<IgnoredAny>,
    api: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Store {
    cache_bytes: Option<Bytes>,
    max_value_bytes: Option<Bytes>,
    record_lifetime: Option<Interval>,
    tombstone_floor: Option<Time>,
    max_replica_bytes: Option<Bytes>,
    max_author_bytes: Option<Bytes>,
    refused_authors: Option<Vec<Parsed<Author>>>,
    max_blob_bytes: Option<Bytes>,
    blob_grace: Option<Time>,
    set_aside_other_policy: Option<bool>,
    keep_unread_versions: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dht {
    replication_factor: Option<NonZeroUsize>,
    write_concern: Option<usize>,
    read_concern: Option<NonZeroUsize>,
    parallelism: Option<NonZeroUsize>,
    query_timeout: Option<Time>,
    bootstrap_interval: Option<Interval>,
    repair_interval: Option<Interval>,
    republish_interval: Option<Time>,
    provider_lifetime: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mdns {
    enabled: Option<bool>,
    query_interval: Option<Time>,
    ttl: Option<Time>,
    ipv6: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Connections {
    max_established: Option<u32>,
    idle_timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Syncing {
    interval: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuthorRate {
    records_per_second: Option<u32>,
    burst: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Server,
    Client,
}

/// A value that a file has as a string.
#[derive(Debug)]
struct Parsed<T>(T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
    }
}

/// Sets `target` if the file has a value.
fn set<T, U: From<T>>(target: &mut U, given: Option<T>) {
    if let Some(given) = given {
        *target = U::from(given);
    }
}

impl From<Settings> for NetabaseConfig {
    fn from(settings: Settings) -> Self {
        let Settings { path, backend, network, root, listen, peers, mode, .. } = settings;
        let Settings {
            call_timeout, lock_timeout, store, dht, mdns, connections, sync, authors: rate, ..
        } = settings;
        let bytes = |given: Option<Bytes>| given.map(|Bytes(bytes)| bytes);
        let size =
            |given: Option<Bytes>| given.map(|Bytes(bytes)| usize::try_from(bytes).unwrap_or(usize::MAX));
        let time = |given: Option<Time>| given.map(|Time(time)| time);
        let interval = |given: Option<Interval>| given.map(|Interval(interval)| interval);
        let addresses = |given: Option<Vec<Parsed<Multiaddr>>>| {
            given.map(|list| list.into_iter().map(|Parsed(address)| address).collect::<Vec<_>>())
        };
        let mut config = Self { directory: path, network, ..Self::default() };
        config.store.root = root.map(|Parsed(root)| root);
        set(&mut config.store.backend, backend);
        set(&mut config.listen_addresses, addresses(listen));
        set(&mut config.dht.bootstrap_peers, addresses(peers));
        set(
            &mut config.dht.mode,
            mode.map(|mode| match mode {
                Mode::Server => DhtMode::Server,
                Mode::Client => DhtMode::Client,
            }),
        );
        set(&mut config.call_timeout, time(call_timeout));
        set(&mut config.store.lock_timeout, time(lock_timeout));
        set(&mut config.store.cache_bytes, size(store.cache_bytes));
        set(&mut config.store.max_value_bytes, size(store.max_value_bytes));
        set(&mut config.store.record_lifetime, interval(store.record_lifetime));
        set(&mut config.store.tombstone_floor, time(store.tombstone_floor));
        set(&mut config.store.max_replica_bytes, bytes(store.max_replica_bytes));
        set(&mut config.store.max_author_bytes, bytes(store.max_author_bytes));
        let authors =
            |list: Vec<Parsed<Author>>| list.into_iter().map(|Parsed(author)| author).collect::<Vec<_>>();
        set(&mut config.store.refused_authors, store.refused_authors.map(authors));
        set(&mut config.store.max_blob_bytes, bytes(store.max_blob_bytes));
        set(&mut config.store.blob_grace, time(store.blob_grace));
        set(&mut config.store.set_aside_other_policy, store.set_aside_other_policy);
        set(&mut config.store.keep_unread_versions, store.keep_unread_versions);
        set(&mut config.dht.replication_factor, dht.replication_factor);
        set(&mut config.dht.write_concern, dht.write_concern);
        set(&mut config.dht.read_concern, dht.read_concern);
        set(&mut config.dht.parallelism, dht.parallelism);
        set(&mut config.dht.query_timeout, time(dht.query_timeout));
        set(&mut config.dht.bootstrap_interval, interval(dht.bootstrap_interval));
        set(&mut config.dht.repair_interval, interval(dht.repair_interval));
        set(&mut config.dht.republish_interval, time(dht.republish_interval));
        set(&mut config.dht.provider_lifetime, time(dht.provider_lifetime));
        set(&mut config.mdns.enabled, mdns.enabled);
        set(&mut config.mdns.query_interval, time(mdns.query_interval));
        set(&mut config.mdns.ttl, time(mdns.ttl));
        set(&mut config.mdns.enable_ipv6, mdns.ipv6);
        set(&mut config.connections.max_established, connections.max_established);
        set(&mut config.connections.idle_timeout, time(connections.idle_timeout));
        set(&mut config.sync_interval, time(sync.interval));
        set(&mut config.author_records_per_second, rate.records_per_second);
        set(&mut config.author_record_burst, rate.burst);
        config
    }
}

/// Reads the settings that the program `netabase` has under the same names, in TOML or any other
/// format of serde. An unknown name is an error. Settings of the program alone (`schema`,
/// `replicate`, `log`, `stop_timeout` and the table `api`) are ignored. Relative paths start at the
/// current directory.
///
/// ```
/// use netabase::NetabaseConfig;
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Settings {
///     title: String,
///     netabase: NetabaseConfig,
/// }
///
/// let settings: Settings = toml::from_str(
///     r#"
///     title = "The chess club"
///     [netabase]
///     path = "data"
///     network = "chess-club"
///     store.max_blob_bytes = "2 GiB"
///     "#,
/// )?;
/// assert_eq!(settings.netabase.store.max_blob_bytes, 2 << 30);
/// # assert_eq!(settings.title, "The chess club");
/// # Ok::<(), toml::de::Error>(())
/// ```
impl<'de> Deserialize<'de> for NetabaseConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Settings::deserialize(deserializer).map(Self::from)
    }
}

impl NetabaseConfig {
    /// Reads the settings of a TOML file, which may be the `netabase.toml` of the program
    /// `netabase`. Relative paths start at the file's directory. Blocks on the disk.
    ///
    /// Fails with [`ConfigError::File`] if a name is unknown or a value is invalid, and with
    /// [`StoreError::File`](crate::StoreError::File) if the file cannot be read.
    ///
    /// ```
    /// use netabase::NetabaseConfig;
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("netabase.toml");
    /// std::fs::write(&path, "path = \"data\"\nmdns.enabled = false\n")?;
    /// let config = NetabaseConfig::from_file(&path)?;
    /// assert_eq!(config.directory, Some(path.with_file_name("data")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, NetabaseError> {
        let path = path.as_ref();
        let mut text = String::new();
        let read = files::open(path)
            .and_then(|file| file.take(MAX_SETTINGS_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| file_error(path.to_owned(), error))?;
        let invalid = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        if u64::try_from(read).is_ok_and(|read| read > MAX_SETTINGS_FILE_BYTES) {
            return Err(invalid(format!("the file is larger than {MAX_SETTINGS_FILE_BYTES} bytes")).into());
        }
        let mut config: Self =
            toml::from_str(&text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        let beside = path.parent().unwrap_or(Path::new(""));
        config.directory = config.directory.map(|directory| beside.join(directory));
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_its_mistakes_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netabase.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            NetabaseConfig::from_file(&path)
        };
        let config =
            read("path = \"data\"\nmode = \"client\"\ncall_timeout = \"5s\"\napi.listen = \"127.0.0.1:1\"");
        let config = config.unwrap();
        assert_eq!(
            (config.directory, config.dht.mode),
            (Some(directory.path().join("data")), DhtMode::Client)
        );
        assert_eq!(config.call_timeout, std::time::Duration::from_secs(5));
        for (text, why) in [
            ("pth = \"data\"", "unknown field `pth`"),
            ("store.cache = 7", "unknown field `cache`"),
            ("call_timeout = \"5\"", "a time such as"),
            ("store.cache_bytes = \"many\"", "a number of bytes such as"),
            ("listen = [\"here\"]", "`here`"),
            ("network = \"my club\"", "must be 1 to 64 ASCII letters"),
        ] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, NetabaseError::Config(_)) && error.to_string().contains(why), "{error}");
        }
        let error = NetabaseConfig::from_file(directory.path().join("none.toml")).unwrap_err();
        assert!(error.to_string().contains("none.toml"), "{error}");
    }
}
