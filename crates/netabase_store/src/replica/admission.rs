//! Versions of peers: checks and storage, and the versions that peers are given.

use super::Replica;
use crate::changes::change::StoreEvent;
use crate::core::is_in_tombstones;
use crate::error::StoreError;
use crate::model::merge;
use crate::version::admit::{self, AuthorLimit, Refusal, VerifiedRecord};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// A record from a peer that has passed every check; only [`Replica::check_record`] makes
/// one.
#[derive(Debug)]
pub struct CheckedRecord(VerifiedRecord);

impl CheckedRecord {
    /// Returns the version that was checked.
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }

    /// Returns the join of two copies of one record.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let VerifiedRecord { key, envelope, secondary, model } = self.0;
        let joined = envelope.join(&other.0.envelope);
        let record = if joined == envelope {
            VerifiedRecord { key, envelope, secondary, model }
        } else if joined == other.0.envelope {
            other.0
        } else {
            let (envelope, secondary) = match model {
                Some(model) => merge::merged(model, key.primary_key(), &joined),
                None => (joined, secondary),
            };
            VerifiedRecord { key, envelope, secondary, model }
        };
        Self(record)
    }
}

impl Replica<'_> {
    /// Returns the version under `key` that peers are given: that of
    /// [`NetabaseStore::envelope`](crate::NetabaseStore::envelope), or an expired one that ends an
    /// earlier version which peers may have. Returns `None` for a damaged one, which peers have.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn version_for_peers(self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let core = self.core();
        let now = core.options().clock.unix_millis();
        let Some(current) = core.replaceable(key)? else { return Ok(None) };
        let counts = !current.is_expired(now) || is_in_tombstones(&core.engine().snapshot()?, key)?;
        Ok(Some(current).filter(|_| counts))
    }

    /// Checks and queues a record that a peer sent, without waiting for the disk.
    ///
    /// Returns whether the version is new. A refusal is counted and reported to the observer.
    pub fn admit(self, key: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        self.admit_quietly(key, value).inspect_err(|reason| {
            self.core().notify(StoreEvent::Refused { key: RecordKey::parse(key).ok(), reason: *reason });
        })
    }

    /// Checks and queues like [`Replica::admit`], for a caller that reports refusals itself with
    /// their sender: a refusal is counted, and the observer is not called.
    pub fn admit_quietly(self, key: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        self.admit_limited(key, value, None)
    }

    /// Checks and queues like [`Replica::admit_quietly`], and refuses a record as
    /// [`TooFast`](Refusal::TooFast) if no version of it is here and `limit` allows none of its
    /// authors another one.
    ///
    /// A record is counted for all its authors when it is queued. Records of this store's own
    /// author, and all records of a closed network, are not limited.
    pub fn admit_limited(
        self,
        key: &[u8],
        value: &[u8],
        limit: Option<&dyn AuthorLimit>,
    ) -> Result<bool, Refusal> {
        let parsed = RecordKey::parse(key).map_err(Refusal::from);
        let outcome = parsed.and_then(|key| self.core().admit(&key, value, limit));
        outcome.inspect_err(|reason| self.core().count_refusal(*reason))
    }

    /// Returns the cost to [admit](Replica::admit) a record, in new records of a plain model: a
    /// contribution to a merged record costs one for each of its parts, and one for each 4 KiB of
    /// the stored record, which has to be rewritten; a tombstone of a key that is not stored here
    /// costs 16.
    ///
    /// Nothing is verified. Bytes that are no record cost one.
    pub fn admission_cost(self, key: &[u8], value: &[u8]) -> usize {
        let key = RecordKey::parse(key);
        key.ok().and_then(|key| admit::cost(self.core(), &key, value).ok()).unwrap_or(1)
    }

    /// Checks a record of a peer's answer, independent of this store's records, and stores nothing;
    /// [`Replica::keep`] stores it without checking it once more.
    ///
    /// A refusal is counted and reported to the observer.
    pub fn check_record(self, key: &RecordKey, value: &[u8]) -> Result<CheckedRecord, Refusal> {
        self.check_quietly(key, value).inspect_err(|reason| {
            self.core().notify(StoreEvent::Refused { key: Some(key.clone()), reason: *reason });
        })
    }

    /// Checks like [`Replica::check_record`], for a caller that reports refusals itself: a refusal
    /// is counted, and the observer is not called.
    pub fn check_quietly(self, key: &RecordKey, value: &[u8]) -> Result<CheckedRecord, Refusal> {
        let checked = admit::check(self.core(), key, value);
        checked.map(CheckedRecord).inspect_err(|reason| self.core().count_refusal(*reason))
    }

    /// Returns the join of two versions of the record `key`, merged if the model is known.
    pub fn join(self, key: &RecordKey, one: &Envelope, other: &Envelope) -> Envelope {
        self.core().merged(key, &one.join(other)).0
    }

    /// Stores a checked record, unless a newer version is here.
    ///
    /// The record is readable at once and joins a later commit within half a second, since a copy
    /// of a record that others hold does not need a commit of its own. The record is dropped if the
    /// queue is full.
    pub fn keep(self, record: CheckedRecord) {
        self.core().keep(record.0);
    }

    /// Returns the number of records from peers that were refused since the store was opened, by
    /// reason.
    pub fn refusals(self) -> Vec<(Refusal, u64)> {
        self.core().refusals()
    }
}
