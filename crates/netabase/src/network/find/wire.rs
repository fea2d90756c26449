//! The bytes of the query protocol; `docs/formats.md` lists them.
//!
//! What is decoded borrows from the frame, and every count and length is compared with a bound, and with what is
//! there, before anything is allocated for it.

use netabase_store::{KeySpan, MAX_INDEX_KEY_BYTES, MAX_NAME_BYTES, MAX_PRIMARY_KEY_BYTES};

use crate::network::record_protocol::wire::Failure;

/// The most records of a page.
pub(in crate::network) const MAX_PAGE_RECORDS: usize = 1024;
/// The longest entry: a secondary key and a primary one, and a byte more for the one behind it.
const MAX_ENTRY_BYTES: usize = MAX_INDEX_KEY_BYTES + MAX_PRIMARY_KEY_BYTES + 1;

/// What the first byte of a request, and of the answer to it, says.
mod tag {
    pub(super) const FAILURE: u8 = 0;
    pub(super) const PAGE: u8 = 1;
}

/// Says in a failure that the model or the index is not known. The other numbers are those of the record protocol.
const UNKNOWN: u8 = 16;
/// In the flags of a request: the last record comes first.
const REVERSE: u8 = 1;

/// A question for some records, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct PageRequest<'a> {
    pub(in crate::network) definition: &'a str,
    /// The name of the model with the mark of its policy.
    pub(in crate::network) model: &'a str,
    /// The secondary key that is asked; `None` asks by primary keys.
    pub(in crate::network) index: Option<&'a str>,
    pub(in crate::network) span: KeySpan,
    pub(in crate::network) reverse: bool,
    /// The most records and the most bytes of them that are wanted; of a single one, any number of bytes.
    pub(in crate::network) records: usize,
    pub(in crate::network) bytes: usize,
}

/// A record on its way: its primary key and its envelope, neither of which has been checked.
pub(in crate::network) type PageRecord<'a> = (&'a [u8], &'a [u8]);

/// What a peer says of a question for records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum PageResponse<'a> {
    /// Some records, each once.
    Page {
        records: Vec<PageRecord<'a>>,
        /// The last entry that the page tells of.
        last: Option<&'a [u8]>,
        /// Whether nothing is behind it.
        is_last: bool,
    },
    /// The peer does not have such a model or index.
    Unknown,
    /// Nothing was done.
    Failure(Failure),
}

/// The bytes are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct Malformed;

impl<'a> PageRequest<'a> {
    pub(in crate::network) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![tag::PAGE];
        write_short(&mut bytes, self.definition.as_bytes());
        write_short(&mut bytes, self.model.as_bytes());
        write_optional(&mut bytes, self.index.map(str::as_bytes));
        write_short(&mut bytes, &self.span.start);
        write_optional(&mut bytes, self.span.end.as_deref());
        bytes.push(if self.reverse { REVERSE } else { 0 });
        bytes.extend(u16::try_from(self.records).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(u32::try_from(self.bytes).unwrap_or(u32::MAX).to_be_bytes());
        bytes
    }

    /// Decodes a request; the failure is what to answer.
    pub(in crate::network) fn decode(bytes: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader(bytes);
        match reader.u8() {
            Ok(tag::PAGE) => reader.page_request().map_err(|Malformed| Failure::Malformed),
            Ok(_) => Err(Failure::UnknownRequest),
            Err(Malformed) => Err(Failure::Malformed),
        }
    }
}

impl<'a> PageResponse<'a> {
    pub(in crate::network) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let response = match reader.u8()? {
            tag::PAGE => {
                let is_last = reader.flag()?;
                let last = reader.optional(MAX_ENTRY_BYTES)?;
                let count = reader.u16()?;
                if count > MAX_PAGE_RECORDS {
                    return Err(Malformed);
                }
                let mut records = Vec::with_capacity(count);
                for _ in 0..count {
                    records.push((reader.short(MAX_PRIMARY_KEY_BYTES)?, reader.long()?));
                }
                Self::Page { records, last, is_last }
            }
            tag::FAILURE => match reader.u8()? {
                UNKNOWN => Self::Unknown,
                code => Self::Failure(Failure::from_code(code)),
            },
            _ => return Err(Malformed),
        };
        reader.end().map(|()| response)
    }
}

/// Encodes the answer that the model or the index is not known.
pub(in crate::network) fn unknown() -> Vec<u8> {
    vec![tag::FAILURE, UNKNOWN]
}

/// A page in the making.
#[derive(Debug)]
pub(in crate::network) struct PageWriter {
    records: Vec<u8>,
    count: u16,
    limit: usize,
}

impl PageWriter {
    /// Begins a page whose records have at most `limit` bytes.
    pub(in crate::network) fn new(limit: usize) -> Self {
        Self { records: Vec::new(), count: 0, limit }
    }

