//! Valid messages of every protocol that is spoken on a stream.

use libp2p::Multiaddr;
use libp2p::identity::{Keypair, ed25519};

use crate::dice::Dice;
use crate::siege::attack::ABSENT_ID;
use crate::siege::hosts::Hosts;
use crate::siege::wire::{self, Control};
use crate::siege::{DEFINITION, LARGE_ID};

/// The ids of records that the node may have.
const IDS: u64 = 256;
/// The most keys, items or records of a request.
const MOST: usize = 20;
/// The made-up addresses that count what is sent there, among [`MOST`] others.
const MADE_UP: u32 = 20;
/// The first id of the records that are handed over.
const FIRST_CONVERSED_ID: u64 = 1 << 52;

/// Who speaks.
pub(super) struct Speaker {
    pub(super) keypair: Keypair,
    author: ed25519::Keypair,
    /// The addresses of the peers that it tells of.
    addresses: Vec<Multiaddr>,
    /// What it says of itself.
    identify: Vec<u8>,
}

impl Speaker {
    /// Makes one that claims every protocol, or some, and some addresses.
    pub(super) fn roll(dice: &mut Dice, hosts: &Hosts) -> Self {
        let author = ed25519::Keypair::from(secret(dice));
        let keypair = Keypair::from(author.clone());
        let claims_all = dice.one_in(2);
        let spoken = Protocol::ALL.iter().filter(|_| claims_all || dice.one_in(2));
        let protocols: Vec<String> = spoken.map(|protocol| protocol.name()).collect();
        let mut addresses = hosts.made_up(dice.below_u32(1 << 22), MADE_UP);
        addresses.extend((0..MOST).filter_map(|_| address(dice)));
        let claimed: Vec<Multiaddr> =
            (0..dice.index(MOST)).filter_map(|_| dice.pick(&addresses).cloned()).collect();
        let identify = wire::identify(&keypair.public(), &protocols, &claimed);
        Self { keypair, author, addresses, identify }
    }
}

fn secret(dice: &mut Dice) -> ed25519::SecretKey {
    ed25519::SecretKey::try_from_bytes(dice.bytes(32)).unwrap_or_else(|_| ed25519::SecretKey::generate())
}

/// A protocol of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Identify,
    Push,
    Ping,
    Kad,
    Record,
    Query,
    Live,
    Blob,
    Sync,
}

impl Protocol {
    pub(super) const ALL: [Self; 9] = [
        Self::Identify,
        Self::Push,
        Self::Ping,
        Self::Kad,
        Self::Record,
        Self::Query,
        Self::Live,
        Self::Blob,
        Self::Sync,
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Identify => wire::IDENTIFY.to_owned(),
            Self::Push => wire::IDENTIFY_PUSH.to_owned(),
            Self::Ping => wire::PING.to_owned(),
            Self::Kad => wire::protocol(wire::KAD),
            Self::Record => wire::protocol(wire::RECORD),
            Self::Query => wire::protocol(wire::QUERY),
            Self::Live => wire::protocol(wire::LIVE),
            Self::Blob => wire::protocol(wire::BLOB),
            Self::Sync => wire::protocol(wire::SYNC),
        }
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// Returns something that whoever opens a stream says.
    pub(super) fn ask(self, speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
        match self {
            Self::Identify => Vec::new(),
            Self::Push => speaker.identify.clone(),
            Self::Ping => dice.bytes(32),
            Self::Kad => ask_kad(speaker, dice),
            Self::Record => wire::request(&ask_record(speaker, dice)),
            Self::Query => wire::request(&ask_query(dice)),
            Self::Live => say_live(speaker, dice),
            Self::Blob => wire::request(&ask_blob(dice)),
            Self::Sync => wire::request(&ask_sync(speaker, dice)),
        }
    }

