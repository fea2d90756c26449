//! Deletions of this author, which are kept until a peer has received them.

use super::{Applier, Published, published};
use crate::changes::change::Origin;
use crate::error::StoreError;
use crate::tables;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// The time of a deletion that no peer has accepted yet.
pub(crate) const UNSENT: u64 = 0;

impl Applier<'_> {
    /// Keeps the table in line with a record that had the version `current` and now is deleted.
    pub(super) fn track_deletion(
        &mut self,
        key: &RecordKey,
        current: Option<&Envelope>,
        tombstone: &Envelope,
        origin: Origin,
    ) -> Result<(), StoreError> {
        let of_ours = |envelope: &Envelope| envelope.contribution_of(self.author?);
        let ours = of_ours(tombstone);
        let before = current.filter(|current| current.is_tombstone()).and_then(of_ours);
        match (ours, before) {
            // Other authors' contributions do not change it.
            (Some(ours), Some(before)) if ours == before => Ok(()),
            (Some(_), _) if origin == Origin::Local => {
                self.insert(&tables::DELETIONS, key.as_bytes(), &UNSENT.to_be_bytes())
            }
            // A peer has it, and knows it for as long as it is old.
            (_, Some(_)) => self.remove(&tables::DELETIONS, key.as_bytes()),
            (_, None) => Ok(()),
        }
    }

    /// Records that a peer has a deletion of this author, unless a peer had it before or the record
    /// has another version by now.
    pub(super) fn note_heard(
        &mut self,
        key: &RecordKey,
        expected: Option<Published>,
        time: u64,
    ) -> Result<(), StoreError> {
        let noted = self.get(&tables::DELETIONS, key.as_bytes())?;
        if noted.as_deref() != Some(UNSENT.to_be_bytes().as_slice()) {
            return Ok(());
        }
        let current = self.tombstone(key)?;
        if current.and_then(|current| published(&current, self.author)) != expected {
            return Ok(());
        }
        self.insert(&tables::DELETIONS, key.as_bytes(), &time.to_be_bytes())
    }
}
