//! Records, refusals, joins and comparisons as golden bytes below `docs/vectors`, which are
//! described in `docs/vectors.md` and enough to test another implementation with.

use std::collections::BTreeSet;

use ed25519_dalek::Verifier;
use netabase_store::dynamic::Schema;
use netabase_store::members::MemberList;
use netabase_store::replica::{SyncDifference, SyncItem, SyncSet};
use netabase_store::{
    Author, Envelope, NetabaseStore, RecordKey, Refusal, Scope, StorageBackend, StoreOptions, Timestamp,
    WritePolicy,
};

use crate::common::vectors::{Vectors, hex, list, text};
use crate::common::{START, Time, identity};

const SCHEMA: &str = include_str!("../../../../docs/vectors/schema.toml");

/// The models of the vectors, as any program declares them that has no types.
fn store(root: Option<Author>) -> NetabaseStore {
    let schema = Schema::from_toml(SCHEMA).unwrap().definition();
    let clock = Time::new().clock();
    let options = StoreOptions { backend: StorageBackend::Memory, root, clock, ..StoreOptions::default() };
    NetabaseStore::open_with("", Some(schema), options).unwrap()
}

fn key(policy: WritePolicy, model: &str, primary: &[u8]) -> RecordKey {
    RecordKey::with_policy(policy, "Vectors", model, primary).unwrap()
}

fn note(id: &str) -> RecordKey {
    key(WritePolicy::Open, "Note", &[id.as_bytes(), &[0]].concat())
}

/// The payload of a note: version 1, then its fields by postcard.
fn note_payload(id: &str, room: &str, rank: u8) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![1], string(id), string(room), vec![2 * rank]].concat()
}

fn poll() -> RecordKey {
    key(WritePolicy::Merged, "Poll", &[7])
}

fn poll_payload(votes: u8, tags: &[u8]) -> Vec<u8> {
    [&[1, 7, 2 * votes, u8::try_from(tags.len()).unwrap()], tags].concat()
}

fn at(millis: u64, counter: u64) -> Timestamp {
    Timestamp::from_bits((millis << 16) + counter)
}

/// A version and everything that follows from it.
fn record(vectors: &mut Vectors, name: &str, seed: u8, key: &RecordKey, envelope: &Envelope) {
    let bytes = envelope.as_bytes();
    let content = &bytes[..bytes.len() - 64];
    let mut digest = blake3::Hasher::new_derive_key("netabase record envelope v1");
    digest.update(&u32::try_from(key.as_bytes().len()).unwrap().to_be_bytes());
    let digest = digest.update(key.as_bytes()).update(content).finalize();
    let signature = ed25519_dalek::Signature::from_slice(&bytes[bytes.len() - 64..]).unwrap();
    identity(seed).verifying_key().verify(digest.as_bytes(), &signature).unwrap();
    let timestamp = envelope.timestamp().unwrap();
    vectors.line(&[
        ("name", text(name)),
        ("seed", hex(identity(seed).to_bytes())),
        ("author", hex(identity(seed).verifying_key().as_bytes())),
        ("record_key", hex(key.as_bytes())),
        ("time", timestamp.unix_millis().to_string()),
        ("counter", (timestamp.to_bits() & 0xffff).to_string()),
        ("expires", envelope.expires().unwrap_or_default().to_string()),
        ("tombstone", envelope.is_tombstone().to_string()),
        ("payload", hex(envelope.payload())),
        ("digest", hex(digest.as_bytes())),
        ("envelope", hex(bytes)),
        ("hash", hex(blake3::hash(content).as_bytes())),
        ("fingerprint", hex(envelope.fingerprint())),
        ("position", hex(key.position())),
        ("sync_id", hex(SyncItem::of(key, envelope).unwrap().id)),
    ]);
}

