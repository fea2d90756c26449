//! The gate that every record from a peer must pass.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thiserror::Error;

use crate::core::Core;
use crate::error::{StoreError, ValueError, WriteError};
use crate::model::limits::MAX_RECORD_BLOBS;
use crate::model::schema::{IndexKeys, ModelSchema};
use crate::version::envelope::{Author, Bundle, Envelope, EnvelopeError, EnvelopeRef};
use crate::version::limits::{
    BYTES_PER_RECORD, IDLE_TOMBSTONE_COST, MAX_CLOCK_SKEW, MAX_CONTRIBUTIONS, MAX_INDEX_KEY_BYTES,
    MAX_INDEX_KEYS,
};
use crate::version::members::MemberList;
use crate::version::record_key::{RecordKey, RecordKeyError, WritePolicy};

/// The reason why a record from a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The key is not a record key.
    #[error("the key is not a record key")]
    InvalidKey,
    /// The value is larger than this node stores.
    #[error("the value is larger than this node stores")]
    TooLarge,
    /// The record belongs to another author than the one that signed it.
    #[error("the record belongs to another author than the one that signed it")]
    NotOwner,
    /// The author may not write in this closed network, or not any more.
    #[error("the author is not a member of this network, or was revoked")]
    NotMember,
    /// This node refuses the author, by a list of its own.
    #[error("this node refuses the records of the author")]
    RefusedAuthor,
    /// The bytes are not a signed envelope, or are a tombstone that expires.
    #[error("the bytes are not a signed envelope, or are a tombstone that expires")]
    InvalidEnvelope,
    /// The signature does not belong to the author, the key and the content.
    #[error("the signature does not belong to the author, the key and the content")]
    InvalidSignature,
    /// The timestamp is too far ahead of this node's clock.
    #[error(
        "the timestamp is more than {} s ahead of the clock of the node that refuses it; one of the two clocks is wrong",
        MAX_CLOCK_SKEW.as_secs()
    )]
    FutureTimestamp,
    /// The record has expired, or it is a tombstone older than the floor that deletes nothing here.
    #[error("the record has expired")]
    Expired,
    /// The payload is not a value of the model.
    #[error("the payload is not a value of the model")]
    InvalidValue,
    /// The payload decodes to a value of the model, but is not its canonical encoding: a number is
    /// longer than needed, or a set or a map has elements out of order or twice.
    #[error("the payload is not the one encoding of its value")]
    NotCanonical,
    /// The value's primary key is not the one in the record key.
    #[error("the value belongs under another key")]
    KeyMismatch,
    /// A newer version is already here.
    #[error("a newer version is already here")]
    Outdated,
    /// This node keeps no more records of the author.
    #[error("this node keeps no more records of the author")]
    OverQuota,
    /// This node keeps no more records of others, or only of keys closer to it.
    #[error("this node keeps no more records of others")]
    Full,
    /// Too many writes are waiting for the disk.
    #[error("too many writes are waiting for the disk")]
    Busy,
    /// The node has slowed or banned the sender for earlier offences.
    #[error("the node has slowed the sender for what it has sent before")]
    Slowed,
    /// More came in a short time than a node takes from one peer, or of one author.
    #[error("more was sent in a short time than a node takes from one peer or of one author")]
    TooFast,
    /// Too many requests are waiting at the node, or it is not ready to answer any.
    #[error("too many requests are waiting at the node, or it is not ready yet")]
    Overloaded,
    /// The store has failed and takes no more writes.
    #[error("the store has failed and takes no more writes")]
    StoreFailed,
    /// The record was written under another write policy of its model than this program's schema
    /// has.
    #[error(
        "this node's schema gives the model another write policy than the author's; both need the same schema"
    )]
    OtherPolicy,
    /// A part of a blob does not match its hash.
    #[error("a part of a blob is not what its hash names")]
    InvalidBlob,
    /// The envelope, or the mark in the key, is of a later program's format.
    #[error("the record has a format that this program does not know: update it")]
    UnknownFormat,
    /// A reason that a peer gave and this program does not know.
    #[error("the peer has a reason that this program does not know")]
    Other,
}

