//! The `netabase` program: runs a node, talks to one, and demonstrates three of them.

mod backend;
mod cli;
mod commands;
mod config;
mod demo;
mod failure;
mod logging;
mod models;
mod output;
mod schema;
mod serve;
mod signals;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use self::cli::{Cli, Command};
use self::commands::{completions, config as settings, man, schema as schemas};
use self::failure::Outcome;

/// How long background work may take to end after the program has done its own.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    run(config.as_deref(), command).unwrap_or_else(|failure| {
        if failure.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {:#}", failure.error);
        failure.code.into()
    })
}

fn run(file: Option<&Path>, command: Command) -> Outcome {
    match command {
        Command::Completions(arguments) => return completions::run(&arguments),
        Command::Man(arguments) => return man::run(&arguments),
        Command::Config(arguments) => return settings::run(file, &arguments),
        Command::Serve(_) => {} // logs as it is configured
        Command::Demo(_) | Command::Schema(_) => logging::start(None, logging::COMMAND)?,
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(file, &arguments).await,
            Command::Demo(arguments) => Ok(demo::run(&arguments).await?),
            Command::Schema(arguments) => schemas::run(file, &arguments).await,
            Command::Completions(_) | Command::Man(_) | Command::Config(_) => Ok(ExitCode::SUCCESS),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
    outcome
}
