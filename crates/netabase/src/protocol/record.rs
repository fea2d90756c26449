//! Messages of the record protocol, which `docs/formats.md` specifies.

use std::collections::HashSet;
use std::hash::Hash;

use netabase_store::{Envelope, Refusal, Timestamp};

use crate::outcome::VersionId;
use crate::protocol::limits::{MAX_KEYS_PER_REQUEST, MAX_RECORDS_PER_REQUEST};
use crate::replication::repair::compare::{Brief, Comparison, Range};
use crate::replication::repair::limits::{MAX_ITEMS, MAX_LISTED, MAX_RANGES};
use crate::rpc::codec::{
    List, Malformed, Reader, WireRecord, write_bytes, write_optional, write_record, write_short,
};

mod hello;

pub(crate) use hello::{Hello, RunId, Witness, is_hello};

/// The tag of a request, and of its response: the first byte.
mod tag {
    pub(crate) const FAILURE: u8 = 0;
    pub(crate) const PUT: u8 = 1;
    pub(crate) const GET: u8 = 2;
    pub(crate) const VERSIONS: u8 = 3;
    pub(crate) const COMPARE: u8 = 4;
    pub(crate) const OFFER: u8 = 5;
    pub(crate) const FETCH: u8 = 6;
    pub(crate) const HELLO: u8 = 7;
}

/// The first byte of a comparison of a range.
const EQUAL: u8 = 0;
const SPLIT: u8 = 1;
const LISTED: u8 = 2;
const LISTED_UNTIL: u8 = 3;

/// The outcome of a put of one record.
const STORED: u8 = 0;
const KNOWN: u8 = 1;
const REFUSED: u8 = 2;

/// A request of the record protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Puts records.
    Put(Vec<WireRecord<'a>>),
    /// Asks for the records under these keys.
    Get(Vec<&'a [u8]>),
    /// Asks for the versions under these keys.
    Versions(Vec<&'a [u8]>),
    /// Compares the records that both peers hold in these ranges of the keyspace.
    Compare(Vec<Range>),
    /// Asks which of these versions the responder lacks.
    Offer(Vec<Brief>),
    /// Asks for the records at these positions of the keyspace.
    Fetch(Vec<[u8; 16]>),
    /// Exchanges hellos.
    Hello(Hello),
}

/// A response of the record protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response<'a> {
    /// The outcome of each record.
    Put(Vec<PutAnswer>),
    /// An envelope, or `None`, for each of the first keys. The requester asks again for the others.
    Get(Vec<Option<&'a [u8]>>),
    /// A version, or `None`, for each key.
    Versions(Vec<Option<VersionId>>),
    /// A comparison for each range.
    Compared(Vec<Comparison>),
    /// The indices of the offered versions that the responder lacks.
    Wanted(Vec<u16>),
    /// A record, or `None`, for each of the first positions. The requester asks again for the
    /// others.
    Records(Vec<Option<WireRecord<'a>>>),
    /// The responder's hello.
    Hello(Hello),
    /// The request was not carried out.
    Failure(Failure),
}

/// The outcome of one record of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutAnswer {
    /// The record was new, and is stored.
    Stored,
    /// This version was stored already.
    Known,
    /// The record is not stored.
    Refused(Refusal),
}

/// The reason why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A reason that this version of the program does not know.
    Other,
    /// The responder does not know this kind of request.
    UnknownRequest,
    /// The bytes are not a valid request.
    Malformed,
    /// The request is longer than the responder accepts.
    TooLarge,
    /// Too many requests are queued.
    Busy,
    /// The peer has slowed or banned this node for what it has sent.
    Slowed,
    /// This node has used up its quota at the peer.
    TooFast,
}

impl Failure {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::UnknownRequest => 1,
            Self::Malformed => 2,
            Self::TooLarge => 3,
            Self::Busy => 4,
            Self::Slowed => 5,
            Self::TooFast => 6,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::UnknownRequest,
            2 => Self::Malformed,
            3 => Self::TooLarge,
            4 => Self::Busy,
            5 => Self::Slowed,
            6 => Self::TooFast,
            _ => Self::Other,
        }
    }

    /// Returns a description.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Other => "the peer failed for a reason that this program does not know",
            Self::UnknownRequest => "the peer does not know this kind of request",
            Self::Malformed => "the peer cannot decode the request",
            Self::TooLarge => "the request is longer than the peer accepts",
            Self::Busy => "the peer has too many queued requests",
            Self::Slowed => "the peer has slowed this node for what it has sent",
            Self::TooFast => "this node has used up its quota at the peer",
        }
    }
}

