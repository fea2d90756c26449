//! The bytes of a live message; `docs/formats.md` lists them.

use netabase_store::{MAX_RECORD_KEY_BYTES, Timestamp};

/// The longest message.
pub(in crate::network) const MAX_MESSAGE_BYTES: usize = 32 * 1024;
/// The most records of a message.
pub(in crate::network) const MAX_RECORDS_PER_MESSAGE: usize = 256;

const RECORDS: u8 = 1;
const NOTICE: u8 = 2;

/// What peers tell each other live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum Message<'a> {
    /// Versions: the key and the envelope of each, neither of which has been checked.
    Records(Vec<(&'a [u8], &'a [u8])>),
    /// There is a version of this record with this timestamp, which is too long for a message.
    Notice { key: &'a [u8], timestamp: Timestamp },
}

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct Malformed;

impl<'a> Message<'a> {
    /// Decodes a message; what it holds is borrowed.
    pub(in crate::network) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (tag, mut rest) = bytes.split_first().ok_or(Malformed)?;
        match *tag {
            RECORDS => {
                let mut records = Vec::new();
                while !rest.is_empty() {
                    if records.len() == MAX_RECORDS_PER_MESSAGE {
                        return Err(Malformed);
                    }
                    records.push((take_key(&mut rest)?, take_envelope(&mut rest)?));
                }
                if records.is_empty() { Err(Malformed) } else { Ok(Self::Records(records)) }
            }
            NOTICE => {
                let key = take_key(&mut rest)?;
                let timestamp = <[u8; 8]>::try_from(rest).map_err(|_| Malformed)?;
                Ok(Self::Notice { key, timestamp: Timestamp::from_bits(u64::from_be_bytes(timestamp)) })
            }
            _ => Err(Malformed),
        }
    }
}

/// Encodes a notice.
pub(in crate::network) fn notice(key: &[u8], timestamp: Timestamp) -> Vec<u8> {
    let mut bytes = vec![NOTICE];
    write_key(&mut bytes, key);
    bytes.extend(timestamp.to_bits().to_be_bytes());
    bytes
}

/// Returns how long a message with one record is.
pub(in crate::network) fn record_len(key: &[u8], envelope: &[u8]) -> usize {
    1 + 2 + key.len() + 4 + envelope.len()
}

/// A message of records in the making.
#[derive(Debug)]
pub(in crate::network) struct Records {
    bytes: Vec<u8>,
    count: usize,
}

impl Records {
    pub(in crate::network) fn new() -> Self {
        Self { bytes: vec![RECORDS], count: 0 }
    }

    /// Adds a record if there is room for it.
    pub(in crate::network) fn push(&mut self, key: &[u8], envelope: &[u8]) -> bool {
        let len = self.bytes.len() + record_len(key, envelope) - 1;
        if self.count == MAX_RECORDS_PER_MESSAGE || len > MAX_MESSAGE_BYTES {
            return false;
        }
        write_key(&mut self.bytes, key);
        self.bytes.extend(u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.bytes.extend(envelope);
        self.count += 1;
        true
    }

    /// Returns the number of records and the bytes of the message.
    pub(in crate::network) fn finish(self) -> (usize, Vec<u8>) {
        (self.count, self.bytes)
    }
}

fn write_key(bytes: &mut Vec<u8>, key: &[u8]) {
    bytes.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(key);
}

fn take_key<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (len, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    let len = usize::from(u16::from_be_bytes(*len));
    if len > MAX_RECORD_KEY_BYTES {
        return Err(Malformed);
    }
    let (key, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(key)
}

fn take_envelope<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (len, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| Malformed)?;
    let (envelope, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(envelope)
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
