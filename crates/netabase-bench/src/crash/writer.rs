//! The process that is killed.

use netabase::netabase_store::WriteError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use netabase_store::{NetabaseDefinition, NetabaseStore, StoreError, StoreOptions, Tree, WriteTransaction};

use super::Backend;
use super::message::Message;
use super::model::*;
use super::plan::{self, Call, Key, Method, Model, THREADS, Write};

/// Small, so that pages are written and read again before a commit.
const CACHE_BYTES: usize = 1024 * 1024;

/// What the process that is killed is told at its start.
#[derive(Debug, Args)]
pub struct WriterOptions {
    /// Where the database is
    #[arg(long)]
    pub(super) path: PathBuf,
    /// What keeps it
    #[arg(long, value_enum)]
    pub(super) backend: Backend,
    /// Sign what is written
    #[arg(long)]
    pub(super) signed: bool,
    /// Only open the database, and wait for the end
    #[arg(long)]
    pub(super) idle: bool,
    /// What the calls follow from
    #[arg(long)]
    pub(super) seed: u64,
    /// What the calls follow from, too
    #[arg(long)]
    pub(super) round: u32,
}

/// Opens the database as both processes do.
pub(super) fn open(path: &Path, backend: Backend, signed: bool) -> Result<NetabaseStore, StoreError> {
    let options = StoreOptions {
        backend: backend.into(),
        cache_bytes: CACHE_BYTES,
        identity: signed.then(identity),
        ..StoreOptions::default()
    };
    NetabaseStore::open_with(path, Some(CrashDefinition::SCHEMA), options)
}

/// Writes until it is killed, or nobody listens any more.
pub(super) fn run(options: &WriterOptions) -> anyhow::Result<()> {
    let store = open(&options.path, options.backend, options.signed)?;
    Message::Ready.say()?;
    if options.idle {
        // The other process holds the other end for as long as it runs.
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || write(store, options, thread))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a panic")))
    })
}

fn write(store: &NetabaseStore, options: &WriterOptions, thread: u8) -> anyhow::Result<()> {
    let trees = Trees::open(store)?;
    for n in 0.. {
        let call = plan::call(options.seed, options.round, thread, n);
        Message::Intent { thread, n }.say()?;
        trees.make(&call)?;
        Message::Done { thread, n }.say()?;
    }
    Ok(())
}

struct Trees<'a> {
    store: &'a NetabaseStore,
    notes: Tree<Note>,
}

impl<'a> Trees<'a> {
    fn open(store: &'a NetabaseStore) -> Result<Self, StoreError> {
        Ok(Self { store, notes: store.open_tree()? })
    }

    fn make(&self, call: &Call) -> Result<(), StoreError> {
        let notes = || call.writes.iter().map(|((_, id), write)| note(*id, write.stamp));
        match call.method {
            Method::Put => notes().try_for_each(|note| self.notes.put(&note)),
            Method::PutMany => self.notes.put_many(&notes().collect::<Vec<_>>()),
            Method::Remove => {
                call.writes.keys().try_for_each(|(_, id)| self.notes.remove(&NotePrimaryKey(*id)).map(drop))
            }
            Method::Transaction => {
                let mut transaction = self.store.begin_write();
                for (key, write) in &call.writes {
                    stage(&mut transaction, *key, *write)?;
                }
                transaction.commit()
            }
            Method::Transfer => call.writes.iter().try_for_each(|(key, write)| {
                loop {
                    match self.transfer(*key, *write) {
                        Err(StoreError::Write(WriteError::Conflict { .. })) => {}
                        outcome => return outcome,
                    }
                }
            }),
        }
    }

    fn transfer(&self, key: Key, write: Write) -> Result<(), StoreError> {
        let mut transaction = self.store.begin_write();
        stage(&mut transaction, key, write)?;
        let Transfer { from, to, cents, .. } = transfer(key.1, write.stamp);
        for (id, change) in [(from, -cents), (to, cents)] {
            let account = transaction.get(&AccountPrimaryKey(id))?;
            let cents = account.map_or(0, |account| account.cents) + change;
            transaction.put(&Account { id, cents })?;
        }
        transaction.commit()
    }
}

fn stage(transaction: &mut WriteTransaction, (model, id): Key, write: Write) -> Result<(), StoreError> {
    match (model, write.present) {
        (Model::Note, true) => transaction.put(&note(id, write.stamp)),
        (Model::Note, false) => transaction.remove(&NotePrimaryKey(id)),
        (Model::Mark, true) => transaction.put(&mark(id, write.stamp)),
        (Model::Mark, false) => transaction.remove(&MarkPrimaryKey(id)),
        (Model::Transfer, true) => transaction.put(&transfer(id, write.stamp)),
        (Model::Transfer, false) => transaction.remove(&TransferPrimaryKey(id)),
    }
}
