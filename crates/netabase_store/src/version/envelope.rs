//! Envelopes: the bytes that are stored and sent under a record key.
//!
//! A signed envelope carries everything that a stranger needs to verify it: its timestamp, expiry
//! and author, the payload or its absence (a tombstone), and a signature that binds all of them to
//! the record key. A store without an identity keeps unsigned envelopes, one byte longer than their
//! payload, which never leave it. The contributions of several authors to a merged record are a
//! bundle of such envelopes. `docs/formats.md` has the bytes.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::error::KeyError;
use crate::model::key::KeyField;
use crate::version::clock::Timestamp;
use crate::version::limits::MAX_CONTRIBUTIONS;
use crate::version::record_key::{RecordKey, WritePolicy};

mod bundle;

pub(crate) use bundle::{Bundle, LEN_BYTES};

const UNSIGNED: u8 = 0x00;
const SIGNED_V1: u8 = 0x01;
const BUNDLE: u8 = 0x02;
const FLAG_TOMBSTONE: u8 = 0b0000_0001;
const HEADER_BYTES: usize = 1 + 1 + 8 + 8 + 32;
const SIGNATURE_BYTES: usize = 64;
/// Separates these signatures from every other use of the same key.
const SIGNATURE_DOMAIN: &str = "netabase record envelope v1";

/// The length of [`Envelope::fingerprint`].
pub(crate) const FINGERPRINT_BYTES: usize = 16;
/// The bytes that a signed envelope adds to its payload.
pub(crate) const ENVELOPE_OVERHEAD_BYTES: usize = HEADER_BYTES + SIGNATURE_BYTES;

/// The ed25519 public key of a record's author.
///
/// An author can be a field of a model and part of its keys. The first one in an owned model's
/// primary key is the record's owner.
///
/// ```
/// use netabase_store::Author;
///
/// let author: Author = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse()?;
/// assert_eq!(author.as_bytes()[0], 0xd7);
/// assert_eq!(author.to_string().parse(), Ok(author));
/// # Ok::<(), netabase_store::version::ParseAuthorError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author([u8; 32]);

impl Author {
    /// Makes an author of a public key's bytes, which are checked when a signature is.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the author that signs with `identity`.
    pub fn of(identity: &SigningKey) -> Self {
        Self(identity.verifying_key().to_bytes())
    }

    /// Returns the public key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The reason why a text is not an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an author is written as 64 hexadecimal digits")]
pub struct ParseAuthorError;

/// Reads what `Display` writes: 64 hexadecimal digits.
impl FromStr for Author {
    type Err = ParseAuthorError;

    fn from_str(text: &str) -> Result<Self, ParseAuthorError> {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(ParseAuthorError) };
        let byte = |[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
        let bytes = pairs.iter().map(byte).collect::<Option<Vec<_>>>().ok_or(ParseAuthorError)?;
        bytes.try_into().map(Self).map_err(|_| ParseAuthorError)
    }
}

impl TryFrom<&str> for Author {
    type Error = ParseAuthorError;

    fn try_from(text: &str) -> Result<Self, ParseAuthorError> {
        text.parse()
    }
}

/// Hexadecimal digits where people read it, and 32 bytes elsewhere.
impl Serialize for Author {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Author {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Its 32 bytes.
impl KeyField for Author {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        <[u8; 32]>::decode_key(input).map(Self)
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or_default();
        let mut text = String::with_capacity(2 * self.0.len());
        for byte in self.0 {
            text.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Author({self})")
    }
}

/// The identity of a version of a record.
///
/// Versions are totally ordered, and the order does not depend on arrival: the later timestamp
/// wins, then the larger author, then the larger hash. Deletions take part like any other version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The time of the write.
    pub timestamp: Timestamp,
    /// The author.
    pub author: Author,
    /// The BLAKE3 hash of the signed bytes except the record key.
    pub hash: [u8; 32],
}

/// The hash of the exact bytes of an envelope, signed or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    pub(crate) fn of(envelope: &[u8]) -> Self {
        Self(*blake3::hash(envelope).as_bytes())
    }

