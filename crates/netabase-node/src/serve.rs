//! `netabase serve`: one node, until it is interrupted.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use netabase::libp2p::multiaddr::{self, Protocol};
use netabase::{
    Author, DhtMode, EventError, Events, Multiaddr, Netabase, NetabaseConfig, NetabaseSwarmEvent, PeerId,
    StorageBackend,
};
use tokio::time::timeout;

use crate::backend::Backend;
use crate::models::PackageDefinition;
use crate::signals::Signals;

/// How long the node may take to stop and to finish its writes.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// The command line of `netabase serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory of the database and of the node's identity; it is created if there is none
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    /// Where to listen [default: TCP and QUIC on every IPv4 interface, on ports that the system chooses]
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    listen: Vec<String>,
    /// A peer to connect to at the start, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3...
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    peer: Vec<String>,
    /// The network to be part of [default: packages]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The public key whose list says who may write, 64 hexadecimal digits [default: anybody may write]
    #[arg(long, value_name = "AUTHOR")]
    root: Option<Author>,
    /// The database
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// Do not look for peers on the local network
    #[arg(long)]
    no_mdns: bool,
    /// Whether to store and answer for others
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
}

/// The part in the distributed hash table, as the command line names it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Mode {
    /// Store and answer for others
    #[default]
    Server,
    /// Only ask others
    Client,
}

impl From<Mode> for DhtMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Server => Self::Server,
            Mode::Client => Self::Client,
        }
    }
}

/// Runs the node until a signal comes.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = config(arguments)?;
    create_directory(&arguments.path)?;
    let mut signals = Signals::catch()?;
    let netabase = Netabase::<PackageDefinition>::new_with_config(config)?;
    let mut events = netabase.subscribe_to_broadcasts();
    print("peer", netabase.local_peer_id());
    print("database", netabase.database_path().unwrap_or(&arguments.path).display());
    netabase.start_swarm().await?;
    tokio::select! {
        () = follow(&mut events, netabase.local_peer_id()) => {}
        () = signals.recv() => {}
    }
    tracing::info!("stopping");
    tokio::select! {
        () = stop(netabase) => Ok(ExitCode::SUCCESS),
        () = signals.recv() => std::process::exit(1),
    }
}

fn config(arguments: &Arguments) -> anyhow::Result<NetabaseConfig> {
    let backend = StorageBackend::from(arguments.backend);
    let mut config = NetabaseConfig {
        backend,
        database_path: Some(arguments.path.join(format!("packages.{backend}"))),
        root: arguments.root,
        network: arguments.network.clone(),
        ..NetabaseConfig::default()
    };
    if !arguments.listen.is_empty() {
        config.listen_addresses = addresses("--listen", &arguments.listen)?;
    }
    config.dht.bootstrap_peers = addresses("--peer", &arguments.peer)?;
    config.dht.mode = arguments.mode.into();
    config.mdns.enabled = !arguments.no_mdns;
    config.validate()?;
    Ok(config)
}

fn addresses(option: &str, texts: &[String]) -> anyhow::Result<Vec<Multiaddr>> {
    let parse = |text: &String| {
        text.parse().map_err(|error: multiaddr::Error| {
            anyhow!("{option} {text} is not an address; write it like /ip4/192.0.2.7/tcp/4001 ({error})")
        })
    };
    texts.iter().map(parse).collect()
}

fn create_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create the directory {}", path.display()))
}

/// Tells what happens until the node is gone.
async fn follow(events: &mut Events, local: PeerId) {
    loop {
        match events.recv().await {
            Ok(NetabaseSwarmEvent::NewListenAddress(address)) => {
                print("address", address.with(Protocol::P2p(local)));
            }
            Ok(event) => log(&event),
            Err(EventError::Lagged { missed }) => tracing::warn!(missed, "too many events to log them all"),
            Err(EventError::Closed) => return,
        }
    }
}

fn log(event: &NetabaseSwarmEvent) {
    match event {
        NetabaseSwarmEvent::Record(record) => {
            tracing::info!(kind = ?record.kind(), key = %record.key(), origin = ?record.origin(), "record");
        }
        NetabaseSwarmEvent::MembersChanged(list) => {
            tracing::info!(members = list.members().len(), signed = ?list.timestamp(), "members");
        }
        NetabaseSwarmEvent::RecordRefused { peer, key, reason } => {
            let (peer, key) = (peer.map(tracing::field::display), key.as_ref().map(tracing::field::display));
            tracing::warn!(peer, key, %reason, "a record was refused");
        }
        NetabaseSwarmEvent::ConnectionEstablished { peer, address, connections: 1, .. } => {
            tracing::info!(%peer, %address, "connected");
        }
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, cause, .. } => {
            let cause = cause.as_deref().unwrap_or("closed");
            tracing::info!(%peer, cause, "disconnected");
        }
        NetabaseSwarmEvent::OutgoingConnectionError { peer: Some(peer), cause } => {
            tracing::info!(%peer, %cause, "cannot connect");
        }
        NetabaseSwarmEvent::ListenerClosed { addresses, cause: Some(cause) } => {
            tracing::warn!(?addresses, %cause, "listens no more");
        }
        event => tracing::trace!(?event, "event"),
    }
}

/// Stops the swarm, then closes the database, which waits for the disk.
async fn stop(netabase: Netabase<PackageDefinition>) {
    let stop = async {
        let stopped = netabase.stop_swarm().await;
        let closed = tokio::task::spawn_blocking(move || drop(netabase)).await;
        if stopped.is_err() || closed.is_err() {
            tracing::warn!("the node did not stop cleanly");
        }
    };
    if timeout(STOP_DEADLINE, stop).await.is_err() {
        tracing::warn!("the node did not stop within {} s", STOP_DEADLINE.as_secs());
    }
}

/// Prints a line for scripts. Nobody has to read it.
fn print(what: &str, value: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{what} {value}").and_then(|()| out.flush());
}
