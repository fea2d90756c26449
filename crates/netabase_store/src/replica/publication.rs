//! The schedule of publication of this store's own records.

use super::Replica;
use crate::error::StoreError;
use crate::tables;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::{self, Op};

impl Replica<'_> {
    /// Returns up to `limit` records of this store's own author whose publication is due, in the
    /// order of their due times.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn due(self, limit: usize) -> Result<Vec<RecordKey>, StoreError> {
        let now = self.core().options().clock.unix_millis();
        let mut due = Vec::new();
        for entry in self.core().engine().snapshot()?.all(&tables::DUE)?.readable().take(limit) {
            match tables::split_time_key(entry?.key()) {
                Some((time, key)) if time <= now => due.push(key),
                _ => break,
            }
        }
        Ok(due)
    }

    /// Returns the time of a record's next publication, in milliseconds since the Unix epoch, or
    /// `None` if this program does not publish it.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn publication_due(self, key: &RecordKey) -> Result<Option<u64>, StoreError> {
        let scheduled = self.core().engine().snapshot()?.get(&tables::SCHEDULE, key.as_bytes())?;
        Ok(scheduled.and_then(|time| time.as_slice().try_into().ok()).map(u64::from_be_bytes))
    }

    /// Sets the time of a record's next publication, in milliseconds since the Unix epoch; `None`
    /// removes it from the schedule.
    ///
    /// Does nothing if the record has another version than the `published` one by now, which has a
    /// schedule of its own. The change joins a later write, and may be lost in a crash: the record
    /// is then published once more than needed.
    pub fn schedule(self, key: &RecordKey, published: &Envelope, due: Option<u64>) {
        let published = apply::published(published, self.store.author());
        self.core().queue().push_lazy(Op::Schedule { key: key.clone(), published, due });
    }

    /// Removes a due record from the schedule that is not here or cannot be read.
    pub fn unschedule(self, key: &RecordKey) {
        self.core().queue().push_lazy(Op::Schedule { key: key.clone(), published: None, due: None });
    }

    /// Records that a peer has this version of the store's own author, or has nothing that it would
    /// change.
    ///
    /// Deletions need it: a tombstone that no peer has received is not
    /// [removed](crate::StoreOptions::tombstone_floor). Does nothing if the record has another
    /// version by now. The note joins a later write, and may be lost in a crash: the deletion is
    /// then kept until it is published again.
    pub fn note_heard(self, key: &RecordKey, published: &Envelope) {
        if published.is_tombstone() {
            let (published, time) =
                (apply::published(published, self.store.author()), self.clock().unix_millis());
            self.core().queue().push_lazy(Op::Heard { key: key.clone(), published, time });
        }
    }
}
