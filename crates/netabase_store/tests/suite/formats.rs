//! The bytes on the disk and on the wire, as `docs/formats.md` describes them.
//!
//! A difference means that databases and peers of an earlier version are not understood any more:
//! it needs a new format version, not new golden bytes. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use netabase_store::admin::CheckOptions;
use netabase_store::export::ExportOptions;
use netabase_store::import::ImportOptions;
use netabase_store::members::{MemberList, SignedMembers};
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, Envelope, KeyField, NetabaseDefinition, NetabaseKey, NetabaseStore, OpenError, RecordKey,
    StorageBackend, StoreError, StoreOptions, Timestamp, netabase_definition_module,
};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableHandle};

use crate::common::disk::{Disk, Fault, Loss};
use crate::common::tables::{Tables, insert_all, rewrite};
use crate::common::*;

/// Compares `found` with the golden file called `name`.
fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == golden, "{} differs; the bytes are now:\n{found}", path.display());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[derive(NetabaseKey, Clone, Debug)]
struct Position {
    row: u16,
    column: i8,
}

#[derive(NetabaseKey, Clone, Debug)]
enum Shape {
    Point,
    Circle(u16),
    Named { name: String },
}

#[test]
fn the_bytes_of_keys() {
    let mut lines = String::new();
    macro_rules! keys {
        ($($key:expr),* $(,)?) => {$({
            let key = $key;
            writeln!(lines, "{} = {}", stringify!($key), hex(&key.to_key_bytes())).unwrap();
        })*};
    }
    keys![
        false,
        true,
        7_u8,
        7_u16,
        7_u32,
        7_u64,
        7_u128,
        -7_i8,
        7_i8,
        -7_i16,
        -7_i32,
        -7_i64,
        7_i64,
        -7_i128,
        1.5_f32,
        -1.5_f32,
        1.5_f64,
        -1.5_f64,
        0.0_f64,
        -0.0_f64,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        'a',
        '\u{1f600}',
        String::new(),
        "ab".to_owned(),
        "a\0\u{1}b".to_owned(),
        "\u{e9}".to_owned(),
        Vec::<u8>::new(),
        vec![0_u8, 1, 2, 255],
        vec![7_u16, 8],
        vec!["a".to_owned(), String::new()],
        [0_u8, 1, 2, 255],
        None::<u8>,
        Some(7_u8),
        Some("a".to_owned()),
        (7_u8,),
        (7_u8, "ab".to_owned(), -1_i16),
        UNIX_EPOCH,
        UNIX_EPOCH + Duration::new(1, 500),
        UNIX_EPOCH - Duration::from_nanos(1),
        Duration::new(1, 500),
        Author::from_bytes([7; 32]),
        Position { row: 7, column: -1 },
        Shape::Point,
        Shape::Circle(7),
        Shape::Named { name: "a".to_owned() },
        VisitPrimaryKey("home".into(), 7),
    ];
    assert_golden("keys.txt", &lines);
}

/// A customer with everything in it.
fn ada() -> Customer {
    Customer { id: -2, name: "Ada".into(), city: Some("Paris".into()), notes: "n".into() }
}

/// A value and the bytes of its parts.
fn line(lines: &mut String, name: impl Debug, bytes: &[u8]) {
    writeln!(lines, "{name:?} = {}", hex(bytes)).unwrap();
}

#[test]
fn the_bytes_of_records() {
    let mut lines = String::new();
    let key = RecordKey::of(&CustomerPrimaryKey(-2)).unwrap();
    let payload = EncodedRecord::of(&ada()).unwrap().payload;
    let timestamp = Timestamp::from_bits((START << 16) + 3);
    let signed = Envelope::sign(&identity(1), &key, timestamp, START + 1000, Some(&payload));
    let for_ever = Envelope::sign(&identity(1), &key, timestamp, 0, Some(&payload));
    let tombstone = Envelope::sign(&identity(1), &key, timestamp, 0, None);
    line(&mut lines, "record key", key.as_bytes());
    line(&mut lines, "payload", &payload);
    line(&mut lines, "unsigned envelope", Envelope::unsigned(&payload).as_bytes());
    line(&mut lines, "identity", &identity(1).to_bytes());
    line(&mut lines, "author", identity(1).verifying_key().as_bytes());
    line(&mut lines, "signed envelope that expires", signed.as_bytes());
    line(&mut lines, "signed envelope", for_ever.as_bytes());
    line(&mut lines, "version hash", &for_ever.version().unwrap().hash);
    line(&mut lines, "tombstone", tombstone.as_bytes());
    assert_golden("records_fields.txt", &lines);

    let former = golden_lines("records.txt");
    assert_eq!(netabase_store::schema::decode_payload::<Customer>(&former["payload"]).unwrap(), ada());
    let signed = Envelope::parse(&former["signed envelope"]).unwrap();
    signed.verify(&key).unwrap();
    assert_eq!(signed.payload(), former["payload"]);
}

