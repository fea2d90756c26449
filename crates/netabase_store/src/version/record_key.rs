//! The name of a record in the database and in the network.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::model::schema::{EncodedRecord, NetabaseDefinition, NetabaseModel, PrimaryKey};
use crate::version::envelope::Author;
use crate::version::limits::{MAX_NAME_BYTES, MAX_PRIMARY_KEY_BYTES, MAX_RECORD_KEY_BYTES};

/// The length of a place in Kademlia's keyspace, in bytes.
pub(crate) const POSITION_BYTES: usize = 32;
/// The length of the owner's public key at the start of an owned record's primary key, in bytes.
const OWNER_BYTES: usize = 32;
// Behind the owner there is place for the rest of the primary key.
const _: () = assert!(OWNER_BYTES < MAX_PRIMARY_KEY_BYTES);

/// The authors that may write a record, and the way in which its versions are combined.
///
/// The policy is part of the record key, as a mark in front of the model's name, so a node without
/// the model can enforce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WritePolicy {
    /// Any author may write; the latest version wins. The default, without a mark.
    #[default]
    Open,
    /// Only the author whose public key the primary key starts with may write. The mark is `@`.
    Owned,
    /// Any author may write; the latest version of each author is kept, and these are merged when
    /// the record is stored. The mark is `+`.
    Merged,
    /// Only the root of a closed network may write: these are its own records. The mark is `!`.
    Root,
}

impl WritePolicy {
    /// Returns the mark in front of the model's name.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Open => b"",
            Self::Owned => b"@",
            Self::Merged => b"+",
            Self::Root => b"!",
        }
    }

    /// Returns a model's name with the mark in front, which tells its tables from those that it had
    /// under another policy.
    pub(crate) fn marked(self, name: &str) -> String {
        [String::from_utf8_lossy(self.mark()).as_ref(), name].concat()
    }

    /// Splits the mark off a marked name.
    pub(crate) fn take_mark(name: &[u8]) -> (Self, &[u8]) {
        let marked = [Self::Owned, Self::Merged, Self::Root]
            .into_iter()
            .find_map(|policy| Some((policy, name.strip_prefix(policy.mark())?)));
        marked.unwrap_or((Self::Open, name))
    }
}

impl fmt::Display for WritePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Owned => "owned",
            Self::Merged => "merged",
            Self::Root => "root",
        })
    }
}

/// The key of a record: `/<definition>/<model>/<primary key bytes>`, with a mark in front of the
/// model unless [any author may write](WritePolicy).
///
/// The names are explicit, so that reordering models in a program moves no record, and the leading
/// namespace is what other libp2p implementations require of DHT keys. A value of this type always
/// has that form and is at most [`RecordKey::MAX_BYTES`] long. Cloning is cheap.
///
/// ```
/// use netabase_store::RecordKey;
///
/// let key = RecordKey::new("ChatDefinition", "Message", b"42\0")?;
/// assert_eq!(key.to_string(), r"/ChatDefinition/Message/42\x00");
/// assert_eq!(RecordKey::parse(key.as_bytes())?, key);
/// # Ok::<(), netabase_store::RecordKeyError>(())
/// ```
#[derive(Clone)]
pub struct RecordKey {
    bytes: Arc<[u8]>,
    /// The end of the definition's name.
    definition: u8,
    /// The end of the model's name.
    model: u8,
    policy: WritePolicy,
}