    /// Returns something that whoever is asked says.
    pub(super) fn answer(self, speaker: &Speaker, asked: &[u8], dice: &mut Dice) -> Vec<u8> {
        match self {
            Self::Identify => speaker.identify.clone(),
            Self::Push | Self::Live => Vec::new(),
            Self::Ping => asked.to_vec(),
            Self::Kad => answer_kad(speaker, dice),
            Self::Record | Self::Query | Self::Blob | Self::Sync => {
                // The tag of the request is behind the traces, of which there may be none, and the
                // length.
                let tag = asked.get(5).copied().filter(|_| !dice.one_in(8));
                wire::frame(&answer_frame(self, tag.unwrap_or(dice.byte() % 8), speaker, dice))
            }
        }
    }
}

fn ask_kad(speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    const KINDS: usize = 6;
    let (kind, id) = (dice.index(KINDS), id(dice));
    let key = if dice.one_in(2) { wire::message_key(id) } else { dice.bytes(34) };
    let mut message = Vec::new();
    if kind > 0 {
        message.extend([1 << 3, u8::try_from(kind).unwrap_or_default()]);
    }
    wire::put_field(2, &key, &mut message);
    match kind {
        0 => {
            let (key, envelope) = record(speaker, id);
            let mut record = Vec::new();
            wire::put_field(1, &key, &mut record);
            wire::put_field(2, &envelope, &mut record);
            wire::put_field(3, &record, &mut message);
        }
        2 => put_peers(9, speaker, &mut message, dice),
        _ => {}
    }
    wire::with_length(&message)
}

fn answer_kad(speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![1 << 3, dice.byte() % 6];
    if dice.one_in(2) {
        let (key, envelope) = record(speaker, id(dice));
        let mut record = Vec::new();
        wire::put_field(1, &key, &mut record);
        wire::put_field(2, &envelope, &mut record);
        wire::put_field(3, &record, &mut message);
    }
    put_peers(8, speaker, &mut message, dice);
    put_peers(9, speaker, &mut message, dice);
    wire::with_length(&message)
}

/// Puts peers that nobody has heard of.
fn put_peers(field: usize, speaker: &Speaker, message: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..dice.index(MOST) {
        let mut peer = Vec::new();
        wire::put_field(1, &peer_id(dice), &mut peer);
        for address in (0..dice.index(4)).filter_map(|_| dice.pick(&speaker.addresses)) {
            wire::put_field(2, address.as_ref(), &mut peer);
        }
        wire::put_field(field, &peer, message);
    }
}

fn ask_record(speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    match dice.index(7) {
        0 => [wire::PUT, &records(speaker, dice)].concat(),
        1 => [&[2], keys(dice).as_slice()].concat(),
        2 => [&[3], keys(dice).as_slice()].concat(),
        3 => ranges(dice),
        4 => list(4, dice, |dice| dice.bytes(16 + 8), 5),
        5 => list(MOST, dice, |dice| dice.bytes(16), 6),
        _ => hello(dice),
    }
}

fn hello(dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![7];
    let fields = [(1, 8), (2, 16), (3, 4), (4, 5), (5, 32), (6, 208), (7, 40)];
    let kept: Vec<_> = fields.into_iter().filter(|(number, _)| *number < 3 || dice.one_in(2)).collect();
    message.extend(wire::u16_len(kept.len()));
    for (number, length) in kept {
        let value = if number == 1 { (wire::now() >> 16).to_be_bytes().to_vec() } else { dice.bytes(length) };
        message.push(number);
        message.extend(wire::u16_len(length));
        message.extend(value);
    }
    message
}

fn ranges(dice: &mut Dice) -> Vec<u8> {
    let first = dice.bytes(32);
    let mut message = vec![4];
    message.extend(wire::u16_len(1));
    message.extend(first);
    message.push(0);
    message.extend(dice.below_u32(1000).to_be_bytes());
    message.extend(dice.bytes(16));
    message
}

