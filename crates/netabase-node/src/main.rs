//! The `netabase` program: runs a node, talks to one, and demonstrates three of them.

mod backend;
mod cli;
mod commands;
mod config;
mod demo;
mod failure;
mod logging;
mod models;
mod offline;
mod online;
#[cfg(any(test, feature = "otlp"))]
mod otlp;
mod output;
mod progress;
mod schema;
mod serve;
mod signals;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use self::cli::{Cli, Command};
use self::commands::{
    authors, care, completions, config as settings, man, node, records, schema as schemas, transfer, watch,
};
use self::failure::Outcome;
use self::output::note;

/// Returns memory that is no longer used to the system, where glibc keeps it for each thread.
/// `.cargo/config.toml` has its settings.
#[cfg(all(unix, not(target_env = "musl")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long background tasks may take to end after the command has ended.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    run(config.as_deref(), command).unwrap_or_else(|failure| {
        if failure.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        note!("error: {:#}", failure.error);
        failure.code.into()
    })
}

fn run(file: Option<&Path>, command: Command) -> Outcome {
    if !matches!(command, Command::Serve(_)) {
        // A node starts the log itself, with its settings.
        logging::start(None, logging::COMMAND)?;
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(dispatch(file, command));
    runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
    logging::flush();
    outcome
}

async fn dispatch(file: Option<&Path>, command: Command) -> Outcome {
    match command {
        Command::Serve(arguments) => serve::run(file, &arguments).await,
        Command::Demo(arguments) => Box::pin(demo::run(&arguments)).await,
        Command::Put(arguments) => records::put(file, &arguments).await,
        Command::Get(arguments) => records::get(file, &arguments).await,
        Command::Remove(arguments) => records::remove(file, &arguments).await,
        Command::Query(arguments) => records::query(file, &arguments).await,
        Command::Watch(arguments) => watch::run(file, &arguments).await,
        Command::Peers(arguments) => node::peers(file, &arguments).await,
        Command::Authors(arguments) => authors::run(file, &arguments).await,
        Command::Status(arguments) => node::status(file, &arguments).await,
        Command::Import(arguments) => transfer::import(file, &arguments).await,
        Command::Export(arguments) => transfer::export(file, &arguments).await,
        Command::Backup(arguments) => care::backup(file, &arguments).await,
        Command::Check(arguments) => care::check(file, &arguments).await,
        Command::Compact(arguments) => care::compact(file, &arguments).await,
        Command::Why(arguments) => node::why(file, &arguments).await,
        Command::Config(arguments) => settings::run(file, &arguments),
        Command::Schema(arguments) => schemas::run(file, &arguments).await,
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}
