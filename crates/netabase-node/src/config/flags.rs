//! The flags that are settings.

use anyhow::anyhow;

use super::{Flag, SETTINGS, nearest};
use crate::failure::Failure;

/// Settings of a node, on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SettingFlags {
    /// The directory of the database and of the node's identity; it is created if there is none
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<String>,
    /// The models, as a schema.toml [default: the built-in schema `packages`]
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<String>,
    /// The database
    #[arg(long, value_name = "NAME", value_parser = ["redb", "sled"])]
    pub(crate) backend: Option<String>,
    /// Where peers connect [default: TCP and QUIC on every IPv4 interface, on ports that the system
    /// chooses]
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    listen: Vec<String>,
    /// A peer to connect to at the start, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3...
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    peer: Vec<String>,
    /// How long to wait for another program that has the database open [default: not at all]
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    /// The network to be part of [default: the schema's name]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The public key whose list says who may write, 64 hexadecimal digits [default: anybody may
    /// write]
    #[arg(long, value_name = "AUTHOR")]
    root: Option<String>,
    /// Whether to store and answer for others
    #[arg(long, value_name = "MODE", value_parser = ["server", "client"])]
    mode: Option<String>,
    /// Keep these models whole and current on this node; `all` for every one
    #[arg(long, value_name = "MODEL", num_args = 1..)]
    replicate: Vec<String>,
    /// Fetch the large values with the records that are replicated, up to so many bytes for each
    /// name, such as 2GiB
    #[arg(long, value_name = "BYTES")]
    replicate_blobs: Option<String>,
    /// Do not look for peers on the local network
    #[arg(long)]
    no_mdns: bool,
    /// Where the HTTP API is served [default: 127.0.0.1:4080]; port 0 for one that is free
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "no_api")]
    api_listen: Option<String>,
    /// Serve no HTTP API; then no other command reaches the node
    #[arg(long)]
    no_api: bool,
    /// The file with the bearer token of the API
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// Any setting, as `netabase config` lists them: --set `store.cache_bytes="256 MiB"`
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl SettingFlags {
    /// Returns what is given, the more general first.
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

/// Where the node is, on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ApiFlags {
    /// The API of the node to talk to, as a URL [default: that of this machine, at port 4080]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The file with the bearer token of that API
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
    /// The directory of a database, or its file: ask the program that has it open, whatever its
    /// address
    #[arg(long, value_name = "DIR", conflicts_with_all = ["api", "token_file"])]
    pub(crate) path: Option<String>,
    /// The models of that database, as a schema.toml [default: the built-in schema `packages`]
    #[arg(long, value_name = "FILE", requires = "path")]
    pub(crate) schema: Option<String>,
    /// The kind of that database
    #[arg(long, value_name = "NAME", value_parser = ["redb", "sled"], requires = "path")]
    pub(crate) backend: Option<String>,
}

impl ApiFlags {
    /// Returns what is given.
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

/// Returns the setting `name` as the flag gives it.
pub(crate) fn one(name: &str, flag: &'static str, text: Option<&String>) -> Option<Flag> {
    text.map(|text| Flag { name: name.into(), written: flag, texts: vec![text.clone()] })
}

/// Reads `NAME=VALUE`; the values of a list have commas between them.
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
