//! The bytes of the sync protocol; `docs/formats.md` lists them.
//!
//! What is decoded borrows from the frame, and every count and length is compared with a bound, and with what is
//! there, before anything is allocated for it.

use netabase_store::{MODEL_TAG_BYTES, Refusal, SYNC_ID_BYTES, SyncBound, Timestamp};

use crate::network::record_protocol::wire::{Failure, PutAnswer, WireRecord};
use crate::outcome::VersionId;

/// The most ranges of one fetch.
pub(in crate::network) const MAX_NEEDS: usize = 4096;
/// The most ids of one range of a fetch; where more are missing, everything in the range is asked for.
pub(in crate::network) const MAX_IDS: usize = 256;
/// The most records of one answer, of one gift, and versions of one question for later ones.
pub(in crate::network) const MAX_RECORDS: usize = 8192;
/// How many bytes of an id tell it from the others of its range.
const ID_PREFIX_BYTES: usize = 8;

/// The start of an id.
pub(in crate::network) type IdPrefix = [u8; ID_PREFIX_BYTES];

/// What the first byte of a request, and of the answer to it, says.
mod tag {
    pub(super) const FAILURE: u8 = 0;
    pub(super) const RECONCILE: u8 = 1;
    pub(super) const FETCH: u8 = 2;
    pub(super) const RANGE: u8 = 3;
    pub(super) const GIVE: u8 = 4;
    pub(super) const LATER: u8 = 5;
}

/// The first byte of a scope.
const MODEL: u8 = 0;
const VALUE: u8 = 1;

const STORED: u8 = 0;
const KNOWN: u8 = 1;
const REFUSED: u8 = 2;

/// The scope that a request is about: a model, or one value of a secondary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct WireScope<'a> {
    /// A hash that names the model.
    pub(in crate::network) model: [u8; MODEL_TAG_BYTES],
    /// The name of the secondary key, and the value.
    pub(in crate::network) value: Option<(&'a [u8], &'a [u8])>,
}

/// Ids that are missing in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Need {
    pub(in crate::network) from: SyncBound,
    pub(in crate::network) to: SyncBound,
    pub(in crate::network) ids: Vec<IdPrefix>,
}