#[test]
fn records_from_the_seed_to_the_position() {
    let mut vectors = Vectors::default();
    let mut add = |name, seed, key: &RecordKey, timestamp, expires, payload: Option<&[u8]>| {
        let envelope = Envelope::sign(&identity(seed), key, timestamp, expires, payload);
        record(&mut vectors, name, seed, key, &envelope);
    };
    let owned = [identity(2).verifying_key().as_bytes(), &b"a\0"[..]].concat();
    let owned = key(WritePolicy::Owned, "Profile", &owned);
    let profile = [&[1], &identity(2).verifying_key().as_bytes()[..], b"\x01a\x03Ada"].concat();
    add("a record", 1, &note("a"), at(START, 3), 0, Some(&note_payload("a", "r", 1)));
    add("one that expires", 1, &note("a"), at(START, 3), START + 1000, Some(&note_payload("a", "r", 1)));
    add("a tombstone", 1, &note("a"), at(START, 4), 0, None);
    add("an owned record", 2, &owned, at(START, 0), 0, Some(&profile));
    add("a contribution to a merged record", 1, &poll(), at(START, 1), 0, Some(&poll_payload(3, &[7])));
    add("a key with slashes", 1, &note("a//b"), at(START, 0), 0, Some(&note_payload("a//b", "r", 1)));
    add("an empty key", 1, &note(""), at(START, 0), 0, Some(&note_payload("", "r", 1)));
    vectors.assert_golden("records.jsonl");
}

/// Says what the gate makes of a version beside what is there.
#[derive(Default)]
struct Gate {
    vectors: Vectors,
    reasons: BTreeSet<u8>,
}

impl Gate {
    fn judge(&mut self, name: &str, root: Option<u8>, before: &[(&[u8], &[u8])], key: &[u8], value: &[u8]) {
        let root = root.map(|seed| Author::of(&identity(seed)));
        let store = store(root);
        for (key, value) in before {
            assert_eq!(store.replica().admit(key, value), Ok(true), "{name}");
        }
        let verdict = store.replica().admit(key, value);
        let reason = verdict.err();
        self.reasons.extend(reason.map(Refusal::code));
        let pairs = |(key, value): &(&[u8], &[u8])| list([hex(key), hex(value)]);
        self.vectors.line(&[
            ("name", text(name)),
            ("root", root.map_or("null".into(), |root| hex(root.as_bytes()))),
            ("before", list(before.iter().map(pairs))),
            ("record_key", hex(key)),
            ("value", hex(value)),
            ("news", verdict.map_or("null".into(), |is_news| is_news.to_string())),
            ("code", reason.map_or("null".into(), |reason| reason.code().to_string())),
            ("reason", reason.map_or("null".into(), |reason| text(&format!("{reason:?}")))),
        ]);
    }
}

