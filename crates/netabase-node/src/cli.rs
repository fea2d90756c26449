//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{care, completions, config, man, node, records, schema, transfer, watch};
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
  netabase demo --web                   and look at the three nodes in a browser
  netabase demo --json")]
    Demo(demo::Arguments),
    /// Store a record, in place of an earlier one with its key
    #[command(after_long_help = "\
Example:
  netabase put Message '{\"id\":\"42\",\"room\":\"general\",\"text\":\"hello\"}'
  netabase put Message - < message.json

It is on the node's disk when the command returns, and says how many peers have accepted it.")]
    Put(records::PutArguments),
    /// Show a record
    #[command(after_long_help = "\
Example:
  netabase get Message 42
  netabase get Message 42 --consistency newest --json
  netabase get Score '[\"chess\",7]'         a key of several fields

Ends with 4 if there is none.")]
    Get(records::GetArguments),
    /// Remove a record, here and at every peer
    #[command(after_long_help = "\
Example:
  netabase remove Message 42")]
    Remove(records::RemoveArguments),
    /// Find records by a key, a range or a prefix
    #[command(after_long_help = "\
Example:
  netabase query Message
  netabase query Message --by room=general --reverse --limit 20
  netabase query Message --by room --prefix gen --network
  netabase query Message --all --json > messages.ndjson

With --json every record is a line of its own.")]
    Query(records::QueryArguments),
    /// Follow what changes, until it is interrupted
    #[command(after_long_help = "\
Example:
  netabase watch
  netabase watch Message --by room=general --json
  netabase watch Message --since 1234

Every change has a number and a position; at the end the command says which position to go on after. With --json every change is a line
of its own.")]
    Watch(watch::Arguments),
    /// Show the peers that are connected, or add or remove one
    #[command(after_long_help = "\
Example:
  netabase peers
  netabase peers add /ip4/192.0.2.7/tcp/4001/p2p/12D3...")]
    Peers(node::PeersArguments),
    /// Show how the node is, and what to do about it
    #[command(after_long_help = "\
Example:
  netabase status
  netabase status --api http://127.0.0.1:4081 --json")]
    Status(node::StatusArguments),
    /// Store the records of a file of JSON or CSV
    #[command(after_long_help = "\
Example:
  netabase import messages.ndjson
  netabase import messages.csv --model Message
  netabase import --path node --schema schema.toml - < messages.ndjson

The file is an export, or lines like {\"model\":\"Message\",\"value\":{..}}, or with --model lines like {\"id\":\"42\",..};
an array of either; or with --model a table whose first row names fields. Lines that cannot be stored are named, and the
others are stored, as they come.")]
    Import(transfer::ImportArguments),
    /// Write all records as lines of JSON
    #[command(after_long_help = "\
Example:
  netabase export messages.ndjson
  netabase export --path node | gzip > messages.ndjson.gz")]
    Export(transfer::ExportArguments),
    /// Copy the database as it is now, while it is used
    #[command(after_long_help = "\
Example:
  netabase backup node.redb
  netabase backup --path node /var/backups/node.redb

A running node takes a name, and writes the copy beside its database or in its `api.backup_directory`.

The copy is a database itself: put it where the node's was, and start the node. The identity is a file of its own.")]
    Backup(care::BackupArguments),
    /// Compare everything in the database with everything else
    #[command(after_long_help = "\
Example:
  netabase check
  netabase check --path node --repair

Ends with 1 if the database has a fault.")]
    Check(care::CheckArguments),
    /// Make the file of the database as small as its contents allow
    #[command(after_long_help = "\
Example:
  netabase compact
  netabase compact --path node

Space that is not used any more is used again, but is given back to the file system by this command alone. A node
answers and stores nothing while it is at work, which takes time in proportion to what it moves. A database of sled
needs it not.")]
    Compact(care::CompactArguments),
    /// Say what happened to a record on this node, or how well it is kept
    #[command(after_long_help = "\
Example:
  netabase why Message 42
  netabase why Message 42 --health")]
    Why(node::WhyArguments),
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
