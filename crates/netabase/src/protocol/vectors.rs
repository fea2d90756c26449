//! Messages and names as golden bytes below `docs/vectors`, which `docs/vectors.md` describes.

use libp2p::identity::Keypair;
use netabase_store::blob::BlobHash;
use netabase_store::key::KeySpan;
use netabase_store::replica::SyncBound;
use netabase_store::schema::DefinitionSchema;
use netabase_store::{Blob, NetabaseStore, Refusal, Scope, ScopePart, StoreOptions, Timestamp};

use crate::blobs::provide;
use crate::outcome::VersionId;
use crate::protocol::blob;
use crate::protocol::live;
use crate::protocol::query;
use crate::protocol::record;
use crate::protocol::sync;
use crate::query::keys::{ProviderKey, shard_of};
use crate::replication::live::topic::topic_of;
use crate::replication::repair::compare::{Brief, Comparison, Item, Range};
use golden::{Vectors, hex, list, text};
use record::{Failure, PutAnswer};

#[path = "../../../netabase_store/tests/suite/common/vectors.rs"]
mod golden;

const LIMIT: usize = 1 << 20;
const KEY: &[u8] = b"/Vectors/Note/a\0";
const VALUE: &[u8] = b"envelope";
const VERSION: VersionId =
    VersionId { timestamp: Timestamp::from_bits(0x018b_cfe5_6800_0003), fingerprint: [7; 16] };

fn schema() -> &'static DefinitionSchema {
    let text = include_str!("../../../../docs/vectors/schema.toml");
    netabase_store::dynamic::Schema::from_toml(text).unwrap().definition()
}

/// A file of messages of one protocol.
struct Messages(Vectors);

impl Messages {
    fn new() -> Self {
        Self(Vectors::default())
    }

    fn add(&mut self, message: &str, says: &str, bytes: impl AsRef<[u8]>) {
        self.0.line(&[("message", text(message)), ("says", text(says)), ("bytes", hex(bytes))]);
    }
}

fn failures(messages: &mut Messages) {
    for (failure, says) in [
        (Failure::Other, "another reason"),
        (Failure::UnknownRequest, "the tag is not known"),
        (Failure::Malformed, "the bytes are not a request"),
        (Failure::TooLarge, "the request is too long"),
        (Failure::Busy, "too many requests are waiting, or the peer is slowed"),
        (Failure::Slowed, "the sender is slowed or banned"),
        (Failure::TooFast, "the sender has sent too much in a short time"),
    ] {
        messages.add("failure", says, record::Response::Failure(failure).encode(LIMIT));
    }
}

#[test]
fn messages_of_the_record_protocol() {
    let mut messages = Messages::new();
    let mut put = record::PutRequest::new(LIMIT);
    assert!(put.push((KEY, VALUE)) && put.push((b"/Vectors/Note/b\0", b"")));
    let range = Range { from: [1; 32], to: Some([2; 32]), count: 3, digest: [4; 16] };
    let last = Range { to: None, from: [2; 32], ..range.clone() };
    let item = Brief { position: [5; 16], fingerprint: [6; 8] };
    let requests = [
        ("put", "two records, the second with an empty value", put.finish()),
        ("get", "two keys", record::get_request([KEY, b"/Vectors/Note/b\0"], LIMIT)),
        ("versions", "a key", record::versions_request([KEY], LIMIT)),
        ("compare", "a range, and one to the end", record::compare_request(&[range, last])),
        ("offer", "an item", record::offer_request(&[item])),
        ("fetch", "a position", record::fetch_request(&[[7; 16]])),
    ];
    for (name, says, bytes) in requests {
        assert!(record::Request::decode(&bytes).is_ok(), "{name}");
        messages.add(&format!("{name} request"), says, bytes);
    }
    let answers = vec![PutAnswer::Stored, PutAnswer::Known, PutAnswer::Refused(Refusal::Outdated)];
    let whole = Comparison::Listed { items: vec![item], until: None };
    let part = Comparison::Listed { items: vec![item], until: Some([8; 32]) };
    let compared = vec![Comparison::Equal, Comparison::Split, whole, part];
    let responses = [
        ("put", "stored, there already, refused as outdated", record::Response::Put(answers)),
        ("get", "a copy, and none", record::Response::Get(vec![Some(VALUE), None])),
        ("versions", "none, and one", record::Response::Versions(vec![None, Some(VERSION)])),
        (
            "compare",
            "equal; different; all items; all before a position",
            record::Response::Compared(compared),
        ),
        ("offer", "the third and the 259th are wanted", record::Response::Wanted(vec![2, 258])),
        ("fetch", "none, and a record", record::Response::Records(vec![None, Some((KEY, VALUE))])),
    ];
    for (name, says, response) in responses {
        let bytes = response.encode(LIMIT);
        assert_eq!(record::Response::decode(&bytes), Ok(response));
        messages.add(&format!("{name} response"), says, bytes);
    }
    failures(&mut messages);
    let items = [1, 2].map(|at| Item { position: [at; 32], fingerprint: [at; 16] });
    let digest = Range::new([0; 32], None, &items).digest;
    messages.add("digest", "of the positions 01.. and 02.. with the fingerprints 01.. and 02..", digest);
    let hello = record::Hello { clock: 0x018b_cfe5_6800, run: [7; 16], ..record::Hello::default() };
    let witness = record::Witness { by: [1; 16], of: [2; 16], clock: 0x018b_cfe5_6800, signature: [9; 64] };
    let told = record::Hello {
        slowed: Some(97),
        banned: Some((600, Refusal::InvalidSignature)),
        runs: vec![[1; 16], [2; 16]],
        witnesses: vec![witness],
        ..hello.clone()
    };
    for (says, hello) in [
        ("a clock and a run", hello),
        ("slowed for 97 s, banned for 600 s for a signature, two runs, and a witness", told),
    ] {
        let bytes = hello.encode();
        assert_eq!(record::Response::decode(&bytes), Ok(record::Response::Hello(hello.clone())));
        assert_eq!(record::Request::decode(&bytes), Ok(record::Request::Hello(hello)));
        messages.add("hello request or response", says, bytes);
    }
    messages.0.assert_golden("record_protocol.jsonl");
}