/// Every reason, in the order of the counters.
const REASONS: [Refusal; 24] = [
    Refusal::InvalidKey,
    Refusal::NotOwner,
    Refusal::NotMember,
    Refusal::RefusedAuthor,
    Refusal::TooLarge,
    Refusal::InvalidEnvelope,
    Refusal::InvalidSignature,
    Refusal::FutureTimestamp,
    Refusal::Expired,
    Refusal::InvalidValue,
    Refusal::NotCanonical,
    Refusal::KeyMismatch,
    Refusal::Outdated,
    Refusal::OverQuota,
    Refusal::Full,
    Refusal::Busy,
    Refusal::Slowed,
    Refusal::TooFast,
    Refusal::Overloaded,
    Refusal::StoreFailed,
    Refusal::OtherPolicy,
    Refusal::InvalidBlob,
    Refusal::UnknownFormat,
    Refusal::Other,
];

impl Refusal {
    /// Returns the number that stands for the reason between peers; it never changes.
    pub const fn code(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::InvalidKey => 1,
            Self::TooLarge => 2,
            Self::InvalidEnvelope => 3,
            Self::InvalidSignature => 4,
            Self::FutureTimestamp => 5,
            Self::Expired => 6,
            Self::InvalidValue => 7,
            Self::KeyMismatch => 8,
            Self::Outdated => 9,
            Self::Busy => 10,
            Self::StoreFailed => 11,
            Self::NotOwner => 12,
            Self::NotMember => 13,
            Self::OverQuota => 14,
            Self::Full => 15,
            Self::Slowed => 16,
            Self::OtherPolicy => 17,
            Self::NotCanonical => 18,
            Self::TooFast => 20,
            Self::Overloaded => 21,
            Self::UnknownFormat => 19,
            Self::RefusedAuthor => 22,
            Self::InvalidBlob => 32,
        }
    }

    /// Returns the reason that a number stands for; [`Refusal::Other`] for one that is not known,
    /// such as a later program's.
    pub fn from_code(code: u8) -> Self {
        REASONS.into_iter().find(|reason| reason.code() == code).unwrap_or(Self::Other)
    }
}

/// The number of refused records, by reason.
#[derive(Default)]
pub(crate) struct RefusalCounters([AtomicU64; REASONS.len()]);

impl RefusalCounters {
    pub(crate) fn count(&self, refusal: Refusal) {
        for (reason, counter) in REASONS.iter().zip(&self.0) {
            if *reason == refusal {
                counter.fetch_add(1, Relaxed);
            }
        }
    }

    pub(crate) fn totals(&self) -> Vec<(Refusal, u64)> {
        let totals = REASONS.iter().zip(&self.0).map(|(reason, counter)| (*reason, counter.load(Relaxed)));
        totals.filter(|(_, total)| *total > 0).collect()
    }
}

impl fmt::Debug for RefusalCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.totals()).finish()
    }
}

/// The result of the checks of a record that is not refused.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// This very version is already here.
    Known,
    /// A version that is to be stored.
    New {
        record: VerifiedRecord,
        /// Whether it counts against the limits of its authors.
        is_counted: bool,
    },
}

/// A record whose form, time, value and signature have been checked.
///
/// Only [`admit`], which checks that it is news too, and [`check`] make one.
#[derive(Debug)]
pub(crate) struct VerifiedRecord {
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    pub(crate) secondary: IndexKeys,
    /// The schema that merges a bundle, or `None` if the model is unknown.
    pub(crate) model: Option<&'static ModelSchema>,
}

/// A limit of the new records of each author. [`Replica::admit_limited`] asks it.
///
/// [`Replica::admit_limited`]: crate::replica::Replica::admit_limited
pub trait AuthorLimit {
    /// Returns whether one more new record of an author may be stored.
    fn allows(&self, author: Author) -> bool;

    /// Counts a new record of an author, which was verified and is stored.
    fn count(&self, author: Author);

    /// Notes that a record was refused since [`allows`](Self::allows) has said no. Its signature
    /// was not checked.
    fn note_refused(&self, author: Author);
}

