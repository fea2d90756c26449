//! Live messages, which `docs/formats.md` specifies.

use netabase_store::{RecordKey, Timestamp};

use crate::protocol::limits::{MAX_MESSAGE_BYTES, MAX_RECORDS_PER_MESSAGE};
use crate::rpc::codec::{Malformed, Reader, write_record, write_short};

const RECORDS: u8 = 1;
const NOTICE: u8 = 2;

/// A live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// Versions: the key and the envelope of each, both unverified.
    Records(Vec<(&'a [u8], &'a [u8])>),
    /// A version of this record with this timestamp exists, and is too long for a message.
    Notice { key: &'a [u8], timestamp: Timestamp },
    /// A message of a kind that only later versions of the program know.
    Unknown,
}

impl<'a> Message<'a> {
    /// Decodes a message, which borrows the bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            RECORDS => {
                let mut records = Vec::new();
                while reader.len() > 0 {
                    if records.len() == MAX_RECORDS_PER_MESSAGE {
                        return Err(Malformed);
                    }
                    records.push((reader.short(RecordKey::MAX_BYTES)?, reader.bytes()?));
                }
                if records.is_empty() { Err(Malformed) } else { Ok(Self::Records(records)) }
            }
            NOTICE => {
                let key = reader.short(RecordKey::MAX_BYTES)?;
                let timestamp = Timestamp::from_bits(reader.u64()?);
                reader.end().map(|()| Self::Notice { key, timestamp })
            }
            _ => Ok(Self::Unknown),
        }
    }
}

/// Encodes a notice.
pub(crate) fn notice(key: &[u8], timestamp: Timestamp) -> Vec<u8> {
    let mut bytes = vec![NOTICE];
    write_short(&mut bytes, key);
    bytes.extend(timestamp.to_bits().to_be_bytes());
    bytes
}

/// Returns the length of a message with one record.
pub(crate) fn record_len(key: &[u8], envelope: &[u8]) -> usize {
    1 + 2 + key.len() + 4 + envelope.len()
}

/// A builder of a message with records.
#[derive(Debug)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    count: usize,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![RECORDS], count: 0 }
    }

    /// Adds a record if it fits.
    pub(crate) fn push(&mut self, key: &[u8], envelope: &[u8]) -> bool {
        let len = self.bytes.len() + record_len(key, envelope) - 1;
        if self.count == MAX_RECORDS_PER_MESSAGE || len > MAX_MESSAGE_BYTES {
            return false;
        }
        write_record(&mut self.bytes, (key, envelope));
        self.count += 1;
        true
    }

    /// Returns the number of records and the bytes of the message.
    pub(crate) fn finish(self) -> (usize, Vec<u8>) {
        (self.count, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_have_their_golden_bytes() {
        let mut records = Records::new();
        assert!(records.push(b"/k", b"abc") && records.push(b"/l", b""));
        let golden = b"\x01\x00\x02/k\x00\x00\x00\x03abc\x00\x02/l\x00\x00\x00\x00";
        assert_eq!(records.finish(), (2, golden.to_vec()));
        assert_eq!(Message::decode(golden), Ok(Message::Records(vec![(b"/k", b"abc"), (b"/l", b"")])));
        let timestamp = Timestamp::from_bits(0x0102);
        let golden = b"\x02\x00\x02/k\x00\x00\x00\x00\x00\x00\x01\x02";
        assert_eq!(notice(b"/k", timestamp), golden);
        assert_eq!(Message::decode(golden), Ok(Message::Notice { key: b"/k", timestamp }));
    }

    #[test]
    fn a_message_takes_no_more_than_its_limits() {
        let mut records = Records::new();
        assert!(!records.push(b"/k", &vec![0; MAX_MESSAGE_BYTES]));
        let fits = MAX_MESSAGE_BYTES - record_len(b"/k", b"");
        assert!(records.push(b"/k", &vec![0; fits]) && !records.push(b"", b""));
        assert_eq!(records.finish().1.len(), MAX_MESSAGE_BYTES);
        let mut many = Records::new();
        let taken = (0..=MAX_RECORDS_PER_MESSAGE).filter(|_| many.push(b"/k", b"")).count();
        assert_eq!(taken, MAX_RECORDS_PER_MESSAGE);
        let (_, mut bytes) = many.finish();
        assert!(Message::decode(&bytes).is_ok());
        bytes.extend(b"\x00\x02/k\x00\x00\x00\x00");
        assert_eq!(Message::decode(&bytes), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(tag in 0_u8..4, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let framed = [&[tag][..], &bytes].concat();
            let _ = (Message::decode(&framed), Message::decode(&bytes));
        }

        #[test]
        fn what_was_encoded_is_decoded_whole_or_not_at_all(
            records in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)),
                1..10,
            ),
        ) {
            let mut message = Records::new();
            for (key, envelope) in &records {
                prop_assert!(message.push(key, envelope));
            }
            let (_, bytes) = message.finish();
            let expected: Vec<_> = records.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            prop_assert_eq!(Message::decode(&bytes), Ok(Message::Records(expected)));
        }
    }
}
