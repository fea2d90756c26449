//! Records that must not be accepted, by both protocols.

use std::time::Duration;

use libp2p::Swarm;
use libp2p::kad::{self, Record};
use netabase::key::WritePolicy;
use netabase::members::MemberList;
use netabase::{Author, Envelope, Keypair, NetabaseConfig, RecordKey, Refusal, StoreOptions, Timestamp};
use netabase_store::schema::EncodedRecord;
use netabase_store::{Clock, SigningKey};

use crate::common::bare::*;
use crate::common::*;
use crate::scene::*;

/// How many records of each kind are sent.
const RECORDS: u64 = 40;
/// How many of them one peer sends by Kademlia: after two forged ones it is slowed.
const BY_KAD: usize = 2;
/// How many of them are in one request of the record protocol.
const BY_REQUEST: usize = 12;

type Bytes = Vec<u8>;

/// What is attempted many times, and why it is refused.
struct Kind {
    name: &'static str,
    reasons: &'static [Refusal],
    records: Vec<(Bytes, Bytes)>,
}

fn kind(name: &'static str, reasons: &'static [Refusal], make: impl Fn(u64) -> (RecordKey, Bytes)) -> Kind {
    let bytes = |(key, value): (RecordKey, Bytes)| (key.as_bytes().to_vec(), value);
    Kind { name, reasons, records: (0..RECORDS).map(|id| bytes(make(id))).collect() }
}

fn sign(key: &RecordKey, time: Timestamp, expires: u64, payload: Option<&[u8]>) -> Bytes {
    Envelope::sign(&stranger(), key, time, expires, payload).as_bytes().to_vec()
}

fn valid(id: u64) -> Bytes {
    signed(id, "forged").as_bytes().to_vec()
}

fn forged(author: Author) -> Vec<Kind> {
    let other = SigningKey::from_bytes(&[8; 32]);
    vec![
        kind("forged author", &[Refusal::InvalidSignature], |id| {
            let mut bytes = valid(id);
            // Format, flags, timestamp and expiry come before the author.
            bytes[18..50].copy_from_slice(author.as_bytes());
            (key(id), bytes)
        }),
        kind("signature of another key", &[Refusal::InvalidSignature], |id| {
            let mut bytes = valid(id);
            let theirs = Envelope::sign(&other, &key(id), now(), 0, Some(&payload(&note(id, "forged"))));
            let signature = bytes.len() - 64;
            bytes[signature..].copy_from_slice(theirs.as_bytes().last_chunk::<64>().unwrap());
            (key(id), bytes)
        }),
        kind("valid value under another key", &[Refusal::InvalidSignature], |id| {
            (key(id), valid(id + RECORDS))
        }),
        kind("value of another record, signed", &[Refusal::KeyMismatch], |id| {
            (key(id), sign(&key(id), now(), 0, Some(&payload(&note(id + 1, "forged")))))
        }),
        kind("tombstone of another key", &[Refusal::InvalidSignature], |id| {
            (key(id), sign(&key(id + RECORDS), now(), 0, None))
        }),
        kind("tombstone that expires", &[Refusal::InvalidEnvelope], |id| {
            (key(id), sign(&key(id), now(), u64::MAX, None))
        }),
        kind("far-future clock", &[Refusal::FutureTimestamp], |id| {
            let skew = Clock::MAX_SKEW * 2 + Duration::from_secs(id * 1_000_000);
            let time = now().unix_millis() + u64::try_from(skew.as_millis()).unwrap();
            let time = Timestamp::from_unix_millis(time);
            (key(id), sign(&key(id), time, 0, Some(&payload(&note(id, "future")))))
        }),
        kind("expired record", &[Refusal::Expired], |id| {
            (key(id), sign(&key(id), now(), now().unix_millis() - 1 - id, Some(&payload(&note(id, "late")))))
        }),
    ]
}