#[test]
fn messages_of_the_query_protocol() {
    let mut messages = Messages::new();
    let span = KeySpan { start: b"a".to_vec(), end: Some(b"b".to_vec()) };
    let (definition, model) = ("Vectors", "Note");
    let all = query::PageRequest {
        definition,
        model,
        index: None,
        span: KeySpan::all(),
        reverse: false,
        records: 100,
        bytes: 0x1_0000,
    };
    let room = query::PageRequest { index: Some("room"), span, reverse: true, ..all.clone() };
    for (says, request) in [
        ("the first 100 notes, 64 KiB of them", all),
        ("those with a room from a up to b, b excluded, the last one first", room),
    ] {
        let bytes = request.encode();
        assert_eq!(query::PageRequest::decode(&bytes), Ok(request));
        messages.add("page request", says, bytes);
    }
    let mut page = query::PageWriter::new(LIMIT);
    assert!(page.push((b"a\0", VALUE)));
    messages.add(
        "page response",
        "a record; entries behind a\\0a\\0 are left",
        page.finish(Some(b"a\0a\0"), false),
    );
    let nothing = query::PageWriter::new(LIMIT).finish(None, true);
    messages.add("page response", "nothing, and nothing is left", nothing);
    messages.add("failure", "there is no such model or secondary key", query::unknown());
    messages.0.assert_golden("query.jsonl");
}

#[test]
fn messages_of_the_sync_protocol() {
    let mut messages = Messages::new();
    let model = sync::WireScope { model: [7; 8], value: None };
    let of_value = sync::WireScope { value: Some((b"room", b"general\0")), ..model.clone() };
    let bound = SyncBound::new(6, &[1, 2]).unwrap();
    let need = sync::Need { from: SyncBound::BEGIN, to: bound, ids: vec![[3; 8]] };
    let mut given = sync::Records::given(&of_value, LIMIT);
    assert!(given.push((KEY, VALUE)));
    let mut later = sync::LaterRequest::new(&model, LIMIT);
    assert!(later.push(KEY, VERSION));
    let requests = [
        (
            "compare",
            "three items, and the message \"message\", of a model",
            sync::reconcile(&model, 3, b"message"),
        ),
        ("fetch", "an id between the beginning and a bound", sync::fetch(&model, &[need])),
        ("range", "from a bound to the end", sync::range(&model, &bound, &SyncBound::END)),
        ("give", "a record, to a value", given.finish()),
        ("later", "a version", later.finish()),
    ];
    for (name, says, bytes) in requests {
        assert!(sync::decode_request(&bytes).is_ok(), "{name}");
        messages.add(&format!("{name} request"), says, bytes);
    }
    let records = || {
        let mut records = sync::Records::answer(LIMIT);
        assert!(records.push((KEY, VALUE)));
        records
    };
    let mut later = sync::Records::answer(LIMIT);
    assert!(later.push_later(None) && later.push_later(Some((KEY, VALUE))));
    let answers = [PutAnswer::Stored, PutAnswer::Known, PutAnswer::Refused(Refusal::Full)];
    let responses = [
        (
            "compare",
            "the scope is kept here, three items, and a message",
            sync::reconciled(true, 3, b"message"),
        ),
        ("compare", "many more items: ask for ranges", sync::reconciled(false, 5000, b"")),
        ("fetch", "two needs were looked up; a record", records().fetched(2)),
        ("range", "a record, and where to go on", records().ranged(Some(&bound))),
        ("range", "a record, and nothing is left", records().ranged(None)),
        ("give", "stored, there already, refused for want of room", sync::given(&answers)),
        ("later", "none, and a record", later.later()),
        (
            "failure",
            "the scope is not known, or not kept where records are given",
            sync::failure(Failure::Other),
        ),
    ];
    for (name, says, bytes) in responses {
        assert!(sync::Response::decode(&bytes).is_ok(), "{name}");
        messages.add(&format!("{name} response"), says, bytes);
    }
    let options = StoreOptions::in_memory();
    let store = NetabaseStore::open_with("", Some(schema()), options).unwrap();
    let scope = Scope { definition: "Vectors".into(), part: ScopePart::Model("Note".into()) };
    let name = blake3::derive_key("netabase model of a scope v1", b"Vectors/Note");
    assert_eq!(store.replica().model_tag(&scope).unwrap(), name[..8]);
    messages.add("model of a scope", "Note of Vectors", &name[..8]);
    messages.0.assert_golden("sync.jsonl");
}