    /// Returns the BLAKE3 hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentHash(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The bytes that a store keeps, and a peer sends, under a record key.
///
/// The form is checked when an envelope is made, and the signature by [`Envelope::verify`]. Cloning
/// is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(Arc<[u8]>);

/// The reason why bytes are not an envelope, or an envelope is not its author's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes are too short to be an envelope.
    #[error("the envelope is cut off")]
    Truncated,
    /// The first byte names a format that this program does not know.
    #[error("the envelope has format {found}, this program knows 0 to 2")]
    UnknownFormat {
        /// The first byte.
        found: u8,
    },
    /// A flag that this program does not know is set.
    #[error("the envelope has flags {found:#04x}, of which this program knows 0x01")]
    UnknownFlags {
        /// The flags.
        found: u8,
    },
    /// The flags contradict the content, such as those of a tombstone with a payload.
    #[error("the envelope's flags do not fit its content")]
    Flags,
    /// The contributions of a bundle are not in order, or some that do not count are among them.
    #[error("the contributions of the bundle are not in order")]
    Bundle,
    /// The envelope has no signature.
    #[error("the envelope is not signed")]
    Unsigned,
    /// The author is not a public key, or did not sign this envelope for this record key.
    #[error("the signature does not belong to this author, key and content")]
    Signature,
}

impl Envelope {
    /// The bytes of a signed envelope besides its payload, with which callers size messages and
    /// quotas.
    pub const OVERHEAD_BYTES: usize = ENVELOPE_OVERHEAD_BYTES;
    /// The length of a [fingerprint](Self::fingerprint), in bytes.
    pub const FINGERPRINT_BYTES: usize = FINGERPRINT_BYTES;
    /// The most authors who contribute to a merged record; of more, the latest stay.
    pub const MAX_CONTRIBUTIONS: usize = MAX_CONTRIBUTIONS;

