//! The sets that a store keeps.

use std::path::Path;

use anyhow::ensure;
use netabase_store::replica::{SyncBound, SyncDifference, SyncSet};
use netabase_store::{Durability, NetabaseStore, Scope, SigningKey, Timestamp};

use super::super::model::{Message, fill, now, open, signed};
use super::{FRAME_BYTES, Item, Side};
use crate::dice::Dice;

/// Two stores that have had the same records.
pub(super) struct Stores {
    pub(super) here: NetabaseStore,
    pub(super) there: NetabaseStore,
    /// When the records were written.
    written: [u64; 2],
    next_id: u64,
    alone: u64,
}

impl Stores {
    /// Writes `records` into one, and makes the other of its file.
    pub(super) fn fill(directory: &Path, records: u64) -> anyhow::Result<Self> {
        let [first, second] = ["here", "there"].map(|name| directory.join(name));
        std::fs::create_dir(&first)?;
        std::fs::create_dir(&second)?;
        let begin = now().unix_millis();
        let here = open(&first, Durability::Interval)?;
        fill(&here, 0..records)?;
        here.flush()?;
        let written = [begin, now().unix_millis()];
        here.backup(second.join("sync.redb"))?;
        let there = open(&second, Durability::Interval)?;
        Ok(Self { here, there, written, next_id: records, alone: 0 })
    }

    /// Gives each of both records of its own, as if they had been written among the others, until
    /// it has `alone`.
    pub(super) fn differ(&mut self, alone: u64) -> anyhow::Result<()> {
        let author = SigningKey::from_bytes(&[9; 32]);
        let mut dice = Dice::new(&[self.next_id]);
        let [begin, end] = self.written;
        for store in [&self.here, &self.there] {
            for _ in self.alone..alone {
                let at = Timestamp::from_unix_millis(begin + dice.below(end - begin));
                let (key, envelope) = signed(self.next_id, &author, at)?;
                while store.replica().admit(key.as_bytes(), envelope.as_bytes()).is_err() {
                    store.flush()?;
                }
                self.next_id += 1;
            }
            store.flush()?;
        }
        self.alone = alone;
        Ok(())
    }

    /// Returns the items of both, for those who keep them in memory.
    pub(super) fn items(&self) -> anyhow::Result<[Vec<Item>; 2]> {
        Ok([items(&self.here)?, items(&self.there)?])
    }
}

fn items(store: &NetabaseStore) -> anyhow::Result<Vec<Item>> {
    let mut set = store.replica().sync_set(&Scope::model::<Message>())?;
    let mut items = Vec::with_capacity(set.len());
    let each = |item: &netabase_store::replica::SyncItem| {
        items.push((item.timestamp, item.id));
        false
    };
    set.read(&SyncBound::BEGIN, &SyncBound::END, each, &mut |_, _| true)?;
    ensure!(items.len() == set.len(), "{} of {} items were read", items.len(), set.len());
    Ok(items)
}

pub(super) struct Ours {
    set: SyncSet,
    difference: SyncDifference,
}

impl Ours {
    pub(super) fn of(store: &NetabaseStore) -> anyhow::Result<Self> {
        let set = store.replica().sync_set(&Scope::model::<Message>())?;
        Ok(Self { set, difference: SyncDifference::default() })
    }
}

impl Side for Ours {
    fn initiate(&mut self) -> anyhow::Result<Vec<u8>> {
        Ok(self.set.initiate()?)
    }

    fn respond(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(self.set.respond(message, FRAME_BYTES)?)
    }

    fn take(&mut self, answer: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.set.reconcile(answer, FRAME_BYTES, &mut self.difference)?.message)
    }

    fn found(&self) -> (usize, usize) {
        (self.difference.have.len(), self.difference.needed())
    }
}
