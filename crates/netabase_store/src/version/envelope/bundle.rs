//! Bundles: what several authors have contributed to one record.
//!
//! A bundle is what remains of a set of signed versions: the latest tombstone, and of each author
//! the latest version that is no tombstone and is later than that one; of more than
//! [`MAX_CONTRIBUTIONS`] such authors the latest. Reducing the union of two sets gives the same
//! bundle as reducing each and then their union: a version is left out because of later ones, and a
//! version that leaves out one of these leaves out the first one, too. So joining bundles is
//! commutative, associative and idempotent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Author, BUNDLE, EnvelopeError, EnvelopeRef, FLAG_TOMBSTONE, Moment, SIGNATURE_BYTES, SIGNED_V1};
use crate::version::limits::MAX_CONTRIBUTIONS;

/// The bytes of a bundle besides the merged payload and the contributions.
const BUNDLE_OVERHEAD_BYTES: usize = 1 + 1 + LEN_BYTES + 2;
/// The bytes of a part's length.
pub(crate) const LEN_BYTES: usize = 4;

/// A bundle where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bundle<'a> {
    payload: &'a [u8],
    /// Each with its length in front.
    contributions: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// Takes apart bytes that are a bundle, or begin like one.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        Self::split(bytes).map(|(_, _, bundle)| bundle)
    }

    fn split(bytes: &'a [u8]) -> Option<(u8, u16, Self)> {
        let (&[format, flags], rest) = bytes.split_first_chunk()?;
        let (payload, rest) = take_part(rest)?;
        let (count, contributions) = rest.split_first_chunk()?;
        (format == BUNDLE).then_some((flags, u16::from_be_bytes(*count), Self { payload, contributions }))
    }

    /// Checks the form: it must be what [`build`] makes of what [`remaining`] returns.
    pub(super) fn check(bytes: &'a [u8]) -> Result<(), EnvelopeError> {
        let (flags, count, bundle) = Self::split(bytes).ok_or(EnvelopeError::Truncated)?;
        if flags & !FLAG_TOMBSTONE != 0 {
            return Err(EnvelopeError::UnknownFlags { found: flags });
        }
        let (mut rest, mut found) = (bundle.contributions, Found::default());
        while !rest.is_empty() {
            let (part, after) = take_part(rest).ok_or(EnvelopeError::Truncated)?;
            // Asked first: a bundle in a bundle in a bundle would be taken apart as deep as it
            // goes.
            if part.first() != Some(&SIGNED_V1) {
                return Err(EnvelopeError::Bundle);
            }
            found.add(EnvelopeRef::parse(part)?)?;
            rest = after;
        }
        if usize::from(count) != found.live + usize::from(found.tombstone.is_some()) || count == 0 {
            return Err(EnvelopeError::Bundle);
        }
        let expected = if found.live == 0 { FLAG_TOMBSTONE } else { 0 };
        if flags != expected || (found.live == 0 && !bundle.payload.is_empty()) {
            return Err(EnvelopeError::Flags);
        }
        Ok(())
    }

    /// Returns the merged payload, which is empty if the bundle is not merged yet.
    pub(super) fn payload(self) -> &'a [u8] {
        self.payload
    }

    /// Returns the contributions: the tombstone if there is one, then the others by author.
    pub(crate) fn iter(self) -> impl Iterator<Item = EnvelopeRef<'a>> + Clone {
        let mut rest = self.contributions;
        std::iter::from_fn(move || {
            let (part, after) = take_part(rest)?;
            rest = after;
            Some(EnvelopeRef(part))
        })
    }

    /// Returns those that are no tombstone.
    pub(crate) fn live(self) -> impl Iterator<Item = EnvelopeRef<'a>> {
        self.iter().filter(|part| !part.is_tombstone())
    }

    /// Returns when the last of the contributions expires; `None` if one never does.
    pub(super) fn expires(self) -> Option<u64> {
        let mut last = None;
        for part in self.live() {
            last = last.max(Some(part.expires()?));
        }
        last
    }

    /// Returns whether two have the same contributions, byte for byte.
    pub(super) fn has_those_of(self, other: Self) -> bool {
        self.contributions == other.contributions
    }

    /// Hashes everything that was signed.
    pub(super) fn hash(self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in self.iter() {
            let content = part.content();
            hasher.update(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes()).update(content);
        }
        *hasher.finalize().as_bytes()
    }

    /// Joins two: returns the bytes of the bundle, without a merged payload.
    pub(super) fn join(self, other: Self) -> Vec<u8> {
        build(&[], &remaining(self.iter().chain(other.iter())))
    }
}

