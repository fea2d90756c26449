//! The records, made from their numbers whenever they are needed.

use std::ops::AddAssign;

use netabase_store::netabase_definition_module;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[netabase_definition_module(StoreBenchDefinition, StoreBenchKeys)]
mod definition {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(StoreBenchDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        #[secondary_key]
        pub serial: u64,
        pub sent_at: u64,
        pub body: String,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(StoreBenchDefinition)]
    pub(crate) struct Wide {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub key_0: u64,
        #[secondary_key]
        pub key_1: u64,
        #[secondary_key]
        pub key_2: u64,
        #[secondary_key]
        pub key_3: u64,
        #[secondary_key]
        pub key_4: u64,
        #[secondary_key]
        pub key_5: u64,
        #[secondary_key]
        pub key_6: u64,
        #[secondary_key]
        pub key_7: u64,
        #[secondary_key]
        pub key_8: u64,
        #[secondary_key]
        pub key_9: u64,
        pub body: String,
    }
}
pub(crate) use definition::{Message, Wide};
pub(super) use definition::{
    MessagePrimaryKey, MessageQuery, MessageRoomSecondaryKey, MessageSerialSecondaryKey, StoreBenchDefinition,
};

/// How many records have the same room.
pub(super) const ROOM_RECORDS: u64 = 100;
/// How many values each of the ten keys has.
const WIDE_VALUES: u64 = 1000;
const SEED: u64 = 0x6e65_7461_6261_7365;
const BODY_WORDS: u64 = 7;

/// What the stores that are written by hand need to know of a model.
pub(super) trait Indexed: Serialize + DeserializeOwned + Send + Sync + 'static {
    const NAME: &'static str;
    const INDEXES: &'static [&'static str];

    fn id(&self) -> u64;

    /// Returns this record's key in each index, in their order.
    fn index_keys(&self) -> Vec<Vec<u8>>;
}

impl Indexed for Message {
    const NAME: &'static str = "Message";
    const INDEXES: &'static [&'static str] = &["room", "serial"];

    fn id(&self) -> u64 {
        self.id
    }

    fn index_keys(&self) -> Vec<Vec<u8>> {
        vec![room_key(&self.room), self.serial.to_be_bytes().to_vec()]
    }
}

impl Indexed for Wide {
    const NAME: &'static str = "Wide";
    const INDEXES: &'static [&'static str] =
        &["key_0", "key_1", "key_2", "key_3", "key_4", "key_5", "key_6", "key_7", "key_8", "key_9"];

    fn id(&self) -> u64 {
        self.id
    }

    fn index_keys(&self) -> Vec<Vec<u8>> {
        self.keys().map(|key| key.to_be_bytes().to_vec()).to_vec()
    }
}

impl Wide {
    pub(super) fn keys(&self) -> [u64; 10] {
        [
            self.key_0, self.key_1, self.key_2, self.key_3, self.key_4, self.key_5, self.key_6, self.key_7,
            self.key_8, self.key_9,
        ]
    }
}

/// Encodes a room as the format of key bytes has it: escaped, and ended by a zero.
pub(super) fn room_key(room: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(room.len() + 1);
    for byte in room.bytes() {
        match byte {
            0 | 1 => key.extend([1, byte + 1]),
            byte => key.push(byte),
        }
    }
    key.push(0);
    key
}

/// The messages of one database: `count` of them, in groups of [`ROOM_RECORDS`] to a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages {
    pub(crate) count: u64,
}

impl Messages {
    /// Returns message number `n`; numbers from `count` on are of records that are added later.
    pub(crate) fn message(self, n: u64) -> Message {
        let id = self.id(n);
        Message {
            id,
            room: self.room(self.shuffled(n) / ROOM_RECORDS),
            serial: serial(id),
            sent_at: 1_700_000_000_000 + n,
            body: body(id),
        }
    }

    /// Returns the same message in the next room.
    pub(super) fn moved(self, n: u64) -> Message {
        Message { room: self.room(self.shuffled(n) / ROOM_RECORDS + 1), ..self.message(n) }
    }

    /// Returns the primary key of a message; keys are spread over all numbers, in no order.
    #[expect(clippy::unused_self, reason = "the parts of a message are asked for in one way")]
    pub(super) fn id(self, n: u64) -> u64 {
        mix(n ^ SEED)
    }

