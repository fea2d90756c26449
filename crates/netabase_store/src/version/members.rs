//! The member list of a closed network, which the network's root key signs.
//!
//! The list is an ordinary signed version under a record key of its own, so the newest one wins at
//! every node. A store holds the current list in memory, checks every version against it, and
//! removes versions that a newer list no longer allows. `docs/formats.md` has the bytes,
//! `docs/trust.md` the guide.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::admin::migrate::forget;
use crate::engine::{Engine, Sync, unless_damaged};
use crate::error::{SchemaError, StoreError, WriteError};
use crate::options::StoreOptions;
use crate::tables::{self, Layout, Place};
use crate::version::admit::Refusal;
use crate::version::clock::{Clock, Timestamp};
use crate::version::envelope::{Author, Envelope, EnvelopeError, EnvelopeRef, Version};
use crate::version::limits::MAX_MEMBERS;
use crate::version::record_key::{RecordKey, RecordKeyError, WritePolicy};

mod sweep;

pub(crate) use sweep::Sweep;

/// The name of the list in its record key, where a model's would be.
const LIST_NAME: &str = "members";
/// The version of the list's bytes, where a model's would be.
const LIST_VERSION: u32 = 1;

/// The time in which an author may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Membership {
    /// The first valid timestamp, or `None` if every timestamp is valid.
    pub since: Option<Timestamp>,
    /// The first timestamp that is no longer valid, or `None` while the author is a member.
    pub revoked_from: Option<Timestamp>,
}

impl Membership {
    /// Returns whether a version with this timestamp counts.
    pub fn allows(&self, timestamp: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= timestamp)
            && self.revoked_from.is_none_or(|revoked_from| timestamp < revoked_from)
    }
}

/// The authors that may write in a closed network, besides the root key, which always may.
///
/// ```
/// use netabase_store::{Author, SigningKey, Timestamp};
/// use netabase_store::members::MemberList;
///
/// let root = SigningKey::from_bytes(&[7; 32]);
/// let ada = Author::of(&SigningKey::from_bytes(&[1; 32]));
/// let mut members = MemberList::default();
/// members.add(ada)?;
/// let signed = members.sign(&root, "ChatDefinition", None)?;
/// assert_eq!(signed.members(), &members);
///
/// let stolen = Timestamp::from_unix_millis(1_700_000_000_000);
/// members.revoke(ada, stolen);
/// assert!(members.allows(ada, Timestamp::from_unix_millis(1_600_000_000_000)));
/// assert!(!members.allows(ada, stolen));
/// let signed = members.sign(&root, "ChatDefinition", Some(signed.timestamp()))?;
/// # assert_eq!(signed.signer(), Author::of(&root));
/// # Ok::<(), netabase_store::StoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberList {
    members: BTreeMap<Author, Membership>,
}

