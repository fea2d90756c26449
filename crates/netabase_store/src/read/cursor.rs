//! Cursors: the ends of pages of records. `docs/formats.md` describes the bytes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::key_range::KeySpan;

/// The number of the format, which is the first byte of a cursor.
const FORMAT: u8 = 1;
/// The length of the tag of a query, in bytes.
const TAG_BYTES: usize = 8;
/// The length of a cursor's checksum, in bytes.
const CHECK_BYTES: usize = 4;
/// Keeps the hashes of queries apart from all others.
const TAG_CONTEXT: &str = "netabase query of a cursor v1";
const CHECK_CONTEXT: &str = "netabase check of a cursor v1";

/// The place at which a page of records ended, and the next one begins.
///
/// A cursor names the last entry of the page: records that are added or removed in between are
/// neither repeated nor skipped, and the cursor stays valid when the record is removed and after a
/// restart. A cursor belongs to the query that it came from, with any limit; another query refuses
/// it with [`CursorError`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor(Vec<u8>);

/// The reason why a cursor does not continue a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CursorError {
    /// The bytes are not those of a cursor.
    #[error(
        "this is no cursor of a page: it was changed, cut off, or written by an earlier version; ask for the first page"
    )]
    Malformed,
    /// The cursor belongs to another query.
    #[error(
        "the cursor belongs to another query: continue with the same model, key, range and order, or ask for the first page"
    )]
    OtherQuery,
}

/// A short hash of a query, apart from its limit and cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueryTag([u8; TAG_BYTES]);

impl Cursor {
    /// Makes a cursor of what [`as_bytes`](Self::as_bytes) has returned. The query that it
    /// continues checks it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the cursor.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl QueryTag {
    pub(crate) fn new(
        definition: &str,
        model: &str,
        index: Option<&str>,
        span: &KeySpan,
        reverse: bool,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(TAG_CONTEXT);
        let mut part = |bytes: Option<&[u8]>| {
            hasher.update(&[u8::from(bytes.is_some())]);
            let bytes = bytes.unwrap_or_default();
            hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(bytes);
        };
        part(Some(definition.as_bytes()));
        part(Some(model.as_bytes()));
        part(index.map(str::as_bytes));
        part(Some(&span.start));
        part(span.end.as_deref());
        part(Some(&[u8::from(reverse)]));
        Self(first(&hasher))
    }

    /// Returns the cursor after an entry of the query.
    pub(crate) fn cursor(self, entry: &[u8]) -> Cursor {
        let mut bytes = Vec::with_capacity(1 + TAG_BYTES + CHECK_BYTES + entry.len());
        bytes.push(FORMAT);
        bytes.extend(self.0);
        bytes.extend(check(self.0, entry));
        bytes.extend(entry);
        Cursor(bytes)
    }

    /// Returns the entry that a cursor of the query names.
    pub(crate) fn entry(self, cursor: &Cursor) -> Result<&[u8], CursorError> {
        let malformed = CursorError::Malformed;
        let (format, rest) = cursor.0.split_first().ok_or(malformed)?;
        let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>().ok_or(malformed)?;
        let (sum, entry) = rest.split_first_chunk::<CHECK_BYTES>().ok_or(malformed)?;
        if *format != FORMAT || *sum != check(*tag, entry) {
            return Err(malformed);
        }
        if *tag == self.0 { Ok(entry) } else { Err(CursorError::OtherQuery) }
    }
}

fn check(tag: [u8; TAG_BYTES], entry: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CHECK_CONTEXT);
    hasher.update(&tag).update(entry);
    first(&hasher)
}

fn first<const N: usize>(hasher: &blake3::Hasher) -> [u8; N] {
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(index: Option<&str>, span: &KeySpan, reverse: bool) -> QueryTag {
        QueryTag::new("Chat", "Message", index, span, reverse)
    }

    #[test]
    fn a_cursor_has_these_bytes() {
        let cursor = tag(Some("room"), &KeySpan::prefix(b"a\0".to_vec()), true).cursor(b"a\0\x07");
        let bytes: [u8; 16] = 0x015b_2c72_afea_122d_412a_a5ab_0561_0007_u128.to_be_bytes();
        assert_eq!(cursor.as_bytes(), bytes);
    }

    #[test]
    fn only_the_query_that_a_cursor_came_from_takes_it() {
        let span = KeySpan::prefix(b"a".to_vec());
        let own = tag(Some("room"), &span, false);
        let cursor = own.cursor(b"ab");
        assert_eq!(own.entry(&cursor), Ok(b"ab".as_slice()));
        let others = [
            tag(None, &span, false),
            tag(Some("rooms"), &span, false),
            tag(Some("room"), &KeySpan::prefix(b"ab".to_vec()), false),
            tag(Some("room"), &KeySpan { start: b"a".to_vec(), end: None }, false),
            tag(Some("room"), &span, true),
            QueryTag::new("Chat", "Messages", Some("room"), &span, false),
            QueryTag::new("ChatM", "essage", Some("room"), &span, false),
        ];
        for other in others {
            assert_eq!(other.entry(&cursor), Err(CursorError::OtherQuery));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let own = tag(None, &KeySpan::all(), false);
        let whole = own.cursor(b"42\0").as_bytes().to_vec();
        for len in 0..whole.len() {
            assert_eq!(own.entry(&Cursor::new(whole[..len].to_vec())), Err(CursorError::Malformed), "{len}");
        }
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 1;
            assert_eq!(own.entry(&Cursor::new(changed)), Err(CursorError::Malformed), "{position}");
        }
        assert_eq!(own.entry(&Cursor::new(b"42\0".to_vec())), Err(CursorError::Malformed));
        assert_eq!(own.entry(&own.cursor(b"")), Ok(b"".as_slice()), "the empty primary key");
    }
}
