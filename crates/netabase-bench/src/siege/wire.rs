//! What strangers send, byte by byte: multistream-select, protobuf, Kademlia, identify, gossipsub
//! and Netabase's own protocols, as `docs/formats.md` has them.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::Multiaddr;
use libp2p::identity::{PublicKey, ed25519};

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

pub(super) const KAD: &str = "kad";
pub(super) const RECORD: &str = "record";
pub(super) const QUERY: &str = "query";
pub(super) const LIVE: &str = "live";
pub(super) const BLOB: &str = "blob";
pub(super) const SYNC: &str = "sync";

/// Returns the name of one of the network's own protocols.
pub(super) fn protocol(name: &str) -> String {
    format!("/netabase/{DEFINITION}/{name}/1.0.0")
}

/// Returns what opens a stream, and what agrees to it.
pub(super) fn opening(protocol: &str) -> Vec<u8> {
    [MULTISTREAM, protocol].into_iter().flat_map(|line| with_length(format!("{line}\n").as_bytes())).collect()
}

/// Returns what a client says until the node has proved who it is: a key of one use comes last.
pub(super) fn handshake() -> Vec<u8> {
    const KEY: [u8; 32] = [9; 32];
    [opening(NOISE).as_slice(), &u16_len(KEY.len()), &KEY].concat()
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

pub(super) fn put_varint(mut value: usize, bytes: &mut Vec<u8>) {
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
pub(super) fn put_field(number: usize, value: &[u8], message: &mut Vec<u8>) {
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

/// Returns a put of the record protocol, or a give of the sync protocol: a head, and records with
/// their keys.
pub(super) fn hand_over(head: &[u8], records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut message = head.to_vec();
    message.extend(u16_len(records.len()));
    for record in records {
        put_record(record, &mut message);
    }
    request(&message)
}

pub(super) fn put_record((key, envelope): &(Vec<u8>, Vec<u8>), message: &mut Vec<u8>) {
    message.extend(u16_len(key.len()));
    message.extend(key);
    message.extend(u32_len(envelope.len()));
    message.extend(envelope);
}

/// The first byte of a put of the record protocol.
pub(super) const PUT: &[u8] = &[1];

/// Returns the head of a give of the sync protocol: its tag, and the scope of the model.
pub(super) fn give() -> Vec<u8> {
    [&[4], scope().as_slice()].concat()
}

/// Returns the scope of all messages.
pub(super) fn scope() -> Vec<u8> {
    const MODEL_BYTES: usize = 8;
    let hash = derive("netabase model of a scope v1", &[DEFINITION.as_bytes(), b"/Message"]);
    [&[0], hash.get(..MODEL_BYTES).unwrap_or_default()].concat()
}

/// Returns the topic of all messages.
pub(super) fn topic() -> String {
    const TOPIC_BYTES: usize = 16;
    let length = |part: &[u8]| [&u32_len(part.len()), part].concat();
    let parts = [DEFINITION.as_bytes(), DEFINITION.as_bytes(), &[0], b"Message"].map(length);
    let hash = derive("netabase 2026 live topic 1", &parts.each_ref().map(Vec::as_slice));
    hex(hash.get(..TOPIC_BYTES).unwrap_or_default())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns gossipsub's message that subscribes to a topic, or ends that.
pub(super) fn subscribe(topic: &str, subscribes: bool) -> Vec<u8> {
    let (mut subscription, mut message) = (vec![1 << 3, u8::from(subscribes)], Vec::new());
    put_field(2, topic.as_bytes(), &mut subscription);
    put_field(1, &subscription, &mut message);
    with_length(&message)
}

/// Returns gossipsub's message that publishes something, without source, number and signature.
pub(super) fn publish(topic: &str, data: &[u8]) -> Vec<u8> {
    let (mut published, mut message) = (Vec::new(), Vec::new());
    put_field(2, data, &mut published);
    put_field(4, topic.as_bytes(), &mut published);
    put_field(2, &published, &mut message);
    with_length(&message)
}

/// What gossipsub says of a mesh, by the number of its field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Have = 1,
    Want = 2,
    Graft = 3,
    Prune = 4,
    DontWant = 5,
}

/// Returns gossipsub's control message about a topic or the ids of messages.
pub(super) fn control(control: Control, topic: &str, ids: &[[u8; 16]]) -> Vec<u8> {
    let (mut body, mut controls, mut message) = (Vec::new(), Vec::new(), Vec::new());
    let ids_field = match control {
        Control::Want | Control::DontWant => 1,
        Control::Have | Control::Graft | Control::Prune => {
            put_field(1, topic.as_bytes(), &mut body);
            2
        }
    };
    for id in ids {
        put_field(ids_field, id, &mut body);
    }
    put_field(control as usize, &body, &mut controls);
    put_field(3, &controls, &mut message);
    with_length(&message)
}

/// Returns the record key of the message with an id.
pub(super) fn message_key(id: u64) -> Vec<u8> {
    [format!("/{DEFINITION}/Message/").as_bytes(), &id.to_be_bytes()].concat()
}

/// Returns the payload of a message by positions, as earlier versions wrote it.
pub(super) fn payload(id: u64, room: &str, text: &str) -> Vec<u8> {
    let mut payload = vec![1];
    put_varint(usize::try_from(id).unwrap_or(usize::MAX), &mut payload);
    payload.extend([room, text].into_iter().flat_map(|part| with_length(part.as_bytes())));
    payload
}

/// Signs a payload, or a tombstone.
pub(super) fn envelope(
    author: &ed25519::Keypair,
    key: &[u8],
    timestamp: u64,
    payload: Option<&[u8]>,
) -> Vec<u8> {
    let mut envelope = vec![1, u8::from(payload.is_none())];
    envelope.extend(timestamp.to_be_bytes());
    envelope.extend([0; 8]); // it never expires
    envelope.extend(author.public().to_bytes());
    envelope.extend(payload.unwrap_or_default());
    let digest = derive("netabase record envelope v1", &[&u32_len(key.len()), key, &envelope]);
    envelope.extend(author.sign(&digest));
    envelope
}

/// Returns the timestamp of now.
pub(super) fn now() -> u64 {
    const COUNTER_BITS: u32 = 16;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default() << COUNTER_BITS
}

pub(super) fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Puts in front that the request belongs to no traces, and the length of the frame.
pub(super) fn request(message: &[u8]) -> Vec<u8> {
    [&[0], frame(message).as_slice()].concat()
}

/// Puts the length in front, as answers have it.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    [&u32_len(message.len()), message].concat()
}

pub(super) fn u32_len(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

pub(super) fn u16_len(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use netabase_store::Envelope;

    use super::*;
    use crate::node::model::{encoded, message};

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
    fn a_record_is_that_of_the_model() {
        let message = message(7);
        let (key, payload) = (message_key(7), payload(7, &message.room, &message.text));
        assert_eq!(key, encoded(7).unwrap().0);
        assert_eq!(
            netabase_store::schema::decode_payload::<crate::node::model::Message>(&payload).unwrap(),
            message
        );
        let author = ed25519::Keypair::generate();
        for payload in [Some(payload.as_slice()), None] {
            let envelope = Envelope::parse(&envelope(&author, &key, now(), payload)).unwrap();
            envelope.verify(&crate::node::model::key(7).unwrap()).unwrap();
            assert_eq!(envelope.is_tombstone(), payload.is_none());
        }
    }

    #[test]
    fn messages_of_gossipsub_are_those_of_its_specification() {
        assert_eq!(subscribe("t", true), b"\x07\x0a\x05\x08\x01\x12\x01t");
        assert_eq!(publish("t", b"d"), b"\x08\x12\x06\x12\x01d\x22\x01t");
        assert_eq!(control(Control::Graft, "t", &[]), b"\x07\x1a\x05\x1a\x03\x0a\x01t");
        assert_eq!(control(Control::Want, "t", &[[7; 16]]).len(), 1 + 2 + 2 + 18);
        assert_eq!(topic().len(), 32);
    }

    #[test]
    fn a_line_is_taken_when_all_of_it_is_there() {
        let opening = opening(PING);
        let (first, rest) = line(&opening).unwrap();
        assert_eq!((first, line(rest).unwrap().0), (MULTISTREAM, PING));
        assert!(line(&opening[..5]).is_none());
    }
}
