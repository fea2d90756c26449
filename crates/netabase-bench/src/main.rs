//! Runs one subject's measurements and prints them.

use std::io;

use clap::{Parser, Subcommand};
use netabase_bench::{
    Table, churn, crash, footprint, format, http, ingest, node, republish, siege, store, sync,
};

/// Measures Netabase against named baselines on this machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// A network in this process that loses nodes: what becomes of its records
    Churn {
        #[command(flatten)]
        options: churn::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// What the `netabase` program takes: size, time to start, memory
    Footprint {
        #[command(flatten)]
        options: footprint::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// How values may be encoded: bytes, and the time to encode and decode a record
    Format {
        #[command(flatten)]
        options: format::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Gets and puts through the HTTP API against the same calls on the crate
    Http {
        #[command(flatten)]
        options: http::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// The process that answers in the `http` subject
    #[command(hide = true)]
    HttpServer(http::ServerOptions),
    /// Taking in records of peers against checking their signatures alone
    Ingest {
        #[command(flatten)]
        options: ingest::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// A pair of nodes against a bare libp2p Kademlia pair, on loopback
    Node {
        #[command(flatten)]
        options: node::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// A process that writes and is killed, again and again: what was acknowledged must be there
    Crash {
        #[command(flatten)]
        options: crash::Options,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// The process that is killed by the `crash` subject
    #[command(hide = true)]
    CrashWriter(crash::WriterOptions),
    /// The other process of the `node` subject
    #[command(hide = true)]
    NodePeer(node::PeerOptions),
    /// A node with many records of its own that publishes them again
    Republish {
        #[command(flatten)]
        options: republish::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// The process that fills the database of the `republish` subject
    #[command(hide = true)]
    RepublishFill(republish::FillOptions),
    /// Strangers that attack a node: what its honest peers and clients feel
    Siege {
        #[command(flatten)]
        options: siege::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// The store alone against other embedded databases
    Store {
        #[command(flatten)]
        options: store::Options,
        /// Print one JSON object per line instead of tables
        #[arg(long)]
        json: bool,
    },
    /// The process that measures one system of the `store` subject
    #[command(hide = true)]
    StoreChild(store::ChildOptions),
    /// Joining, following and finding across peers, beside iroh-docs and negentropy
    Sync {
        #[command(flatten)]
        options: sync::Options,
        /// Print one JSON object per line instead of tables
        #[arg(long)]
        json: bool,
    },
    /// A process that fetches a value in the `sync` subject
    #[command(hide = true)]
    SyncFetch(sync::FetchOptions),
    /// A process that has a value in the `sync` subject
    #[command(hide = true)]
    SyncHold(sync::HoldOptions),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().subject {
        Subject::Churn { options, json } => print(&churn::run(&options)?, json),
        Subject::Footprint { options, json } => print(&footprint::run(&options)?, json),
        Subject::Format { options, json } => print(&format::run(&options)?, json),
        Subject::Http { options, json } => print(&http::run(&options)?, json),
        Subject::HttpServer(options) => http::run_server(options),
        Subject::Ingest { options, json } => print(&ingest::run(&options)?, json),
        Subject::Node { options, json } => print(&node::run(&options)?, json),
        Subject::Crash { options, json } => {
            let report = crash::run(&options)?;
            let out = io::stdout().lock();
            if json { report.write_json(out) } else { report.write_text(out) }?;
            anyhow::ensure!(report.faults.none(), "the database was damaged");
            Ok(())
        }
        Subject::CrashWriter(options) => crash::run_writer(&options),
        Subject::NodePeer(options) => node::run_peer(options),
        Subject::Republish { options, json } => print(&republish::run(&options)?, json),
        Subject::RepublishFill(options) => republish::run_fill(&options),
        Subject::Siege { options, json } => {
            let outcome = siege::run(&options)?;
            print_matrix(&outcome.table, json)?;
            outcome.check()
        }
        Subject::Store { options, json } => {
            store::run(&options)?.iter().try_for_each(|table| print_matrix(table, json))
        }
        Subject::StoreChild(options) => store::run_child(&options),
        Subject::Sync { options, json } => {
            let report = sync::run(&options)?;
            report.tables.iter().try_for_each(|table| print(table, json))?;
            report.failures.into_iter().try_for_each(Err)
        }
        Subject::SyncFetch(options) => sync::run_fetch(options),
        Subject::SyncHold(options) => sync::run_hold(options),
    }
}

fn print(table: &Table, json: bool) -> anyhow::Result<()> {
    let out = io::stdout().lock();
    if json { table.write_json(out) } else { table.write_text(out) }
}

fn print_matrix(table: &Table, json: bool) -> anyhow::Result<()> {
    let out = io::stdout().lock();
    if json { table.write_json(out) } else { table.write_matrix(out) }
}