fn malformed() -> Vec<Kind> {
    vec![
        kind("wrong format version", &[Refusal::UnknownFormat], |id| {
            let mut bytes = valid(id);
            bytes[0] = 3 + u8::try_from(id).unwrap();
            (key(id), bytes)
        }),
        kind("unsigned record", &[Refusal::InvalidEnvelope], |id| {
            (key(id), Envelope::unsigned(&payload(&note(id, "x"))).as_bytes().to_vec())
        }),
        kind("value that is none", &[Refusal::InvalidValue], |id| {
            (key(id), sign(&key(id), now(), 0, Some(b"\x01no note")))
        }),
        kind("oversize value", &[Refusal::TooLarge], |id| {
            let length =
                config().store.max_value_bytes + Envelope::OVERHEAD_BYTES + 1 + usize::try_from(id).unwrap();
            (key(id), vec![1; length])
        }),
        Kind {
            name: "key that is none",
            reasons: &[Refusal::InvalidKey],
            records: (0..RECORDS).map(|id| (format!("no record key {id}").into_bytes(), valid(id))).collect(),
        },
    ]
}

fn card(author: Author, number: u64) -> EncodedRecord {
    EncodedRecord::of(&Card { owner: author, number, text: "squatted".into() }).unwrap()
}

/// What is tried on the records of `owner`.
fn squatting(owner: Author) -> Vec<Kind> {
    let marked = move |policy, id| {
        let key = RecordKey::of(&CardPrimaryKey(owner, id)).unwrap();
        RecordKey::with_policy(policy, key.definition(), key.model(), key.primary_key()).unwrap()
    };
    let squat = move |policy, id| {
        let key = marked(policy, id);
        let value = sign(&key, now(), 0, Some(&card(owner, id).payload));
        (key, value)
    };
    vec![
        kind("owned key squatted", &[Refusal::NotOwner], move |id| squat(WritePolicy::Owned, id)),
        kind("owned key squatted by a tombstone", &[Refusal::NotOwner], move |id| {
            let key = marked(WritePolicy::Owned, id);
            let tombstone = sign(&key, now(), 0, None);
            (key, tombstone)
        }),
        kind("owned key without its mark", &[Refusal::OtherPolicy], move |id| squat(WritePolicy::Open, id)),
        kind("owned key with the mark of the root", &[Refusal::InvalidKey], move |id| {
            squat(WritePolicy::Root, id)
        }),
        kind("owned key with the mark of merged models", &[Refusal::OtherPolicy], move |id| {
            squat(WritePolicy::Merged, id)
        }),
    ]
}

/// What the victim has under the keys of some records.
fn kept(victim: &Notes, records: &[(Bytes, Bytes)]) -> Vec<Option<Envelope>> {
    let envelope = |(key, _): &(Bytes, Bytes)| victim.store().envelope(&RecordKey::parse(key).ok()?).unwrap();
    records.iter().map(envelope).collect()
}

/// Sends records of one kind by both protocols, by some peers since each is banned soon; nothing
/// may be kept.
async fn attempt(scene: &Scene, kind: Kind) {
    let victim = &scene.victim;
    let mut attack = scene.begin(format!("{}, by both protocols", kind.name));
    let before = kept(victim, &kind.records);
    let (by_kad, by_request) = kind.records.split_at(2 * BY_KAD);
    for records in by_kad.chunks(BY_KAD) {
        let mut hostile = hostile_peer(victim).await;
        for ((key, value), count) in records.iter().zip(1..) {
            let accepted = send_by_kad(&mut hostile, victim, (key, value), count).await;
            attack.tally.accepted += u64::from(accepted);
        }
        let judged =
            attack.tally.judged(victim, *hostile.local_peer_id(), u64::try_from(records.len()).unwrap());
        meanwhile(&mut hostile, judged).await;
        meanwhile(&mut hostile, scene.served()).await;
    }
    for records in by_request.chunks(BY_REQUEST) {
        let mut hostile = hostile_peer(victim).await;
        attack.tally.accepted += put(&mut hostile, victim, records).await;
        let judged =
            attack.tally.judged(victim, *hostile.local_peer_id(), u64::try_from(records.len()).unwrap());
        meanwhile(&mut hostile, judged).await;
    }
    attack.tally.sent = u64::try_from(kind.records.len()).unwrap();
    assert!(kept(victim, &kind.records) == before, "{}: something was kept", kind.name);
    scene.end(attack, "").all_refused(kind.reasons);
}