/// Returns the bytes of a golden file of an earlier program, whose values are by positions.
fn golden_lines(name: &str) -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let (name, bytes) = line.split_once(" = ").unwrap();
        (name.trim_matches('"').to_owned(), unhex(bytes))
    };
    text.lines().map(line).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(digit).collect()
}

/// Builds an envelope from `docs/formats.md` alone.
#[test]
fn an_envelope_is_what_the_description_says() {
    use ed25519_dalek::Signer;

    let key = RecordKey::of(&CustomerPrimaryKey(-2)).unwrap();
    let author = identity(1);
    let mut content = vec![0x01, 0x00];
    content.extend(((START << 16) + 3).to_be_bytes());
    content.extend((START + 1000).to_be_bytes());
    content.extend(author.verifying_key().as_bytes());
    content.extend(b"\x01payload");
    let mut digest = blake3::Hasher::new_derive_key("netabase record envelope v1");
    digest.update(&u32::try_from(key.as_bytes().len()).unwrap().to_be_bytes());
    digest.update(key.as_bytes());
    digest.update(&content);
    let signature = author.sign(digest.finalize().as_bytes());
    let bytes = [&content[..], &signature.to_bytes()].concat();

    let envelope = Envelope::parse(&bytes).unwrap();
    envelope.verify(&key).unwrap();
    assert_eq!(envelope.payload(), b"\x01payload");
    assert_eq!(envelope.version().unwrap().hash, *blake3::hash(&content).as_bytes());
    let timestamp = Timestamp::from_bits((START << 16) + 3);
    let signed = Envelope::sign(&author, &key, timestamp, START + 1000, Some(b"\x01payload"));
    assert_eq!(signed, envelope);
}

#[test]
fn the_bytes_of_a_member_list() {
    let mut lines = String::new();
    let author = |seed| Author::of(&identity(seed));
    let mut members = MemberList::default();
    members.add(author(1)).unwrap();
    members.add_since(author(2), Timestamp::from_bits(300)).unwrap();
    members.add_since(author(3), Timestamp::from_unix_millis(START)).unwrap();
    members.revoke(author(1), Timestamp::from_bits((START << 16) + 3));
    let key = MemberList::key("ShopDefinition").unwrap();
    let signed = members.sign(&identity(9), "ShopDefinition", None).unwrap();
    let payload = signed.envelope().payload();
    let envelope = Envelope::sign(&identity(9), &key, Timestamp::from_unix_millis(START), 0, Some(payload));
    line(&mut lines, "record key", key.as_bytes());
    line(&mut lines, "empty payload", b"\x01\x00");
    line(&mut lines, "payload", payload);
    line(&mut lines, "root", identity(9).verifying_key().as_bytes());
    line(&mut lines, "signed member list", envelope.as_bytes());
    assert_golden("members.txt", &lines);

    let read = SignedMembers::parse(envelope.as_bytes()).unwrap();
    assert_eq!((read.members(), read.timestamp()), (&members, Timestamp::from_unix_millis(START)));
    let empty = MemberList::default().sign(&identity(9), "ShopDefinition", None).unwrap();
    assert_eq!(empty.envelope().payload(), b"\x01\x00");
}

#[netabase_definition_module(PollDefinition, PollKeys)]
mod polls {
    use std::collections::BTreeSet;

    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(PollDefinition)]
    pub(crate) struct Poll {
        #[primary_key]
        pub(crate) id: u8,
        #[merge(counter)]
        #[secondary_key]
        pub(crate) votes: i64,
        #[merge(set)]
        pub(crate) tags: BTreeSet<u8>,
    }
}
use polls::*;