#[test]
fn messages_of_the_blob_protocol() {
    let mut messages = Messages::new();
    let named = Blob { hash: BlobHash::from_bytes([0xab; 32]), size: 100_000 };
    for (name, says, request) in [
        ("have request", "a blob of 100,000 bytes", blob::Request::Have(named)),
        (
            "get request",
            "two groups from the fifth on",
            blob::Request::Get { blob: named, first: 5, count: 2 },
        ),
    ] {
        let bytes = request.encode();
        assert_eq!(blob::Request::decode(&bytes), Ok(request));
        messages.add(name, says, bytes);
    }
    for (name, says, response) in [
        ("have response", "it is here", blob::Response::Have),
        ("have response", "it is not here", blob::Response::NotHere),
        ("get response", "the slice \"slice\"", blob::Response::Slice(b"slice")),
        ("failure", "too many requests are waiting", blob::Response::Failure(Failure::Busy)),
    ] {
        let bytes = response.encode();
        assert_eq!(blob::Response::decode(&bytes), Ok(response));
        messages.add(name, says, bytes);
    }
    messages.add("provider key", "of the blob ab..", provide::provider_key(&named.hash));
    messages.0.assert_golden("blob.jsonl");
}

#[test]
fn live_messages_and_topics() {
    let mut messages = Messages::new();
    let mut records = live::Records::new();
    assert!(records.push(KEY, VALUE) && records.push(b"/Vectors/Note/b\0", b""));
    messages.add("records", "two, the second with an empty value", records.finish().1);
    messages.add("notice", "a version that is too long", live::notice(KEY, VERSION.timestamp));
    messages.add("unknown", "a kind of a later program: passed over, and no offence", b"\x09later");
    let value = |index: &str, key: &[u8]| ScopePart::Value {
        model: "Note".into(),
        index: index.into(),
        key: key.to_vec(),
    };
    for (says, part) in [
        ("the model Note", ScopePart::Model("Note".into())),
        ("the owned model Profile", ScopePart::Model("Profile".into())),
        ("the merged model Poll", ScopePart::Model("Poll".into())),
        ("the room general of Note", value("room", b"general\0")),
    ] {
        let topic = topic_of("net", schema(), &Scope { definition: "Vectors".into(), part });
        messages.add("topic in the network net", says, topic.as_str());
    }
    messages.0.assert_golden("live.jsonl");
}

#[test]
fn names_of_holders() {
    let mut vectors = Vectors::default();
    let note = schema().model("Note").unwrap();
    let keys = [
        ("any record of Note", ProviderKey::of_model("Vectors", note)),
        ("a note in the room general", ProviderKey::of_value("Vectors", note, "room", b"general\0")),
        ("more rooms than are listed", ProviderKey::of_unlisted("Vectors", note, "room")),
    ];
    for (says, key) in keys {
        let shards = (0..16).map(|shard| hex(key.shard(shard).to_bytes()));
        vectors.line(&[("says", text(says)), ("key", hex(key.to_bytes())), ("shards", list(shards))]);
    }
    for seed in 1..=3_u8 {
        let identity = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let peer = identity.public().to_peer_id();
        vectors.line(&[
            ("says", text("the shards of a peer, the outermost first")),
            ("seed", hex([seed; 32])),
            ("identity", hex(identity.to_protobuf_encoding().unwrap())),
            ("peer", text(&peer.to_string())),
            ("peer_bytes", hex(peer.to_bytes())),
            ("nibbles", list((0..3).map(|depth| shard_of(peer, depth).to_string()))),
        ]);
    }
    vectors.assert_golden("holders.jsonl");
}