impl<'a> Request<'a> {
    /// Decodes a request; the failure is the response. Duplicate keys and overlapping ranges are
    /// malformed, since they would multiply the responder's work.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(bytes);
        let request = match reader.u8() {
            Ok(tag::PUT) => reader.list(MAX_RECORDS_PER_REQUEST, Reader::record).map(Self::Put),
            Ok(tag::GET) => reader.list(MAX_KEYS_PER_REQUEST, Reader::key).map(Self::Get),
            Ok(tag::VERSIONS) => reader.list(MAX_KEYS_PER_REQUEST, Reader::key).map(Self::Versions),
            Ok(tag::COMPARE) => reader.list(MAX_RANGES, Reader::range).map(Self::Compare),
            Ok(tag::OFFER) => reader.list(MAX_ITEMS, Reader::brief).map(Self::Offer),
            Ok(tag::FETCH) => reader.list(MAX_ITEMS, Reader::array).map(Self::Fetch),
            Ok(tag::HELLO) => Hello::read(&mut reader).map(Self::Hello),
            Ok(_) => return Err(Failure::UnknownRequest),
            Err(error) => Err(error),
        };
        let request = request.and_then(|request| reader.end().map(|()| request));
        request.ok().filter(Self::asks_once).ok_or(Failure::Malformed)
    }

    fn asks_once(&self) -> bool {
        match self {
            // One record may have several versions.
            Self::Put(_) | Self::Hello(_) => true,
            Self::Get(keys) | Self::Versions(keys) => are_unique(keys),
            Self::Compare(ranges) => are_apart(ranges),
            Self::Offer(items) => are_unique(items),
            Self::Fetch(positions) => are_unique(positions),
        }
    }
}

fn are_unique<T: Eq + Hash>(items: &[T]) -> bool {
    let mut seen = HashSet::with_capacity(items.len());
    items.iter().all(|item| seen.insert(item))
}

fn are_apart(ranges: &[Range]) -> bool {
    let mut ranges: Vec<_> = ranges.iter().collect();
    ranges.sort_unstable_by_key(|range| range.from);
    ranges.windows(2).all(|pair| match pair {
        [first, second] => first.to.is_some_and(|to| to <= second.from),
        _ => true,
    })
}

impl<'a> Response<'a> {
    /// Decodes a response. Answers of later versions of the program are decoded as far as they are
    /// known.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let response = match reader.u8()? {
            tag::PUT => Self::Put(reader.list(MAX_RECORDS_PER_REQUEST, Reader::put_answer)?),
            tag::GET => {
                Self::Get(reader.list(MAX_KEYS_PER_REQUEST, |reader| reader.optional(Reader::bytes))?)
            }
            tag::VERSIONS => {
                Self::Versions(reader.list(MAX_KEYS_PER_REQUEST, |reader| reader.optional(Reader::version))?)
            }
            tag::COMPARE => Self::Compared(reader.list(MAX_RANGES, Reader::comparison)?),
            tag::OFFER => Self::Wanted(reader.list(MAX_ITEMS, Reader::u16)?),
            tag::FETCH => Self::Records(reader.list(MAX_ITEMS, |reader| reader.optional(Reader::record))?),
            tag::HELLO => Self::Hello(Hello::read(&mut reader)?),
            tag::FAILURE => Self::Failure(Failure::from_code(reader.u8()?)),
            _ => return Err(Malformed),
        };
        reader.end().map(|()| response)
    }

    /// Encodes a response; a response to a get has as many answers as fit into `limit` bytes.
    pub(crate) fn encode(&self, limit: usize) -> Vec<u8> {
        match self {
            Self::Put(answers) => {
                let mut list = List::after(vec![tag::PUT], MAX_RECORDS_PER_REQUEST, limit);
                answers.iter().all(|answer| list.push(|bytes| write_put_answer(bytes, *answer)));
                list.finish()
            }
            Self::Get(envelopes) => {
                let mut copies = GetResponse::new(limit);
                envelopes.iter().all(|envelope| copies.push(*envelope));
                copies.finish()
            }
            Self::Versions(versions) => {
                let mut list = List::after(vec![tag::VERSIONS], MAX_KEYS_PER_REQUEST, limit);
                versions.iter().all(|version| list.push(|bytes| write_version(bytes, *version)));
                list.finish()
            }
            Self::Compared(comparisons) => {
                let mut list = List::after(vec![tag::COMPARE], MAX_RANGES, usize::MAX);
                comparisons.iter().all(|comparison| list.push(|bytes| write_comparison(bytes, comparison)));
                list.finish()
            }
            Self::Wanted(wanted) => {
                let mut list = List::after(vec![tag::OFFER], MAX_ITEMS, usize::MAX);
                wanted.iter().all(|index| list.push(|bytes| bytes.extend(index.to_be_bytes())));
                list.finish()
            }
            Self::Records(records) => {
                let mut response = RecordsResponse::new(limit);
                records.iter().all(|record| response.push(*record));
                response.finish()
            }
            Self::Hello(hello) => hello.encode(),
            Self::Failure(failure) => vec![tag::FAILURE, failure.code()],
        }
    }
}