/// Two contributions and the tombstone before them.
fn contributions() -> (RecordKey, [Envelope; 3]) {
    let key = RecordKey::of(&PollPrimaryKey(1)).unwrap();
    let sign = |seed, after, poll: Option<Poll>| {
        let payload = poll.map(|poll| EncodedRecord::of(&poll).unwrap().payload);
        let timestamp = Timestamp::from_bits((START << 16) + after);
        Envelope::sign(&identity(seed), &key, timestamp, 0, payload.as_deref())
    };
    let parts = [
        sign(1, 1, None),
        sign(1, 2, Some(Poll { id: 1, votes: 3, tags: [7].into() })),
        sign(2, 3, Some(Poll { id: 1, votes: -1, tags: [8].into() })),
    ];
    (key, parts)
}

#[test]
fn the_bytes_of_bundles() {
    let (key, parts) = contributions();
    let bundle = Envelope::bundle(&parts).unwrap();
    let place = Place::new(StorageBackend::Memory);
    let store = place.try_open::<PollDefinition>().unwrap();
    store.replica().admit(key.as_bytes(), bundle.as_bytes()).unwrap();
    let merged = store.envelope(&key).unwrap().unwrap();
    let mut lines = String::new();
    line(&mut lines, "record key", key.as_bytes());
    line(&mut lines, "bundle", bundle.as_bytes());
    line(&mut lines, "version hash", &bundle.version().unwrap().hash);
    line(&mut lines, "merged bundle", merged.as_bytes());
    line(&mut lines, "deleted bundle", Envelope::bundle(&parts[..1]).unwrap().as_bytes());
    assert_golden("bundles_fields.txt", &lines);

    let former = golden_lines("bundles.txt");
    let store = Place::new(StorageBackend::Memory).try_open::<PollDefinition>().unwrap();
    store.replica().admit(&former["record key"], &former["bundle"]).unwrap();
    let poll = store.open_tree::<Poll>().unwrap().get(&PollPrimaryKey(1)).unwrap();
    assert_eq!(poll, Some(Poll { id: 1, votes: 2, tags: [7, 8].into() }));
}