/// What one peer asks of another about a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum Request<'a> {
    /// Compare your set with mine, which has `count` items.
    Reconcile { count: u32, message: &'a [u8] },
    /// Send the records of these items.
    Fetch(Vec<Need>),
    /// Send all records from one place to another.
    Range { from: SyncBound, to: SyncBound },
    /// Keep these records, as you keep the scope.
    Give(Vec<WireRecord<'a>>),
    /// Send the versions of these records that are later than mine.
    Later(Vec<(&'a [u8], VersionId)>),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum Response<'a> {
    /// The answer to a message, and how many items the peer has. Without a message it has so many more that ranges
    /// should be asked for. `keeps` says that it keeps the scope, and takes what it lacks.
    Reconciled { keeps: bool, count: u32, message: &'a [u8] },
    /// Records of the first `needs` ranges, and of a part of the next one.
    Fetched { needs: u16, records: Vec<WireRecord<'a>> },
    /// Records of the range in the order of the items, and where to go on.
    Ranged { next: Option<SyncBound>, records: Vec<WireRecord<'a>> },
    /// What became of each record.
    Given(Vec<PutAnswer>),
    /// A later version, or none, of each of the first records; the others are to be asked for again.
    Later(Vec<Option<WireRecord<'a>>>),
    /// Nothing was done.
    Failure(Failure),
}

/// The bytes are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct Malformed;

/// Decodes a request and what it is about; the failure is what to answer.
pub(in crate::network) fn decode_request(bytes: &[u8]) -> Result<(WireScope<'_>, Request<'_>), Failure> {
    let mut reader = Reader(bytes);
    let tag = reader.u8()?;
    let scope = reader.scope()?;
    let request = match tag {
        tag::RECONCILE => Request::Reconcile { count: reader.u32()?, message: reader.rest() },
        tag::FETCH => Request::Fetch(reader.list(MAX_NEEDS, Reader::need)?),
        tag::RANGE => Request::Range { from: reader.bound()?, to: reader.bound()? },
        tag::GIVE => Request::Give(reader.list(MAX_RECORDS, Reader::record)?),
        tag::LATER => Request::Later(reader.list(MAX_RECORDS, Reader::version)?),
        _ => return Err(Failure::UnknownRequest),
    };
    reader.end()?;
    Ok((scope, request))
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl<'a> Response<'a> {
    /// Decodes a response.
    pub(in crate::network) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let response = match reader.u8()? {
            tag::RECONCILE => {
                let (keeps, count) = (reader.flag()?, reader.u32()?);
                Self::Reconciled { keeps, count, message: reader.rest() }
            }
            tag::FETCH => {
                Self::Fetched { needs: reader.u16()?, records: reader.list(MAX_RECORDS, Reader::record)? }
            }
            tag::RANGE => {
                let next = if reader.flag()? { Some(reader.bound()?) } else { None };
                Self::Ranged { next, records: reader.list(MAX_RECORDS, Reader::record)? }
            }
            tag::GIVE => Self::Given(reader.list(MAX_RECORDS, Reader::put_answer)?),
            tag::LATER => Self::Later(reader.list(MAX_RECORDS, Reader::optional_record)?),
            tag::FAILURE => Self::Failure(Failure::from_code(reader.u8()?)),
            _ => return Err(Malformed),
        };
        reader.end().map(|()| response)
    }
}

/// Encodes a message of a comparison.
pub(in crate::network) fn reconcile(scope: &WireScope<'_>, count: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = begin(tag::RECONCILE, scope);
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// Encodes the answer to one.
pub(in crate::network) fn reconciled(keeps: bool, count: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag::RECONCILE, u8::from(keeps)];
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// Encodes a question for the records of items; of at most [`MAX_NEEDS`] ranges.
pub(in crate::network) fn fetch(scope: &WireScope<'_>, needs: &[Need]) -> Vec<u8> {
    let mut list = List::after(begin(tag::FETCH, scope));
    for need in needs {
        list.push(usize::MAX, |bytes| {
            write_bound(bytes, &need.from);
            write_bound(bytes, &need.to);
            bytes.extend(u16::try_from(need.ids.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(need.ids.as_flattened());
        });
    }
    list.finish()
}

/// Encodes a question for all records of a range.
pub(in crate::network) fn range(scope: &WireScope<'_>, from: &SyncBound, to: &SyncBound) -> Vec<u8> {
    let mut bytes = begin(tag::RANGE, scope);
    write_bound(&mut bytes, from);
    write_bound(&mut bytes, to);
    bytes
}

/// Returns the answer that nothing was done.
pub(in crate::network) fn failure(failure: Failure) -> Vec<u8> {
    vec![tag::FAILURE, failure.code()]
}

/// Returns what became of the records of a gift.
pub(in crate::network) fn given(answers: &[PutAnswer]) -> Vec<u8> {
    let mut list = List::after(vec![tag::GIVE]);
    for answer in answers {
        list.push(usize::MAX, |bytes| {
            bytes.extend(match answer {
                PutAnswer::Stored => [STORED, 0],
                PutAnswer::Known => [KNOWN, 0],
                PutAnswer::Refused(reason) => [REFUSED, reason.code()],
            });
        });
    }
    list.finish()
}

fn begin(tag: u8, scope: &WireScope<'_>) -> Vec<u8> {
    let mut bytes = vec![tag, if scope.value.is_some() { VALUE } else { MODEL }];
    bytes.extend(scope.model);
    if let Some((index, key)) = scope.value {
        write_key(&mut bytes, index);
        write_key(&mut bytes, key);
    }
    bytes
}

/// Records on their way: as many as have room, the first one in any case.
#[derive(Debug)]
pub(in crate::network) struct Records(List);

impl Records {
    /// Begins a gift.
    pub(in crate::network) fn given(scope: &WireScope<'_>) -> Self {
        Self(List::after(begin(tag::GIVE, scope)))
    }

    /// Begins an answer to a fetch, a range or a question for later versions.
    pub(in crate::network) fn answer() -> Self {
        Self(List::after(Vec::new()))
    }

    pub(in crate::network) fn push(&mut self, (key, envelope): WireRecord<'_>, limit: usize) -> bool {
        self.0.push(limit, |bytes| {
            write_key(bytes, key);
            write_bytes(bytes, envelope);
        })
    }

    /// Adds the answer to one question for a later version.
    pub(in crate::network) fn push_later(&mut self, record: Option<WireRecord<'_>>, limit: usize) -> bool {
        self.0.push(limit, |bytes| {
            bytes.push(u8::from(record.is_some()));
            if let Some((key, envelope)) = record {
                write_key(bytes, key);
                write_bytes(bytes, envelope);
            }
        })
    }

    pub(in crate::network) fn len(&self) -> usize {
        usize::from(self.0.count)
    }

    pub(in crate::network) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }

    pub(in crate::network) fn fetched(self, needs: usize) -> Vec<u8> {
        let needs = u16::try_from(needs).unwrap_or(u16::MAX).to_be_bytes();
        [&[tag::FETCH], &needs[..], &self.0.finish()].concat()
    }

    pub(in crate::network) fn ranged(self, next: Option<&SyncBound>) -> Vec<u8> {
        let mut bytes = vec![tag::RANGE, u8::from(next.is_some())];
        if let Some(next) = next {
            write_bound(&mut bytes, next);
        }
        bytes.extend(self.0.finish());
        bytes
    }

    pub(in crate::network) fn later(self) -> Vec<u8> {
        [&[tag::LATER][..], &self.0.finish()].concat()
    }
}

/// A question for later versions in the making.
#[derive(Debug)]
pub(in crate::network) struct LaterRequest(List);

impl LaterRequest {
    pub(in crate::network) fn new(scope: &WireScope<'_>) -> Self {
        Self(List::after(begin(tag::LATER, scope)))
    }

    pub(in crate::network) fn push(&mut self, key: &[u8], version: VersionId, limit: usize) -> bool {
        self.0.push(limit, |bytes| {
            write_key(bytes, key);
            bytes.extend(version.timestamp.to_bits().to_be_bytes());
            bytes.extend(version.fingerprint);
        })
    }

    pub(in crate::network) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// A count and as many items as there is room for, behind something else.
#[derive(Debug)]
struct List {
    bytes: Vec<u8>,
    at: usize,
    count: u16,
}

impl List {
    fn after(mut bytes: Vec<u8>) -> Self {
        let at = bytes.len();
        bytes.extend([0; 2]);
        Self { bytes, at, count: 0 }
    }

    /// Adds an item, or takes it back if it has no room beside others.
    fn push(&mut self, limit: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if usize::from(self.count) >= MAX_RECORDS {
            return false;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.count > 0 && self.bytes.len() > limit {
            self.bytes.truncate(before);
            return false;
        }
        self.count += 1;
        true
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(self.at..self.at + 2) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.bytes
    }
}

/// Keys have at most 1156 bytes, so their length has room in two.
fn write_key(bytes: &mut Vec<u8>, key: &[u8]) {
    bytes.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(key);
}

fn write_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(value);
}

fn write_bound(bytes: &mut Vec<u8>, bound: &SyncBound) {
    bytes.extend(bound.item().timestamp.to_be_bytes());
    bytes.push(u8::try_from(bound.id().len()).unwrap_or_default());
    bytes.extend(bound.id());
}

/// Reads from the front of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn key(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(len.into())
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    fn scope(&mut self) -> Result<WireScope<'a>, Malformed> {
        let kind = self.u8()?;
        let model = self.array()?;
        let value = match kind {
            MODEL => None,
            VALUE => Some((self.key()?, self.key()?)),
            _ => return Err(Malformed),
        };
        Ok(WireScope { model, value })
    }

    fn bound(&mut self) -> Result<SyncBound, Malformed> {
        let timestamp = u64::from_be_bytes(self.array()?);
        let len = usize::from(self.u8()?);
        if len > SYNC_ID_BYTES {
            return Err(Malformed);
        }
        SyncBound::new(timestamp, self.take(len)?).ok_or(Malformed)
    }

    fn need(&mut self) -> Result<Need, Malformed> {
        let (from, to) = (self.bound()?, self.bound()?);
        Ok(Need { from, to, ids: self.list(MAX_IDS, Self::array)? })
    }

    fn record(&mut self) -> Result<WireRecord<'a>, Malformed> {
        Ok((self.key()?, self.bytes()?))
    }

    fn optional_record(&mut self) -> Result<Option<WireRecord<'a>>, Malformed> {
        if self.flag()? { self.record().map(Some) } else { Ok(None) }
    }

    fn version(&mut self) -> Result<(&'a [u8], VersionId), Malformed> {
        let key = self.key()?;
        let timestamp = Timestamp::from_bits(u64::from_be_bytes(self.array()?));
        Ok((key, VersionId { timestamp, fingerprint: self.array()? }))
    }

    fn put_answer(&mut self) -> Result<PutAnswer, Malformed> {
        Ok(match self.array()? {
            [STORED, _] => PutAnswer::Stored,
            [KNOWN, _] => PutAnswer::Known,
            [REFUSED, reason] => PutAnswer::Refused(Refusal::from_code(reason)),
            _ => PutAnswer::Refused(Refusal::Other),
        })
    }

    fn list<T>(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.u16()?);
        // An item has at least one byte.
        if count > max || count > self.0.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCOPE: WireScope<'_> = WireScope { model: [7; 8], value: None };
    const OF_VALUE: WireScope<'_> = WireScope { model: [7; 8], value: Some((b"room", b"general\0\0")) };

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from_digit(digit.into(), 16).unwrap())
            .collect()
    }

    fn version() -> VersionId {
        VersionId { timestamp: Timestamp::from_bits(5), fingerprint: [9; 16] }
    }

    #[test]
    fn the_bytes_of_requests() {
        let bound = SyncBound::new(6, &[1, 2]).unwrap();
        let need = Need { from: SyncBound::BEGIN, to: bound, ids: vec![[3; 8]] };
        let mut later = LaterRequest::new(&SCOPE);
        later.push(b"/D/M/1", version(), 1000);
        let mut give = Records::given(&OF_VALUE);
        give.push((b"/D/M/1", b"envelope"), 1000);
        let requests = [
            (reconcile(&SCOPE, 3, b"message"), Request::Reconcile { count: 3, message: b"message" }, SCOPE),
            (fetch(&SCOPE, std::slice::from_ref(&need)), Request::Fetch(vec![need.clone()]), SCOPE),
            (
                range(&SCOPE, &bound, &SyncBound::END),
                Request::Range { from: bound, to: SyncBound::END },
                SCOPE,
            ),
            (give.finish(), Request::Give(vec![(b"/D/M/1", b"envelope")]), OF_VALUE),
            (later.finish(), Request::Later(vec![(b"/D/M/1", version())]), SCOPE),
        ];
        let golden = [
            "010007070707070707070000000 36d657373616765",
            "0200070707070707070700010000000000000000000000000000000006020102000103030303 03030303",
            "0300070707070707070700000000000000060201 02ffffffffffffffff00",
            "04010707070707070707000 4726f6f6d000967656e6572616c0000000100062f442f4d2f3100000008656e76656c6f7065",
            "050007070707070707070001 00062f442f4d2f31000000000000000509090909090909090909090909090909",
        ];
        for ((bytes, request, scope), golden) in requests.into_iter().zip(golden) {
            assert_eq!(hex(&bytes), golden.replace(' ', ""));
            assert_eq!(decode_request(&bytes), Ok((scope, request)));
        }
        assert_eq!(decode_request(&[9, 0, 7, 7, 7, 7, 7, 7, 7, 7]), Err(Failure::UnknownRequest));
        assert_eq!(decode_request(&[]), Err(Failure::Malformed));
    }

    #[test]
    fn the_bytes_of_responses() {
        let record: WireRecord<'_> = (b"/D/M/1", b"envelope");
        let records = || {
            let mut records = Records::answer();
            records.push(record, 1000);
            records
        };
        let mut later = Records::answer();
        later.push_later(None, 1000);
        later.push_later(Some(record), 1000);
        let bound = SyncBound::new(6, &[]).unwrap();
        let answers = vec![PutAnswer::Stored, PutAnswer::Known, PutAnswer::Refused(Refusal::Full)];
        let responses = [
            (
                reconciled(true, 3, b"message"),
                Response::Reconciled { keeps: true, count: 3, message: b"message" },
            ),
            (records().fetched(2), Response::Fetched { needs: 2, records: vec![record] }),
            (records().ranged(Some(&bound)), Response::Ranged { next: Some(bound), records: vec![record] }),
            (given(&answers), Response::Given(answers)),
            (later.later(), Response::Later(vec![None, Some(record)])),
            (failure(Failure::Busy), Response::Failure(Failure::Busy)),
        ];
        let golden = [
            "0101000000036d657373616765",
            "020002000100062f442f4d2f3100000008656e76656c6f7065",
            "0301000000000000000600000100062f442f4d2f3100000008656e76656c6f7065",
            "0400030000 0100 020f",
            "0500020001 00062f442f4d2f3100000008656e76656c6f7065",
            "0004",
        ];
        for ((bytes, response), golden) in responses.into_iter().zip(golden) {
            assert_eq!(hex(&bytes), golden.replace(' ', ""));
            assert_eq!(Response::decode(&bytes), Ok(response));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300), tag in 0..6_u8, kind in 0..2_u8) {
            let _ = (decode_request(&bytes), Response::decode(&bytes));
            let tagged = [&[tag, kind][..], &bytes].concat();
            let _ = (decode_request(&tagged), Response::decode(&tagged));
        }
    }
}
