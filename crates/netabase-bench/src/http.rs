//! Gets and puts through the HTTP API, against the same calls on the crate.
//!
//! `http` is a node in a process of its own that serves its API, asked over 64 connections that
//! stay open; `crate` are 64 callers of [`Node::get`](netabase::Node::get) and
//! [`Node::put`](netabase::Node::put) in one process. Both have the same records on the same disk,
//! and no peers. `hyper` is a process that answers gets with as many bytes and looks for nothing:
//! what HTTP costs by itself. The processes that ask share the processors with the one that
//! answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tempfile::TempDir;

use crate::node::with_runtime;
use crate::{Aim, Bound, Latencies, Measurement, Table};

mod bare;
mod caller;
pub(crate) mod connection;
mod model;
mod server;

use caller::Caller;
use connection::Connection;
use server::Server;
pub use server::ServerOptions;

const CRATE: &str = "crate";
const HTTP: &str = "http";
const BARE: &str = "hyper";
const CONNECTIONS: u64 = 64;
const AIMS: [Aim; 1] =
    [Aim { case: "get", system: HTTP, metric: Some("requests"), bound: Bound::LeastRatio(0.5) }];

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How often each case is measured on each system
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// How many records there are, of about 100 bytes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// How many requests a repetition makes; a tenth of them where they write
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(10..))]
    requests: u64,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// Is the process that answers, until its input is closed.
pub fn run_server(options: ServerOptions) -> anyhow::Result<()> {
    with_runtime(server::run(options))
}

/// Measures gets, then puts, on each system in turn.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let mut table = Table::new("http", CRATE, &AIMS).with_records(options.records);
    for _ in 0..options.repetitions {
        for system in [CRATE, HTTP, BARE] {
            let directory = TempDir::new_in(&options.directory)?;
            let (path, records, requests) = (directory.path().to_owned(), options.records, options.requests);
            let measured = with_runtime(async move { measure(system, &path, records, requests).await });
            for Measured { case, mut latencies, time } in measured.context(system)? {
                let n = latencies.len();
                let rate = f64::from(u32::try_from(n)?) / time.as_secs_f64();
                for (metric, value, unit) in [
                    ("requests", rate, "1/s"),
                    ("p50", latencies.percentile(50), "us"),
                    ("p99", latencies.percentile(99), "us"),
                ] {
                    table.add(Measurement { case, system, metric, value, unit, n });
                }
            }
        }
    }
    Ok(table)
}

struct Measured {
    case: &'static str,
    latencies: Latencies,
    time: Duration,
}

async fn measure(
    system: &str,
    directory: &Path,
    records: u64,
    requests: u64,
) -> anyhow::Result<Vec<Measured>> {
    let cases = [("get", requests), ("put", requests / 10)];
    let mut measured = Vec::new();
    if system == CRATE {
        let node = model::open(directory, records)?;
        for (case, requests) in cases {
            let callers = (0..CONNECTIONS).map(|_| Caller::Crate(node.clone())).collect();
            measured.push(asked(case, callers, records, requests).await?);
        }
        return Ok(measured);
    }
    let server = Server::start(directory, records, system == BARE).await?;
    for (case, requests) in cases.into_iter().filter(|(case, _)| system != BARE || *case == "get") {
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            callers.push(Caller::Http(Connection::open(server.address).await?));
        }
        measured.push(asked(case, callers, records, requests).await?);
    }
    server.end().await?;
    Ok(measured)
}

/// Has the callers make so many requests together, each one after the other.
async fn asked(
    case: &'static str,
    callers: Vec<Caller>,
    records: u64,
    requests: u64,
) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let callers: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= requests {
                        return anyhow::Ok(latencies);
                    }
                    let start = Instant::now();
                    match case {
                        "get" => caller.get(model::some_id(turn, records)).await?,
                        _ => caller.put(records + turn).await?,
                    }
                    latencies.push(start.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await??);
    }
    Ok(Measured { case, time: start.elapsed(), latencies: latencies.into_iter().collect() })
}
