//! Messages of the blob protocol, which `docs/formats.md` specifies.

use netabase_store::Blob;
use netabase_store::blob::{BlobHash, BlobStore};

use crate::protocol::record::Failure;
use crate::rpc::codec::{Malformed, Reader};

mod tag {
    pub(crate) const FAILURE: u8 = 0;
    pub(crate) const HAVE: u8 = 1;
    pub(crate) const GET: u8 = 2;
    pub(crate) const NOT_HERE: u8 = 3;
}

/// A request of the blob protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Asks whether the responder has all of a blob.
    Have(Blob),
    /// Asks for `count` groups of a blob, from `first` on.
    Get { blob: Blob, first: u64, count: u16 },
}

/// A response of the blob protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response<'a> {
    Failure(Failure),
    /// The responder has all of the blob.
    Have,
    /// The groups, with their proof.
    Slice(&'a [u8]),
    /// The responder does not have the groups.
    NotHere,
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (tag, blob) = match self {
            Self::Have(blob) => (tag::HAVE, blob),
            Self::Get { blob, .. } => (tag::GET, blob),
        };
        let mut bytes = vec![tag];
        bytes.extend(blob.hash.as_bytes());
        bytes.extend(blob.size.to_be_bytes());
        if let Self::Get { first, count, .. } = self {
            bytes.extend(first.to_be_bytes());
            bytes.extend(count.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(bytes);
        let tag = reader.u8()?;
        if !matches!(tag, tag::HAVE | tag::GET) {
            return Err(Failure::UnknownRequest);
        }
        let hash = BlobHash::from_bytes(reader.array::<{ BlobHash::BYTES }>()?);
        let blob = Blob { hash, size: reader.u64()? };
        if tag == tag::HAVE {
            reader.end()?;
            return Ok(Self::Have(blob));
        }
        let (first, count) = (reader.u64()?, reader.u16()?);
        reader.end()?;
        let is_allowed = (1..=BlobStore::MAX_SLICE_GROUPS).contains(&count.into());
        let is_allowed = is_allowed && first.checked_add(count.into()).is_some();
        is_allowed.then_some(Self::Get { blob, first, count }).ok_or(Failure::Malformed)
    }
}

impl<'a> Response<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Failure(failure) => vec![tag::FAILURE, failure.code()],
            Self::Have => vec![tag::HAVE],
            Self::NotHere => vec![tag::NOT_HERE],
            Self::Slice(slice) => [&[tag::GET], *slice].concat(),
        }
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes {
            [tag::FAILURE, code] => Ok(Self::Failure(Failure::from_code(*code))),
            [tag::HAVE] => Ok(Self::Have),
            [tag::NOT_HERE] => Ok(Self::NotHere),
            [tag::GET, slice @ ..] => Ok(Self::Slice(slice)),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob() -> Blob {
        Blob { hash: BlobHash::from_bytes([0xab; 32]), size: 0x0102 }
    }

    #[test]
    fn messages_are_these_bytes() {
        let name = [&[0xab; 32][..], &[0, 0, 0, 0, 0, 0, 1, 2]].concat();
        let have = [&[1], &name[..]].concat();
        assert_eq!(Request::Have(blob()).encode(), have);
        assert_eq!(Request::decode(&have), Ok(Request::Have(blob())));
        let get = [&[2], &name[..], &[0, 0, 0, 0, 0, 0, 0, 5, 0, 32]].concat();
        let request = Request::Get { blob: blob(), first: 5, count: 32 };
        assert_eq!((request.encode(), Request::decode(&get)), (get, Ok(request)));
        for (response, bytes) in [
            (Response::Have, &[1][..]),
            (Response::Slice(b"xy"), b"\x02xy"),
            (Response::NotHere, &[3]),
            (Response::Failure(Failure::Busy), &[0, 4]),
        ] {
            assert_eq!((response.encode().as_slice(), Response::decode(bytes)), (bytes, Ok(response)));
        }
    }

    #[test]
    fn a_request_for_no_groups_or_too_many_is_malformed() {
        for (first, count) in [(0, 0), (0, 33), (u64::MAX, 2)] {
            let request = Request::Get { blob: blob(), first, count };
            assert_eq!(Request::decode(&request.encode()), Err(Failure::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes.clone());
            }
            if let Ok(response) = Response::decode(&bytes) {
                prop_assert!(matches!(response, Response::Failure(_)) || response.encode() == bytes);
            }
        }
    }
}