/// A builder of the response to a get.
#[derive(Debug)]
pub(crate) struct GetResponse(List);

impl GetResponse {
    /// Starts a response of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(List::after(vec![tag::GET], MAX_KEYS_PER_REQUEST, limit))
    }

    /// Adds the next answer if it fits; the first one always fits.
    pub(crate) fn push(&mut self, envelope: Option<&[u8]>) -> bool {
        self.0.push(|bytes| write_optional(bytes, envelope, write_bytes))
    }

    /// Returns the bytes of the response.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// A builder of the response to a fetch.
#[derive(Debug)]
pub(crate) struct RecordsResponse(List);

impl RecordsResponse {
    /// Starts a response of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(List::after(vec![tag::FETCH], MAX_ITEMS, limit))
    }

    /// Adds the next record if it fits; the first one always fits.
    pub(crate) fn push(&mut self, record: Option<WireRecord<'_>>) -> bool {
        self.0.push(|bytes| write_optional(bytes, record, write_record))
    }

    /// Returns the bytes of the response.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// A builder of a put.
#[derive(Debug)]
pub(crate) struct PutRequest(List);

impl PutRequest {
    /// Starts a request of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(List::after(vec![tag::PUT], MAX_RECORDS_PER_REQUEST, limit))
    }

    /// Adds a record if it fits; the first one always fits.
    pub(crate) fn push(&mut self, record: WireRecord<'_>) -> bool {
        self.0.push(|bytes| write_record(bytes, record))
    }

    /// Returns the bytes of the request.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// Encodes a get of the first `keys` that fit into `limit` bytes.
pub(crate) fn get_request<'a>(keys: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Vec<u8> {
    keys_request(tag::GET, keys, limit)
}

/// Encodes a question for the versions under the first `keys` that fit into `limit` bytes.
pub(crate) fn versions_request<'a>(keys: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Vec<u8> {
    keys_request(tag::VERSIONS, keys, limit)
}

fn keys_request<'a>(tag: u8, keys: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Vec<u8> {
    let mut list = List::after(vec![tag], MAX_KEYS_PER_REQUEST, limit);
    keys.into_iter().all(|key| list.push(|bytes| write_short(bytes, key)));
    list.finish()
}

/// Returns whether two requests ask the same kind of question about one key each.
pub(crate) fn is_same_question(one: &[u8], other: &[u8]) -> bool {
    one.first() == other.first() && key_asked(one).is_some() && key_asked(other).is_some()
}

/// Encodes several single-key questions as one request.
pub(crate) fn share<'a>(requests: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut requests = requests.into_iter().peekable();
    let tag = requests.peek().and_then(|first| first.first()).copied().unwrap_or_default();
    keys_request(tag, requests.filter_map(key_asked), usize::MAX)
}

/// Returns the key of a single-key question, or `None` if the request is not one.
fn key_asked(request: &[u8]) -> Option<&[u8]> {
    match Request::decode(request) {
        Ok(Request::Get(keys) | Request::Versions(keys)) => match keys.as_slice() {
            [key] => Some(*key),
            _ => None,
        },
        _ => None,
    }
}

