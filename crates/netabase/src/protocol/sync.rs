//! The bytes of the sync protocol; `docs/formats.md` lists them.

use netabase_store::Scope;
use netabase_store::replica::{SyncBound, SyncItem};

use crate::outcome::VersionId;
use crate::protocol::limits::{MAX_NEED_IDS, MAX_NEEDS, MAX_SYNC_RECORDS};
use crate::protocol::record::{Failure, PutAnswer};
use crate::rpc::codec::{Malformed, Reader, WireRecord};

mod encode;

pub(crate) use encode::{LaterRequest, Records, failure, fetch, given, range, reconcile, reconciled};

/// How many bytes of an id tell it from the others of its range.
const ID_PREFIX_BYTES: usize = 8;

/// The start of an id.
pub(crate) type IdPrefix = [u8; ID_PREFIX_BYTES];

/// What the first byte of a request, and of the answer to it, says.
mod tag {
    pub(crate) const FAILURE: u8 = 0;
    pub(crate) const RECONCILE: u8 = 1;
    pub(crate) const FETCH: u8 = 2;
    pub(crate) const RANGE: u8 = 3;
    pub(crate) const GIVE: u8 = 4;
    pub(crate) const LATER: u8 = 5;
    pub(crate) const OVERRUN: u8 = 6;
}

/// The first byte of a scope.
const MODEL: u8 = 0;
const VALUE: u8 = 1;

/// The scope that a request is about: a model, or one value of a secondary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireScope<'a> {
    /// A hash that names the model.
    pub(crate) model: [u8; Scope::MODEL_TAG_BYTES],
    /// The name of the secondary key, and the value.
    pub(crate) value: Option<(&'a [u8], &'a [u8])>,
}

/// Ids that are missing in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) from: SyncBound,
    pub(crate) to: SyncBound,
    pub(crate) ids: Vec<IdPrefix>,
}

/// What one peer asks of another about a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request<'a> {
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
pub(crate) enum Response<'a> {
    /// The answer to a message, and how many items the peer has. Without a message it has so many
    /// more that ranges should be asked for. `keeps` says that it keeps the scope, and takes what
    /// it lacks.
    Reconciled { keeps: bool, count: u32, message: &'a [u8] },
    /// Records of the first `needs` ranges, and of a part of the next one.
    Fetched { needs: u16, records: Vec<WireRecord<'a>> },
    /// Records of the range in the order of the items, and where to go on.
    Ranged { next: Option<SyncBound>, records: Vec<WireRecord<'a>> },
    /// What became of each record.
    Given(Vec<PutAnswer>),
    /// A later version, or none, of each of the first records; the others are to be asked for
    /// again.
    Later(Vec<Option<WireRecord<'a>>>),
    /// Nothing was done.
    Failure(Failure),
}

/// Returns the request that says that the peer was not sent all changes that it follows. It has no
/// scope, and the answer to it is the same.
pub(crate) fn overrun_request() -> Vec<u8> {
    vec![tag::OVERRUN]
}

/// Whether a request says so.
pub(crate) fn is_overrun(bytes: &[u8]) -> bool {
    bytes == [tag::OVERRUN]
}

/// Decodes a request and what it is about; the failure is what to answer.
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
        // It costs nothing at a peer that does not know it.
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