/// Builds a bundle from `docs/formats.md` alone.
#[test]
fn a_bundle_is_what_the_description_says() {
    let (key, [tombstone, one, two]) = contributions();
    let bundle_of = |flags: u8, payload: &[u8], parts: &[&Envelope]| {
        let mut bytes = vec![0x02, flags];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes.extend(u16::try_from(parts.len()).unwrap().to_be_bytes());
        for part in parts {
            bytes.extend(u32::try_from(part.as_bytes().len()).unwrap().to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        Envelope::parse(&bytes)
    };
    // The public key of the second identity is the smaller one.
    let bundle = bundle_of(0, &[], &[&tombstone, &two, &one]).unwrap();
    assert_eq!(Some(&bundle), Envelope::bundle([&one, &two, &tombstone]).as_ref());
    bundle.verify(&key).unwrap();
    let merged = bundle_of(0, b"\x01merged", &[&tombstone, &two, &one]).unwrap();
    assert_eq!(
        (merged.payload(), merged.to_wire(), merged.version()),
        (b"\x01merged".as_slice(), bundle.clone(), bundle.version())
    );
    let mut hash = blake3::Hasher::new();
    for part in [&tombstone, &two, &one] {
        let content = &part.as_bytes()[..part.as_bytes().len() - 64];
        hash.update(&u32::try_from(content.len()).unwrap().to_be_bytes()).update(content);
    }
    assert_eq!(bundle.version().unwrap().hash, *hash.finalize().as_bytes());
    assert!(bundle_of(1, &[], &[&tombstone]).unwrap().is_tombstone());
    for wrong in [
        bundle_of(0, &[], &[]),
        bundle_of(0, &[], &[&tombstone]),
        bundle_of(1, &[], &[&tombstone, &one]),
        bundle_of(1, b"\x01merged", &[&tombstone]),
        bundle_of(0, &[], &[&one, &tombstone]),
        bundle_of(1, &[], &[&tombstone, &tombstone]),
        bundle_of(0, &[], &[&one, &two]),
        bundle_of(0, &[], &[&one, &one]),
        bundle_of(2, &[], &[&one]),
        bundle_of(0, &[], &[&Envelope::unsigned(b"x")]),
        bundle_of(0, &[], &[&bundle]),
    ] {
        assert!(wrong.is_err(), "{wrong:?}");
    }
}

/// Fills a store with something of every kind.
fn fill(place: &Place) {
    let mut place_options = place.options.clone();
    place_options.record_lifetime = Some(Duration::from_secs(1000));
    let store = NetabaseStore::open_with(place.path(), Some(SCHEMA), place_options).unwrap();
    store.open_tree().unwrap().put_many(&[ada(), customer(1, "Grace")]).unwrap();
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(1)).unwrap();
    let scheduled = RecordKey::of(&CustomerPrimaryKey(-2)).unwrap();
    let published = store.envelope(&scheduled).unwrap().unwrap();
    store.replica().schedule(&scheduled, &published, Some(START + 5000));
    store.open_tree().unwrap().put(&visit("home", 7)).unwrap();
    let foreign = RecordKey::new("ShopDefinition", "Unknown", b"1").unwrap();
    let envelope =
        Envelope::sign(&identity(2), &foreign, Timestamp::from_unix_millis(START), 0, Some(b"foreign"));
    store.replica().admit(foreign.as_bytes(), envelope.as_bytes()).unwrap();
}

/// The entry that names the histories of changes.
fn histories() -> (String, Vec<u8>) {
    ("meta".to_owned(), b"histories".to_vec())
}

/// Fills a store in the same way each time: the random bits of its history's id are 0.
fn fill_alike(place: &Place) {
    const RANDOM_BITS: u32 = 20;
    fill(place);
    rewrite(place, |tables| {
        let histories = tables.get_mut(&histories()).unwrap();
        let (id, first) = histories.split_at_mut(8);
        let time = u64::from_be_bytes((*id).try_into().unwrap()) >> RANDOM_BITS;
        assert_eq!((time, &*first), (START, &1_u64.to_be_bytes()[..]));
        id.copy_from_slice(&(START << RANDOM_BITS).to_be_bytes());
    });
}

const SCHEMA: &netabase_store::schema::DefinitionSchema = <ShopDefinition as NetabaseDefinition>::SCHEMA;

fn entry(dump: &mut String, key: &[u8], value: &[u8]) {
    writeln!(dump, "  {} = {}", key.escape_ascii(), hex(value)).unwrap();
}

/// Returns every table of a redb file that is not empty as text.
fn dump_redb(path: &Path) -> String {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let mut names: Vec<_> = transaction.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    names.sort();
    let mut dump = String::new();
    for name in names {
        let table = redb::TableDefinition::<&[u8], &[u8]>::new(&name);
        let table = transaction.open_table(table).unwrap();
        if !table.is_empty().unwrap() {
            writeln!(dump, "{name}").unwrap();
        }
        for row in table.iter().unwrap() {
            let (key, value) = row.unwrap();
            entry(&mut dump, key.value(), value.value());
        }
    }
    dump
}

/// Returns every key of a sled directory as text.
fn dump_sled(path: &Path) -> String {
    let database = open_sled(path);
    let mut dump = String::new();
    for row in database.iter() {
        let (key, value) = row.unwrap();
        // The number of the last commit depends on how many writes came together.
        if key != b"\0\x085/counts" {
            entry(&mut dump, &key, &value);
        }
    }
    dump
}

#[test]
fn the_tables_of_redb() {
    let place = Place::signed(StorageBackend::Redb);
    fill_alike(&place);
    assert_golden("redb_5_fields.txt", &dump_redb(&place.path()));
}

#[test]
fn the_tables_of_redb_without_an_identity() {
    let place = Place::new(StorageBackend::Redb);
    fill_alike(&place);
    assert_golden("redb_unsigned_5_fields.txt", &dump_redb(&place.path()));
}

#[test]
fn the_keys_of_sled() {
    let place = Place::signed(StorageBackend::Sled);
    fill_alike(&place);
    assert_golden("sled_5_fields.txt", &dump_sled(&place.path()));
}

/// Reads the text of the tables of redb, or of the keys of sled, whose tables are in them.
fn parse_dump(dump: &str) -> Tables {
    let (mut tables, mut table) = (Tables::new(), String::new());
    for line in dump.lines() {
        let Some(entry) = line.strip_prefix("  ") else {
            line.clone_into(&mut table);
            continue;
        };
        let (key, value) = entry.split_once(" = ").unwrap();
        tables.insert((table.clone(), unescape(key)), unhex(value));
    }
    tables
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [byte, after @ ..] = rest {
        (bytes, rest) = match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let byte = u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap();
                ([bytes, vec![byte]].concat(), after)
            }
            (b'\\', [escaped, after @ ..]) => {
                let byte = match escaped {
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'r' => b'\r',
                    other => *other,
                };
                ([bytes, vec![byte]].concat(), after)
            }
            (byte, after) => ([bytes, vec![*byte]].concat(), after),
        };
    }
    bytes
}

