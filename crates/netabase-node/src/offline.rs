//! Databases that no node has open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use netabase::Node;

use crate::config::{Config, Flag, one};
use crate::failure::Failure;
use crate::online::ApiArguments;
use crate::schema;
use crate::signals::Signals;

/// Which database a command works on: that of a running node, or one that no node has open.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TargetArguments {
    /// Work on the database in this directory, which no node may have open, instead of asking a node
    #[arg(long, value_name = "DIR", conflicts_with_all = ["api", "token_file"])]
    path: Option<String>,
    /// The models of that database, as a schema.toml [default: the built-in schema `packages`]
    #[arg(long, value_name = "FILE", requires = "path")]
    schema: Option<String>,
    /// The kind of that database
    #[arg(long, value_name = "NAME", value_parser = ["redb", "sled"], requires = "path")]
    backend: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArguments,
}

impl TargetArguments {
    /// Returns the settings, and whether the command works on a database itself.
    pub(crate) fn load(&self, file: Option<&Path>) -> Result<(Config, bool), Failure> {
        let mut flags: Vec<Flag> = self.api.api.flags();
        flags.extend(one("path", "--path", self.path.as_ref()));
        flags.extend(one("schema", "--schema", self.schema.as_ref()));
        flags.extend(one("backend", "--backend", self.backend.as_ref()));
        Ok((Config::load(file, &flags)?, self.path.is_some()))
    }
}

/// Makes a node's directory, if it is not there: its records are read by nobody else on the machine.
pub(crate) fn create_directory(path: &Path) -> anyhow::Result<()> {
    let mut directories = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directories, 0o700);
    let made = directories.recursive(true).create(path);
    made.with_context(|| format!("cannot create the directory {}", path.display()))
}

/// Opens the database that the settings name. It is not shared meanwhile.
pub(crate) fn open(config: &Config, create: bool) -> Result<Node, Failure> {
    let schema = schema::load(config)?;
    let database = schema::database(config, &schema)?;
    if create {
        create_directory(config.directory()?)?;
    } else if !database.exists() {
        return Err(Failure::not_found(format!(
            "there is no database {}; name its directory with --path, its schema with --schema, and --backend sled \
             if it is one",
            database.display()
        )));
    }
    let node = Node::open(schema.definition(), config.node(database)?);
    Ok(node.context("if a node has the database open, leave --path away to ask the node")?)
}

/// Returns where the database is, for a message.
pub(crate) fn place(node: &Node) -> PathBuf {
    node.database_path().map(Path::to_owned).unwrap_or_default()
}

/// Runs work that blocks, and asks it to stop when a signal comes.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::catch()?;
    let asked = Arc::clone(&stop);
    let mut work = tokio::task::spawn_blocking(move || work(&asked));
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(|error| Failure::from(anyhow!("the work broke off: {error}")))?,
            () = signals.recv() => {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(1);
                }
            }
        }
    }
}