/// Splits the response to a shared request of `count` keys into a response for each of the first
/// keys, at least one. Returns `None` if the response is of another kind, and so applies to all
/// keys.
pub(crate) fn split_response(response: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    let answers: Vec<Vec<u8>> = match Response::decode(response).ok()? {
        Response::Get(copies) => {
            copies.into_iter().map(|copy| Response::Get(vec![copy]).encode(usize::MAX)).collect()
        }
        Response::Versions(versions) => {
            let alone = |version| Response::Versions(vec![version]).encode(usize::MAX);
            versions.into_iter().map(alone).collect()
        }
        _ => return None,
    };
    (1..=count).contains(&answers.len()).then_some(answers)
}

/// Encodes a comparison of at most [`MAX_RANGES`] ranges.
pub(crate) fn compare_request(ranges: &[Range]) -> Vec<u8> {
    let mut list = List::after(vec![tag::COMPARE], MAX_RANGES, usize::MAX);
    ranges.iter().all(|range| list.push(|bytes| write_range(bytes, range)));
    list.finish()
}

/// Encodes an offer of at most [`MAX_ITEMS`] versions.
pub(crate) fn offer_request(items: &[Brief]) -> Vec<u8> {
    let mut list = List::after(vec![tag::OFFER], MAX_ITEMS, usize::MAX);
    items.iter().all(|item| list.push(|bytes| write_brief(bytes, item)));
    list.finish()
}

/// Encodes a fetch of the records at no more than [`MAX_ITEMS`] positions.
pub(crate) fn fetch_request(positions: &[[u8; 16]]) -> Vec<u8> {
    let mut list = List::after(vec![tag::FETCH], MAX_ITEMS, usize::MAX);
    positions.iter().all(|position| list.push(|bytes| bytes.extend(position)));
    list.finish()
}

/// Returns whether a request is a comparison, which needs a view of the network.
pub(crate) fn is_comparison(request: &[u8]) -> bool {
    request.first() == Some(&tag::COMPARE)
}

/// Writes the outcome of a record.
pub(super) fn write_put_answer(bytes: &mut Vec<u8>, answer: PutAnswer) {
    bytes.extend(match answer {
        PutAnswer::Stored => [STORED, 0],
        PutAnswer::Known => [KNOWN, 0],
        PutAnswer::Refused(reason) => [REFUSED, reason.code()],
    });
}

fn write_version(bytes: &mut Vec<u8>, version: Option<VersionId>) {
    write_optional(bytes, version, |bytes, VersionId { timestamp, fingerprint }| {
        bytes.extend(timestamp.to_bits().to_be_bytes());
        bytes.extend(fingerprint);
    });
}

fn write_range(bytes: &mut Vec<u8>, range: &Range) {
    bytes.extend(range.from);
    write_optional(bytes, range.to, Vec::extend);
    bytes.extend(range.count.to_be_bytes());
    bytes.extend(range.digest);
}

fn write_brief(bytes: &mut Vec<u8>, item: &Brief) {
    bytes.extend(item.position);
    bytes.extend(item.fingerprint);
}

fn write_comparison(bytes: &mut Vec<u8>, comparison: &Comparison) {
    match comparison {
        Comparison::Equal => bytes.push(EQUAL),
        Comparison::Split => bytes.push(SPLIT),
        Comparison::Listed { items, until } => {
            bytes.push(if until.is_some() { LISTED_UNTIL } else { LISTED });
            bytes.extend(until.iter().flatten());
            bytes.extend(u16::try_from(items.len()).unwrap_or(u16::MAX).to_be_bytes());
            for item in items {
                write_brief(bytes, item);
            }
        }
    }
}