/// Checks a record that a peer sent; the cheapest checks come first.
pub(crate) fn admit(
    core: &Core,
    key: &RecordKey,
    value: &[u8],
    limit: Option<&dyn AuthorLimit>,
) -> Result<Admitted, Refusal> {
    let envelope = check_form(core, value)?;
    let envelope = allowed(core, key, envelope)?;
    check_parts(core, key, &envelope)?;
    // One that is damaged is replaced.
    let current = core.replaceable(key).map_err(|_| Refusal::StoreFailed)?;
    if !ends_or_counts(core, &envelope, current.as_ref()) {
        return Err(Refusal::Expired);
    }
    // A version of a stored record adds none, and what a network's root allows is not limited.
    let limit =
        limit.filter(|_| current.is_none() && core.members().is_none() && core.is_limited(key, &envelope));
    if envelope.is_bundle() {
        return admit_bundle(core, key, envelope, current.as_ref(), limit);
    }
    if let Some(current) = &current {
        if current.as_bytes() == envelope.as_bytes() {
            return Ok(Admitted::Known);
        }
        match envelope.cmp_version(current) {
            Ordering::Less => return Err(Refusal::Outdated),
            // The same content under another signature of the same author.
            Ordering::Equal => {
                return envelope.verify(key).map(|()| Admitted::Known).map_err(Refusal::from);
            }
            Ordering::Greater => {}
        }
    }
    core.check_floor(&envelope, current.as_ref())?;
    core.check_quota(key, &envelope, current.as_ref())?;
    check_limit(limit, &envelope)?;
    let secondary = check_value(core, key, &envelope).map_err(|reason| blame(key, &envelope, reason))?;
    envelope.verify(key).map_err(|_| Refusal::InvalidSignature)?;
    let record = VerifiedRecord { key: key.clone(), envelope, secondary, model: None };
    Ok(Admitted::New { record, is_counted: limit.is_some() })
}

/// Refuses a new record if the limit allows none of its authors another one. The others of a merged
/// record would otherwise suffer from one of them.
fn check_limit(limit: Option<&dyn AuthorLimit>, envelope: &Envelope) -> Result<(), Refusal> {
    let Some(limit) = limit else { return Ok(()) };
    if envelope.view().authors().any(|author| limit.allows(author)) {
        return Ok(());
    }
    envelope.view().authors().for_each(|author| limit.note_refused(author));
    Err(Refusal::TooFast)
}

/// Checks a bundle: only contributions that are not stored yet are checked.
fn admit_bundle(
    core: &Core,
    key: &RecordKey,
    envelope: Envelope,
    current: Option<&Envelope>,
    limit: Option<&dyn AuthorLimit>,
) -> Result<Admitted, Refusal> {
    let here = current.map(Envelope::contributions).unwrap_or_default();
    let (known, news): (Vec<_>, Vec<_>) =
        envelope.contributions().into_iter().partition(|part| here.contains(part));
    if current.is_some_and(|current| !envelope.adds_to(current)) {
        return if news.is_empty() && !known.is_empty() {
            Ok(Admitted::Known)
        } else {
            Err(Refusal::Outdated)
        };
    }
    core.check_floor(&envelope, current)?;
    core.check_quota(key, &envelope, current)?;
    check_limit(limit, &envelope)?;
    check_contributions(core, key, &news)?;
    let (secondary, model) = (IndexKeys::default(), None);
    let record = VerifiedRecord { key: key.clone(), envelope, secondary, model };
    Ok(Admitted::New { record, is_counted: limit.is_some() })
}

/// Checks parts of a bundle: the values of all of them before the signature of any, which costs
/// more.
fn check_contributions(core: &Core, key: &RecordKey, parts: &[Envelope]) -> Result<(), Refusal> {
    for part in parts {
        check_value(core, key, part).map_err(|reason| blame(key, part, reason))?;
    }
    parts.iter().try_for_each(|part| part.verify(key)).map_err(|_| Refusal::InvalidSignature)
}

/// Returns the refusal of a version with a wrong value: if the signature is wrong as well, its
/// author is not to blame.
fn blame(key: &RecordKey, envelope: &Envelope, reason: Refusal) -> Refusal {
    envelope.verify(key).map_or(Refusal::InvalidSignature, |()| reason)
}

/// Returns the cost of admitting a record, in records: a contribution to a merged record makes all
/// of it be rewritten, and each of its parts may have a signature to check. A tombstone of a key
/// that is not stored here is seldom of use.
pub(crate) fn cost(core: &Core, key: &RecordKey, value: &[u8]) -> Result<usize, StoreError> {
    if EnvelopeRef::parse(value).is_ok_and(EnvelopeRef::is_tombstone) {
        return Ok(if core.replaceable(key)?.is_some() { 1 } else { IDLE_TOMBSTONE_COST });
    }
    let Some(bundle) = EnvelopeRef::bundle_in(value).filter(|_| key.policy() == WritePolicy::Merged) else {
        return Ok(1);
    };
    let size = value.len().max(core.len_of_current(key)?);
    Ok(bundle.iter().take(MAX_CONTRIBUTIONS + 1).count().max(1) + size / BYTES_PER_RECORD)
}

