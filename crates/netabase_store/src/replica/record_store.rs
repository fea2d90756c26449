//! The store as Kademlia's record store.
//!
//! Its methods run inside the swarm's poll: they check, answer at once and leave the disk to the
//! writer. `records` and `provided` are empty on purpose: they feed kad's own republishing, which
//! reads the whole store into memory inside the poll. Use [`Replica::due`] instead.

use std::borrow::Cow;
use std::iter::Empty;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey as KadKey};

use crate::platform;
use crate::replica::Replica;
use crate::replica::limits::MAX_PROVIDED_KEY_BYTES;
use crate::store::NetabaseStore;
use crate::version::admit::Refusal;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::Op;
use crate::write::writer::Batch;

impl RecordStore for NetabaseStore {
    type RecordsIter<'a> = Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = Empty<Cow<'a, ProviderRecord>>;

    /// Returns a signed version, tombstones included. `expires` comes from the signed envelope.
    fn get(&self, key: &KadKey) -> Option<Cow<'_, Record>> {
        let record_key = RecordKey::parse(key.as_ref()).ok()?;
        let found = self.envelope(&record_key);
        let envelope = found
            .inspect_err(|error| tracing::warn!(%error, key = %record_key, "cannot read a record"))
            .ok()??;
        envelope.is_signed().then(|| Cow::Owned(self.replica().kad_record(key.clone(), &envelope)))
    }

    /// Checks a record and queues it; a refusal resets the sender's stream.
    fn put(&mut self, record: Record) -> Result<()> {
        self.replica().admit(record.key.as_ref(), &record.value).map(drop).map_err(|refusal| match refusal {
            Refusal::Busy | Refusal::StoreFailed => Error::MaxRecords,
            _ => Error::ValueTooLarge,
        })
    }

    /// Deletes a record here without telling anybody.
    fn remove(&mut self, key: &KadKey) {
        if let Ok(key) = RecordKey::parse(key.as_ref()) {
            self.replica().queue_ops(vec![Op::Delete { key }]);
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.key.as_ref().len() > MAX_PROVIDED_KEY_BYTES {
            return Err(Error::MaxProvidedKeys);
        }
        let now = self.replica().clock().unix_millis();
        let mut ops = Vec::new();
        let added = self.core().providers().write().add(&record, now, &mut ops);
        self.replica().queue_ops(ops);
        if added { Ok(()) } else { Err(Error::MaxProvidedKeys) }
    }

    fn providers(&self, key: &KadKey) -> Vec<ProviderRecord> {
        self.core().providers().read().of_key(key, self.replica().clock().unix_millis())
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &KadKey, provider: &PeerId) {
        if let Some(op) = self.core().providers().write().remove(key.as_ref(), provider) {
            self.replica().queue_ops(vec![op]);
        }
    }
}

impl Replica<'_> {
    /// Returns the keys that `peer` is known to provide.
    pub fn provided_by(self, peer: &PeerId) -> Vec<Vec<u8>> {
        self.core().providers().read().provided_by(peer)
    }

    /// Wraps a signed envelope as kad sends it.
    pub fn kad_record(self, key: KadKey, envelope: &Envelope) -> Record {
        let now = self.clock().unix_millis();
        let lifetime = envelope.expires().map(|expires| Duration::from_millis(expires.saturating_sub(now)));
        Record {
            key,
            value: envelope.to_wire().as_bytes().to_vec(),
            publisher: None,
            expires: lifetime.and_then(|lifetime| platform::now().checked_add(lifetime)),
        }
    }

    /// Queues writes without waiting, as the swarm's poll must not; a full queue loses them.
    ///
    /// A lost addition comes again, as peers repeat it. A lost removal is undone by a restart; a
    /// provider record then stays until it expires.
    fn queue_ops(self, ops: Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        if self.core().queue().try_push(Batch { ops, ..Batch::default() }).is_err() {
            tracing::warn!("too many writes are waiting for the disk; one was dropped");
        }
    }
}