/// Returns the golden tables of an earlier program.
fn golden_tables(name: &str) -> Tables {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    parse_dump(&fs::read_to_string(path).unwrap())
}

/// Returns the tables of a closed database of the present format, without the histories: each
/// database has its own, and one of format 4 need not have any. The shapes of values are not those
/// of an earlier program either.
fn present_tables(place: &Place) -> Tables {
    let mut present = Tables::new();
    rewrite(place, |tables| present.clone_from(tables));
    let is_shape = |key: &[u8]| key.starts_with(b"shape/") || key.starts_with(b"fields/");
    present.retain(|(table, key), _| table != "meta" || !is_shape(key));
    present.remove(&histories());
    present
}

/// Makes a database of the golden tables of an earlier program.
fn golden_place(backend: StorageBackend, signed: bool, golden: &str) -> Place {
    let place = if signed { Place::signed(backend) } else { Place::new(backend) };
    let golden = golden_tables(golden);
    if backend == StorageBackend::Redb {
        let database = redb::Database::create(place.path()).unwrap();
        let writing = database.begin_write().unwrap();
        insert_all(&writing, &golden);
        writing.commit().unwrap();
    } else {
        let database = open_sled(&place.path());
        for ((_, key), value) in golden {
            database.insert(key, value).unwrap();
        }
        database.flush().unwrap();
    }
    place
}

#[test]
fn a_database_of_format_4_is_brought_up_to_date() {
    for (backend, signed, golden, present) in [
        (StorageBackend::Redb, true, "redb.txt", "redb_5.txt"),
        (StorageBackend::Redb, false, "redb_unsigned.txt", "redb_unsigned_5.txt"),
    ] {
        let former = golden_place(backend, signed, golden);
        let report = former.open().check(CheckOptions::default()).unwrap();
        assert!(report.is_clean() && report.problems.is_empty(), "{report:?}");
        let present = golden_place(backend, signed, present);
        assert_eq!(present_tables(&former), present_tables(&present), "{golden}");
    }
}

#[test]
fn a_database_of_values_by_positions_is_read() {
    for (backend, signed, golden) in [
        (StorageBackend::Redb, true, "redb.txt"),
        (StorageBackend::Redb, true, "redb_5.txt"),
        (StorageBackend::Redb, false, "redb_unsigned_5.txt"),
        (StorageBackend::Sled, true, "sled.txt"),
    ] {
        let store = golden_place(backend, signed, golden).open();
        let report = store.check(CheckOptions::default()).unwrap();
        assert!(report.is_clean() && report.problems.is_empty(), "{golden}: {report:?}");
        let customers = store.open_tree::<Customer>().unwrap();
        assert_eq!(customers.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>(), [ada()], "{golden}");
        assert_eq!(customers.find(CustomerCitySecondaryKey("Paris".into())).unwrap(), [ada()], "{golden}");
        customers.put(&Customer { notes: "m".into(), ..ada() }).unwrap();
        assert_eq!(customers.get(&CustomerPrimaryKey(-2)).unwrap().unwrap().notes, "m");
    }
}

fn disk_of_format_4() -> Disk {
    let disk = Disk::default();
    let database = redb::Database::builder().create_with_backend(disk.clone()).unwrap();
    let writing = database.begin_write().unwrap();
    insert_all(&writing, &golden_tables("redb.txt"));
    writing.commit().unwrap();
    disk
}