/// Checks a record for an answer to a caller, independent of this store's records.
pub(crate) fn check(core: &Core, key: &RecordKey, value: &[u8]) -> Result<VerifiedRecord, Refusal> {
    let envelope = check_form(core, value)?;
    if envelope.is_expired(core.options().clock.unix_millis()) {
        return Err(Refusal::Expired);
    }
    let envelope = allowed(core, key, envelope)?;
    check_parts(core, key, &envelope)?;
    if envelope.is_bundle() {
        check_contributions(core, key, &envelope.contributions())?;
        let (envelope, secondary) = core.merged(key, &envelope);
        let model = core.layout().place(key).model.map(|model| model.schema);
        return Ok(VerifiedRecord { key: key.clone(), envelope, secondary, model });
    }
    let secondary = check_value(core, key, &envelope).map_err(|reason| blame(key, &envelope, reason))?;
    envelope.verify(key).map_err(|_| Refusal::InvalidSignature)?;
    Ok(VerifiedRecord { key: key.clone(), envelope, secondary, model: None })
}

/// Checks size, format and timestamp.
fn check_form(core: &Core, value: &[u8]) -> Result<Envelope, Refusal> {
    if value.len() > core.options().max_envelope_bytes() {
        return Err(Refusal::TooLarge);
    }
    let envelope = Envelope::parse(value)?;
    // A deletion that is forgotten lets older versions return, which others still hold.
    if envelope.is_tombstone() && envelope.expires().is_some() {
        return Err(Refusal::InvalidEnvelope);
    }
    let timestamp = envelope.timestamp().ok_or(Refusal::InvalidEnvelope)?;
    let now = core.options().clock.unix_millis();
    let skew = u64::try_from(MAX_CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
    if timestamp.unix_millis() > now.saturating_add(skew) {
        return Err(Refusal::FutureTimestamp);
    }
    Ok(envelope)
}

/// Returns whether a version has not expired, or is stored already, or ends an earlier stored
/// version that still counts.
fn ends_or_counts(core: &Core, envelope: &Envelope, current: Option<&Envelope>) -> bool {
    let now = core.options().clock.unix_millis();
    if !envelope.is_expired(now) {
        return true;
    }
    let Some(current) = current.filter(|_| !envelope.is_bundle()) else { return false };
    current == envelope || (current.is_live(now) && envelope.cmp_version(current).is_gt())
}

/// Checks that a merged record is a bundle without a merged payload, and checks its parts.
fn check_parts(core: &Core, key: &RecordKey, envelope: &Envelope) -> Result<(), Refusal> {
    let is_merged = key.policy() == WritePolicy::Merged;
    // Each store merges a bundle itself and does not trust a peer's result.
    if envelope.is_bundle() != is_merged || (is_merged && !envelope.payload().is_empty()) {
        return Err(Refusal::InvalidEnvelope);
    }
    let limit = core.options().max_contribution_bytes();
    let mut parts = envelope.view().bundle().into_iter().flat_map(Bundle::iter);
    if parts.clone().any(|part| part.len() > limit) {
        return Err(Refusal::TooLarge);
    }
    let is_forgotten = |part: EnvelopeRef<'_>| part.is_tombstone() && part.expires().is_some();
    if parts.any(is_forgotten) { Err(Refusal::InvalidEnvelope) } else { Ok(()) }
}

/// Checks that the key has the form of its model's keys, if the model is known, and that its author
/// may write it. Of a bundle, returns the contributions of authors that may.
fn allowed(core: &Core, key: &RecordKey, envelope: Envelope) -> Result<Envelope, Refusal> {
    if !envelope.is_bundle() {
        return check_author(core, key, &envelope).map(|()| envelope);
    }
    let parts = envelope.contributions();
    let verdicts: Vec<_> = parts.iter().map(|part| check_author(core, key, part)).collect();
    let Some(refused) = verdicts.iter().find_map(|verdict| verdict.err()) else { return Ok(envelope) };
    let allowed = parts.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(part, _)| part);
    Envelope::bundle(allowed).ok_or(refused)
}