/// The reason why bytes are not a record key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordKeyError {
    /// The bytes do not have the form `/<definition>/<model>/<primary key>`.
    #[error("a record key has the form /<definition>/<model>/<primary key>")]
    Form,
    /// The key of an owned record is too short to start with its owner's public key.
    #[error(
        "the primary key of an owned record starts with the {OWNER_BYTES} bytes of its owner's public key"
    )]
    NoOwner,
    /// A name is empty, too long or has characters other than ASCII letters, digits, `_`, `.`, `-`.
    #[error("definition and model names are 1 to {MAX_NAME_BYTES} ASCII letters, digits, `_`, `.` or `-`")]
    Name,
    /// A character stands in front of the model's name that names no write policy that this program
    /// knows.
    #[error("the model's name has the mark {mark:?}, this program knows `@`, `+` and `!`")]
    UnknownMark {
        /// The character.
        mark: char,
    },
    /// The primary key is too long.
    #[error("the primary key has {len} bytes, the limit is {MAX_PRIMARY_KEY_BYTES}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl RecordKey {
    /// The longest name of a definition or model, in bytes.
    pub const MAX_NAME_BYTES: usize = MAX_NAME_BYTES;
    /// The longest primary key, as bytes.
    pub const MAX_PRIMARY_KEY_BYTES: usize = MAX_PRIMARY_KEY_BYTES;
    /// The longest record key, in bytes.
    pub const MAX_BYTES: usize = MAX_RECORD_KEY_BYTES;
    /// The length of a [position](Self::position) in the keyspace.
    pub const POSITION_BYTES: usize = POSITION_BYTES;

    /// Makes the key of a record that any author may write.
    pub fn new(definition: &str, model: &str, primary_key: &[u8]) -> Result<Self, RecordKeyError> {
        Self::with_policy(WritePolicy::Open, definition, model, primary_key)
    }

    /// Makes a key of its parts.
    pub fn with_policy(
        policy: WritePolicy,
        definition: &str,
        model: &str,
        primary_key: &[u8],
    ) -> Result<Self, RecordKeyError> {
        let names = [b"/", definition.as_bytes(), b"/", policy.mark(), model.as_bytes(), b"/"];
        Self::parse(&[names.concat().as_slice(), primary_key].concat())
    }

    /// Returns the key of the record that `primary_key` names.
    pub fn of<K: PrimaryKey>(primary_key: &K) -> Result<Self, RecordKeyError> {
        let definition = <<K::Model as NetabaseModel>::Definition as NetabaseDefinition>::SCHEMA;
        K::Model::SCHEMA.record_key(definition.name, &primary_key.to_key_bytes())
    }

    /// Returns the prefix of the keys of a model's records; `marked` is its name with its mark.
    pub(crate) fn prefix(definition: &str, marked: &str) -> Vec<u8> {
        format!("/{definition}/{marked}/").into_bytes()
    }

    /// Returns whether this is the key of a record of the model `M`.
    ///
    /// ```
    /// # use netabase_store::netabase_definition_module;
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String }
    /// # }
    /// # use library::*;
    /// let key = netabase_store::RecordKey::of(&BookPrimaryKey("0131103628".into()))?;
    /// assert!(key.is_of::<Book>());
    /// # Ok::<(), netabase_store::RecordKeyError>(())
    /// ```
    pub fn is_of<M: NetabaseModel>(&self) -> bool {
        self.definition() == M::Definition::SCHEMA.name
            && self.model() == M::SCHEMA.name
            && self.policy == M::SCHEMA.policy
    }

    /// Returns the key of an encoded record of the definition called `definition`.
    pub(crate) fn of_encoded(definition: &str, record: &EncodedRecord) -> Result<Self, RecordKeyError> {
        record.model.record_key(definition, &record.keys.primary)
    }

    /// Returns the record's place in Kademlia's keyspace: the SHA-256 of the key.
    pub fn position(&self) -> [u8; POSITION_BYTES] {
        Sha256::digest(&self.bytes).into()
    }

    /// Checks the form of a key that came from outside.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordKeyError> {
        let (definition, rest) = take_name(bytes)?;
        let (marked, rest) = take_until_slash(rest)?;
        let (policy, model) = WritePolicy::take_mark(marked);
        if !is_name(model) {
            return Err(unknown_mark(model).unwrap_or(RecordKeyError::Name));
        }
        let primary_key = rest.strip_prefix(b"/").ok_or(RecordKeyError::Form)?;
        if policy == WritePolicy::Owned && primary_key.len() < OWNER_BYTES {
            return Err(RecordKeyError::NoOwner);
        }
        if primary_key.len() > MAX_PRIMARY_KEY_BYTES {
            return Err(RecordKeyError::TooLong { len: primary_key.len() });
        }
        let end = |len: usize| u8::try_from(len).map_err(|_| RecordKeyError::Name);
        Ok(Self {
            definition: end(1 + definition.len())?,
            model: end(2 + definition.len() + marked.len())?,
            policy,
            bytes: bytes.into(),
        })
    }

    /// Returns the whole key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the name of the definition.
    pub fn definition(&self) -> &str {
        self.name(1, self.definition)
    }

    /// Returns the name of the model.
    pub fn model(&self) -> &str {
        self.name(usize::from(self.definition) + 1 + self.policy.mark().len(), self.model)
    }

    /// Returns the record's write policy.
    pub fn policy(&self) -> WritePolicy {
        self.policy
    }

    /// Returns the only author that may write an owned record, or `None` for another one.
    pub fn owner(&self) -> Option<Author> {
        let owner = self.primary_key().first_chunk::<OWNER_BYTES>();
        owner.filter(|_| self.policy == WritePolicy::Owned).copied().map(Author::from_bytes)
    }

    /// Returns the key of another record of the same model.
    pub(crate) fn sibling(&self, primary_key: &[u8]) -> Result<Self, RecordKeyError> {
        Self::with_policy(self.policy, self.definition(), self.model(), primary_key)
    }

    /// Returns the encoded primary key.
    pub fn primary_key(&self) -> &[u8] {
        self.bytes.get(usize::from(self.model) + 1..).unwrap_or_default()
    }

    fn name(&self, start: usize, end: u8) -> &str {
        let name = self.bytes.get(start..end.into()).unwrap_or_default();
        str::from_utf8(name).unwrap_or_default()
    }
}