#[test]
fn refusals_have_their_codes() {
    let mut gate = Gate::default();
    let (key, payload) = (note("a"), note_payload("a", "r", 1));
    let sign = |seed, timestamp, expires, payload: Option<&[u8]>| {
        Envelope::sign(&identity(seed), &key, timestamp, expires, payload).as_bytes().to_vec()
    };
    let good = sign(1, at(START, 3), 0, Some(&payload));
    let bytes = key.as_bytes();
    let altered = |at: usize, to: u8| {
        let mut bytes = good.clone();
        let at = if at == usize::MAX { bytes.len() - 1 } else { at };
        bytes[at] = to;
        bytes
    };
    gate.judge("a good one", None, &[], bytes, &good);
    gate.judge("the same again", None, &[(bytes, &good)], bytes, &good);
    gate.judge("no record key", None, &[], b"no key", &good);
    gate.judge("an owned key without its owner", None, &[], b"/Vectors/@Profile/a", &good);
    gate.judge("a model under another mark", None, &[], b"/Vectors/+Note/a\0", &good);
    gate.judge("an unknown mark", None, &[], b"/Vectors/~Note/a\0", &good);
    let large = sign(1, at(START, 0), 0, Some(&vec![1; 1024 * 1024 + 1]));
    let shown = Envelope::parse(&large).unwrap();
    assert_eq!(store(None).replica().admit(bytes, shown.as_bytes()), Err(Refusal::TooLarge));
    gate.judge("an unsigned envelope", None, &[], bytes, Envelope::unsigned(&payload).as_bytes());
    gate.judge("nothing", None, &[], bytes, b"");
    gate.judge("one that is cut off", None, &[], bytes, &good[..100]);
    gate.judge("an unknown format", None, &[], bytes, &altered(0, 3));
    gate.judge("an unknown flag", None, &[], bytes, &altered(1, 2));
    gate.judge("a tombstone with a payload", None, &[], bytes, &altered(1, 1));
    gate.judge("a tombstone that expires", None, &[], bytes, &sign(1, at(START, 0), START + 1000, None));
    let minutes = 60 * 1000;
    gate.judge(
        "ten minutes ahead",
        None,
        &[],
        bytes,
        &sign(1, at(START + 10 * minutes, 0), 0, Some(&payload)),
    );
    let ahead = sign(1, at(START + 10 * minutes + 1, 0), 0, Some(&payload));
    gate.judge("a millisecond more", None, &[], bytes, &ahead);
    gate.judge("an expired one", None, &[], bytes, &sign(1, at(START - 2, 0), START - 1, Some(&payload)));
    gate.judge("another signature", None, &[], bytes, &altered(usize::MAX, 0xff));
    gate.judge("another key", None, &[], note("b").as_bytes(), &good);
    let misplaced = sign(1, at(START, 0), 0, Some(&note_payload("b", "r", 1)));
    gate.judge("a value of another key", None, &[], bytes, &misplaced);
    gate.judge("a value that ends early", None, &[], bytes, &sign(1, at(START, 0), 0, Some(&payload[..3])));
    gate.judge(
        "a value with more",
        None,
        &[],
        bytes,
        &sign(1, at(START, 0), 0, Some(&[&payload[..], &[0]].concat())),
    );
    let longer = [&[0x81, 0][..], &payload[1..]].concat();
    gate.judge("a number with a byte more", None, &[], bytes, &sign(1, at(START, 0), 0, Some(&longer)));
    let later = [&[2][..], &payload[1..]].concat();
    gate.judge("a later version of the model", None, &[], bytes, &sign(1, at(START, 0), 0, Some(&later)));
    gate.judge("an older version", None, &[(bytes, &good)], bytes, &sign(1, at(START, 2), 0, Some(&payload)));
    gate.judge("a removal of nothing", None, &[], bytes, &sign(1, at(START, 0), 0, None));
    let owned = [identity(2).verifying_key().as_bytes(), &b"a\0"[..]].concat();
    let owned = self::key(WritePolicy::Owned, "Profile", &owned);
    let stranger = Envelope::sign(&identity(1), &owned, at(START, 0), 0, Some(b"\x01"));
    gate.judge("a record of somebody else", None, &[], owned.as_bytes(), stranger.as_bytes());
    gate.judge("no bundle for a merged record", None, &[], poll().as_bytes(), &good);
    // A closed network, in which the second identity may write.
    let mut members = MemberList::default();
    members.add(Author::of(&identity(2))).unwrap();
    let members_key = MemberList::key("Vectors").unwrap();
    let signed = members.sign(&identity(9), "Vectors", None).unwrap();
    let payload_of_list = signed.envelope().payload().to_vec();
    let listed = Envelope::sign(&identity(9), &members_key, at(START, 0), 0, Some(&payload_of_list));
    let before: [(&[u8], &[u8]); 1] = [(members_key.as_bytes(), listed.as_bytes())];
    gate.judge("a member list", Some(9), &[], members_key.as_bytes(), listed.as_bytes());
    let forged = Envelope::sign(&identity(1), &members_key, at(START, 0), 0, Some(&payload_of_list));
    gate.judge("a member list of a stranger", Some(9), &[], members_key.as_bytes(), forged.as_bytes());
    gate.judge("a record of a member", Some(9), &before, bytes, &sign(2, at(START, 0), 0, Some(&payload)));
    gate.judge("a record of no member", Some(9), &before, bytes, &good);
    gate.vectors.assert_golden("refusals.jsonl");
    let codes: BTreeSet<u8> = [1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 18, 19].into();
    assert_eq!(gate.reasons, codes, "2 has no line, since it is long; the others are about this node alone");
}