/// The same for one author.
fn check_author(core: &Core, key: &RecordKey, envelope: &Envelope) -> Result<(), Refusal> {
    let is_list = core.members().is_some_and(|members| members.key() == key);
    if core.layout().has_other_policy(key) && !is_list {
        // No model is the root's; any other policy is one of an honest author with another schema.
        let is_root = key.policy() == WritePolicy::Root;
        return Err(if is_root { Refusal::InvalidKey } else { Refusal::OtherPolicy });
    }
    if let Some(members) = core.members() {
        members.check(key, envelope.view())?;
    }
    if core.refused_authors().refuses(key, envelope.view()) {
        return Err(Refusal::RefusedAuthor);
    }
    match key.policy() {
        WritePolicy::Owned if envelope.author() != key.owner() => Err(Refusal::NotOwner),
        WritePolicy::Root if !is_list => Err(Refusal::NotMember),
        WritePolicy::Open | WritePolicy::Owned | WritePolicy::Merged | WritePolicy::Root => Ok(()),
    }
}

/// Checks that the payload is a record of the model under this key, where the model is known.
fn check_value(core: &Core, key: &RecordKey, envelope: &Envelope) -> Result<IndexKeys, Refusal> {
    if core.members().is_some_and(|members| members.key() == key) {
        let list = MemberList::parse(envelope.payload());
        return list.map(|_| IndexKeys::default()).ok_or(Refusal::InvalidValue);
    }
    let Some(model) = core.layout().place(key).model.filter(|_| !envelope.is_tombstone()) else {
        return Ok(IndexKeys::default());
    };
    if !starts_canonically(envelope.payload()) {
        return Err(Refusal::NotCanonical);
    }
    if model.is_newer(envelope.payload()) {
        // The record is kept and passed on for programs that can read it; they check its keys.
        return Ok(IndexKeys::default());
    }
    let keys = model.schema.canonical_keys_of(envelope.payload()).map_err(|error| match error {
        ValueError::NotCanonical => Refusal::NotCanonical,
        _ => Refusal::InvalidValue,
    })?;
    if keys.primary != key.primary_key() {
        return Err(Refusal::KeyMismatch);
    }
    check_index_keys(model.schema.indexes, &keys.secondary).map_err(|_| Refusal::InvalidValue)?;
    Ok(keys.secondary)
}

/// Returns whether the number of the model version has its shortest encoding; `true` for a payload
/// without one.
fn starts_canonically(payload: &[u8]) -> bool {
    // A group that is not the first and adds nothing could be left out.
    let last = payload.iter().position(|byte| byte & 0x80 == 0);
    last.is_none_or(|last| last == 0 || payload.get(last) != Some(&0))
}

/// Checks the number and the lengths of secondary keys, and the number of blobs.
pub(crate) fn check_index_keys(
    indexes: &'static [crate::model::schema::IndexSchema],
    keys: &IndexKeys,
) -> Result<(), StoreError> {
    let (count, limit) = (keys.iter().count(), MAX_INDEX_KEYS);
    if count > limit {
        return Err(WriteError::TooManyIndexKeys { count, limit }.into());
    }
    let (count, limit) = (keys.blobs().len(), MAX_RECORD_BLOBS);
    if count > limit {
        return Err(WriteError::TooManyBlobs { count, limit }.into());
    }
    for (position, key) in keys.iter() {
        if key.len() > MAX_INDEX_KEY_BYTES {
            let index = indexes.get(position).map_or("", |index| index.name);
            return Err(
                WriteError::IndexKeyTooLong { index, size: key.len(), limit: MAX_INDEX_KEY_BYTES }.into()
            );
        }
    }
    Ok(())
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Signature => Self::InvalidSignature,
            EnvelopeError::UnknownFormat { .. } | EnvelopeError::UnknownFlags { .. } => Self::UnknownFormat,
            EnvelopeError::Truncated
            | EnvelopeError::Flags
            | EnvelopeError::Bundle
            | EnvelopeError::Unsigned => Self::InvalidEnvelope,
        }
    }
}

impl From<RecordKeyError> for Refusal {
    fn from(error: RecordKeyError) -> Self {
        match error {
            RecordKeyError::UnknownMark { .. } => Self::UnknownFormat,
            RecordKeyError::Form
            | RecordKeyError::NoOwner
            | RecordKeyError::Name
            | RecordKeyError::TooLong { .. } => Self::InvalidKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_by_its_number() {
        for reason in REASONS {
            assert_eq!(Refusal::from_code(reason.code()), reason);
        }
        assert_eq!(Refusal::from_code(255), Refusal::Other);
    }
}
