//! `netabase demo`: three peers share a package index and check every answer.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use netabase::StorageBackend;

use self::input::{Input, MIN_PACKAGES};
use self::report::Report;
use self::steps::Demonstration;
use crate::backend::Backend;
use crate::failure::{Failure, Outcome};
use crate::signals::Signals;

mod dpkg;
mod input;
mod peer;
mod plan;
mod report;
mod steps;
mod web;

/// The command line of `netabase demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Import at most this many packages [default: all]
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<usize>,
    /// A file in the format of `apt-cache dumpavail` [default: the installed packages, or a sample]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The storage backend of every peer
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Keep the three nodes running afterwards, each with a dashboard, until Ctrl-C
    #[arg(long)]
    web: bool,
}

/// Runs the demonstration. Fails unless every step gave the right answer.
pub(crate) async fn run(arguments: &Arguments) -> Outcome {
    let backend = StorageBackend::from(arguments.backend);
    let input = Input::load(arguments.input.as_deref(), arguments.limit)?;
    let mut report = Report::new(backend, &input);
    let mut demonstration = Demonstration::new(backend, input)?;
    let mut signals = Signals::catch()?;
    tokio::select! {
        () = demonstration.run(&mut report) => {}
        () = signals.recv() => return Err(Failure::from(anyhow!("interrupted"))),
    }
    if !arguments.web {
        demonstration.stop().await;
    }
    let out = io::stdout().lock();
    let written = if arguments.json { report.write_json(out) } else { report.write_table(out) };
    written.context("cannot write to standard output")?;
    if arguments.web {
        let shown = match demonstration.nodes() {
            Ok(nodes) if report.is_ok() => web::serve(nodes, arguments.json, &mut signals).await,
            _ => Ok(()),
        };
        demonstration.stop().await;
        shown?;
    }
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    if limit < MIN_PACKAGES {
        return Err(format!("the demonstration needs at least {MIN_PACKAGES} packages"));
    }
    Ok(limit)
}