/// Splits `/<name>` off the front.
fn take_name(bytes: &[u8]) -> Result<(&[u8], &[u8]), RecordKeyError> {
    let (name, rest) = take_until_slash(bytes)?;
    if is_name(name) { Ok((name, rest)) } else { Err(RecordKeyError::Name) }
}

/// Splits a slash and everything up to the next one off the front.
fn take_until_slash(bytes: &[u8]) -> Result<(&[u8], &[u8]), RecordKeyError> {
    let rest = bytes.strip_prefix(b"/").ok_or(RecordKeyError::Form)?;
    let end = rest.iter().position(|byte| *byte == b'/').ok_or(RecordKeyError::Form)?;
    Ok(rest.split_at(end))
}

/// Tells the mark of a later program's write policy from an invalid name.
fn unknown_mark(marked: &[u8]) -> Option<RecordKeyError> {
    let (mark, name) = marked.split_first()?;
    let is_mark = mark.is_ascii_punctuation() && is_name(name);
    is_mark.then(|| RecordKeyError::UnknownMark { mark: char::from(*mark) })
}

/// Returns whether `name` may name a definition, a model or a network.
pub fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes.escape_ascii())
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({self})")
    }
}

impl PartialEq for RecordKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for RecordKey {}

impl PartialOrd for RecordKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RecordKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Hash for RecordKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.bytes).hash(state);
    }
}

impl Borrow<[u8]> for RecordKey {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for RecordKey {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_come_back() {
        let key = RecordKey::new("Def", "Model", b"/a/\0").unwrap();
        assert_eq!((key.definition(), key.model(), key.primary_key()), ("Def", "Model", b"/a/\0".as_slice()));
    }

    #[test]
    fn a_mark_says_who_may_write() {
        let owner = [7; 32];
        let key = RecordKey::with_policy(WritePolicy::Owned, "Def", "Model", &owner).unwrap();
        assert!(key.as_bytes().starts_with(b"/Def/@Model/"));
        let parsed = RecordKey::parse(key.as_bytes()).unwrap();
        assert_eq!((parsed.policy(), parsed.model()), (WritePolicy::Owned, "Model"));
        assert_eq!(parsed.owner(), Some(Author::from_bytes(owner)));
        let short = RecordKey::with_policy(WritePolicy::Owned, "Def", "Model", &owner[1..]);
        assert_eq!(short, Err(RecordKeyError::NoOwner));
        let merged = RecordKey::parse(b"/Def/+Model/1").unwrap();
        assert_eq!((merged.policy(), merged.owner()), (WritePolicy::Merged, None));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for bytes in
            ["", "/", "a/b/c", "/a", "/a/b", "//b/c", "/a//c", "/a b/c/d", "/a/@/c", "/a/@@b/c", "/@a/b/c"]
        {
            assert!(RecordKey::parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        assert_eq!(RecordKey::new(&long, "Model", b""), Err(RecordKeyError::Name));
        let long = vec![b'x'; MAX_PRIMARY_KEY_BYTES + 1];
        assert_eq!(RecordKey::new("Def", "Model", &long), Err(RecordKeyError::TooLong { len: long.len() }));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes: Vec<u8>) {
            if let Ok(key) = RecordKey::parse(&bytes) {
                let again = key.sibling(key.primary_key()).unwrap();
                prop_assert_eq!(again.as_bytes(), bytes);
            }
        }
    }
}
