//! Messages of the query protocol, which `docs/formats.md` specifies.

use netabase_store::RecordKey;
use netabase_store::key::KeySpan;

use crate::protocol::limits::{MAX_ENTRY_BYTES, MAX_PAGE_RECORDS};
use crate::protocol::record::Failure;
use crate::rpc::codec::{Malformed, Reader, WireRecord, write_optional, write_record, write_short};

/// The tag of a request, and of its response: the first byte.
mod tag {
    pub(crate) const FAILURE: u8 = 0;
    pub(crate) const PAGE: u8 = 1;
}

/// The number of the failure that the model or the index is unknown. The other numbers are those of
/// the record protocol.
const UNKNOWN: u8 = 16;
/// The flag of a request that reverses the order.
const REVERSE: u8 = 1;

/// A request for a page of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageRequest<'a> {
    pub(crate) definition: &'a str,
    /// The name of the model with the prefix of its policy.
    pub(crate) model: &'a str,
    /// The name of the secondary key; `None` means the primary key.
    pub(crate) index: Option<&'a str>,
    pub(crate) span: KeySpan,
    pub(crate) reverse: bool,
    /// The most records of the page, and the most bytes of them. A single record may have any
    /// number of bytes.
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// The response to a request for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageResponse<'a> {
    /// A page of distinct records.
    Page {
        records: Vec<WireRecord<'a>>,
        /// The last index entry that the page covers.
        last: Option<&'a [u8]>,
        /// Whether there are no further entries.
        is_last: bool,
    },
    /// The responder has no such model or index.
    Unknown,
    /// The request was not carried out.
    Failure(Failure),
}

impl<'a> PageRequest<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![tag::PAGE];
        write_short(&mut bytes, self.definition.as_bytes());
        write_short(&mut bytes, self.model.as_bytes());
        write_optional(&mut bytes, self.index.map(str::as_bytes), write_short);
        write_short(&mut bytes, &self.span.start);
        write_optional(&mut bytes, self.span.end.as_deref(), write_short);
        bytes.push(if self.reverse { REVERSE } else { 0 });
        bytes.extend(u16::try_from(self.records).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(u32::try_from(self.bytes).unwrap_or(u32::MAX).to_be_bytes());
        bytes
    }

    /// Decodes a request; the failure is the response.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            tag::PAGE => Ok(Self::read(&mut reader)?),
            _ => Err(Failure::UnknownRequest),
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let text = |bytes| str::from_utf8(bytes).map_err(|_| Malformed);
        // A prefix of the policy may precede the name.
        let mut name = || text(reader.short(RecordKey::MAX_NAME_BYTES + 1)?);
        let (definition, model) = (name()?, name()?);
        let index = reader.optional(Reader::key)?.map(text).transpose()?;
        let entry = |reader: &mut Reader<'a>| reader.short(MAX_ENTRY_BYTES).map(<[u8]>::to_vec);
        let span = KeySpan { start: entry(reader)?, end: reader.optional(entry)? };
        let reverse = reader.u8()? & REVERSE != 0;
        let (records, bytes) = (reader.u16()?.into(), usize::try_from(reader.u32()?).map_err(|_| Malformed)?);
        reader.end()?;
        Ok(Self { definition, model, index, span, reverse, records, bytes })
    }
}

impl<'a> PageResponse<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let response = match reader.u8()? {
            tag::PAGE => {
                let is_last = reader.flag()?;
                let last = reader.optional(|reader| reader.short(MAX_ENTRY_BYTES))?;
                let record = |reader: &mut Reader<'a>| {
                    Ok((reader.short(RecordKey::MAX_PRIMARY_KEY_BYTES)?, reader.bytes()?))
                };
                let records = reader.list(MAX_PAGE_RECORDS, record)?;
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

/// Encodes the answer that the model or the index is unknown.
pub(crate) fn unknown() -> Vec<u8> {
    vec![tag::FAILURE, UNKNOWN]
}

/// A builder of a page.
#[derive(Debug)]
pub(crate) struct PageWriter {
    records: Vec<u8>,
    count: u16,
    limit: usize,
}

impl PageWriter {
    /// Starts a page whose records have at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { records: Vec::new(), count: 0, limit }
    }

    /// Adds a record if it fits; the first one always fits.
    pub(crate) fn push(&mut self, (key, envelope): WireRecord<'_>) -> bool {
        let len = 6 + key.len() + envelope.len();
        let is_full = usize::from(self.count) >= MAX_PAGE_RECORDS || self.records.len() + len > self.limit;
        if is_full && self.count > 0 {
            return false;
        }
        write_record(&mut self.records, (key, envelope));
        self.count += 1;
        true
    }

    /// Returns the bytes of the response.
    pub(crate) fn finish(self, last: Option<&[u8]>, is_last: bool) -> Vec<u8> {
        let mut bytes = vec![tag::PAGE, u8::from(is_last)];
        write_optional(&mut bytes, last, write_short);
        bytes.extend(self.count.to_be_bytes());
        bytes.extend(self.records);
        bytes
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
        let records: Vec<WireRecord<'_>> = vec![(b"k", b"abc"), (b"", b"")];
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