/// The reason why a member list cannot be made, read or used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The store was opened without a root: the network is open and has no member list.
    #[error("the network is open and has no member list; open the store with `StoreOptions::root`")]
    OpenNetwork,
    /// The list is full.
    #[error("a network has at most {MAX_MEMBERS} members; remove members whose records may be deleted")]
    Full,
    /// The bytes are not a signed version of anything.
    #[error("the bytes are not a signed member list")]
    Envelope(#[from] EnvelopeError),
    /// The bytes are signed, but are no member list of this version.
    #[error("the payload is not a member list of version {LIST_VERSION}")]
    Payload,
    /// The list was signed by another key than the network's root.
    #[error("the member list was signed by {signer}, the root of this network is {root}")]
    NotRoot {
        /// The key that signed it.
        signer: Author,
        /// The root that the store was opened with.
        root: Author,
    },
    /// The store has a newer list.
    #[error("a newer member list is already here; add the change to that one and sign it after {current:?}")]
    Outdated {
        /// The timestamp of the stored list.
        current: Timestamp,
    },
    /// A check that every record must pass has failed.
    #[error("the member list was refused: {0}")]
    Refused(#[from] Refusal),
}

impl MemberList {
    /// The most members of a network.
    pub const MAX_MEMBERS: usize = MAX_MEMBERS;

    /// Returns the record key of the list of the network that shares `definition`.
    pub fn key(definition: &str) -> Result<RecordKey, RecordKeyError> {
        RecordKey::with_policy(WritePolicy::Root, definition, LIST_NAME, b"")
    }

    /// Makes an author a member, also one that was revoked; earlier versions of a new one count,
    /// too.
    pub fn add(&mut self, author: Author) -> Result<(), MembersError> {
        let since = self.members.get(&author).and_then(|membership| membership.since);
        self.set(author, Membership { since, revoked_from: None })
    }

    /// Makes an author a member whose versions count from `since` on.
    pub fn add_since(&mut self, author: Author, since: Timestamp) -> Result<(), MembersError> {
        self.set(author, Membership { since: Some(since), revoked_from: None })
    }

    fn set(&mut self, author: Author, membership: Membership) -> Result<(), MembersError> {
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(&author) {
            return Err(MembersError::Full);
        }
        self.members.insert(author, membership);
        Ok(())
    }

    /// Revokes a member: versions with the timestamp `from` or a later one do not count any more,
    /// earlier ones do. Returns whether the author was in the list.
    ///
    /// The author sets the timestamps, so a revoked author can still backdate versions that no
    /// other node has seen. Revoke from [`Timestamp::default`] on to invalidate all of its
    /// versions.
    pub fn revoke(&mut self, author: Author, from: Timestamp) -> bool {
        let membership = self.members.get_mut(&author);
        membership.map(|membership| membership.revoked_from = Some(from)).is_some()
    }

    /// Removes an author from the list, so that none of its versions counts; returns whether it was
    /// on the list.
    pub fn remove(&mut self, author: &Author) -> bool {
        self.members.remove(author).is_some()
    }

    /// Returns whether a version that `author` has signed with this timestamp counts.
    pub fn allows(&self, author: Author, timestamp: Timestamp) -> bool {
        self.members.get(&author).is_some_and(|membership| membership.allows(timestamp))
    }

    /// Returns the entry of an author.
    pub fn get(&self, author: &Author) -> Option<Membership> {
        self.members.get(author).copied()
    }

    /// Returns every author of the list, revoked ones included, in the order of their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Author, Membership)> {
        self.members.iter().map(|(author, membership)| (*author, *membership))
    }

    /// Returns how many authors are in the list, revoked ones included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Signs the list with the root key of the network that shares `definition`, now by this
    /// machine's clock, or right `after` the list that it replaces if the clock is behind that.
    ///
    /// This needs no store, so the key can be kept on a machine of its own; hand the bytes to
    /// [`Replica::submit_members`](crate::replica::Replica::submit_members).
    pub fn sign(
        &self,
        root: &SigningKey,
        definition: &str,
        after: Option<Timestamp>,
    ) -> Result<SignedMembers, RecordKeyError> {
        Ok(self.sign_at(root, &Self::key(definition)?, Clock::default().tick(after)))
    }

    pub(crate) fn sign_at(&self, root: &SigningKey, key: &RecordKey, timestamp: Timestamp) -> SignedMembers {
        let envelope = Envelope::sign(root, key, timestamp, 0, Some(&self.to_payload()));
        // A signed envelope has a version.
        let none = Version { timestamp, author: Author::of(root), hash: [0; 32] };
        let version = envelope.version().unwrap_or(none);
        SignedMembers { version, envelope, members: Arc::new(self.clone()) }
    }

    /// Returns the payload: version, number of members, members in the order of their authors.
    fn to_payload(&self) -> Vec<u8> {
        let members = self.members.iter().map(|(author, Membership { since, revoked_from })| Entry {
            author: *author.as_bytes(),
            since: since.map(Timestamp::to_bits),
            revoked_from: revoked_from.map(Timestamp::to_bits),
        });
        // Numbers and byte arrays always have an encoding.
        postcard::to_stdvec(&(LIST_VERSION, members.collect::<Vec<_>>())).unwrap_or_default()
    }

    /// Reads a payload; there is one for each list.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (_, entries): (u32, Vec<Entry>) = postcard::from_bytes(payload).ok()?;
        let members = entries.iter().map(|entry| {
            let since = entry.since.map(Timestamp::from_bits);
            let revoked_from = entry.revoked_from.map(Timestamp::from_bits);
            (Author::from_bytes(entry.author), Membership { since, revoked_from })
        });
        let list = Self { members: members.collect() };
        let canonical = list.len() <= MAX_MEMBERS && list.to_payload() == payload;
        canonical.then_some(list)
    }
}