#[netabase_definition_module(OwnedDefinition, OwnedKeys, name = "ShopDefinition")]
mod owned {
    use netabase_store::{Author, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(OwnedDefinition, owned)]
    pub(crate) struct Customer {
        #[primary_key]
        pub(crate) author: Author,
    }
}

#[test]
fn a_database_of_format_4_that_is_refused_is_left_as_it_was() {
    let disk = disk_of_format_4();
    let bytes = disk.bytes();
    let open = |schema| NetabaseStore::open_with_storage(disk.clone(), schema, StoreOptions::default());
    let error = open(None).unwrap_err();
    assert!(matches!(error, StoreError::Open(OpenError::OtherDefinition { .. })), "{error:?}");
    assert_eq!(disk.bytes(), bytes);
    let error = open(Some(owned::OwnedDefinition::SCHEMA)).unwrap_err();
    assert!(
        matches!(error, StoreError::Open(OpenError::OtherPolicy { model: "Customer", records: 1, .. })),
        "{error:?}"
    );
    assert_eq!(disk.bytes(), bytes);
    drop(open(Some(SCHEMA)).unwrap());
    assert_ne!(disk.bytes(), bytes);
}

#[test]
fn an_upgrade_from_format_4_that_was_interrupted_goes_on() {
    let present = golden_place(StorageBackend::Redb, true, "redb_5.txt");
    let whole = disk_of_format_4();
    let open = |disk: &Disk| {
        let options = present.options.clone();
        NetabaseStore::open_with_storage(disk.clone(), Some(SCHEMA), options)
    };
    let mut interrupted = 0;
    for at in (0..).step_by(7) {
        let disk = Disk::holding(whole.bytes());
        disk.fail(Some(Fault::PowerLoss { at }));
        drop(open(&disk));
        let (left, faults) = disk.after(Loss::All, || true);
        if faults.failed == 0 {
            break;
        }
        interrupted += 1;
        assert!(open(&left).unwrap().check(CheckOptions::default()).unwrap().is_clean());
        let place = Place::signed(StorageBackend::Redb);
        fs::write(place.path(), left.bytes()).unwrap();
        assert_eq!(present_tables(&place), present_tables(&present), "at {at}");
    }
    assert!(interrupted > 5, "{interrupted}");
}

#[test]
fn the_lines_of_an_export() {
    let place = Place::signed(StorageBackend::Redb);
    fill(&place);
    let mut export = Vec::new();
    let _ = place.open().export_json(&mut export, ExportOptions::default()).unwrap();
    assert_golden("export.jsonl", str::from_utf8(&export).unwrap());
}

#[test]
fn the_golden_export_is_imported() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/export.jsonl");
    let store = Place::new(StorageBackend::Memory).open();
    let report = store.import_json(fs::read(golden).unwrap().as_slice(), ImportOptions::default()).unwrap();
    assert!(report.is_whole() && report.records == 2, "{report:?}");
    assert_eq!(store.open_tree().unwrap().get(&CustomerPrimaryKey(-2)).unwrap(), Some(ada()));
}

#[cfg(feature = "libp2p")]
#[test]
fn the_bytes_of_providers() {
    use libp2p::kad::store::RecordStore;
    use libp2p::kad::{ProviderRecord, RecordKey as KadKey};

    let place = Place::new(StorageBackend::Redb);
    let mut store = place.open();
    let peer = [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], identity(1).verifying_key().as_bytes()].concat();
    let mut provider = ProviderRecord {
        key: KadKey::new(b"for ever"),
        provider: libp2p::PeerId::from_bytes(&peer).unwrap(),
        expires: None,
        addresses: vec!["/ip4/10.0.0.1/tcp/4001".parse().unwrap(), "/dns4/a.example/tcp/1".parse().unwrap()],
    };
    store.add_provider(provider.clone()).unwrap();
    provider.key = KadKey::new(b"until now");
    provider.expires = Some(std::time::Instant::now());
    provider.addresses.clear();
    store.add_provider(provider).unwrap();
    drop(store);
    let dump = dump_redb(&place.path());
    let (_, providers) = dump.split_once("5/providers\n").unwrap();
    let (providers, _) = providers.split_once("meta\n").unwrap();
    assert_golden("providers_5.txt", providers);
}