    /// Adds a record if there is room for it; the first one always has room.
    pub(in crate::network) fn push(&mut self, (key, envelope): PageRecord<'_>) -> bool {
        let len = 6 + key.len() + envelope.len();
        let is_full = usize::from(self.count) >= MAX_PAGE_RECORDS || self.records.len() + len > self.limit;
        if is_full && self.count > 0 {
            return false;
        }
        write_short(&mut self.records, key);
        self.records.extend(u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.records.extend(envelope);
        self.count += 1;
        true
    }

    /// Returns the bytes of the response.
    pub(in crate::network) fn finish(self, last: Option<&[u8]>, is_last: bool) -> Vec<u8> {
        let mut bytes = vec![tag::PAGE, u8::from(is_last)];
        write_optional(&mut bytes, last);
        bytes.extend(self.count.to_be_bytes());
        bytes.extend(self.records);
        bytes
    }
}

/// What is written so has a bound below 64 KiB.
fn write_short(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(value);
}

fn write_optional(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write_short(bytes, value);
    }
}

/// Reads from the front of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn page_request(&mut self) -> Result<PageRequest<'a>, Malformed> {
        let (definition, model) = (self.name()?, self.name()?);
        let index = self.optional(usize::MAX)?.map(|name| str::from_utf8(name).map_err(|_| Malformed));
        let start = self.short(MAX_ENTRY_BYTES)?.to_vec();
        let span = KeySpan { start, end: self.optional(MAX_ENTRY_BYTES)?.map(<[u8]>::to_vec) };
        let reverse = self.u8()? & REVERSE != 0;
        let (records, bytes) = (self.u16()?, self.u32()?);
        self.end()?;
        Ok(PageRequest { definition, model, index: index.transpose()?, span, reverse, records, bytes })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<usize, Malformed> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn u32(&mut self) -> Result<usize, Malformed> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| Malformed)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn short(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        if len > max { Err(Malformed) } else { self.take(len) }
    }

    fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len)
    }

    fn optional(&mut self, max: usize) -> Result<Option<&'a [u8]>, Malformed> {
        if self.flag()? { self.short(max).map(Some) } else { Ok(None) }
    }

    fn name(&mut self) -> Result<&'a str, Malformed> {
        // A mark may be in front of it.
        str::from_utf8(self.short(MAX_NAME_BYTES + 1)?).map_err(|_| Malformed)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> PageRequest<'static> {
        let span = KeySpan { start: b"a".to_vec(), end: Some(b"bc".to_vec()) };
        let (definition, model, index) = ("Chat", "+Message", Some("room"));
        PageRequest { definition, model, index, span, reverse: true, records: 100, bytes: 0x1_0000 }
    }

    const REQUEST: &[u8] =
        b"\x01\x00\x04Chat\x00\x08+Message\x01\x00\x04room\x00\x01a\x01\x00\x02bc\x01\x00\x64\x00\x01\x00\x00";

    #[test]
    fn a_request_has_its_golden_bytes() {
        assert_eq!(request().encode(), REQUEST);
        assert_eq!(PageRequest::decode(REQUEST), Ok(request()));
        let all = PageRequest { index: None, span: KeySpan::all(), reverse: false, ..request() };
        let bytes = b"\x01\x00\x04Chat\x00\x08+Message\x00\x00\x00\x00\x00\x00\x64\x00\x01\x00\x00";
        assert_eq!((all.encode(), PageRequest::decode(bytes)), (bytes.to_vec(), Ok(all)));
    }

    #[test]
    fn a_response_has_its_golden_bytes() {
        let mut page = PageWriter::new(1000);
        assert!(page.push((b"k", b"abc")) && page.push((b"", b"")));
        let bytes = page.finish(Some(b"roomk"), false);
        assert_eq!(
            bytes,
            b"\x01\x00\x01\x00\x05roomk\x00\x02\x00\x01k\x00\x00\x00\x03abc\x00\x00\x00\x00\x00\x00"
        );
        let records: Vec<PageRecord<'_>> = vec![(b"k", b"abc"), (b"", b"")];
        let page = PageResponse::Page { records, last: Some(b"roomk"), is_last: false };
        assert_eq!(PageResponse::decode(&bytes), Ok(page));
        assert_eq!(PageResponse::decode(&unknown()), Ok(PageResponse::Unknown));
        assert_eq!(PageResponse::decode(b"\x00\x04"), Ok(PageResponse::Failure(Failure::Busy)));
    }

    #[test]
    fn a_page_has_no_more_bytes_than_asked_for_unless_in_one_record() {
        let mut page = PageWriter::new(10);
        assert!(page.push((b"a", &[0; 100])));
        assert!(!page.push((b"b", b"")));
    }

    #[test]
    fn an_unknown_kind_of_request_is_told_from_nonsense() {
        assert_eq!(PageRequest::decode(b"\x09\x00"), Err(Failure::UnknownRequest));
        assert_eq!(PageRequest::decode(b""), Err(Failure::Malformed));
        assert_eq!(PageRequest::decode(&REQUEST[1..]), Err(Failure::UnknownRequest));
    }

    proptest! {
        #[test]
        fn what_is_cut_off_or_continued_is_refused(cut in 1..REQUEST.len(), more in any::<u8>()) {
            prop_assert_eq!(PageRequest::decode(&REQUEST[..cut]), Err(Failure::Malformed));
            let longer = [REQUEST, &[more]].concat();
            prop_assert_eq!(PageRequest::decode(&longer), Err(Failure::Malformed));
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PageRequest::decode(&bytes);
            let _ = PageResponse::decode(&bytes);
        }
    }
}
