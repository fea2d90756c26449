//! Lifetimes of records, and the renewal of leases.
//!
//! A lease ends a while after it was written, unless its author renews it, which happens when half
//! of the time is over. So an author's records stay as long as the author is active, and expire
//! afterwards.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Replica;
use crate::core::Core;
use crate::engine::Snapshot;
use crate::error::{StoreError, WriteError};
use crate::model::schema::ModelSchema;
use crate::tables;
use crate::version::clock::Timestamp;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::{Lease, Op, published};
use crate::write::writer::{Batch, millis};

/// The lifetime of a record.
///
/// Lifetimes are signed, so a store without an identity has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Lifetime {
    /// The lifetime that the model declares, or else
    /// [`StoreOptions::record_lifetime`](crate::StoreOptions::record_lifetime): a lease, or for
    /// ever if neither is set. The default.
    #[default]
    Default,
    /// Until it is removed.
    Forever,
    /// For this time after its write or renewal; see [`Replica::renew_due`].
    Lease(Duration),
    /// Until this time, without renewal.
    Until(SystemTime),
}

/// The stored row of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    /// The length of the lease, in milliseconds.
    pub(crate) lifetime: u64,
    /// The time of the next renewal, in milliseconds since the Unix epoch.
    pub(crate) due: u64,
}

impl LeaseRow {
    /// Returns the row of a lease that ends at `expires`.
    pub(crate) fn new(lifetime: u64, expires: u64) -> Self {
        Self { lifetime, due: expires.saturating_sub(lifetime / 2) }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (lifetime, due) = bytes.split_first_chunk()?;
        Some(Self { lifetime: u64::from_be_bytes(*lifetime), due: u64::from_be_bytes(due.try_into().ok()?) })
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (lifetime, due) = bytes.split_at_mut(8);
        lifetime.copy_from_slice(&self.lifetime.to_be_bytes());
        due.copy_from_slice(&self.due.to_be_bytes());
        bytes
    }
}

impl Core {
    /// Returns when a record that is written now expires, zero for never, and whether it is a
    /// lease.
    ///
    /// Fails if the caller asks for an expiry and the store has no identity to sign it.
    pub(crate) fn resolve_lifetime(
        &self,
        model: &ModelSchema,
        lifetime: Lifetime,
    ) -> Result<(u64, Lease), StoreError> {
        let options = self.options();
        if options.identity.is_none() {
            return match lifetime {
                Lifetime::Default | Lifetime::Forever => Ok((0, Lease::None)),
                Lifetime::Lease(_) | Lifetime::Until(_) => Err(StoreError::Write(WriteError::NoIdentity)),
            };
        }
        let lease = match lifetime {
            Lifetime::Default => model.lifetime.or(options.record_lifetime.map(millis)),
            Lifetime::Forever => None,
            Lifetime::Lease(lease) => Some(millis(lease)),
            Lifetime::Until(end) => {
                let end = millis(end.duration_since(UNIX_EPOCH).unwrap_or_default());
                // Zero would be never.
                return Ok((end.max(1), Lease::None));
            }
        };
        Ok(lease.map_or((0, Lease::None), |lease| (self.end_of(lease), Lease::For(lease))))
    }

    /// Returns when a lease ends that begins now.
    fn end_of(&self, lease: u64) -> u64 {
        self.options().clock.unix_millis().saturating_add(lease)
    }

    /// Makes the write that renews a lease, or ends it if the record is no longer this author's.
    fn renewal(&self, snapshot: &Snapshot, key: RecordKey) -> Result<Op, StoreError> {
        let now = self.options().clock.unix_millis();
        let row = snapshot.get_with(&tables::LEASES, key.as_bytes(), LeaseRow::parse)?.flatten();
        let stored = match self.stored(snapshot, &key) {
            Err(error) if error.is_of_entry() => None,
            stored => stored?,
        };
        let replaced = stored.as_ref().and_then(|stored| published(stored, self.author()));
        let ours = self.author().and_then(|author| stored?.contribution_of(author));
        let ours = ours.filter(|ours| !ours.is_tombstone() && !ours.is_expired(now));
        let renewal = ours.zip(row).and_then(|(current, row)| {
            let identity = self.options().identity.as_ref()?;
            // The next timestamp, and not the present one: a renewal must not come after another
            // writer's version of the meantime, here or elsewhere.
            let timestamp = current.timestamp().map(Timestamp::next)?;
            let expires = self.end_of(row.lifetime);
            let renewed = Envelope::sign_for(identity, &key, timestamp, expires, Some(current.payload()));
            Some((renewed, row.lifetime))
        });
        Ok(Op::Renew { key, replaced, renewal })
    }
}

impl Replica<'_> {
    /// Renews up to `limit` leases of this store's own author of which half is over, in the order
    /// of their due times; returns their number.
    ///
    /// A renewal is the same value, signed anew with a later end. The renewal comes right after the
    /// version that it renews and before every later write, and followers see no change. It is
    /// published like any other version. Expired records are not renewed. Blocks until the renewals
    /// are as durable as other writes.
    ///
    /// ```
    /// # use netabase_store::{NetabaseDefinition, NetabaseModel, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(PresenceDefinition, PresenceKeys)]
    /// # mod presence {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #[netabase(PresenceDefinition, lifetime = "30d")]
    /// pub struct Presence { #[primary_key] pub name: String }
    /// # }
    /// # use presence::*;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// use netabase_store::{Clock, SigningKey, StorageBackend, StoreOptions};
    ///
    /// let days = Arc::new(AtomicU64::new(1));
    /// let clock = Clock::from_fn({
    ///     let days = Arc::clone(&days);
    ///     move || days.load(Ordering::Relaxed) * 24 * 60 * 60 * 1000
    /// });
    /// let identity = Some(SigningKey::from_bytes(&[7; 32]));
    /// let options = StoreOptions { backend: StorageBackend::Memory, identity, clock, ..StoreOptions::default() };
    /// let store = NetabaseStore::open_with("", Some(PresenceDefinition::SCHEMA), options)?;
    /// store.open_tree()?.put(&Presence { name: "Ada".into() })?;
    /// assert_eq!(store.replica().renew_due(100)?, 0);
    /// days.fetch_add(15, Ordering::Relaxed);
    /// assert_eq!(store.replica().renew_due(100)?, 1);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn renew_due(self, limit: usize) -> Result<usize, StoreError> {
        let core = self.core();
        if core.options().identity.is_none() {
            return Ok(0);
        }
        let now = self.clock().unix_millis();
        let snapshot = core.engine().snapshot()?;
        let mut ops = Vec::new();
        for entry in snapshot.all(&tables::RENEWALS)?.readable().take(limit) {
            match tables::split_time_key(entry?.key()) {
                Some((due, key)) if due <= now => ops.push(core.renewal(&snapshot, key)?),
                _ => break,
            }
        }
        drop(snapshot);
        let renewed = ops.iter().filter(|op| matches!(op, Op::Renew { renewal: Some(_), .. })).count();
        if !ops.is_empty() {
            self.store.commit(Batch { ops, ..Batch::default() })?;
        }
        Ok(renewed)
    }
}
