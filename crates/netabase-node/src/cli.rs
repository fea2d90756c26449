//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{authors, care, completions, config, man, node, records, schema, transfer, watch};
use crate::{demo, serve};

/// The end of the program's help text.
const AFTER_HELP: &str = "\
Settings come from netabase.toml, the environment (NETABASE_*) and flags; each overrides the one before.
`netabase config` shows the settings and the source of each. RUST_LOG sets what is logged to standard error, such as
RUST_LOG=netabase=debug.

Exit codes: 0 done, 1 failed, 2 invalid command line or configuration, 3 no node answers,
4 no such record, model, peer or database.";

/// A typed, local-first, peer-to-peer database.
#[derive(Debug, Parser)]
#[command(name = "netabase", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The configuration file [default: netabase.toml in the current directory, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until interrupted
    #[command(after_long_help = "\
Example:
  netabase serve --path node
  netabase serve --path node --schema schema.toml --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3...

Prints one line each for the peer id, the database, every address and the API, for scripts. The line of the API comes
last, once the node answers.")]
    Serve(Box<serve::Arguments>),
    /// Run three nodes on this machine that share Debian's package index, and check every answer
    #[command(after_long_help = "\
Example:
  netabase demo --limit 200
  netabase demo --web                   with a dashboard of each node
  netabase demo --json")]
    Demo(demo::Arguments),
    /// Store a record, and replace one with the same key
    #[command(after_long_help = "\
Example:
  netabase put Message '{\"id\":\"42\",\"room\":\"general\",\"text\":\"hello\"}'
  netabase put Message - < message.json

The record is on the node's disk when the command returns. The output says how many peers accepted it.")]
    Put(records::PutArguments),
    /// Show a record
    #[command(after_long_help = "\
Example:
  netabase get Message 42
  netabase get Message 42 --consistency newest --json
  netabase get Score '[\"chess\",7]'         a key of several fields

Exits with code 4 if the record does not exist.")]
    Get(records::GetArguments),
    /// Remove a record from this node and its peers
    #[command(after_long_help = "\
Example:
  netabase remove Message 42")]
    Remove(records::RemoveArguments),
    /// Find records by key, range or prefix
    #[command(after_long_help = "\
Example:
  netabase query Message
  netabase query Message --by room=general --reverse --limit 20
  netabase query Message --by room --prefix gen --network
  netabase query Message --all --json > messages.ndjson

With --json the output has one line for each record.")]
    Query(records::QueryArguments),
    /// Follow changes of records until interrupted
    #[command(after_long_help = "\
Example:
  netabase watch
  netabase watch Message --by room=general --json
  netabase watch Message --since 1234

Every change has a number and a position. When the command ends, it prints the position from which --since resumes.
With --json the output has one line for each change.")]
    Watch(watch::Arguments),
    /// List the connected peers, or add or remove one
    #[command(after_long_help = "\
Example:
  netabase peers
  netabase peers add /ip4/192.0.2.7/tcp/4001/p2p/12D3...")]
    Peers(node::PeersArguments),
    /// Show who wrote the most records, or refuse, allow or remove an author
    #[command(after_long_help = "\
Example:
  netabase authors
  netabase authors refuse 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c

A refused author's records are refused and removed on this node alone; the peers that send them are not blamed.")]
    Authors(authors::Arguments),
    /// Show the state of the node and its warnings
    #[command(after_long_help = "\
Example:
  netabase status
  netabase status --api http://127.0.0.1:4081 --json")]
    Status(node::StatusArguments),
    /// Import records from a file of JSON or CSV
    #[command(after_long_help = "\
Example:
  netabase import messages.ndjson
  netabase import messages.csv --model Message
  netabase import --path node --schema schema.toml - < messages.ndjson

The file is an export; or lines like {\"model\":\"Message\",\"value\":{..}}, or with --model lines like {\"id\":\"42\",..};
or an array of either; or with --model a table whose first row names the fields. Lines that cannot be stored are
reported, and all others are stored.")]
    Import(transfer::ImportArguments),
    /// Export all records as lines of JSON
    #[command(after_long_help = "\
Example:
  netabase export messages.ndjson
  netabase export messages.ndjson --signed
  netabase export --path node | gzip > messages.ndjson.gz")]
    Export(transfer::ExportArguments),
    /// Copy a snapshot of the database, also while it is in use
    #[command(after_long_help = "\
Example:
  netabase backup node.redb
  netabase backup --path node /var/backups/node.redb

A running node accepts a file name, and writes the copy beside its database or into its `api.backup_directory`.

The copy is a database. To restore it, put it in the place of the node's database and start the node. The identity is
a separate file.")]
    Backup(care::BackupArguments),
    /// Check the database for damage and inconsistencies
    #[command(after_long_help = "\
Example:
  netabase check
  netabase check --path node --repair

Exits with code 1 if the database has a fault.")]
    Check(care::CheckArguments),
    /// Compact the database file
    #[command(after_long_help = "\
Example:
  netabase compact
  netabase compact --path node

The database reuses free space, but only this command returns it to the file system. A node answers no requests while
it compacts, which takes time in proportion to the data that is moved. A sled database does not need compaction.")]
    Compact(care::CompactArguments),
    /// Show the history of a record on this node, or the versions of its holders
    #[command(after_long_help = "\
Example:
  netabase why Message 42
  netabase why Message 42 --health")]
    Why(node::WhyArguments),
    /// Show the settings and the source of each
    #[command(after_long_help = "\
Example:
  netabase config
  NETABASE_PATH=node netabase config --json --set store.cache_bytes=\"256 MiB\"")]
    Config(Box<config::Arguments>),
    /// Show or check a schema
    #[command(after_long_help = "\
Example:
  netabase schema                       the schema of the running node
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
