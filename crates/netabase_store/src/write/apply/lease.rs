//! The leases of this author's records.

use super::{Applier, published};
use crate::changes::change::Origin;
use crate::error::StoreError;
use crate::model::schema::IndexKeys;
use crate::replica::lease::LeaseRow;
use crate::tables;
use crate::version::envelope::Envelope;
use crate::version::record_key::{RecordKey, WritePolicy};
use crate::write::apply::{Lease, Published};

impl Applier<'_> {
    /// Keeps the lease of a record that had the version `old` in line with the one that it has now,
    /// if any.
    pub(super) fn set_lease(
        &mut self,
        key: &RecordKey,
        old: Option<&Envelope>,
        stored: Option<&Envelope>,
        lease: Lease,
    ) -> Result<(), StoreError> {
        let lifetime = match lease {
            Lease::Kept => return Ok(()),
            Lease::For(lifetime) => Some(lifetime),
            Lease::None => None,
        };
        let ours = stored.zip(self.author).and_then(|(stored, author)| stored.contribution_of(author));
        let expires = ours.as_ref().and_then(Envelope::expires);
        let new = lifetime.zip(expires).map(|(lifetime, expires)| LeaseRow::new(lifetime, expires));
        // A version without expiry was no lease; of a merged record only this author's contribution
        // was one.
        let may_be_lease = key.policy() == WritePolicy::Merged || old.and_then(Envelope::expires).is_some();
        if new.is_none() && !may_be_lease {
            return Ok(());
        }
        self.change_lease(key, new)
    }

    /// Keeps a lease, or ends the one that is there.
    fn change_lease(&mut self, key: &RecordKey, new: Option<LeaseRow>) -> Result<(), StoreError> {
        let old = self.get(&tables::LEASES, key.as_bytes())?;
        if let Some(old) = old.as_deref().and_then(LeaseRow::parse) {
            self.remove(&tables::RENEWALS, &tables::time_key(old.due, key))?;
        }
        match new {
            Some(new) => {
                self.insert(&tables::LEASES, key.as_bytes(), &new.to_bytes())?;
                self.insert(&tables::RENEWALS, &tables::time_key(new.due, key), &[])
            }
            None if old.is_some() => self.remove(&tables::LEASES, key.as_bytes()),
            None => Ok(()),
        }
    }

    /// Returns the lease of a record.
    pub(super) fn lease(&mut self, key: &RecordKey) -> Result<Option<LeaseRow>, StoreError> {
        Ok(self.get(&tables::LEASES, key.as_bytes())?.as_deref().and_then(LeaseRow::parse))
    }

    /// Replaces a version by its renewal, or ends its lease, unless it was replaced meanwhile.
    pub(super) fn renew(
        &mut self,
        key: &RecordKey,
        replaced: Option<Published>,
        renewal: Option<&(Envelope, u64)>,
    ) -> Result<(), StoreError> {
        let current = self.current(key)?;
        if current.as_ref().and_then(|current| published(current, self.author)) != replaced {
            return Ok(());
        }
        let Some((envelope, lifetime)) = renewal else {
            return self.change_lease(key, None);
        };
        let model = self.layout.place(key).model.filter(|model| !model.is_newer(envelope.payload()));
        let keys = model.and_then(|model| model.schema.keys_of(envelope.payload()));
        let secondary = keys.map_or_else(IndexKeys::default, |keys| keys.secondary);
        // Followers see the same value as before, so the renewal is no change to them.
        if self.put(key, envelope, &secondary, Origin::Local, false)?.is_some() {
            self.set_lease(key, current.as_ref(), Some(envelope), Lease::For(*lifetime))?;
        }
        Ok(())
    }
}