/// The parts of a bundle that were read so far.
#[derive(Default)]
struct Found {
    tombstone: Option<Moment>,
    /// The author of the last one that is no tombstone.
    last: Option<Author>,
    /// The number of live contributions.
    live: usize,
}

impl Found {
    fn add(&mut self, part: EnvelopeRef<'_>) -> Result<(), EnvelopeError> {
        if !part.is_contribution() {
            return Err(EnvelopeError::Unsigned);
        }
        if part.is_tombstone() {
            let is_first = self.live == 0 && self.tombstone.is_none();
            self.tombstone = Some(part.moment());
            return if is_first { Ok(()) } else { Err(EnvelopeError::Bundle) };
        }
        let is_next = part.author() > self.last
            && self.tombstone.is_none_or(|tombstone| part.moment() > tombstone)
            && self.live < MAX_CONTRIBUTIONS;
        (self.last, self.live) = (part.author(), self.live + 1);
        if is_next { Ok(()) } else { Err(EnvelopeError::Bundle) }
    }
}

/// Splits a part with its length in front off the front.
fn take_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

/// Returns what remains of versions, in the order of a bundle.
pub(super) fn remaining<'a>(versions: impl Iterator<Item = EnvelopeRef<'a>>) -> Vec<EnvelopeRef<'a>> {
    let mut tombstone: Option<EnvelopeRef<'a>> = None;
    let mut live = BTreeMap::new();
    for version in versions {
        if version.is_tombstone() {
            tombstone = Some(tombstone.map_or(version, |other| later(other, version)));
            continue;
        }
        match live.entry(version.author()) {
            Entry::Vacant(entry) => drop(entry.insert(version)),
            Entry::Occupied(mut entry) => *entry.get_mut() = later(*entry.get(), version),
        }
    }
    if let Some(tombstone) = tombstone {
        live.retain(|_, version| version.moment() > tombstone.moment());
    }
    if live.len() > MAX_CONTRIBUTIONS {
        let mut moments: Vec<Moment> = live.values().map(|version| version.moment()).collect();
        moments.sort_unstable_by(|one, other| other.cmp(one));
        let earliest = moments.get(MAX_CONTRIBUTIONS - 1).copied();
        live.retain(|_, version| Some(version.moment()) >= earliest);
    }
    tombstone.into_iter().chain(live.into_values()).collect()
}

/// Returns the later one; of two of one moment, which their author should not have signed, the
/// larger.
fn later<'a>(one: EnvelopeRef<'a>, other: EnvelopeRef<'a>) -> EnvelopeRef<'a> {
    let order = one.moment().cmp(&other.moment());
    if order.then_with(|| one.0.cmp(other.0)).is_lt() { other } else { one }
}

/// Puts a bundle together.
pub(super) fn build(payload: &[u8], parts: &[EnvelopeRef<'_>]) -> Vec<u8> {
    let size: usize = parts.iter().map(|part| LEN_BYTES + part.0.len()).sum();
    let mut bytes = Vec::with_capacity(BUNDLE_OVERHEAD_BYTES + payload.len() + size);
    bytes.push(BUNDLE);
    bytes.push(if parts.iter().all(|part| part.is_tombstone()) { FLAG_TOMBSTONE } else { 0 });
    push_part(payload, &mut bytes);
    bytes.extend(u16::try_from(parts.len()).unwrap_or(u16::MAX).to_be_bytes());
    for part in parts {
        push_part(part.0, &mut bytes);
    }
    bytes
}

fn push_part(part: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(part);
}

impl<'a> EnvelopeRef<'a> {
    /// Returns its size in bytes.
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// Returns what the signature covers.
    fn content(self) -> &'a [u8] {
        self.0.split_last_chunk::<SIGNATURE_BYTES>().map_or(self.0, |(content, _)| content)
    }
}
