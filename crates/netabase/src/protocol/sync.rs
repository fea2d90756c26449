//! Messages of the sync protocol, which `docs/formats.md` specifies.

use netabase_store::Scope;
use netabase_store::replica::{SyncBound, SyncItem};

use crate::outcome::VersionId;
use crate::protocol::limits::{MAX_NEED_IDS, MAX_NEEDS, MAX_SYNC_RECORDS};
use crate::protocol::record::{Failure, PutAnswer};
use crate::rpc::codec::{Malformed, Reader, WireRecord};

mod encode;

pub(crate) use encode::{LaterRequest, Records, failure, fetch, given, range, reconcile, reconciled};

/// The bytes of an id that identify an item within its range.
const ID_PREFIX_BYTES: usize = 8;

/// The start of an id.
pub(crate) type IdPrefix = [u8; ID_PREFIX_BYTES];

/// The tag of a request, and of its response: the first byte.
mod tag {
    pub(crate) const FAILURE: u8 = 0;
    pub(crate) const RECONCILE: u8 = 1;
    pub(crate) const FETCH: u8 = 2;
    pub(crate) const RANGE: u8 = 3;
    pub(crate) const GIVE: u8 = 4;
    pub(crate) const LATER: u8 = 5;
    pub(crate) const OVERRUN: u8 = 6;
}

/// The first byte of an encoded scope.
const MODEL: u8 = 0;
const VALUE: u8 = 1;

/// The scope of a request: a model, or one value of a secondary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireScope<'a> {
    /// The hash that names the model.
    pub(crate) model: [u8; Scope::MODEL_TAG_BYTES],
    /// The name of the secondary key, and its value.
    pub(crate) value: Option<(&'a [u8], &'a [u8])>,
}

/// The ids of missing items in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) from: SyncBound,
    pub(crate) to: SyncBound,
    pub(crate) ids: Vec<IdPrefix>,
}

/// A request about a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Compares the requester's set with the responder's. The requester has `count` items.
    Reconcile { count: u32, message: &'a [u8] },
    /// Asks for the records of these items.
    Fetch(Vec<Need>),
    /// Asks for all records of a range.
    Range { from: SyncBound, to: SyncBound },
    /// Sends records to a peer that replicates the scope.
    Give(Vec<WireRecord<'a>>),
    /// Asks for versions of these records that are later than the given ones.
    Later(Vec<(&'a [u8], VersionId)>),
}

/// A response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response<'a> {
    /// The answer to a comparison's message, and the number of the responder's items. An empty
    /// message means that the responder has so many more items that the requester should ask for
    /// ranges. `keeps` tells that the responder replicates the scope and accepts missing records.
    Reconciled { keeps: bool, count: u32, message: &'a [u8] },
    /// The records of the first `needs` ranges, and of a part of the next one.
    Fetched { needs: u16, records: Vec<WireRecord<'a>> },
    /// The records of the range in the order of the items, and the bound at which to continue.
    Ranged { next: Option<SyncBound>, records: Vec<WireRecord<'a>> },
    /// The outcome of each sent record.
    Given(Vec<PutAnswer>),
    /// A later version, or `None`, for each of the first records. The requester asks again for the
    /// others.
    Later(Vec<Option<WireRecord<'a>>>),
    /// The request was not carried out.
    Failure(Failure),
}

/// Returns the request that tells a peer that it was not sent all live changes. The request has no
/// scope, and its response is the same message.
pub(crate) fn overrun_request() -> Vec<u8> {
    vec![tag::OVERRUN]
}

/// Returns whether a request is that notice.
pub(crate) fn is_overrun(bytes: &[u8]) -> bool {
    bytes == [tag::OVERRUN]
}

/// Decodes a request and its scope; the failure is the response.
pub(crate) fn decode_request(bytes: &[u8]) -> Result<(WireScope<'_>, Request<'_>), Failure> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let scope = reader.scope()?;
    let request = match tag {
        tag::RECONCILE => Request::Reconcile { count: reader.u32()?, message: reader.rest() },
        tag::FETCH => Request::Fetch(reader.list(MAX_NEEDS, Reader::need)?),
        tag::RANGE => Request::Range { from: reader.bound()?, to: reader.bound()? },
        tag::GIVE => Request::Give(reader.list(MAX_SYNC_RECORDS, Reader::record)?),
        tag::LATER => {
            Request::Later(reader.list(MAX_SYNC_RECORDS, |reader| Ok((reader.key()?, reader.version()?)))?)
        }
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
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let response = match reader.u8()? {
            tag::RECONCILE => {
                let (keeps, count) = (reader.flag()?, reader.u32()?);
                Self::Reconciled { keeps, count, message: reader.rest() }
            }
            tag::FETCH => Self::Fetched {
                needs: reader.u16()?,
                records: reader.list(MAX_SYNC_RECORDS, Reader::record)?,
            },
            tag::RANGE => {
                let next = reader.optional(Reader::bound)?;
                Self::Ranged { next, records: reader.list(MAX_SYNC_RECORDS, Reader::record)? }
            }
            tag::GIVE => Self::Given(reader.list(MAX_SYNC_RECORDS, Reader::put_answer)?),
            tag::LATER => {
                Self::Later(reader.list(MAX_SYNC_RECORDS, |reader| reader.optional(Reader::record))?)
            }
            tag::FAILURE => Self::Failure(Failure::from_code(reader.u8()?)),
            _ => return Err(Malformed),
        };
        reader.end().map(|()| response)
    }
}

impl<'a> Reader<'a> {
    fn scope(&mut self) -> Result<WireScope<'a>, Malformed> {
        let (kind, model) = (self.u8()?, self.array()?);
        let value = match kind {
            MODEL => None,
            VALUE => Some((self.key()?, self.key()?)),
            _ => return Err(Malformed),
        };
        Ok(WireScope { model, value })
    }

    fn bound(&mut self) -> Result<SyncBound, Malformed> {
        let (timestamp, len) = (self.u64()?, usize::from(self.u8()?));
        if len > SyncItem::ID_BYTES {
            return Err(Malformed);
        }
        SyncBound::new(timestamp, self.take(len)?).ok_or(Malformed)
    }

    fn need(&mut self) -> Result<Need, Malformed> {
        let (from, to) = (self.bound()?, self.bound()?);
        Ok(Need { from, to, ids: self.list(MAX_NEED_IDS, Self::array)? })
    }
}

#[cfg(test)]
mod tests {
    use netabase_store::{Refusal, Timestamp};
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
        let mut later = LaterRequest::new(&SCOPE, 1000);
        later.push(b"/D/M/1", version());
        let mut give = Records::given(&OF_VALUE, 1000);
        give.push((b"/D/M/1", b"envelope"));
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
        assert!(hex(&overrun_request()) == "06" && is_overrun(&[6]) && !is_overrun(&[6, 0]));
        // A peer that does not know the request answers with a failure.
        assert_eq!(decode_request(&overrun_request()), Err(Failure::Malformed));
        assert_eq!(decode_request(&[9, 0, 7, 7, 7, 7, 7, 7, 7, 7]), Err(Failure::UnknownRequest));
        assert_eq!(decode_request(&[]), Err(Failure::Malformed));
    }

    #[test]
    fn the_bytes_of_responses() {
        let record: WireRecord<'_> = (b"/D/M/1", b"envelope");
        let records = || {
            let mut records = Records::answer(1000);
            records.push(record);
            records
        };
        let mut later = Records::answer(1000);
        later.push_later(None);
        later.push_later(Some(record));
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