    /// Wraps a payload for a store without an identity.
    pub fn unsigned(payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + payload.len());
        bytes.push(UNSIGNED);
        bytes.extend(payload);
        Self(bytes.into())
    }

    /// Signs a payload, or with `None` a tombstone, as the content of `key`.
    ///
    /// `expires` is in milliseconds since the Unix epoch; zero means never.
    pub fn sign(
        identity: &SigningKey,
        key: &RecordKey,
        timestamp: Timestamp,
        expires: u64,
        payload: Option<&[u8]>,
    ) -> Self {
        let content = payload.unwrap_or_default();
        let mut bytes = Vec::with_capacity(ENVELOPE_OVERHEAD_BYTES + content.len());
        bytes.push(SIGNED_V1);
        bytes.push(if payload.is_none() { FLAG_TOMBSTONE } else { 0 });
        bytes.extend(timestamp.to_bits().to_be_bytes());
        bytes.extend(expires.to_be_bytes());
        bytes.extend(identity.verifying_key().as_bytes());
        bytes.extend(content);
        bytes.extend(identity.sign(&signed_digest(key, &bytes)).to_bytes());
        Self(bytes.into())
    }

    /// Signs a payload or a tombstone as it stands under `key`: a merged record's is a bundle of
    /// its own.
    pub(crate) fn sign_for(
        identity: &SigningKey,
        key: &RecordKey,
        timestamp: Timestamp,
        expires: u64,
        payload: Option<&[u8]>,
    ) -> Self {
        let signed = Self::sign(identity, key, timestamp, expires, payload);
        match key.policy() {
            WritePolicy::Merged => Self(bundle::build(&[], &[signed.view()]).into()),
            WritePolicy::Open | WritePolicy::Owned | WritePolicy::Root => signed,
        }
    }

    /// Makes the bundle of several authors' contributions, or `None` if there are none.
    ///
    /// Of each author the latest counts. A tombstone leaves out earlier contributions. Of more than
    /// [`Envelope::MAX_CONTRIBUTIONS`] authors the latest stay.
    ///
    /// ```
    /// use netabase_store::{Envelope, RecordKey, SigningKey, Timestamp, WritePolicy};
    ///
    /// let key = RecordKey::with_policy(WritePolicy::Merged, "Polls", "Poll", b"1")?;
    /// let sign = |author, time| {
    ///     let (author, time) = (SigningKey::from_bytes(&[author; 32]), Timestamp::from_unix_millis(time));
    ///     Envelope::sign(&author, &key, time, 0, Some(b"value"))
    /// };
    /// let bundle = Envelope::bundle(&[sign(1, 5), sign(2, 6), sign(1, 7)]).unwrap();
    /// assert_eq!(bundle.contributions().len(), 2);
    /// assert_eq!(bundle.timestamp(), Some(Timestamp::from_unix_millis(7)));
    /// bundle.verify(&key).unwrap();
    /// # Ok::<(), netabase_store::RecordKeyError>(())
    /// ```
    pub fn bundle<'a>(contributions: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let parts = contributions.into_iter().map(Self::view).filter(|part| part.is_contribution());
        let parts = bundle::remaining(parts);
        if parts.is_empty() { None } else { Some(Self(bundle::build(&[], &parts).into())) }
    }

    /// Joins bundles, which is the same as joining one after the other.
    pub(crate) fn join_all<'a>(bundles: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let parts = bundles.into_iter().filter_map(|bundle| bundle.view().bundle()).flat_map(Bundle::iter);
        let parts = bundle::remaining(parts);
        if parts.is_empty() { None } else { Some(Self(bundle::build(&[], &parts).into())) }
    }

    /// Checks the form of an envelope that came from the disk or from outside.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        EnvelopeRef::parse(bytes).map(|envelope| Self(envelope.0.into()))
    }

    pub(crate) fn view(&self) -> EnvelopeRef<'_> {
        EnvelopeRef(&self.0)
    }

    /// Checks that the author signed this envelope for `key`, or each author its part of a bundle.
    pub fn verify(&self, key: &RecordKey) -> Result<(), EnvelopeError> {
        match self.view().bundle() {
            Some(bundle) => bundle.iter().try_for_each(|part| part.verify(key)),
            None => self.view().verify(key),
        }
    }

    /// Returns the join of two versions of one record: the later one, or all contributions that
    /// count.
    ///
    /// All versions are combined by this function. It is commutative, associative and idempotent,
    /// so stores that have seen the same versions, in any order, have the same result. A bundle
    /// that is neither of the two has no merged payload.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let (Some(ours), Some(theirs)) = (self.view().bundle(), other.view().bundle()) else {
            return if self.cmp_version(other).is_lt() { other.clone() } else { self.clone() };
        };
        let joined = Self(ours.join(theirs).into());
        // One of them may have a merged payload.
        let is = |bundle: Bundle<'_>, of: &Self| {
            joined.view().bundle().is_some_and(|joined| joined.has_those_of(bundle)).then(|| of.clone())
        };
        let known = [is(ours, self), is(theirs, other)].into_iter().flatten();
        known.max_by_key(|known| known.payload().len()).unwrap_or(joined)
    }

    /// Returns whether joining this version to `current` changes it.
    pub fn adds_to(&self, current: &Self) -> bool {
        match (self.view().bundle(), current.view().bundle()) {
            (Some(ours), Some(theirs)) => {
                let joined = theirs.join(ours);
                !Bundle::of(&joined).is_some_and(|joined| joined.has_those_of(theirs))
            }
            _ => self.cmp_version(current).is_gt(),
        }
    }

    /// Returns whether this is a bundle of contributions.
    pub fn is_bundle(&self) -> bool {
        self.view().bundle().is_some()
    }

    /// Returns each author's signed envelope: the parts of a bundle, or a signed envelope itself.
    pub fn contributions(&self) -> Vec<Self> {
        match self.view().bundle() {
            Some(bundle) => bundle.iter().map(EnvelopeRef::to_owned).collect(),
            None if self.is_signed() => vec![self.clone()],
            None => Vec::new(),
        }
    }

    /// Returns the latest contribution of `author`, or a tombstone of it that still counts.
    pub fn contribution_of(&self, author: Author) -> Option<Self> {
        let is_theirs = |part: &EnvelopeRef<'_>| part.author() == Some(author);
        match self.view().bundle() {
            Some(bundle) => bundle.iter().filter(is_theirs).last().map(EnvelopeRef::to_owned),
            None => Some(self).filter(|this| is_theirs(&this.view())).cloned(),
        }
    }

    /// Returns the form that is sent to peers: a bundle without the merged payload, which each
    /// store computes.
    #[must_use]
    pub fn to_wire(&self) -> Self {
        match self.view().bundle() {
            Some(bundle) if !bundle.payload().is_empty() => self.with_payload(&[]),
            _ => self.clone(),
        }
    }

    /// Returns a bundle with another merged payload.
    pub(crate) fn with_payload(&self, payload: &[u8]) -> Self {
        match self.view().bundle() {
            Some(bundle) => Self(bundle::build(payload, &bundle.iter().collect::<Vec<_>>()).into()),
            None => self.clone(),
        }
    }

    /// Returns the bytes that are stored; those that are sent are [`Envelope::to_wire`]'s.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the name of these exact bytes.
    pub fn content_hash(&self) -> ContentHash {
        ContentHash::of(&self.0)
    }

    /// Returns whether the envelope carries a signature.
    pub fn is_signed(&self) -> bool {
        self.view().is_signed()
    }

    /// Returns whether the envelope says that the record was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.view().is_tombstone()
    }

    /// Returns the payload. A tombstone's is empty. A bundle's is the merged value of its
    /// contributions, or empty if they are not merged yet.
    pub fn payload(&self) -> &[u8] {
        self.view().payload()
    }

    /// Returns when the envelope was signed, or the latest part of a bundle.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.view().timestamp()
    }

    /// Returns when the record expires, in milliseconds since the Unix epoch. A bundle expires when
    /// all of its parts have.
    pub fn expires(&self) -> Option<u64> {
        self.view().expires()
    }

    /// Returns who signed the envelope, or the latest part of a bundle.
    pub fn author(&self) -> Option<Author> {
        self.view().author()
    }

    /// Returns the version of the record, or `None` for an unsigned envelope.
    ///
    /// Bundles of the same contributions have the same version, merged or not. One that has more
    /// never has an earlier timestamp, but may have a smaller hash: [`Envelope::adds_to`] tells
    /// whether it has more.
    pub fn version(&self) -> Option<Version> {
        let (timestamp, author) = (self.timestamp()?, self.author()?);
        let hash = match self.view().bundle() {
            Some(bundle) => bundle.hash(),
            None => *blake3::hash(self.0.split_last_chunk::<SIGNATURE_BYTES>()?.0).as_bytes(),
        };
        Some(Version { timestamp, author, hash })
    }

    /// Returns the first 16 bytes of the [version's hash](Version::hash), by which peers compare
    /// what they hold.
    ///
    /// The fingerprint of an unsigned envelope, which no other store has, is the start of its
    /// content hash.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        let hash = self.version().map_or_else(|| *self.content_hash().as_bytes(), |version| version.hash);
        *hash.first_chunk().unwrap_or(&[0; FINGERPRINT_BYTES])
    }

    /// Orders two envelopes of the same record as [`Version`] does, without hashing where it can.
    ///
    /// An unsigned envelope is older than any signed one.
    pub fn cmp_version(&self, other: &Self) -> Ordering {
        (self.timestamp(), self.author())
            .cmp(&(other.timestamp(), other.author()))
            .then_with(|| self.version().cmp(&other.version()))
    }

    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.view().is_expired(now)
    }

    /// Returns the time since when it counts as a tombstone, in milliseconds since the Unix epoch:
    /// a tombstone since its write, another version since its expiry.
    pub(crate) fn counts_as_tombstone_from(&self) -> Option<u64> {
        if self.is_tombstone() { self.timestamp().map(Timestamp::unix_millis) } else { self.expires() }
    }

    /// Returns whether it is a live record, and neither a tombstone nor expired.
    pub(crate) fn is_live(&self, now: u64) -> bool {
        !self.is_tombstone() && !self.is_expired(now)
    }
}