/// A member as it is written.
#[derive(Serialize, Deserialize)]
struct Entry {
    author: [u8; 32],
    since: Option<u64>,
    revoked_from: Option<u64>,
}

/// A member list with its signature. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMembers {
    version: Version,
    envelope: Envelope,
    members: Arc<MemberList>,
}

impl SignedMembers {
    /// Reads what [`as_bytes`](Self::as_bytes) has returned. The signature is checked by the store
    /// that takes the list, which knows the network's root.
    pub fn parse(bytes: &[u8]) -> Result<Self, MembersError> {
        Self::of(Envelope::parse(bytes)?)
    }

    fn of(envelope: Envelope) -> Result<Self, MembersError> {
        let version = envelope.version().ok_or(EnvelopeError::Unsigned)?;
        let members = MemberList::parse(envelope.payload()).ok_or(MembersError::Payload)?;
        Ok(Self { version, envelope, members: Arc::new(members) })
    }

    /// Returns the bytes, which are those of the record.
    pub fn as_bytes(&self) -> &[u8] {
        self.envelope.as_bytes()
    }

    /// Returns the record's version.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Returns the list.
    pub fn members(&self) -> &MemberList {
        &self.members
    }

    /// Returns the author that claims to have signed it.
    pub fn signer(&self) -> Author {
        self.version.author
    }

    /// Returns when it was signed.
    pub fn timestamp(&self) -> Timestamp {
        self.version.timestamp
    }

    /// Returns the version of the list.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// The members that a store of a closed network knows.
#[derive(Debug)]
pub(crate) struct Members {
    root: Author,
    key: RecordKey,
    /// The newest list that was committed or admitted.
    current: RwLock<Option<SignedMembers>>,
    /// The list with which all stored records had been compared when the store was opened.
    swept: Option<Version>,
}

impl Members {
    /// Reads the stored list; an open network has none.
    pub(crate) fn load(
        engine: &Engine,
        layout: &Layout,
        options: &StoreOptions,
    ) -> Result<Option<Self>, StoreError> {
        let swept = unless_damaged(engine.snapshot()?.get(&tables::META, tables::META_SWEPT))?;
        let Some(root) = options.root else {
            if swept.is_some() {
                // From now on records are compared with no list.
                engine.write(Sync::Now, |tables| tables.remove(&tables::META, tables::META_SWEPT))?;
            }
            return Ok(None);
        };
        let key = MemberList::key(layout.schema().ok_or(SchemaError::Missing)?.name)?;
        let Place { table, key: place, .. } = layout.place(&key);
        let stored = unless_damaged(engine.snapshot()?.get(table, place))?;
        let current = stored.as_deref().and_then(|bytes| SignedMembers::parse(bytes).ok());
        let current = current.filter(|list| list.signer() == root);
        if let (Some(stored), None) = (&stored, &current) {
            // A list of another root would keep older ones of this root out.
            engine.write(Sync::Now, |tables| {
                forget(tables, &key, stored)?;
                tables.remove(table, place)
            })?;
        }
        let swept = swept.and_then(|bytes| sweep::parse_version(&bytes));
        Ok(Some(Self { root, key, current: RwLock::new(current), swept }))
    }

    pub(crate) fn root(&self) -> Author {
        self.root
    }

    pub(crate) fn key(&self) -> &RecordKey {
        &self.key
    }

    pub(crate) fn current(&self) -> Option<SignedMembers> {
        self.current.read().clone()
    }

    /// Takes over a checked list if it is newer.
    pub(crate) fn note(&self, key: &RecordKey, envelope: &Envelope) {
        if *key != self.key {
            return;
        }
        let Ok(list) = SignedMembers::of(envelope.clone()) else { return };
        let mut current = self.current.write();
        if current.as_ref().is_none_or(|current| current.envelope.cmp_version(envelope).is_lt()) {
            *current = Some(list);
        }
    }