fn ask_query(dice: &mut Dice) -> Vec<u8> {
    let short = |part: &[u8]| [&wire::u16_len(part.len()), part].concat();
    let mut message = vec![1];
    message.extend(short(DEFINITION.as_bytes()));
    message.extend(short(b"Message"));
    if dice.one_in(2) {
        message.push(1);
        message.extend(short(b"room"));
    } else {
        message.push(0);
    }
    let first = dice.index(9);
    message.extend(short(&dice.bytes(first)));
    if dice.one_in(2) {
        message.push(1);
        message.extend(short(&dice.bytes(8)));
    } else {
        message.push(0);
    }
    message.push(dice.byte() & 1);
    message.extend(wire::u16_len(dice.index(1025)));
    message.extend(dice.below_u32(1 << 20).to_be_bytes());
    message
}

fn say_live(speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    let other = wire::hex(&dice.bytes(16));
    let topic = if dice.one_in(2) { wire::topic() } else { other };
    let controls = [Control::Have, Control::Want, Control::Graft, Control::Prune, Control::DontWant];
    match dice.index(4) {
        0 => wire::subscribe(&topic, !dice.one_in(4)),
        1 => {
            let ids = (0..dice.index(MOST)).map(|_| id_of_message(dice));
            let ids: Vec<[u8; 16]> = ids.collect();
            let control = dice.pick(&controls).copied().unwrap_or(Control::Have);
            wire::control(control, &topic, &ids)
        }
        _ => {
            let mut data = vec![1];
            for _ in 0..=dice.index(4) {
                wire::put_record(&record(speaker, id(dice)), &mut data);
            }
            wire::publish(&topic, &data)
        }
    }
}

fn id_of_message(dice: &mut Dice) -> [u8; 16] {
    u128::from(dice.next()).to_be_bytes()
}

fn ask_blob(dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![1];
    message.extend(dice.bytes(32));
    message.extend(dice.below(1 << 30).to_be_bytes());
    if dice.one_in(2) {
        message.splice(..1, [2]);
        message.extend(dice.below(1 << 10).to_be_bytes());
        message.extend(wire::u16_len(1 + dice.index(32)));
    }
    message
}

fn ask_sync(speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    let scoped = |tag: u8, rest: &[u8]| [&[tag], wire::scope().as_slice(), rest].concat();
    match dice.index(6) {
        0 => scoped(1, &[&dice.below_u32(10_000).to_be_bytes(), negentropy(dice).as_slice()].concat()),
        1 => {
            let need = [bound(0), bound(u64::MAX), list(MOST, dice, |dice| dice.bytes(8), 0).split_off(1)];
            scoped(2, &[&wire::u16_len(1), need.concat().as_slice()].concat())
        }
        2 => scoped(3, &[bound(dice.below(1 << 45)), bound(u64::MAX)].concat()),
        3 => scoped(4, &records(speaker, dice)),
        4 => {
            let version = |dice: &mut Dice| {
                let key = wire::message_key(id(dice));
                [&wire::u16_len(key.len()), key.as_slice(), &wire::now().to_be_bytes(), &dice.bytes(16)]
                    .concat()
            };
            scoped(5, &list(MOST, dice, version, 0).split_off(1))
        }
        _ => vec![6],
    }
}

/// Returns a message of negentropy about everything.
fn negentropy(dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![0x61, 0, 0];
    if dice.one_in(2) {
        message.push(1);
        message.extend(dice.bytes(16));
    } else {
        let ids = dice.index(MOST);
        message.push(2);
        wire::put_varint(ids, &mut message);
        message.extend(dice.bytes(32 * ids));
    }
    message
}

fn bound(time: u64) -> Vec<u8> {
    [time.to_be_bytes().as_slice(), &[0]].concat()
}