/// A borrowed envelope, such as in the database's cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvelopeRef<'a>(&'a [u8]);

/// The time and author of a version, which order versions of different authors.
pub(crate) type Moment = (Option<Timestamp>, Option<Author>);

impl<'a> EnvelopeRef<'a> {
    /// Checks the form.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        match bytes {
            [UNSIGNED, ..] => {}
            [SIGNED_V1, flags, ..] if bytes.len() >= ENVELOPE_OVERHEAD_BYTES => match *flags {
                0 => {}
                FLAG_TOMBSTONE if bytes.len() == ENVELOPE_OVERHEAD_BYTES => {}
                found if found & !FLAG_TOMBSTONE != 0 => return Err(EnvelopeError::UnknownFlags { found }),
                _ => return Err(EnvelopeError::Flags),
            },
            [BUNDLE, ..] => Bundle::check(bytes)?,
            [] | [SIGNED_V1, ..] => return Err(EnvelopeError::Truncated),
            [found, ..] => return Err(EnvelopeError::UnknownFormat { found: *found }),
        }
        Ok(Self(bytes))
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self.0.first(), Some(&(SIGNED_V1 | BUNDLE)))
    }

    /// Returns whether it is signed by one author.
    fn is_contribution(self) -> bool {
        self.0.first() == Some(&SIGNED_V1)
    }

    /// Takes a bundle apart, also one that was not checked.
    pub(crate) fn bundle_in(bytes: &'a [u8]) -> Option<Bundle<'a>> {
        Self(bytes).bundle()
    }

    pub(crate) fn bundle(self) -> Option<Bundle<'a>> {
        if self.0.first() == Some(&BUNDLE) { Bundle::of(self.0) } else { None }
    }

    /// Returns the authors: those of the contributions of a bundle, or the one of a signed
    /// envelope.
    pub(crate) fn authors(self) -> impl Iterator<Item = Author> + 'a {
        let bundle = self.bundle();
        let alone = if bundle.is_none() { self.author() } else { None };
        bundle.into_iter().flat_map(Bundle::iter).filter_map(Self::author).chain(alone)
    }

    pub(crate) fn to_owned(self) -> Envelope {
        Envelope(self.0.into())
    }

    /// Checks that its single author has signed it for `key`.
    fn verify(self, key: &RecordKey) -> Result<(), EnvelopeError> {
        let (content, signature) = self.0.split_last_chunk().ok_or(EnvelopeError::Unsigned)?;
        let author = self.author().ok_or(EnvelopeError::Unsigned)?;
        let author = VerifyingKey::from_bytes(author.as_bytes()).map_err(|_| EnvelopeError::Signature)?;
        author
            .verify_strict(&signed_digest(key, content), &Signature::from_bytes(signature))
            .map_err(|_| EnvelopeError::Signature)
    }

    pub(crate) fn timestamp(self) -> Option<Timestamp> {
        self.moment().0
    }

    pub(crate) fn author(self) -> Option<Author> {
        self.moment().1
    }

    /// Returns its time and author; of a bundle those of the latest part.
    pub(crate) fn moment(self) -> Moment {
        match self.bundle() {
            Some(bundle) => bundle.iter().map(Self::moment).max().unwrap_or_default(),
            None => (
                self.header(2).map(u64::from_be_bytes).map(Timestamp::from_bits),
                self.header(18).map(Author),
            ),
        }
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.is_signed() && self.0.get(1) == Some(&FLAG_TOMBSTONE)
    }

    pub(crate) fn payload(self) -> &'a [u8] {
        if let Some(bundle) = self.bundle() {
            return bundle.payload();
        }
        let payload = if self.is_signed() {
            self.0.get(HEADER_BYTES..self.0.len() - SIGNATURE_BYTES)
        } else {
            self.0.get(1..)
        };
        payload.unwrap_or_default()
    }

    pub(crate) fn expires(self) -> Option<u64> {
        if let Some(bundle) = self.bundle() {
            return bundle.expires();
        }
        self.header(10).map(u64::from_be_bytes).filter(|expires| *expires != 0)
    }

    pub(crate) fn is_expired(self, now: u64) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }

    fn header<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        if !self.is_contribution() {
            return None;
        }
        self.0.get(at..)?.first_chunk().copied()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("author", &self.author())
            .field("timestamp", &self.timestamp())
            .field("tombstone", &self.is_tombstone())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// Hashes what a signature covers: the domain, the record key and all bytes before the signature.