    pub(super) fn room(self, number: u64) -> String {
        format!("room-{:06}", number % self.rooms())
    }

    pub(super) fn rooms(self) -> u64 {
        self.count.div_ceil(ROOM_RECORDS)
    }

    /// Returns a number below `count`; as many numbers in a row are all different.
    pub(super) fn shuffled(self, n: u64) -> u64 {
        // About the golden section of the count spreads neighbours as far as can be.
        let mut step = self.count / 1000 * 618 + 1;
        while greatest_divisor(step, self.count) != 1 {
            step += 1;
        }
        n % self.count * step % self.count
    }

    /// Returns a number below `count` that looks random.
    pub(super) fn pick(self, n: u64) -> u64 {
        mix(n.wrapping_mul(3) ^ SEED.rotate_left(17)) % self.count
    }
}

/// Returns the only serial that a message with this id has.
pub(super) fn serial(id: u64) -> u64 {
    mix(id ^ SEED.rotate_left(32))
}

pub(crate) fn wide(n: u64) -> Wide {
    let id = mix(n ^ SEED);
    let [key_0, key_1, key_2, key_3, key_4, key_5, key_6, key_7, key_8, key_9] =
        std::array::from_fn(|key| mix(id ^ (key as u64)) % WIDE_VALUES);
    Wide { id, key_0, key_1, key_2, key_3, key_4, key_5, key_6, key_7, key_8, key_9, body: body(id) }
}

fn body(id: u64) -> String {
    use std::fmt::Write as _;

    let mut body = String::with_capacity(16 * 7);
    for word in 0..BODY_WORDS {
        // Writing to a string does not fail.
        let _ = write!(body, "{:016x}", mix(id.wrapping_add(word)));
    }
    body
}

/// A bijection of 64 bits, after splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// What has been read: every field of every record goes into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) records: u64,
    digest: u64,
}

impl Sum {
    pub(super) fn add(&mut self, message: &Message) {
        self.records += 1;
        let numbers = message.id ^ message.serial.rotate_left(16) ^ message.sent_at.rotate_left(32);
        let texts = bytes_sum(message.room.as_bytes()).wrapping_add(bytes_sum(message.body.as_bytes()));
        self.digest = self.digest.wrapping_add(numbers ^ texts.rotate_left(48));
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

impl<'a> Extend<&'a Message> for Sum {
    fn extend<T: IntoIterator<Item = &'a Message>>(&mut self, messages: T) {
        messages.into_iter().for_each(|message| self.add(message));
    }
}

impl FromIterator<Message> for Sum {
    fn from_iter<T: IntoIterator<Item = Message>>(messages: T) -> Self {
        let mut sum = Self::default();
        messages.into_iter().for_each(|message| sum.add(&message));
        sum
    }
}

fn bytes_sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0, |sum, word| sum.rotate_left(1).wrapping_add(word))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn every_room_has_a_hundred_messages_and_every_serial_one() {
        for count in [300, 1000, 100_000] {
            let messages = Messages { count };
            let (mut rooms, mut serials) = (HashMap::<_, u64>::new(), HashSet::new());
            for n in 0..count {
                let message = messages.message(n);
                *rooms.entry(message.room).or_default() += 1;
                assert!(serials.insert(message.serial));
            }
            assert_eq!(u64::try_from(rooms.len()).unwrap(), messages.rooms());
            assert!(rooms.values().all(|records| *records == ROOM_RECORDS));
        }
    }

    #[test]
    fn payloads_are_about_150_bytes() {
        let messages = Messages { count: 1000 };
        for n in 0..1000 {
            let payload = postcard::to_stdvec(&messages.message(n)).unwrap();
            assert!((140..160).contains(&payload.len()), "{}", payload.len());
        }
    }

    #[test]
    fn a_sum_depends_on_every_field() {
        let message = Messages { count: 1000 }.message(1);
        let sum = |message: Message| Sum::from_iter([message]);
        let others = [
            Message { id: 1, ..message.clone() },
            Message { serial: 1, ..message.clone() },
            Message { sent_at: 1, ..message.clone() },
            Message { room: "1".into(), ..message.clone() },
            Message { body: "1".into(), ..message.clone() },
        ];
        assert!(others.into_iter().all(|other| sum(other) != sum(message.clone())));
    }
}
