//! Work on a database that no node has open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use netabase::netabase_store::{NetabaseStore, OpenError, StoreOptions};
use netabase::{NetabaseError, Node, StoreError};

use crate::config::{Config, Flag, one};
use crate::failure::Failure;
use crate::online::ApiArguments;
use crate::signals::Signals;
use crate::{online, schema};

/// The flags that name the database of a command: that of a running node, or one on the disk.
///
/// With `--path` the command opens the database itself, unless another program has it open and
/// serves it. Then the command asks that program.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TargetArguments {
    /// The longest time to wait for another program that has the database open and does not serve
    /// it [default: no wait]
    #[arg(long, value_name = "TIME", requires = "path")]
    lock_timeout: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArguments,
}

impl TargetArguments {
    /// Returns the settings, and whether the command opens the database itself.
    pub(crate) fn load(&self, file: Option<&Path>) -> Result<(Config, bool), Failure> {
        let mut flags: Vec<Flag> = self.api.api.flags();
        flags.extend(one("lock_timeout", "--lock-timeout", self.lock_timeout.as_ref()));
        let config = Config::load(file, &flags)?;
        let is_offline = self.api.api.path.is_some() && online::served(&config).is_none();
        Ok((config, is_offline))
    }
}

/// Creates the directory of a node if it does not exist. Other users of the machine cannot read it.
pub(crate) fn create_directory(path: &Path) -> anyhow::Result<()> {
    let mut directories = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directories, 0o700);
    let made = directories.recursive(true).create(path);
    made.with_context(|| format!("cannot create the directory {}", path.display()))
}

/// Returns the directory of a file.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens the database of the settings, without starting the network.
pub(crate) fn open(config: &Config, create: bool) -> Result<Node, Failure> {
    let schema = schema::load(config)?;
    let database = schema::database(config, &schema)?;
    if create {
        create_directory(database.parent().unwrap_or(Path::new("")))?;
    } else {
        expect(&database)?;
    }
    let node = Node::open(schema.definition(), config.node(database)?);
    node.map_err(|error| match error {
        NetabaseError::Store(error @ StoreError::Open(OpenError::Locked { .. })) => locked(&error),
        error => error.into(),
    })
}

fn locked(error: &StoreError) -> Failure {
    Failure::from(anyhow!(
        "{error}. The command asks a program that serves its database; to wait for one that does not, add \
         --lock-timeout 30s"
    ))
}

/// Opens the database of the settings without changing its files.
pub(crate) fn open_unchanged(config: &Config) -> Result<(NetabaseStore, PathBuf), Failure> {
    let schema = schema::load(config)?;
    let database = schema::database(config, &schema)?;
    expect(&database)?;
    let settings = config.node(database.clone())?;
    let options = StoreOptions { read_only: true, ..settings.store };
    let store = NetabaseStore::open_with(&database, Some(schema.definition()), options);
    let store = store.map_err(|error| match error {
        StoreError::Open(OpenError::Locked { .. }) => locked(&error),
        error => anyhow::Error::from(error).into(),
    })?;
    Ok((store, database))
}

fn expect(database: &Path) -> Result<(), Failure> {
    if database.exists() {
        return Ok(());
    }
    Err(Failure::not_found(format!(
        "there is no database {}; name its directory with --path and its schema with --schema, and add --backend \
         sled for a sled database",
        database.display()
    )))
}

/// Returns the path of the database, for a message.
pub(crate) fn place(node: &Node) -> PathBuf {
    node.database_path().map(Path::to_owned).unwrap_or_default()
}

/// Runs blocking work, and sets its stop flag when a signal comes.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::catch()?;
    let asked = Arc::clone(&stop);
    let mut work = tokio::task::spawn_blocking(move || work(&asked));
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(|error| Failure::from(anyhow!("the work was aborted: {error}")))?,
            () = signals.recv() => {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(1);
                }
            }
        }
    }
}