fn signed_digest(key: &RecordKey, content: &[u8]) -> [u8; 32] {
    let key = key.as_bytes();
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hasher = blake3::Hasher::new_derive_key(SIGNATURE_DOMAIN);
    hasher.update(&len.to_be_bytes()).update(key).update(content);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> RecordKey {
        RecordKey::new("Def", "Model", b"1").unwrap()
    }

    fn identity(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn an_author_is_read_from_its_text() {
        let author = Author::of(&identity(1));
        assert_eq!(author.to_string().parse(), Ok(author));
        let text = author.to_string();
        for bad in ["", &text[1..], &format!("{text}0"), &format!("+{}", &text[1..]), &"\u{e9}".repeat(32)] {
            assert_eq!(bad.parse::<Author>(), Err(ParseAuthorError), "{bad}");
        }
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let timestamp = Timestamp::from_unix_millis(5);
        let envelope = Envelope::sign(&identity(1), &key(), timestamp, 9, Some(b"value"));
        let again = Envelope::parse(envelope.as_bytes()).unwrap();
        again.verify(&key()).unwrap();
        assert_eq!(
            (again.payload(), again.timestamp(), again.expires()),
            (b"value".as_slice(), Some(timestamp), Some(9))
        );
        assert_eq!(again.author(), Some(Author(identity(1).verifying_key().to_bytes())));
        assert!(!again.is_tombstone());
    }

    #[test]
    fn a_signature_holds_for_its_key_only() {
        let envelope = Envelope::sign(&identity(1), &key(), Timestamp::default(), 0, Some(b"value"));
        let other = RecordKey::new("Def", "Model", b"2").unwrap();
        assert_eq!(envelope.verify(&other), Err(EnvelopeError::Signature));
    }

    #[test]
    fn an_unsigned_envelope_is_never_verified() {
        let envelope = Envelope::unsigned(&[0; 200]);
        assert_eq!(envelope.verify(&key()), Err(EnvelopeError::Unsigned));
        assert_eq!((envelope.version(), envelope.author(), envelope.payload().len()), (None, None, 200));
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        let payload = prop::option::of(prop::collection::vec(0_u8..2, 0..2));
        (0_u8..2, 0_u64..3, 0_u64..2, payload).prop_map(|(seed, time, expires, payload)| {
            Envelope::sign(&identity(seed), &key(), Timestamp::from_bits(time), expires, payload.as_deref())
        })
    }

    fn merge(left: Envelope, right: Envelope) -> Envelope {
        if left.cmp_version(&right).is_lt() { right } else { left }
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in envelope(), b in envelope(), c in envelope()) {
            prop_assert_eq!(merge(a.clone(), b.clone()), merge(b.clone(), a.clone()));
            prop_assert_eq!(
                merge(merge(a.clone(), b.clone()), c.clone()),
                merge(a.clone(), merge(b.clone(), c))
            );
            prop_assert_eq!(merge(a.clone(), a.clone()), a.clone());
            prop_assert_eq!(a.cmp_version(&b), a.version().cmp(&b.version()));
        }

        #[test]
        fn any_changed_bit_is_noticed(envelope in envelope(), position: prop::sample::Index, bit in 0_u8..8) {
            let mut bytes = envelope.as_bytes().to_vec();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            let outcome = Envelope::parse(&bytes).and_then(|changed| changed.verify(&key()));
            prop_assert!(outcome.is_err());
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), format in 0_u8..3) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = format;
            }
            if let Ok(envelope) = Envelope::parse(&bytes) {
                let _ = (envelope.verify(&key()), envelope.payload(), envelope.version(), envelope.expires());
            }
        }
    }
}
