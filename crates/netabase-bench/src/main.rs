//! Runs one subject's measurements and prints them.

use std::io;

use clap::{Parser, Subcommand};
use netabase_bench::{Table, node};

/// Measures Netabase against named baselines on this machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// A pair of nodes against a bare libp2p Kademlia pair, on loopback
    Node {
        #[command(flatten)]
        options: node::Options,
        /// Print one JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// The other process of the `node` subject
    #[command(hide = true)]
    NodePeer(node::PeerOptions),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().subject {
        Subject::Node { options, json } => print(&node::run(&options)?, json),
        Subject::NodePeer(options) => node::run_peer(options),
    }
}

fn print(table: &Table, json: bool) -> anyhow::Result<()> {
    let out = io::stdout().lock();
    if json { table.write_json(out) } else { table.write_text(out) }
}
