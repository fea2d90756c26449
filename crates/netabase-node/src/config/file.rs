//! Reading `netabase.toml`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use toml::de::{DeTable, DeValue};

use super::value::Given;
use super::{Config, SETTINGS, Source, nearest};

/// The largest configuration file that is read.
const MAX_BYTES: u64 = 1024 * 1024;
/// The file that is read by default, if it exists.
pub(crate) const DEFAULT: &str = "netabase.toml";

/// Sets the settings of the file, and returns its path, or `None` if there is no file.
pub(super) fn load(config: &mut Config, named: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    let path = named.unwrap_or(Path::new(DEFAULT));
    let Some(text) = read(path, named.is_some())? else { return Ok(None) };
    let document = DeTable::parse(&text).map_err(|error| {
        let line = line(&text, &error.span().unwrap_or_default());
        anyhow!("{}:{line}: invalid TOML: {}", path.display(), error.message())
    })?;
    let mut reader = Reader { config, path, text: &text };
    reader.table("", document.get_ref())?;
    Ok(Some(path.to_owned()))
}

fn read(path: &Path, must_exist: bool) -> anyhow::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("cannot read the configuration {}; name another file with --config", path.display())
            });
        }
    };
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    let read = read.with_context(|| format!("cannot read the configuration {}", path.display()))?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_BYTES) {
        bail!("the configuration {} is larger than {MAX_BYTES} bytes", path.display());
    }
    Ok(Some(text))
}

struct Reader<'a> {
    config: &'a mut Config,
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> anyhow::Result<()> {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let line = line(self.text, &key.span());
            match value.get_ref() {
                DeValue::Table(inner) if is_table(&name) => self.table(&format!("{name}."), inner)?,
                value => self.setting(&name, value, line)?,
            }
        }
        Ok(())
    }

    fn setting(&mut self, name: &str, value: &DeValue<'_>, line: usize) -> anyhow::Result<()> {
        let at = format!("{}:{line}", self.path.display());
        if !SETTINGS.iter().any(|known| known.name == name) {
            let known = SETTINGS.iter().map(|known| known.name);
            let hint = match nearest(name, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "`netabase config` lists the settings".to_owned(),
            };
            bail!("{at}: there is no setting `{name}`; {hint}");
        }
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let source = Source::File { path: self.path.to_owned(), line };
        self.config
            .set(name, &Given::Toml(value, directory), source)
            .map_err(|expected| anyhow!("{at}: `{name}` must be {expected}"))
    }
}

/// Returns whether settings have names in the table `name`.
fn is_table(name: &str) -> bool {
    SETTINGS.iter().any(|known| known.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns the number of the line that `span` begins in, from 1.
fn line(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use netabase::NetabaseConfig;

    use super::*;

    /// Every setting that an application has as well, with another value than its default.
    const SHARED: &str = "
path = 'data'
backend = 'sled'
network = 'my-club'
root = '0202020202020202020202020202020202020202020202020202020202020202'
listen = ['/ip4/127.0.0.1/tcp/4001']
peers = ['/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X']
mode = 'client'
call_timeout = '7s'
lock_timeout = '8s'
[store]
cache_bytes = '1 MiB'
max_value_bytes = 65536
record_lifetime = '2h'
tombstone_floor = '3d'
max_replica_bytes = '4 MiB'
max_author_bytes = '5 MiB'
refused_authors = ['0303030303030303030303030303030303030303030303030303030303030303']
max_blob_bytes = '6 MiB'
blob_grace = '7m'
set_aside_other_policy = true
keep_unread_versions = true
[dht]
replication_factor = 5
write_concern = 2
read_concern = 4
parallelism = 6
query_timeout = '9s'
bootstrap_interval = 'never'
repair_interval = '10m'
republish_interval = '11h'
provider_lifetime = '12h'
[mdns]
enabled = false
query_interval = '13s'
ttl = '14s'
ipv6 = true
[connections]
max_established = 15
idle_timeout = '16s'
[sync]
interval = '17s'
[authors]
records_per_second = 18
burst = 19
";
    /// The settings that only the program has.
    const OWN: [&str; 5] = ["schema", "replicate", "replicate_blobs", "log", "stop_timeout"];

    #[test]
    fn an_application_reads_the_settings_of_the_program_under_the_same_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("netabase.toml");
        std::fs::write(&file, SHARED).unwrap();
        let mut ours = Config::default();
        load(&mut ours, Some(&file)).unwrap();
        let unset = ours.entries().into_iter().filter(|entry| *entry.source == Source::Default);
        let unset: Vec<_> = unset.map(|entry| entry.known.name).collect();
        assert!(unset.iter().all(|name| OWN.contains(name) || name.starts_with("api.")), "{unset:?}");

        let of_application = NetabaseConfig::from_file(&file).unwrap();
        let mut of_program = ours.node("database".into()).unwrap();
        (of_program.database_path, of_program.directory) = (None, Some(directory.path().join("data")));
        assert_eq!(format!("{of_application:?}"), format!("{of_program:?}"));
        let defaults =
            NetabaseConfig { directory: of_application.directory.clone(), ..NetabaseConfig::default() };
        assert_ne!(format!("{of_application:?}"), format!("{defaults:?}"));

        // An application ignores the settings that only the program has.
        let own = "schema = 'schema.toml'\nreplicate = ['all']\nreplicate_blobs = '1 GiB'\nlog = 'info'\n\
                   stop_timeout = '5s'\napi.listen = '127.0.0.1:4080'\n";
        std::fs::write(&file, own).unwrap();
        NetabaseConfig::from_file(&file).unwrap();
    }
}