/// Fields of this protocol and of those that share its encodings.
impl Reader<'_> {
    /// Reads the outcome of a record.
    pub(super) fn put_answer(&mut self) -> Result<PutAnswer, Malformed> {
        Ok(match self.array()? {
            [STORED, _] => PutAnswer::Stored,
            [KNOWN, _] => PutAnswer::Known,
            [REFUSED, reason] => PutAnswer::Refused(Refusal::from_code(reason)),
            _ => PutAnswer::Refused(Refusal::Other),
        })
    }

    /// Reads a version id.
    pub(super) fn version(&mut self) -> Result<VersionId, Malformed> {
        let timestamp = Timestamp::from_bits(self.u64()?);
        Ok(VersionId { timestamp, fingerprint: self.array::<{ Envelope::FINGERPRINT_BYTES }>()? })
    }

    fn range(&mut self) -> Result<Range, Malformed> {
        let (from, to) = (self.array()?, self.optional(Self::array)?);
        Ok(Range { from, to, count: self.u32()?, digest: self.array()? })
    }

    fn brief(&mut self) -> Result<Brief, Malformed> {
        Ok(Brief { position: self.array()?, fingerprint: self.array()? })
    }

    fn comparison(&mut self) -> Result<Comparison, Malformed> {
        let until = match self.u8()? {
            EQUAL => return Ok(Comparison::Equal),
            SPLIT => return Ok(Comparison::Split),
            LISTED => None,
            LISTED_UNTIL => Some(self.array()?),
            _ => return Err(Malformed),
        };
        Ok(Comparison::Listed { items: self.list(MAX_LISTED, Self::brief)?, until })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;
    const VERSION: VersionId = VersionId { timestamp: Timestamp::from_bits(0x0102), fingerprint: [7; 16] };

    fn put(records: &[WireRecord<'_>]) -> Vec<u8> {
        let mut request = PutRequest::new(LIMIT);
        assert!(records.iter().all(|record| request.push(*record)));
        request.finish()
    }

    #[test]
    fn a_shared_response_is_taken_apart() {
        let response = Response::Get(vec![Some(b"a"), None]).encode(LIMIT);
        let alone = [Response::Get(vec![Some(b"a")]), Response::Get(vec![None])];
        let alone: Vec<_> = alone.iter().map(|response| response.encode(LIMIT)).collect();
        assert_eq!(split_response(&response, 2), Some(alone.clone()));
        assert_eq!(split_response(&response, 3), Some(alone));
        assert_eq!(split_response(&response, 1), None);
        assert_eq!(split_response(&Response::Get(Vec::new()).encode(LIMIT), 1), None);
        assert_eq!(split_response(&Response::Failure(Failure::Busy).encode(LIMIT), 1), None);
        let versions = Response::Versions(vec![Some(VERSION), None]).encode(LIMIT);
        let first = Response::Versions(vec![Some(VERSION)]).encode(LIMIT);
        assert_eq!(split_response(&versions, 2).unwrap()[0], first);
    }

    #[test]
    fn comparing_has_its_golden_bytes() {
        let range = Range { from: [1; 32], to: Some([2; 32]), count: 3, digest: [4; 16] };
        let bytes = [&b"\x04\x00\x01"[..], &[1; 32], &[1], &[2; 32], &[0, 0, 0, 3], &[4; 16]].concat();
        assert_eq!(compare_request(std::slice::from_ref(&range)), bytes);
        assert_eq!(Request::decode(&bytes), Ok(Request::Compare(vec![range])));
        let item = Brief { position: [5; 16], fingerprint: [6; 8] };
        let bytes = [&b"\x05\x00\x01"[..], &[5; 16], &[6; 8]].concat();
        assert_eq!(offer_request(&[item]), bytes);
        assert_eq!(Request::decode(&bytes), Ok(Request::Offer(vec![item])));
        let bytes = [&b"\x06\x00\x01"[..], &[7; 16]].concat();
        assert_eq!(fetch_request(&[[7; 16]]), bytes);
        assert_eq!(Request::decode(&bytes), Ok(Request::Fetch(vec![[7; 16]])));

        let listed = Comparison::Listed { items: vec![item], until: Some([8; 32]) };
        let compared = Response::Compared(vec![Comparison::Equal, Comparison::Split, listed]);
        let bytes = [&b"\x04\x00\x03\x00\x01\x03"[..], &[8; 32], &[0, 1], &[5; 16], &[6; 8]].concat();
        assert_eq!((compared.encode(LIMIT), Response::decode(&bytes)), (bytes.clone(), Ok(compared)));
        let wanted = Response::Wanted(vec![2, 258]);
        let bytes = b"\x05\x00\x02\x00\x02\x01\x02";
        assert_eq!((wanted.encode(LIMIT), Response::decode(bytes)), (bytes.to_vec(), Ok(wanted)));
        let records = Response::Records(vec![None, Some((b"/k", b"abc"))]);
        let bytes = b"\x06\x00\x02\x00\x01\x00\x02/k\x00\x00\x00\x03abc";
        assert_eq!((records.encode(LIMIT), Response::decode(bytes)), (bytes.to_vec(), Ok(records)));
    }

    #[test]
    fn requests_have_their_golden_bytes() {
        let golden: [(Vec<u8>, &[u8], Request<'_>); 3] = [
            (
                put(&[(b"/k", b"abc"), (b"", b"")]),
                b"\x01\x00\x02\x00\x02/k\x00\x00\x00\x03abc\x00\x00\x00\x00\x00\x00",
                Request::Put(vec![(b"/k", b"abc"), (b"", b"")]),
            ),
            (
                get_request([&b"/k"[..], b"/l"], LIMIT),
                b"\x02\x00\x02\x00\x02/k\x00\x02/l",
                Request::Get(vec![b"/k", b"/l"]),
            ),
            (
                versions_request([&b"/k"[..]], LIMIT),
                b"\x03\x00\x01\x00\x02/k",
                Request::Versions(vec![b"/k"]),
            ),
        ];
        for (bytes, golden, request) in golden {
            assert_eq!(bytes, golden);
            assert_eq!(Request::decode(golden), Ok(request));
        }
    }

    #[test]
    fn responses_have_their_golden_bytes() {
        let golden: [(Response<'_>, &[u8]); 4] = [
            (
                Response::Put(vec![
                    PutAnswer::Stored,
                    PutAnswer::Known,
                    PutAnswer::Refused(Refusal::InvalidSignature),
                ]),
                b"\x01\x00\x03\x00\x00\x01\x00\x02\x04",
            ),
            (Response::Get(vec![Some(b"abc"), None]), b"\x02\x00\x02\x01\x00\x00\x00\x03abc\x00"),
            (
                Response::Versions(vec![None, Some(VERSION)]),
                b"\x03\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x01\x02\
                  \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07",
            ),
            (Response::Failure(Failure::Busy), b"\x00\x04"),
        ];
        for (response, golden) in golden {
            assert_eq!(response.encode(LIMIT), golden);
            assert_eq!(Response::decode(golden), Ok(response));
        }
    }

    #[test]
    fn refusals_and_failures_have_their_golden_codes() {
        let refusals = [
            (1, Refusal::InvalidKey),
            (2, Refusal::TooLarge),
            (3, Refusal::InvalidEnvelope),
            (4, Refusal::InvalidSignature),
            (5, Refusal::FutureTimestamp),
            (6, Refusal::Expired),
            (7, Refusal::InvalidValue),
            (8, Refusal::KeyMismatch),
            (9, Refusal::Outdated),
            (10, Refusal::Busy),
            (11, Refusal::StoreFailed),
            (12, Refusal::NotOwner),
            (13, Refusal::NotMember),
            (14, Refusal::OverQuota),
            (15, Refusal::Full),
            (16, Refusal::Slowed),
            (17, Refusal::OtherPolicy),
            (18, Refusal::NotCanonical),
            (20, Refusal::TooFast),
            (21, Refusal::Overloaded),
            (22, Refusal::RefusedAuthor),
            (0, Refusal::Other),
        ];
        for (code, refusal) in refusals {
            assert_eq!((refusal.code(), Refusal::from_code(code)), (code, refusal));
        }
        let failures =
            [Failure::Other, Failure::UnknownRequest, Failure::Malformed, Failure::TooLarge, Failure::Busy];
        let failures = failures.into_iter().chain([Failure::Slowed, Failure::TooFast]);
        for (code, failure) in (0..).zip(failures) {
            assert_eq!((failure.code(), Failure::from_code(code)), (code, failure));
        }
    }

    #[test]
    fn what_a_later_program_says_is_understood_as_far_as_it_can_be() {
        assert_eq!(Request::decode(b"\x63anything"), Err(Failure::UnknownRequest));
        assert_eq!(
            Response::decode(b"\x01\x00\x02\x02\xfe\x09\x00"),
            Ok(Response::Put(vec![PutAnswer::Refused(Refusal::Other); 2]))
        );
        assert_eq!(Response::decode(b"\x00\xfe"), Ok(Response::Failure(Failure::Other)));
    }

    #[test]
    fn more_items_than_allowed_are_refused_and_never_sent() {
        let records = vec![(&b"/k"[..], &b""[..]); MAX_RECORDS_PER_REQUEST + 1];
        let mut request = PutRequest::new(LIMIT);
        assert_eq!(records.iter().filter(|record| request.push(**record)).count(), MAX_RECORDS_PER_REQUEST);
        let mut bytes = request.finish();
        assert!(Request::decode(&bytes).is_ok());
        bytes.extend(b"\x00\x02/k\x00\x00\x00\x00");
        bytes[1..3].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        assert_eq!(Request::decode(&bytes), Err(Failure::Malformed));
    }

    #[test]
    fn a_request_and_an_answer_end_where_their_limit_is() {
        let mut request = PutRequest::new(20);
        assert!(request.push((b"/first", &[0; 100])));
        assert!(!request.push((b"/second", b"")));
        assert_eq!(Request::decode(&request.finish()), Ok(Request::Put(vec![(b"/first", &[0; 100])])));
        let copies = Response::Get(vec![Some(&[1; 10]), Some(&[2; 10]), Some(&[3; 10])]);
        let answered = copies.encode(3 + 2 * 15);
        assert_eq!(Response::decode(&answered), Ok(Response::Get(vec![Some(&[1; 10]), Some(&[2; 10])])));
    }

    #[test]
    fn a_request_asks_for_nothing_twice() {
        let keys = |keys: [&'static [u8]; 2]| [get_request(keys, LIMIT), versions_request(keys, LIMIT)];
        let briefs = [1, 2, 1].map(|at| Brief { position: [at; 16], fingerprint: [0; 8] });
        let range = |from: u8, to: Option<u8>| Range {
            from: [from; 32],
            to: to.map(|to| [to; 32]),
            count: 0,
            digest: [0; 16],
        };
        let apart = [range(5, None), range(1, Some(3)), range(3, Some(5))];
        let positions = briefs.map(|brief| brief.position);
        let once = keys([b"a", b"b"]).into_iter().chain([
            offer_request(&briefs[..2]),
            fetch_request(&positions[..2]),
            compare_request(&apart),
            put(&[(b"a", b"1"), (b"a", b"2")]),
        ]);
        for request in once {
            assert!(Request::decode(&request).is_ok(), "{request:?}");
        }
        let twice = keys([b"a", b"a"]).into_iter().chain([
            offer_request(&[briefs[0], briefs[1], briefs[2]]),
            fetch_request(&positions),
            compare_request(&[range(1, Some(4)), range(3, Some(5))]),
            compare_request(&[range(1, None), range(3, Some(5))]),
            compare_request(&[range(1, None), range(1, None)]),
        ]);
        for request in twice {
            assert_eq!(Request::decode(&request), Err(Failure::Malformed), "{request:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic_or_large_allocation(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            tag in 0_u8..5,
            count in 0_u16..4,
        ) {
            let mut framed = vec![tag];
            framed.extend(count.to_be_bytes());
            framed.extend(&bytes);
            for bytes in [&bytes, &framed] {
                let _ = (Request::decode(bytes), Response::decode(bytes));
            }
            // Lists are allocated for their bounded count; contents are borrowed.
            framed[1..3].copy_from_slice(&u16::MAX.to_be_bytes());
            prop_assert!(Request::decode(&framed).is_err());
        }

        #[test]
        fn what_was_encoded_is_decoded(
            records in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)),
                0..10,
            ),
        ) {
            let records: Vec<_> = records.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            let bytes = put(&records);
            prop_assert_eq!(Request::decode(&bytes), Ok(Request::Put(records.clone())));
            for len in 0..bytes.len() {
                prop_assert!(Request::decode(&bytes[..len]).is_err());
            }
            let copies = Response::Get(records.iter().map(|(_, value)| Some(*value)).collect());
            let encoded = copies.encode(LIMIT);
            prop_assert_eq!(Response::decode(&encoded), Ok(copies));
        }
    }
}
