//! The flags that set settings.

use anyhow::anyhow;

use super::{Flag, SETTINGS, nearest};
use crate::failure::Failure;

/// The flags for the settings of a node.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SettingFlags {
    /// The directory of the database and the node's identity, created if it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<String>,
    /// The models, as a schema.toml [default: the built-in schema `packages`]
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<String>,
    /// The storage backend of the database
    #[arg(long, value_name = "NAME", value_parser = ["redb", "sled"])]
    pub(crate) backend: Option<String>,
    /// The addresses at which peers connect [default: TCP and QUIC on every IPv4 interface, on
    /// ports that the system chooses]
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    listen: Vec<String>,
    /// A peer to connect to at the start, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3...
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    peer: Vec<String>,
    /// The longest time to wait for another program that has the database open [default: no wait]
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    /// The name of the network to join [default: the name of the schema]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The public key that signs the list of members, who may write: 64 hexadecimal digits
    /// [default: anybody may write]
    #[arg(long, value_name = "AUTHOR")]
    root: Option<String>,
    /// Whether to store records for other nodes and answer them
    #[arg(long, value_name = "MODE", value_parser = ["server", "client"])]
    mode: Option<String>,
    /// Keep these models complete and current on this node; `all` for all models
    #[arg(long, value_name = "MODEL", num_args = 1..)]
    replicate: Vec<String>,
    /// Fetch large values with the replicated records, up to this many bytes for each scope, such
    /// as 2GiB
    #[arg(long, value_name = "BYTES")]
    replicate_blobs: Option<String>,
    /// Do not look for peers on the local network
    #[arg(long)]
    no_mdns: bool,
    /// The address of the HTTP API [default: 127.0.0.1:4080]; port 0 for any free port
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "no_api")]
    api_listen: Option<String>,
    /// Serve no HTTP API, so that no other command reaches the node
    #[arg(long)]
    no_api: bool,
    /// The file with the bearer token of the API
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// A setting of `netabase config`, such as --set `store.cache_bytes="256 MiB"`
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl SettingFlags {
    /// Returns the given flags, `--set` first, so that specific flags override it.
    pub(crate) fn flags(&self) -> Result<Vec<Flag>, Failure> {
        let mut flags = self.set.iter().map(|text| any(text)).collect::<Result<Vec<_>, _>>()?;
        for (name, flag, text) in [
            ("path", "--path", &self.path),
            ("schema", "--schema", &self.schema),
            ("backend", "--backend", &self.backend),
            ("lock_timeout", "--lock-timeout", &self.lock_timeout),
            ("network", "--network", &self.network),
            ("root", "--root", &self.root),
            ("mode", "--mode", &self.mode),
            ("replicate_blobs", "--replicate-blobs", &self.replicate_blobs),
            ("api.listen", "--api-listen", &self.api_listen),
            ("api.token_file", "--token-file", &self.token_file),
        ] {
            flags.extend(one(name, flag, text.as_ref()));
        }
        for (name, flag, texts) in [
            ("listen", "--listen", &self.listen),
            ("peers", "--peer", &self.peer),
            ("replicate", "--replicate", &self.replicate),
        ] {
            if !texts.is_empty() {
                flags.push(Flag { name: name.into(), written: flag, texts: texts.clone() });
            }
        }
        let no = "false".to_owned();
        flags.extend(one("mdns.enabled", "--no-mdns", self.no_mdns.then_some(&no)));
        flags.extend(one("api.enabled", "--no-api", self.no_api.then_some(&no)));
        Ok(flags)
    }
}

/// The flags that say where the node is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ApiFlags {
    /// The URL of the node's API [default: port 4080 of this machine]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The file with the bearer token of that API
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
    /// The directory or file of a database, to ask the program that has it open, at any address
    #[arg(long, value_name = "DIR", conflicts_with_all = ["api", "token_file"])]
    pub(crate) path: Option<String>,
    /// The models of that database, as a schema.toml [default: the built-in schema `packages`]
    #[arg(long, value_name = "FILE", requires = "path")]
    pub(crate) schema: Option<String>,
    /// The storage backend of that database
    #[arg(long, value_name = "NAME", value_parser = ["redb", "sled"], requires = "path")]
    pub(crate) backend: Option<String>,
}

impl ApiFlags {
    /// Returns the given flags.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        [
            ("api.url", "--api", &self.api),
            ("api.token_file", "--token-file", &self.token_file),
            ("path", "--path", &self.path),
            ("schema", "--schema", &self.schema),
            ("backend", "--backend", &self.backend),
        ]
        .into_iter()
        .filter_map(|(name, flag, text)| one(name, flag, text.as_ref()))
        .collect()
    }
}

/// Returns the setting `name` with the value of its flag.
pub(crate) fn one(name: &str, flag: &'static str, text: Option<&String>) -> Option<Flag> {
    text.map(|text| Flag { name: name.into(), written: flag, texts: vec![text.clone()] })
}

/// Parses `NAME=VALUE`. The values of a list are separated by commas.
fn any(text: &str) -> Result<Flag, Failure> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::usage(anyhow!("--set {text} has no `=`; write --set NAME=VALUE")));
    };
    let name = name.trim();
    if !SETTINGS.iter().any(|known| known.name == name) {
        let hint = match nearest(name, SETTINGS.iter().map(|known| known.name)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "`netabase config` lists the settings".to_owned(),
        };
        return Err(Failure::usage(anyhow!("--set {text}: there is no setting `{name}`; {hint}")));
    }
    let is_list = ["listen", "peers", "replicate", "api.allow_origins", "api.hosts"].contains(&name);
    let texts = if is_list {
        value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    } else {
        vec![value.trim().to_owned()]
    };
    Ok(Flag { name: name.into(), written: "--set", texts })
}
