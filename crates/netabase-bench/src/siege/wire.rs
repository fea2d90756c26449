//! What strangers send, byte by byte: multistream-select, protobuf, Kademlia, identify and the
//! record protocol, as `docs/formats.md` has them.

use libp2p::Multiaddr;
use libp2p::identity::PublicKey;

use super::DEFINITION;

pub(super) const MULTISTREAM: &str = "/multistream/1.0.0";
pub(super) const NOISE: &str = "/noise";
pub(super) const YAMUX: &str = "/yamux/1.0.0";
pub(super) const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub(super) const IDENTIFY_PUSH: &str = "/ipfs/id/push/1.0.0";
pub(super) const PING: &str = "/ipfs/ping/1.0.0";

/// How many ranges a comparison has: the most that are allowed.
const RANGES: u8 = 32;
const DIGEST_BYTES: usize = 16;

pub(super) fn kad_protocol() -> String {
    format!("/netabase/{DEFINITION}/kad/1.0.0")
}

pub(super) fn record_protocol() -> String {
    format!("/netabase/{DEFINITION}/record/1.0.0")
}

/// Returns what opens a stream, and what agrees to it.
pub(super) fn opening(protocol: &str) -> Vec<u8> {
    [MULTISTREAM, protocol].into_iter().flat_map(|line| with_length(format!("{line}\n").as_bytes())).collect()
}

/// Takes a line of multistream-select off the front, if all of it is there.
pub(super) fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (line, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((str::from_utf8(line).ok()?.trim_end(), rest))
}

/// Puts the length in front, as multistream-select, Kademlia and identify do.
pub(super) fn with_length(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 10);
    put_varint(message.len(), &mut bytes);
    bytes.extend(message);
    bytes
}

fn put_varint(mut value: usize, bytes: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// Puts a field of protobuf that is bytes, text or a message.
fn put_field(number: usize, value: &[u8], message: &mut Vec<u8>) {
    put_varint((number << 3) | 2, message);
    message.extend(with_length(value));
}

/// Returns an identify message.
pub(super) fn identify(key: &PublicKey, protocols: &[String], addresses: &[Multiaddr]) -> Vec<u8> {
    let mut message = Vec::new();
    put_field(1, &key.encode_protobuf(), &mut message);
    for address in addresses {
        put_field(2, address.as_ref(), &mut message);
    }
    for protocol in protocols {
        put_field(3, protocol.as_bytes(), &mut message);
    }
    put_field(5, format!("/netabase/{DEFINITION}/id/1.0.0").as_bytes(), &mut message);
    put_field(6, b"stranger", &mut message);
    with_length(&message)
}

/// Returns Kademlia's question for a value.
pub(super) fn get_value(key: &[u8]) -> Vec<u8> {
    const TYPE_GET_VALUE: [u8; 2] = [1 << 3, 1];
    let mut message = TYPE_GET_VALUE.to_vec();
    put_field(2, key, &mut message);
    with_length(&message)
}

/// Returns Kademlia's order to store a value, without its last byte.
pub(super) fn cut_put_value(key: &[u8], value_bytes: usize) -> Vec<u8> {
    let (mut record, mut message) = (Vec::new(), Vec::new());
    put_field(1, key, &mut record);
    put_field(2, &vec![0; value_bytes], &mut record);
    // The type is 0, which is left out.
    put_field(2, key, &mut message);
    put_field(3, &record, &mut message);
    let mut bytes = with_length(&message);
    bytes.pop();
    bytes
}

/// Returns a get of the record protocol.
pub(super) fn get(keys: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![2];
    message.extend(u16_len(keys.len()));
    for key in keys {
        message.extend(u16_len(key.len()));
        message.extend(key);
    }
    request(&message)
}

/// Returns a comparison of the record protocol: the whole keyspace in parts, of each of which the
/// stranger claims to have other records.
pub(super) fn compare() -> Vec<u8> {
    let position = |range: u8| [&[range * (u8::MAX / RANGES + 1)], [0; 31].as_slice()].concat();
    let mut message = vec![4];
    message.extend(u16_len(RANGES.into()));
    for range in 0..RANGES {
        message.extend(position(range));
        if range + 1 < RANGES {
            message.push(1);
            message.extend(position(range + 1));
        } else {
            message.push(0);
        }
        message.extend(1_u32.to_be_bytes());
        message.extend([0xa5; DIGEST_BYTES]);
    }
    request(&message)
}

/// Puts in front that the request belongs to no traces, and the length of the frame.
fn request(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

fn u16_len(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specifications() {
        assert_eq!(opening(NOISE), b"\x13/multistream/1.0.0\n\x07/noise\n");
        assert_eq!(get_value(b"key"), b"\x07\x08\x01\x12\x03key");
        assert_eq!(cut_put_value(b"k", 2), b"\x0c\x12\x01k\x1a\x07\x0a\x01k\x12\x02\0");
        assert_eq!(get(&[b"key".to_vec()]), b"\0\0\0\0\x08\x02\0\x01\0\x03key");
        assert_eq!(compare().len(), 1 + 4 + 1 + 2 + 32 * (32 + 1 + 32 + 4 + 16) - 32);
        assert_eq!(with_length(&[0; 300])[..2], [0xac, 2]);
    }

    #[test]
    fn a_line_is_taken_when_all_of_it_is_there() {
        let opening = opening(PING);
        let (first, rest) = line(&opening).unwrap();
        assert_eq!((first, line(rest).unwrap().0), (MULTISTREAM, PING));
        assert!(line(&opening[..5]).is_none());
    }
}
