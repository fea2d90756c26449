//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{completions, config, man, schema};
use crate::{demo, serve};

/// What every help text ends with.
const AFTER_HELP: &str = "\
Settings come from netabase.toml, the environment (NETABASE_*) and flags, each stronger than the one before;
`netabase config` shows them and where each comes from. RUST_LOG logs more or less to standard error, such as
RUST_LOG=netabase=debug.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration makes no sense, 3 no node answers,
4 there is no such thing.";

/// A typed, local-first, peer-to-peer database.
#[derive(Debug, Parser)]
#[command(name = "netabase", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The configuration [default: netabase.toml in the current directory, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until it is interrupted
    #[command(after_long_help = "\
Example:
  netabase serve --path node
  netabase serve --path node --schema schema.toml --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3...

Prints a line each for the peer, the database, every address and the API, for scripts. The line of the API comes
last, when the node answers.")]
    Serve(Box<serve::Arguments>),
    /// Let three nodes on this machine share Debian's package index, and check every answer
    #[command(after_long_help = "\
Example:
  netabase demo --limit 200
  netabase demo --json")]
    Demo(demo::Arguments),
    /// Show the settings, and where each comes from
    #[command(after_long_help = "\
Example:
  netabase config
  NETABASE_PATH=node netabase config --json --set store.cache_bytes=\"256 MiB\"")]
    Config(Box<config::Arguments>),
    /// Show or check a schema
    #[command(after_long_help = "\
Example:
  netabase schema                       what the node has
  netabase schema --file schema.toml --json
  netabase schema check schema.toml")]
    Schema(schema::Arguments),
    /// Print a script that completes commands and options in a shell
    #[command(after_long_help = "\
Example:
  netabase completions bash > ~/.local/share/bash-completion/completions/netabase")]
    Completions(completions::Arguments),
    /// Print the manual page, or write one for every command
    #[command(after_long_help = "\
Example:
  netabase man | man -l -
  netabase man --output /usr/local/share/man/man1")]
    Man(man::Arguments),
}
