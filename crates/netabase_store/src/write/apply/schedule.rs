//! The schedule of publication of this author's records.

use super::{Applier, Published, published};
use crate::error::StoreError;
use crate::tables;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

impl Applier<'_> {
    /// Schedules a version of this author, and removes a record from the schedule whose version
    /// another author has replaced.
    pub(super) fn schedule_version(
        &mut self,
        key: &RecordKey,
        current: Option<&Envelope>,
        new: &Envelope,
    ) -> Result<(), StoreError> {
        if new.is_bundle() {
            let ours = published(new, self.author);
            let before = current.and_then(|current| published(current, self.author));
            return match ours {
                Some(_) if ours == before => Ok(()),
                Some(_) => self.schedule(key, Some(self.first_due)),
                None if current.is_some() => self.schedule(key, None),
                None => Ok(()),
            };
        }
        if new.author().is_some() && new.author() == self.author {
            self.schedule(key, Some(self.first_due))
        } else if current.is_some() {
            self.schedule(key, None)
        } else {
            Ok(())
        }
    }

    /// Schedules a record for a caller who waited: it may have gone, or have another version by
    /// now.
    pub(super) fn reschedule(
        &mut self,
        key: &RecordKey,
        expected: Option<Published>,
        due: Option<u64>,
    ) -> Result<(), StoreError> {
        let current = self.current(key)?;
        if current.as_ref().and_then(|current| published(current, self.author)) != expected {
            return Ok(());
        }
        self.schedule(key, due.filter(|_| current.is_some()))
    }

    pub(super) fn schedule(&mut self, key: &RecordKey, due: Option<u64>) -> Result<(), StoreError> {
        let any = match self.scheduled {
            Some(any) => any,
            None => *self.scheduled.insert(self.tables.len(&tables::SCHEDULE)? > 0),
        };
        if !any && due.is_none() {
            return Ok(());
        }
        let scheduled = self.get(&tables::SCHEDULE, key.as_bytes())?;
        let time = scheduled.as_deref().and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        if time.is_some() && time == due {
            return Ok(());
        }
        if let Some(time) = time {
            self.remove(&tables::DUE, &tables::time_key(time, key))?;
        }
        match due {
            Some(due) => {
                self.scheduled = Some(true);
                self.insert(&tables::SCHEDULE, key.as_bytes(), &due.to_be_bytes())?;
                self.insert(&tables::DUE, &tables::time_key(due, key), &[])
            }
            None if scheduled.is_some() => self.remove(&tables::SCHEDULE, key.as_bytes()),
            None => Ok(()),
        }
    }
}