    /// Checks that a version's author may write it: the list itself only the root, other records
    /// the root and the members of the current list.
    pub(crate) fn check(&self, key: &RecordKey, envelope: EnvelopeRef<'_>) -> Result<(), Refusal> {
        let (Some(author), Some(timestamp)) = (envelope.author(), envelope.timestamp()) else {
            return Err(Refusal::NotMember);
        };
        if key.policy() == WritePolicy::Root {
            return self.check_list(key, author, envelope);
        }
        if author == self.root {
            return Ok(());
        }
        let allowed =
            self.current.read().as_ref().is_some_and(|current| current.members.allows(author, timestamp));
        if allowed { Ok(()) } else { Err(Refusal::NotMember) }
    }

    fn check_list(&self, key: &RecordKey, author: Author, envelope: EnvelopeRef<'_>) -> Result<(), Refusal> {
        if author != self.root {
            return Err(Refusal::NotMember);
        }
        if *key != self.key {
            return Err(Refusal::InvalidKey);
        }
        // A network without a list is not one that anybody may write in.
        if envelope.is_tombstone() || envelope.expires().is_some() {
            return Err(Refusal::InvalidEnvelope);
        }
        Ok(())
    }

    /// Returns the error of a local write by an author that may not write.
    pub(crate) fn not_member(&self, author: Option<Author>) -> StoreError {
        let Some(author) = author else { return StoreError::Write(WriteError::NoIdentity) };
        let membership = self.current.read().as_ref().and_then(|current| current.members.get(&author));
        StoreError::Write(WriteError::NotMember { author, root: self.root, membership })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEFAULT_MAX_VALUE_BYTES;

    fn author(seed: u8) -> Author {
        Author::from_bytes([seed; 32])
    }

    fn at(time: u64) -> Timestamp {
        Timestamp::from_bits(time)
    }

    #[test]
    fn a_membership_begins_and_ends_where_it_says() {
        let mut list = MemberList::default();
        list.add_since(author(1), at(5)).unwrap();
        assert!(list.revoke(author(1), at(9)));
        let allowed: Vec<u64> = (0..12).filter(|time| list.allows(author(1), at(*time))).collect();
        assert_eq!(allowed, [5, 6, 7, 8]);
        list.add(author(1)).unwrap();
        assert!(list.allows(author(1), at(99)) && !list.allows(author(1), at(4)));
        assert!(list.revoke(author(1), Timestamp::default()));
        assert!((0..12).all(|time| !list.allows(author(1), at(time))));
    }

    #[test]
    fn revoking_a_stranger_makes_it_no_member() {
        let mut list = MemberList::default();
        assert!(!list.revoke(author(1), at(9)));
        assert!(!list.allows(author(1), at(1)) && list.is_empty());
    }

    #[test]
    fn a_full_list_still_takes_changes_of_its_members() {
        let mut list = MemberList::default();
        for number in 0..u32::try_from(MAX_MEMBERS).unwrap() {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            list.add_since(Author::from_bytes(bytes), at(u64::MAX)).unwrap();
            list.revoke(Author::from_bytes(bytes), at(u64::MAX));
        }
        assert_eq!(list.add(author(1)), Err(MembersError::Full));
        list.add(Author::from_bytes([0; 32])).unwrap();
        assert!(list.to_payload().len() <= DEFAULT_MAX_VALUE_BYTES);
        assert_eq!(MemberList::parse(&list.to_payload()), Some(list));
    }

    #[test]
    fn only_the_canonical_bytes_are_a_list() {
        let mut list = MemberList::default();
        list.add(author(2)).unwrap();
        list.add(author(1)).unwrap();
        let payload = list.to_payload();
        assert_eq!(MemberList::parse(&payload), Some(list));
        let entry = |seed: u8| [&[seed; 32][..], &[0, 0]].concat();
        let of = |parts: &[&[u8]]| MemberList::parse(&parts.concat());
        assert!(of(&[&[1, 2], &entry(1), &entry(2)]).is_some());
        assert_eq!(of(&[&[1, 2], &entry(2), &entry(1)]), None, "not sorted");
        assert_eq!(of(&[&[1, 2], &entry(1), &entry(1)]), None, "twice");
        assert_eq!(of(&[&[2, 1], &entry(1)]), None, "of another version");
        assert_eq!(of(&[&[1, 0x81, 0], &entry(1)]), None, "a longer number than needed");
        assert_eq!(of(&[&payload, &[0]]), None, "bytes left over");
        assert_eq!(of(&[&payload[..9]]), None, "cut off");
    }
}