/// Returns what could be an answer to a request with this tag.
fn answer_frame(protocol: Protocol, tag: u8, speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    let copy = |dice: &mut Dice| {
        let (_, envelope) = record(speaker, id(dice));
        [&[1], wire::u32_len(envelope.len()).as_slice(), &envelope].concat()
    };
    match (protocol, tag) {
        (Protocol::Record, 1) => list(2, dice, |dice| vec![dice.byte() % 3, dice.byte() % 24], tag),
        (Protocol::Record, 2 | 6) | (Protocol::Sync, 5) => list(2, dice, copy, tag),
        (Protocol::Record, 3) => list(2, dice, |dice| [vec![1], dice.bytes(24)].concat(), tag),
        (Protocol::Record, 4) => list(2, dice, |dice| vec![dice.byte() % 2], tag),
        (Protocol::Record, 5) => list(MOST, dice, |dice| dice.bytes(2), tag),
        (Protocol::Record, 7) => hello(dice),
        (Protocol::Query, 1) => {
            let mut page = vec![1, 1, 1];
            let last = wire::message_key(id(dice));
            page.extend(wire::u16_len(last.len()));
            page.extend(last);
            page.extend(records(speaker, dice));
            page
        }
        (Protocol::Blob, 1 | 2) => [vec![tag], dice.bytes(MOST)].concat(),
        (Protocol::Sync, 1) => {
            [&[1, 1], dice.below_u32(1000).to_be_bytes().as_slice(), &negentropy(dice)].concat()
        }
        (Protocol::Sync, 2 | 3) => [&[tag, 0], wire::u16_len(0).as_slice(), &records(speaker, dice)].concat(),
        _ => vec![0, dice.byte() % 8],
    }
}

/// Returns a tag and a list of up to so many items.
fn list(most: usize, dice: &mut Dice, item: impl Fn(&mut Dice) -> Vec<u8>, tag: u8) -> Vec<u8> {
    let count = dice.index(most + 1);
    let mut message = vec![tag];
    message.extend(wire::u16_len(count));
    (0..count).for_each(|_| message.extend(item(dice)));
    message
}

fn keys(dice: &mut Dice) -> Vec<u8> {
    let key = |dice: &mut Dice| {
        let key = wire::message_key(id(dice));
        [&wire::u16_len(key.len()), key.as_slice()].concat()
    };
    list(MOST, dice, key, 0).split_off(1)
}

fn records(speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
    let record = |dice: &mut Dice| {
        let mut bytes = Vec::new();
        wire::put_record(&record(speaker, id(dice)), &mut bytes);
        bytes
    };
    list(MOST, dice, record, 0).split_off(1)
}

/// Signs a record of the id, or of another one where the node's own would be replaced.
fn record(speaker: &Speaker, id: u64) -> (Vec<u8>, Vec<u8>) {
    let id = FIRST_CONVERSED_ID + id % (1 << 40);
    let key = wire::message_key(id);
    let payload = wire::payload(id, "conversed", "so it is said");
    // Every seventh is a deletion.
    let envelope =
        wire::envelope(&speaker.author, &key, wire::now(), (!id.is_multiple_of(7)).then_some(&payload));
    (key, envelope)
}

fn id(dice: &mut Dice) -> u64 {
    match dice.index(4) {
        0 => LARGE_ID,
        1 => ABSENT_ID + dice.below(IDS),
        _ => dice.below(IDS),
    }
}

/// Returns the id of a peer whose key nobody has.
fn peer_id(dice: &mut Dice) -> Vec<u8> {
    const IDENTITY_OF_ED25519: [u8; 6] = [0, 36, 8, 1, 18, 32];
    [IDENTITY_OF_ED25519.as_slice(), &dice.bytes(32)].concat()
}

/// Returns an address that leads nowhere, of any form.
fn address(dice: &mut Dice) -> Option<Multiaddr> {
    let (low, port) = (dice.byte(), 1 + dice.below_u32(65_535));
    let ip = match dice.index(6) {
        0 => format!("/ip4/127.0.0.{low}"),
        1 => format!("/ip4/10.0.0.{low}"),
        2 => format!("/ip6/2001:db8::{low:x}"),
        3 => format!("/dns4/host-{low}.invalid"),
        _ => format!("/ip4/11.255.{low}.{}", dice.byte()),
    };
    let transport = match dice.index(4) {
        0 => format!("udp/{port}/quic-v1"),
        1 => format!("tcp/{port}/ws"),
        _ => format!("tcp/{port}"),
    };
    format!("{ip}/{transport}").parse().ok()
}
