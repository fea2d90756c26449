//! `netabase serve`: runs a node until it is interrupted.

use std::path::Path;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, anyhow};
use netabase::{Node, ReplicateOptions, Replication};
use tokio::time::timeout;

use crate::config::{Config, SettingFlags};
use crate::failure::{Failure, Outcome};
use crate::signals::Signals;
use crate::{logging, offline, online, schema};

mod api;
mod follow;
mod notify;
mod scopes;

use api::{Api, Serving};
use follow::print;

/// The command line of `netabase serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingFlags,
}

/// Runs the node until a signal comes.
pub(crate) async fn run(file: Option<&Path>, arguments: &Arguments) -> Outcome {
    let config = Config::load(file, &arguments.settings.flags()?)?;
    logging::start(config.log.value.as_deref(), logging::NODE)?;
    for variable in Config::unknown_variables() {
        tracing::warn!(
            variable,
            "is set in the environment, and is not a setting; `netabase config` lists the settings"
        );
    }
    let token = online::token(&config)?;
    let mut signals = Signals::catch()?;
    let opened = tokio::task::spawn_blocking({
        let config = config.clone();
        move || open(&config)
    });
    let (node, replications) = tokio::select! {
        opened = opened => opened??,
        // Opening takes long if an index is built. No write is acknowledged yet, and the database
        // survives an exit as it survives a crash.
        () = signals.recv() => std::process::exit(0),
    };
    logging::name_node(node.local_peer_id());
    let mut events = node.subscribe_to_broadcasts();
    print("peer", node.local_peer_id());
    print("database", node.database_path().unwrap_or(Path::new("")).display());
    let api = Api::bind(&node, &config, token).await?;
    tokio::select! {
        started = node.start_swarm() => started?,
        () = signals.recv() => return Ok(ExitCode::SUCCESS),
    }
    let mut follow = pin!(follow::follow(&mut events, node.local_peer_id()));
    // The events with the addresses are waiting already.
    poll_once(follow.as_mut()).await;
    let api = api.map(Api::serve);
    notify::ready();
    tokio::select! {
        () = follow => {}
        () = signals.recv() => {}
    }
    tracing::info!("stopping");
    notify::stopping();
    drop(replications);
    tokio::select! {
        outcome = stop(node, api, config.stop_timeout()) => outcome,
        () = signals.recv() => std::process::exit(1),
    }
}

/// Polls a future once.
async fn poll_once(mut future: Pin<&mut impl Future<Output = ()>>) {
    std::future::poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

/// Opens the database, and starts the replications of the settings.
fn open(config: &Config) -> Result<(Node, Vec<Replication>), Failure> {
    let schema = schema::load(config)?;
    let database = schema::database(config, &schema)?;
    offline::create_directory(database.parent().unwrap_or(Path::new("")))?;
    let node_config = config.node(database)?;
    let scopes = scopes::named(&config.replicate.value, &schema)?;
    let node = Node::open(schema.definition(), node_config)?;
    let mut options = ReplicateOptions::default();
    options.max_blob_bytes = config.replicate_blobs.value.0;
    let replicate = |scope| node.replicate_with(scope, &options);
    let replications = scopes.into_iter().map(replicate).collect::<Result<_, _>>()?;
    Ok((node, replications))
}

/// Stops the API and the swarm, and closes the database, which waits for the disk.
async fn stop(node: Node, api: Option<Serving>, within: Duration) -> Outcome {
    let stop = async {
        if let Some(api) = api {
            api.stop().await;
        }
        node.stop_swarm().await?;
        tokio::task::spawn_blocking(move || drop(node)).await?;
        anyhow::Ok(())
    };
    match timeout(within, stop).await {
        Ok(stopped) => {
            stopped.context("the node did not stop cleanly; `netabase check` checks its database")?;
        }
        Err(_) => {
            return Err(Failure::from(anyhow!(
                "the node did not stop within {} s; acknowledged writes are on the disk, other writes are lost",
                within.as_secs_f32()
            )));
        }
    }
    Ok(ExitCode::SUCCESS)
}
