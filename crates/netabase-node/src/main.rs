//! The `netabase` program: runs a node, or demonstrates three of them.

mod backend;
mod demo;
mod models;
mod serve;
mod signals;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// How long background work may take to end after the program has done its own.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// What the program says of logging.
const LOG_HELP: &str = "Set RUST_LOG to log more or less to standard error, such as RUST_LOG=netabase=debug.";

/// A typed, local-first, peer-to-peer database.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = LOG_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until it is interrupted
    Serve(serve::Arguments),
    /// Let three nodes on this machine share Debian's package index, and check every answer
    Demo(demo::Arguments),
}

impl Command {
    /// What is logged unless `RUST_LOG` says otherwise.
    fn default_log(&self) -> &'static str {
        match self {
            // Kademlia warns of having no peers, which is how every network begins.
            Self::Serve(_) => "warn,netabase=info,netabase_store=info,libp2p_kad=error",
            Self::Demo(_) => "error",
        }
    }
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    run(command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    start_logging(command.default_log())?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(&arguments).await,
            Command::Demo(arguments) => demo::run(&arguments).await,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
    outcome
}

fn start_logging(default: &str) -> anyhow::Result<()> {
    let chosen = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = if chosen.is_empty() { default } else { &chosen };
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("RUST_LOG is `{directives}`, which is not a log filter"))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    Ok(())
}