#[test]
fn versions_are_joined_in_any_order() {
    let mut vectors = Vectors::default();
    let mut join = |name, key: &RecordKey, versions: &[Envelope]| {
        let all = |mut versions: Vec<&Envelope>| {
            let first = versions.remove(0).clone();
            versions.into_iter().fold(first, |joined, version| joined.join(version))
        };
        let result = all(versions.iter().collect());
        assert_eq!(all(versions.iter().rev().collect()), result, "{name}");
        vectors.line(&[
            ("name", text(name)),
            ("record_key", hex(key.as_bytes())),
            ("versions", list(versions.iter().map(|version| hex(version.as_bytes())))),
            ("result", hex(result.as_bytes())),
            ("hash", hex(result.version().unwrap().hash)),
            ("fingerprint", hex(result.fingerprint())),
        ]);
    };
    let key = note("a");
    let sign = |seed, counter, rank: Option<u8>| {
        let payload = rank.map(|rank| note_payload("a", "r", rank));
        Envelope::sign(&identity(seed), &key, at(START, counter), 0, payload.as_deref())
    };
    join("the later one", &key, &[sign(1, 1, Some(1)), sign(2, 2, Some(2))]);
    join("at one time, the author with the larger key", &key, &[sign(1, 1, Some(1)), sign(2, 1, Some(2))]);
    join("at one time of one author, the larger hash", &key, &[sign(1, 1, Some(1)), sign(1, 1, Some(2))]);
    join("a tombstone like any other", &key, &[sign(1, 2, None), sign(2, 1, Some(2)), sign(3, 1, Some(3))]);
    let poll = poll();
    let part = |seed, counter, votes: Option<(u8, &[u8])>| {
        let payload = votes.map(|(votes, tags)| poll_payload(votes, tags));
        let envelope = Envelope::sign(&identity(seed), &poll, at(START, counter), 0, payload.as_deref());
        Envelope::bundle([&envelope]).unwrap()
    };
    let (one, two) = (part(1, 2, Some((3, &[7]))), part(2, 3, Some((1, &[8]))));
    join("contributions of two", &poll, &[one.clone(), two.clone()]);
    join("two of one author", &poll, &[one.clone(), part(1, 4, Some((5, &[7]))), two.clone()]);
    join("a tombstone that came before", &poll, &[part(1, 1, None), one.clone(), two.clone()]);
    join("a tombstone in between", &poll, &[one.clone(), part(3, 2, None), two.clone()]);
    join("a tombstone that came last", &poll, &[one, two, part(3, 9, None)]);
    vectors.assert_golden("joins.jsonl");
}

#[test]
fn sets_are_compared() {
    let mut vectors = Vectors::default();
    let scope = Scope { definition: "Vectors".into(), part: netabase_store::ScopePart::Model("Note".into()) };
    let version = |id: u64| {
        let key = note(&id.to_string());
        let payload = note_payload(&id.to_string(), "r", 1);
        (Envelope::sign(&identity(1), &key, at(START - id, 0), 0, Some(&payload)), key)
    };
    let filled = |ids: &mut dyn Iterator<Item = u64>| {
        let store = store(None);
        for (envelope, key) in ids.map(version) {
            assert_eq!(store.replica().admit(key.as_bytes(), envelope.as_bytes()), Ok(true));
        }
        store.flush().unwrap();
        store
    };
    let cases: [(&str, Vec<u64>, Vec<u64>); 5] = [
        ("nothing on either side", vec![], vec![]),
        ("equal sets", (0..40).collect(), (0..40).collect()),
        ("an empty set and a small one", vec![], (0..5).collect()),
        (
            "a difference on each side",
            (0..50).filter(|id| *id != 7).collect(),
            (0..50).filter(|id| *id != 30).collect(),
        ),
        ("many and few differences", (0..400).filter(|id| id % 97 != 0).collect(), (0..400).collect()),
    ];
    for (name, ours, theirs) in cases {
        let (one, other) = (filled(&mut ours.iter().copied()), filled(&mut theirs.iter().copied()));
        let (mut a, mut b) =
            (one.replica().sync_set(&scope).unwrap(), other.replica().sync_set(&scope).unwrap());
        let (mut difference, mut messages) = (SyncDifference::default(), Vec::new());
        let mut message = Some(a.initiate().unwrap());
        while let Some(asked) = message {
            let answer = b.respond(&asked, SyncSet::MIN_MESSAGE_BYTES).unwrap();
            messages.extend([hex(&asked), hex(&answer)]);
            message = a.reconcile(&answer, SyncSet::MIN_MESSAGE_BYTES, &mut difference).unwrap().message;
        }
        let item = |id: &u64| {
            let (envelope, key) = version(*id);
            let item = SyncItem::of(&key, &envelope).unwrap();
            list([item.timestamp.to_string(), hex(item.id)])
        };
        let have: BTreeSet<_> = difference.have.iter().map(|item| hex(item.id)).collect();
        let need: BTreeSet<_> = difference.need.iter().flat_map(|need| need.ids.iter().map(hex)).collect();
        vectors.line(&[
            ("name", text(name)),
            ("asking", list(ours.iter().map(item))),
            ("answering", list(theirs.iter().map(item))),
            ("limit", SyncSet::MIN_MESSAGE_BYTES.to_string()),
            ("messages", list(messages)),
            ("only_asking", list(have)),
            ("only_answering", list(need)),
        ]);
    }
    vectors.assert_golden("negentropy.jsonl");
}