/// Sends records in one request; returns how many were stored, according to the answer. A peer that
/// is banned for them gets none.
async fn put(hostile: &mut Swarm<Hostile>, victim: &Notes, records: &[(Bytes, Bytes)]) -> u64 {
    let records: Vec<(&[u8], &[u8])> = records.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    let answer = ask(hostile, victim, put_request(&records)).await;
    answer.map_or(0, |answer| stored(&answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_malformed_records_are_refused_for_their_reasons() {
    let scene = Scene::new(config()).await;
    for kind in forged(scene.victim.store().author().unwrap()).into_iter().chain(malformed()) {
        attempt(&scene, kind).await;
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_an_owner_are_written_by_nobody_else() {
    let scene = Scene::with(config(), async |_, honest| {
        let owner = honest.store().author().unwrap();
        for number in 0..RECORDS / 2 {
            honest.put_record(Card { owner, number, text: "its own".into() }).await.unwrap();
        }
    })
    .await;
    let owner = scene.honest.store().author().unwrap();
    for kind in squatting(owner) {
        attempt(&scene, kind).await;
    }
    for number in 0..RECORDS / 2 {
        let card = scene.victim.get_record(CardPrimaryKey(owner, number)).await.unwrap();
        assert_eq!(card.unwrap().text, "its own");
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_replaces_no_newer_one() {
    let mut old = Vec::new();
    let scene = Scene::with(config(), async |_, honest| {
        for id in 0..RECORDS {
            honest.put_record(note(id, "old")).await.unwrap();
            let envelope = honest.store().envelope(&key(id)).unwrap().unwrap();
            old.push((key(id).as_bytes().to_vec(), envelope.as_bytes().to_vec()));
            if id % 2 == 0 {
                honest.put_record(note(id, "new")).await.unwrap();
            } else {
                honest.remove_record(NotePrimaryKey(id)).await.unwrap();
            }
        }
    })
    .await;
    let kind = Kind { name: "replay of an old version", reasons: &[Refusal::Outdated], records: old };
    attempt(&scene, kind).await;
    for id in 0..RECORDS {
        let expected = (id % 2 == 0).then(|| note(id, "new"));
        assert_eq!(scene.victim.get_record(NotePrimaryKey(id)).await.unwrap(), expected);
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_member_writes_no_more() {
    let root = SigningKey::from_bytes(&[9; 32]);
    let revoked = Timestamp::from_unix_millis(now().unix_millis() - 1000);
    let config = NetabaseConfig {
        store: StoreOptions { root: Some(Author::of(&root)), ..config().store },
        ..config()
    };
    let scene = Scene::with(config, async |victim, honest| {
        let mut list = MemberList::default();
        for author in [victim.store().author().unwrap(), honest.store().author().unwrap()] {
            list.add(author).unwrap();
        }
        list.add(Author::of(&stranger())).unwrap();
        list.revoke(Author::of(&stranger()), revoked);
        let mut events = honest.subscribe_to_broadcasts();
        victim.publish_members(&list, &Keypair::ed25519_from_bytes(root.to_bytes()).unwrap()).await.unwrap();
        while honest.members().unwrap().as_ref() != Some(&list) {
            let _ = within_deadline("the list", events.recv()).await;
        }
    })
    .await;
    let outsider = SigningKey::from_bytes(&[8; 32]);
    let list_key = MemberList::key("NotesDefinition").unwrap();
    let reasons = &[Refusal::NotMember];
    let kinds = [
        kind("revoked member", reasons, |id| (key(id), valid(id))),
        kind("tombstone of a revoked member", reasons, |id| (key(id), sign(&key(id), now(), 0, None))),
        kind("outsider in a closed network", reasons, |id| {
            let value = Envelope::sign(&outsider, &key(id), now(), 0, Some(&payload(&note(id, "x"))));
            (key(id), value.as_bytes().to_vec())
        }),
        kind("member list of somebody else", reasons, |_| {
            let list = MemberList::default().sign(&stranger(), "NotesDefinition", None).unwrap();
            (list_key.clone(), list.as_bytes().to_vec())
        }),
    ];
    let members = scene.victim.members().unwrap();
    for kind in kinds {
        attempt(&scene, kind).await;
    }
    assert_eq!(scene.victim.members().unwrap(), members);
    scene.close().await;
}

/// What a valid envelope of a record that is there may become on the way.
fn damaged(valid: &[u8]) -> Vec<Bytes> {
    let truncated = (0..valid.len()).map(|length| valid[..length].to_vec());
    let flipped = (0..valid.len() * 8).map(|bit| {
        let mut bytes = valid.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let mut random = Random(0x6e65_7461_6261_7365);
    let scrambled = (0..500).map(|_| {
        let mut bytes = valid.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] ^= 1 + u8::try_from(random.below(255)).unwrap(),
                1 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
                _ => bytes.truncate(at + 1),
            }
        }
        bytes
    });
    let mut damaged: Vec<Bytes> = truncated.chain(flipped).chain(scrambled.collect::<Vec<_>>()).collect();
    damaged.retain(|bytes| bytes != valid);
    damaged
}

/// Splitmix: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_with_any_bit_changed_or_byte_missing_is_refused() {
    let scene = Scene::with(config(), async |_, honest| {
        honest.put_record(note(1, "there")).await.unwrap();
    })
    .await;
    let victim = &scene.victim;
    let mut attack = scene.begin("truncated and bit-flipped envelopes, every byte and bit");
    let before = victim.store().envelope(&key(1)).unwrap().unwrap();
    // One that is there, and one that is not.
    for (key, valid) in [(key(1), before.as_bytes().to_vec()), (key(2), valid(2))] {
        let records: Vec<(Bytes, Bytes)> =
            damaged(&valid).into_iter().map(|bytes| (key.as_bytes().to_vec(), bytes)).collect();
        for records in records.chunks(250) {
            let mut hostile = hostile_peer(victim).await;
            attack.tally.accepted += put(&mut hostile, victim, records).await;
            let count = u64::try_from(records.len()).unwrap();
            let judged = attack.tally.judged(victim, *hostile.local_peer_id(), count);
            meanwhile(&mut hostile, judged).await;
            attack.tally.sent += count;
        }
    }
    assert_eq!(victim.store().envelope(&key(1)).unwrap(), Some(before));
    assert_eq!(victim.store().envelope(&key(2)).unwrap(), None);
    let tally = scene.end(attack, "");
    assert!(tally.sent > 3000, "{tally:?}");
    tally.all_refused(&[
        Refusal::InvalidEnvelope,
        Refusal::UnknownFormat,
        Refusal::InvalidSignature,
        Refusal::InvalidValue,
        Refusal::KeyMismatch,
        Refusal::FutureTimestamp,
        Refusal::Expired,
        Refusal::Outdated,
    ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_answer_is_never_returned_where_there_is_a_true_one() {
    const GETS: u64 = 20;
    let scene = Scene::with(config(), async |_, honest| {
        let notes: Vec<Note> = (0..GETS).map(|id| note(id, "true")).collect();
        honest.store().open_tree::<Note>().unwrap().put_many(&notes).unwrap();
    })
    .await;
    let victim = &scene.victim;
    let mut attack = scene.begin("get-record answers that are forged");
    for ids in [0..GETS / 4, GETS / 4..GETS / 2, GETS / 2..GETS] {
        let mut hostile = hostile_peer(victim).await;
        let peer = *hostile.local_peer_id();
        for id in ids.clone() {
            let mut forged = sign(&key(id), now(), 0, Some(&payload(&note(id, "forged"))));
            forged[20] ^= 1;
            let record = Record::new(key(id).as_bytes().to_vec(), forged);
            kad::store::RecordStore::put(hostile.behaviour_mut().kad.store_mut(), record).unwrap();
        }
        for id in ids {
            // It asks everybody.
            let found = meanwhile(&mut hostile, victim.fetch_record(NotePrimaryKey(id))).await;
            assert_eq!(found.unwrap(), Some(note(id, "true")));
            attack.tally.sent += 1;
        }
        meanwhile(&mut hostile, scene.served()).await;
        attack.tally.judged(victim, peer, 0).await;
    }
    let reason = Refusal::InvalidSignature.to_string();
    let tally = scene.end(attack, "");
    assert!(tally.refused.keys().eq([&reason]), "{tally:?}");
    scene.close().await;
}
