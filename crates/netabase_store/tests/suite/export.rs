//! Records as lines of JSON: written, read back, damaged on the way.

use netabase_store::admin::AdminError;
use netabase_store::schema::{EncodedRecord, SchemaError};
use std::io::{self, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use netabase_store::admin::{LeftReason, ProgressCallback};
use netabase_store::export::{ExportOptions, ExportProgress};
use netabase_store::import::{
    ImportEnd, ImportError, ImportOptions, ImportProgress, ImportReport, LineError, OnConflict,
};
use netabase_store::{
    Envelope, KeyField, NetabaseModel, NetabaseStore, RecordKey, Refusal, StorageBackend, StoreError,
    StoreOptions, Timestamp, ValueError, WriteError, netabase_definition_module,
};
use proptest::prelude::*;

use crate::common::tables;
use crate::common::*;

/// The most bad lines that a report lists.
const MAX_REPORTED: usize = 100;

on_every_backend! {
    every_record_comes_back,
    an_export_that_was_stopped_is_seen_to_be_cut_off,
    an_export_is_whole_while_others_write,
    an_export_does_not_keep_what_was_replaced_for_as_long_as_its_writer_likes,
    records_that_cannot_be_read_are_counted,
    expired_records_are_left_out,
    importing_twice_changes_nothing_but_versions,
    bad_lines_are_reported_and_the_others_stored,
    an_import_stops_at_the_first_bad_line_and_goes_on_there,
    a_conflict_is_replaced_skipped_or_refused,
    a_record_that_is_not_unique_spoils_no_other,
    an_import_that_was_stopped_goes_on,
    values_of_an_earlier_version_are_converted,
    signed_versions_come_back_as_they_were,
    signed_versions_are_checked_as_those_of_peers_are,
}

#[netabase_definition_module(ListDefinition, ListKeys)]
mod list {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ListDefinition, version = 2, migrate_from = ItemV1)]
    pub(crate) struct Item {
        #[primary_key]
        pub(crate) id: u32,
        #[secondary_key(unique)]
        pub(crate) slug: String,
        pub(crate) weight: f64,
        pub(crate) price: Option<f64>,
        pub(crate) stock: u128,
    }

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct ItemV1 {
        pub(crate) id: u32,
        pub(crate) slug: String,
    }

    impl TryFrom<ItemV1> for Item {
        type Error = &'static str;

        fn try_from(ItemV1 { id, slug }: ItemV1) -> Result<Self, Self::Error> {
            assert!(slug != "panic", "a model may panic");
            if slug.is_empty() {
                return Err("it has no slug");
            }
            Ok(Self { id, slug, weight: 1.5, price: None, stock: 0 })
        }
    }
}

use list::{Item, ItemPrimaryKey, ListDefinition};

fn item(id: u32, slug: &str) -> Item {
    Item { id, slug: slug.into(), weight: 0.5, price: None, stock: 1 }
}

fn export(store: &NetabaseStore) -> String {
    let mut file = Vec::new();
    let report = store.export_json(&mut file, ExportOptions::default()).unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.bytes, file.len() as u64);
    String::from_utf8(file).unwrap()
}

fn import(store: &NetabaseStore, file: &str, options: ImportOptions<'_>) -> ImportReport {
    store.import_json(file.as_bytes(), options).unwrap()
}

fn records<M: NetabaseModel>(store: &NetabaseStore) -> Vec<M> {
    store.open_tree().unwrap().iter().unwrap().map(Result::unwrap).collect()
}

fn fill(store: &NetabaseStore) {
    let customers: Vec<_> = (-125..125).map(|id| customer(id, "Ada \"\n\u{1f600}")).collect();
    store.open_tree().unwrap().put_many(&customers).unwrap();
    store.open_tree().unwrap().put_many(&[visit("a\0b", 1), visit("", 2)]).unwrap();
}

/// An export of items, with these lines for records.
fn items_file(lines: &[&str]) -> String {
    let header = r#"{"format":"netabase-export","version":1,"definition":"ListDefinition","time":0}"#;
    let trailer = format!(r#"{{"records":{},"left_out":0}}"#, lines.len());
    format!("{header}\n{}\n{trailer}\n", lines.join("\n"))
}

fn item_line(item: &Item) -> String {
    format!(r#"{{"model":"Item","version":2,"value":{}}}"#, serde_json::to_string(item).unwrap())
}

fn every_record_comes_back(place: &Place) {
    let store = place.open();
    fill(&store);
    let file = export(&store);
    let other = place.elsewhere().open();
    let report = import(&other, &file, ImportOptions::default());
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.records, report.lines, report.last_line), (252, 254, 254));
    assert_eq!(report.bytes, file.len() as u64);
    assert_eq!(records::<Customer>(&other), records::<Customer>(&store));
    assert_eq!(records::<Visit>(&other), records::<Visit>(&store));
    let models: Vec<_> = file.lines().map(|line| line.split('"').nth(3).unwrap_or_default()).collect();
    assert!(models[1..251].iter().all(|model| *model == "Customer"), "{models:?}");
    assert_eq!(models[251..253], ["Visit", "Visit"]);
    let line: serde_json::Value = serde_json::from_str(file.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["value"]["id"], -125);
    assert_eq!(line.get("author").is_some(), store.author().is_some());
    assert_eq!(line.get("timestamp").and_then(serde_json::Value::as_u64), store.author().map(|_| START));
}

fn an_export_that_was_stopped_is_seen_to_be_cut_off(place: &Place) {
    let store = place.open();
    fill(&store);
    let mut seen = Vec::new();
    let progress = ProgressCallback::new(|progress: ExportProgress| {
        seen.push((progress.done, progress.total));
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut file = Vec::new();
    let report =
        store.export_json(&mut file, ExportOptions { progress, ..ExportOptions::default() }).unwrap();
    assert!(!report.complete && !report.is_whole());
    assert_eq!(report.records, 200);
    assert_eq!(seen, [(100, 252), (200, 252)]);
    let other = place.elsewhere().open();
    let report = other.import_json(file.as_slice(), ImportOptions::default()).unwrap();
    assert_eq!((report.end, report.records), (ImportEnd::CutOff, 200));
    assert!(!report.is_whole());
}

fn an_export_is_whole_while_others_write(place: &Place) {
    let store = place.open();
    fill(&store);
    let tree = store.open_tree::<Customer>().unwrap();
    let progress = ProgressCallback::new(|progress: ExportProgress| {
        tree.put(&customer(1000 + i64::try_from(progress.done).unwrap(), "later")).unwrap();
        tree.remove(&CustomerPrimaryKey(124)).unwrap();
        ControlFlow::Continue(())
    });
    let mut file = Vec::new();
    let report =
        store.export_json(&mut file, ExportOptions { progress, ..ExportOptions::default() }).unwrap();
    assert!(report.is_whole());
    assert!(report.records == 252 || !place.has_snapshots(), "{report:?}");
    let other = place.elsewhere().open();
    let imported = other.import_json(file.as_slice(), ImportOptions::default()).unwrap();
    assert!(imported.is_whole() && imported.records == report.records, "{imported:?}");
    let contains = other.open_tree::<Customer>().unwrap().contains(&CustomerPrimaryKey(124)).unwrap();
    assert_eq!(contains, place.has_snapshots());
}

fn an_export_does_not_keep_what_was_replaced_for_as_long_as_its_writer_likes(place: &Place) {
    // One of them is enough.
    if !place.has_snapshots() || place.is_on_disk() {
        return;
    }
    let store = place.open();
    fill(&store);
    let tree = store.open_tree::<Customer>().unwrap();
    let write = |megabytes: usize| {
        let notes = "x".repeat(1_000_000);
        for _ in 0..megabytes {
            tree.put(&Customer { notes: notes.clone(), ..customer(-125, "Ada") }).unwrap();
        }
    };
    let mut moments = Vec::new();
    for megabytes in [10, 40] {
        let progress = ProgressCallback::new(|progress: ExportProgress| {
            if progress.done == 100 {
                write(megabytes);
                tree.remove(&CustomerPrimaryKey(124)).unwrap();
            }
            ControlFlow::Continue(())
        });
        let mut file = Vec::new();
        let report =
            store.export_json(&mut file, ExportOptions { progress, ..ExportOptions::default() }).unwrap();
        assert!(report.is_whole());
        moments.push((report.moments, report.records));
        tree.put(&customer(124, "Ada")).unwrap();
    }
    assert_eq!(moments, [(1, 252), (2, 251)], "the second goes on with what there is later");
}

/// Admits a record of a later program under the key of a customer.
fn admit_newer(store: &NetabaseStore, id: i64) {
    let key = RecordKey::of(&CustomerPrimaryKey(id)).unwrap();
    let envelope =
        Envelope::sign(&identity(9), &key, Timestamp::from_unix_millis(START), 0, Some(b"\x09later"));
    assert!(store.replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap());
    // The queue is in order: what was admitted before this is written before it.
    store.open_tree().unwrap().put(&visit("last", 1)).unwrap();
}

fn records_that_cannot_be_read_are_counted(place: &Place) {
    let store = place.open();
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    admit_newer(&store, 2);
    let damaged = u64::from(place.options.backend == StorageBackend::Redb);
    let store = if damaged == 1 {
        drop(store);
        let key = CustomerPrimaryKey(3).to_key_bytes();
        tables::set(place.options.backend, &place.path(), "records/Customer", &key, Some(b"\x07"));
        place.open()
    } else {
        store
    };
    let mut file = Vec::new();
    let report = store.export_json(&mut file, ExportOptions::default()).unwrap();
    assert_eq!((report.records, report.newer, report.unreadable), (2, 1, damaged));
    assert!(report.complete && !report.is_whole());
    assert_eq!(report.left_out[0].primary_key, CustomerPrimaryKey(2).to_key_bytes());
    assert!(matches!(report.left_out[0].reason, LeftReason::Newer { found: 9, known: 1 }));
    assert_eq!(report.left_out.len() as u64, 1 + damaged);
    let other = place.elsewhere().open();
    let report = other.import_json(file.as_slice(), ImportOptions::default()).unwrap();
    assert_eq!((report.end, report.left_out, report.bad), (ImportEnd::Complete, 1 + damaged, 0));
    assert!(!report.is_whole(), "the export said that it left records out");
}

fn expired_records_are_left_out(place: &Place) {
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(Duration::from_secs(10));
    let store = place.open();
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    let expires = store.author().map(|_| START + 10_000);
    let line: serde_json::Value = serde_json::from_str(export(&store).lines().nth(1).unwrap()).unwrap();
    assert_eq!(line.get("expires").and_then(serde_json::Value::as_u64), expires);
    place.time.advance(Duration::from_secs(10));
    assert_eq!(export(&store).lines().count(), if expires.is_some() { 2 } else { 3 });
}

fn importing_twice_changes_nothing_but_versions(place: &Place) {
    let store = place.open();
    fill(&store);
    let file = export(&store);
    let key = RecordKey::of(&CustomerPrimaryKey(1)).unwrap();
    let before = (records::<Customer>(&store), records::<Visit>(&store));
    let version = store.envelope(&key).unwrap().unwrap();
    for _ in 0..2 {
        let report = import(&store, &file, ImportOptions::default());
        assert!(report.is_whole() && report.records == 252, "{report:?}");
    }
    assert_eq!((records::<Customer>(&store), records::<Visit>(&store)), before);
    let after = store.envelope(&key).unwrap().unwrap();
    assert_eq!(after.payload(), version.payload());
    assert_eq!(after.timestamp() > version.timestamp(), store.author().is_some());
}

fn bad_lines_are_reported_and_the_others_stored(place: &Place) {
    let store = place.try_open::<ListDefinition>().unwrap();
    let (good, better) = (item_line(&item(1, "a")), item_line(&item(2, "b")));
    let long = format!(r#"{{"model":"Item","version":2,"value":"{}"}}"#, "x".repeat(1000));
    let lines = [
        good.as_str(),
        "no JSON",
        "",
        r#"{"model":"Item","version":2}"#,
        r#"{"model":"Gone","version":1,"value":{}}"#,
        r#"{"model":"Item","version":3,"value":{}}"#,
        r#"{"model":"Item","version":2,"value":{"id":"x"}}"#,
        r#"{"model":"Item","version":1,"value":{"id":7,"slug":""}}"#,
        r#"{"model":"Item","version":1,"value":{"id":7,"slug":"panic"}}"#,
        &long,
        "\u{feff}{}",
        &better,
    ];
    let file = items_file(&lines) + &good;
    let options = ImportOptions { max_line_bytes: 500, ..ImportOptions::default() };
    let report = import(&store, &file, options);
    let numbers: Vec<_> = report.bad_lines.iter().map(|bad| bad.line).collect();
    assert_eq!(numbers, [3, 5, 6, 7, 8, 9, 10, 11, 12, 15]);
    let error = |line| &report.bad_lines.iter().find(|bad| bad.line == line).unwrap().error;
    assert!(matches!(error(3), LineError::Json { .. }));
    assert!(matches!(error(5), LineError::Form));
    assert!(matches!(error(6), LineError::Value(ValueError::UnknownModel { .. })));
    assert!(matches!(error(7), LineError::Value(ValueError::Version { found: 3, known: 2 })));
    assert!(matches!(error(8), LineError::Value(ValueError::Json { .. })));
    assert!(matches!(error(9), LineError::Value(ValueError::Migration { .. })));
    assert!(matches!(error(10), LineError::Value(ValueError::Panicked)));
    assert!(matches!(error(11), LineError::TooLong { limit: 500 }));
    assert!(matches!(error(15), LineError::AfterEnd));
    // The empty line is none; the trailer of this file counts it.
    assert_eq!(report.end, ImportEnd::Incomplete { expected: 12, found: 11 });
    assert_eq!((report.records, report.bad, report.last_line), (2, 10, 15));
    assert_eq!(records::<Item>(&store), [item(1, "a"), item(2, "b")]);
}

fn an_import_stops_at_the_first_bad_line_and_goes_on_there(place: &Place) {
    let store = place.try_open::<ListDefinition>().unwrap();
    let lines = [item(1, "a"), item(2, "b"), item(3, "c")].map(|item| item_line(&item));
    let broken = items_file(&[&lines[0], "{", &lines[2]]);
    let report = import(&store, &broken, ImportOptions { stop_at_errors: 1, ..ImportOptions::default() });
    assert_eq!((report.end, report.last_line, report.records), (ImportEnd::TooManyErrors, 2, 1));
    assert_eq!(records::<Item>(&store), [item(1, "a")], "what comes before the line is stored");
    let repaired = items_file(&[&lines[0], &lines[1], &lines[2]]);
    let options =
        ImportOptions { first_line: report.last_line + 1, stop_at_errors: 1, ..ImportOptions::default() };
    let report = import(&store, &repaired, options);
    assert!(report.is_whole() && report.records == 2, "{report:?}");
    assert_eq!(records::<Item>(&store).len(), 3);
    // A line that only the store finds out about.
    let refused = items_file(&[&lines[0], &item_line(&item(4, "a")), &item_line(&item(5, "e"))]);
    let report = import(&store, &refused, ImportOptions { stop_at_errors: 1, ..ImportOptions::default() });
    assert_eq!((report.end, report.last_line, report.records), (ImportEnd::TooManyErrors, 2, 1));
    assert_eq!(records::<Item>(&store).len(), 3);
}

fn a_conflict_is_replaced_skipped_or_refused(place: &Place) {
    let store = place.try_open::<ListDefinition>().unwrap();
    let here = item(1, "here");
    let lines = [item(1, "there"), item(2, "b"), item(2, "c")].map(|item| item_line(&item));
    let file = items_file(&lines.each_ref().map(String::as_str));
    let run = |on_conflict| {
        let tree = store.open_tree::<Item>().unwrap();
        tree.remove(&ItemPrimaryKey(2)).unwrap();
        tree.put(&here).unwrap();
        let report = import(&store, &file, ImportOptions { on_conflict, ..ImportOptions::default() });
        assert_eq!((report.end, report.last_line), (ImportEnd::Complete, 5));
        let bad: Vec<_> = report.bad_lines.iter().map(|bad| bad.line).collect();
        (report.records, report.skipped, bad, records::<Item>(&store))
    };
    assert_eq!(run(OnConflict::Replace), (3, 0, vec![], vec![item(1, "there"), item(2, "c")]));
    assert_eq!(run(OnConflict::Skip), (1, 2, vec![], vec![here.clone(), item(2, "b")]));
    assert_eq!(run(OnConflict::Fail), (1, 0, vec![2, 4], vec![here.clone(), item(2, "b")]));
}

fn a_record_that_is_not_unique_spoils_no_other(place: &Place) {
    let store = place.try_open::<ListDefinition>().unwrap();
    let lines: Vec<_> =
        (0..100).map(|id| item_line(&item(id, &format!("{}", if id == 77 { 3 } else { id })))).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let report = import(&store, &items_file(&lines), ImportOptions::default());
    assert_eq!((report.records, report.bad, report.bad_lines[0].line), (99, 1, 79));
    assert!(
        matches!(&report.bad_lines[0].error, LineError::Refused(error) if matches!(**error, StoreError::Write(WriteError::NotUnique { index: "slug", .. })))
    );
    assert_eq!(records::<Item>(&store).len(), 99);
    // They share commits, good or bad.
    let lines: Vec<_> = (200..700).map(|id| item_line(&item(id, "0"))).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let commits = store.counters().commits;
    let report = import(&store, &items_file(&lines), ImportOptions::default());
    assert_eq!((report.records, report.bad), (0, 500));
    assert!(store.counters().commits - commits < 500, "{}", store.counters().commits - commits);
}

fn an_import_that_was_stopped_goes_on(place: &Place) {
    let source = place.open();
    fill(&source);
    let file = export(&source);
    let store = place.elsewhere().open();
    let mut seen = Vec::new();
    let progress = ProgressCallback::new(|progress: ImportProgress| {
        seen.push(progress);
        if progress.lines < 150 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let report = import(&store, &file, ImportOptions { batch: 100, progress, ..ImportOptions::default() });
    assert_eq!((report.end, report.records, report.last_line), (ImportEnd::Stopped, 200, 201));
    assert_eq!(
        seen.iter().map(|seen| (seen.lines, seen.records)).collect::<Vec<_>>(),
        [(101, 100), (201, 200)]
    );
    assert_eq!(records::<Customer>(&store).len(), 200);
    let options = ImportOptions { first_line: report.last_line + 1, ..ImportOptions::default() };
    let report = import(&store, &file, options);
    assert!(report.is_whole() && report.records == 52, "{report:?}");
    assert_eq!(records::<Customer>(&store), records::<Customer>(&source));
    let report = import(&store, &file, ImportOptions { first_line: 255, ..ImportOptions::default() });
    assert_eq!((report.end, report.records), (ImportEnd::Complete, 0), "it was done");
}

fn values_of_an_earlier_version_are_converted(place: &Place) {
    let store = place.try_open::<ListDefinition>().unwrap();
    let file = items_file(&[r#"{"model":"Item","version":1,"value":{"id":7,"slug":"old"}}"#]);
    assert!(import(&store, &file, ImportOptions::default()).is_whole());
    assert_eq!(
        records::<Item>(&store),
        [Item { id: 7, slug: "old".into(), weight: 1.5, price: None, stock: 0 }]
    );
}

#[test]
fn numbers_come_back_exactly_or_are_reported() {
    let store = NetabaseStore::in_memory::<ListDefinition>().unwrap();
    let tree = store.open_tree::<Item>().unwrap();
    let exact = [
        Item { weight: 0.1 + 0.2, stock: u128::MAX, ..item(1, "1") },
        Item { weight: f64::MIN_POSITIVE, price: Some(-0.0), ..item(2, "2") },
        Item { weight: 5e-324, price: Some(9_007_199_254_740_993.0), ..item(3, "3") },
        Item { weight: f64::MAX, ..item(4, "4") },
    ];
    tree.put_many(&exact).unwrap();
    let other = NetabaseStore::in_memory::<ListDefinition>().unwrap();
    assert!(import(&other, &export(&store), ImportOptions::default()).is_whole());
    assert_eq!(records::<Item>(&other), exact);

    tree.put(&Item { weight: f64::NAN, ..item(5, "5") }).unwrap();
    tree.put(&Item { price: Some(f64::INFINITY), ..item(6, "6") }).unwrap();
    let report = store.export_json(io::sink(), ExportOptions::default()).unwrap();
    assert_eq!((report.records, report.unreadable), (4, 2));
    let not_json = |left: &netabase_store::admin::LeftRecord| {
        matches!(left.reason, LeftReason::Value(ValueError::NotJson))
    };
    assert!(report.left_out.iter().all(not_json), "{report:?}");
}

#[test]
fn a_report_lists_a_bounded_number() {
    let store = NetabaseStore::in_memory::<ListDefinition>().unwrap();
    let lines = ["{}"; 3 * MAX_REPORTED];
    let report = import(&store, &items_file(&lines), ImportOptions { batch: 7, ..ImportOptions::default() });
    assert_eq!((report.bad, report.bad_lines.len()), (300, MAX_REPORTED));
    let line = format!(r#"{{"model":"{}","version":1,"value":1}}"#, "x".repeat(100_000));
    let report = import(&store, &items_file(&[&line]), ImportOptions::default());
    assert!(report.bad_lines[0].to_string().len() < 1000);
}

#[test]
fn what_is_no_export_is_refused() {
    let store = NetabaseStore::in_memory::<ListDefinition>().unwrap();
    let refusal = |file: &str| match store.import_json(file.as_bytes(), ImportOptions::default()) {
        Err(StoreError::Import(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(""), ImportError::Empty);
    let known = 1;
    let newer = r#"{"format":"netabase-export","version":2,"more":{}}"#;
    assert_eq!(refusal(newer), ImportError::UnknownFormat { found: 2, known });
    let other = r#"{"format":"netabase-export","version":1,"definition":"Shop","time":0}"#;
    let expected = "ListDefinition";
    assert_eq!(refusal(other), ImportError::OtherDefinition { found: "Shop".into(), expected });
    let record = item_line(&item(1, "a"));
    assert_eq!(refusal("\n \n"), ImportError::Empty);
    for header in [r#"{"format":"netabase-export"}"#, r#"{"format":"netabase-export","version":1}"#] {
        assert!(matches!(refusal(header), ImportError::NoHeader { .. }), "{header}");
    }
    let miscounted = items_file(&[&record]).replace("\"records\":1", "\"records\":2");
    let end = ImportEnd::Incomplete { expected: 2, found: 1 };
    assert_eq!(import(&store, &miscounted, ImportOptions::default()).end, end);
}

#[test]
fn a_store_without_a_schema_has_nothing_to_export() {
    let place = Place::new(StorageBackend::Memory);
    let store = NetabaseStore::open_with("", None, place.options.clone()).unwrap();
    let refused = store.export_json(io::sink(), ExportOptions::default());
    assert!(matches!(refused, Err(StoreError::Schema(SchemaError::Missing))));
    assert!(matches!(
        store.import_json(io::empty(), ImportOptions::default()),
        Err(StoreError::Schema(SchemaError::Missing))
    ));
}

/// Takes or gives so many bytes, and then fails.
struct Failing<T>(T, usize);

impl<T> Failing<T> {
    fn take(&mut self, wanted: usize) -> io::Result<usize> {
        let len = wanted.min(self.1);
        self.1 -= len;
        if len == 0 { Err(io::Error::other("the disk is full")) } else { Ok(len) }
    }
}

impl Write for Failing<Vec<u8>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.take(bytes.len())?;
        self.0.write(&bytes[..len])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Failing<&[u8]> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.take(bytes.len())?;
        self.0.read(&mut bytes[..len])
    }
}

#[test]
fn a_failing_disk_is_told() {
    let store = Place::new(StorageBackend::Memory).open();
    fill(&store);
    for room in [0, 10, 1000, 10_000] {
        let failure = store.export_json(Failing(Vec::new(), room), ExportOptions::default()).unwrap_err();
        assert!(
            matches!(&failure, StoreError::Admin(AdminError::Output(cause)) if cause.to_string() == "the disk is full")
        );
    }
    let file = export(&store);
    let other = Place::new(StorageBackend::Memory).open();
    let half = file.len() / 2;
    let options = ImportOptions { batch: 10, ..ImportOptions::default() };
    let failure = other.import_json(BufReader::new(Failing(file.as_bytes(), half)), options).unwrap_err();
    let StoreError::Admin(AdminError::ImportFailed { next_line, source }) = failure else {
        panic!("{failure:?}")
    };
    assert!(matches!(*source, StoreError::Admin(AdminError::Input(_))));
    assert_eq!(records::<Customer>(&other).len() as u64, next_line - 2);
    assert!(next_line > 50, "{next_line}");
    let report = import(&other, &file, ImportOptions { first_line: next_line, ..ImportOptions::default() });
    assert!(report.is_whole() && report.records == 252 - (next_line - 2), "{report:?}");
}

/// Lines that are good, or were once.
fn a_line() -> impl Strategy<Value = Vec<u8>> {
    let slug = prop::sample::select(vec!["a", "b", "c", "d", "panic", ""]);
    let good = (0..6_u32, slug.clone()).prop_map(|(id, slug)| item_line(&item(id, slug)).into_bytes());
    let old = (0..6_u32, slug).prop_map(|(id, slug)| {
        format!(r#"{{"model":"Item","version":1,"value":{{"id":{id},"slug":"{slug}"}}}}"#).into_bytes()
    });
    let changed =
        (good.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut line, at, byte)| {
            let at = at.index(line.len());
            line[at] = byte;
            line
        });
    prop_oneof![
        6 => good,
        2 => old,
        2 => changed,
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(br#"{"records":3,"left_out":0}"#.to_vec()),
    ]
    // The tests below cut files at newlines alone, and a carriage return ends a line, too.
    .prop_map(|line| line.into_iter().map(|byte| if byte == b'\r' { b' ' } else { byte }).collect())
}

fn an_on_conflict() -> impl Strategy<Value = OnConflict> {
    prop::sample::select(vec![OnConflict::Replace, OnConflict::Skip, OnConflict::Fail])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_an_error_or_a_report(bytes in prop::collection::vec(any::<u8>(), 0..300), header: bool) {
        let store = NetabaseStore::in_memory::<ListDefinition>().unwrap();
        let header = if header { items_file(&[]) } else { String::new() };
        let file = [header.lines().next().unwrap_or_default().as_bytes(), b"\n", &bytes].concat();
        if let Ok(report) = store.import_json(file.as_slice(), ImportOptions::default()) {
            prop_assert_eq!(report.bytes, file.len() as u64);
            prop_assert_eq!(report.records, records::<Item>(&store).len() as u64);
        }
    }

    /// A batch of any lines has the same result as batches of one line each; only unique keys are
    /// asked for at the end of a batch, so that within one a value may pass from one record to
    /// another.
    #[test]
    fn a_batch_is_as_good_as_its_lines(
        lines in prop::collection::vec(a_line(), 0..30),
        batch in 2..40_usize,
        on_conflict in an_on_conflict(),
        stop_at_errors in prop::sample::select(vec![1, 2, 3, usize::MAX]),
        cut in any::<prop::sample::Index>(),
    ) {
        let header = items_file(&[]).lines().next().unwrap().as_bytes().to_vec();
        let mut file = header.clone();
        for line in &lines {
            file.push(b'\n');
            file.extend(line);
        }
        file.truncate(header.len() + cut.index(file.len() - header.len() + 1));
        let run = |batch, stop_at_errors| {
            let store = NetabaseStore::in_memory::<ListDefinition>().unwrap();
            let options = ImportOptions { batch, on_conflict, stop_at_errors, ..ImportOptions::default() };
            let report = store.import_json(file.as_slice(), options).unwrap();
            (records::<Item>(&store), report)
        };
        let (one_by_one, report) = run(1, usize::MAX);
        let is_not_unique = |error: &LineError| {
            matches!(error, LineError::Refused(error) if matches!(**error, StoreError::Write(WriteError::NotUnique { .. })))
        };
        prop_assume!(!report.bad_lines.iter().any(|bad| is_not_unique(&bad.error)));
        let (batched, same) = run(batch, usize::MAX);
        prop_assert_eq!(&one_by_one, &batched);
        let numbers = |report: &ImportReport| report.bad_lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        prop_assert_eq!(numbers(&report), numbers(&same));
        prop_assert_eq!(
            (report.records, report.skipped, report.end, report.last_line),
            (same.records, same.skipped, same.end, same.last_line)
        );

        // An import that stops has done the lines up to the last one that it names, and no other.
        let (stopped, report) = run(batch, stop_at_errors);
        let done: Vec<_> = file.split(|byte| *byte == b'\n').take(report.last_line.try_into().unwrap()).collect();
        let store = NetabaseStore::in_memory::<ListDefinition>().unwrap();
        let options = ImportOptions { on_conflict, ..ImportOptions::default() };
        let _ = store.import_json(done.join(&b'\n').as_slice(), options).unwrap();
        prop_assert_eq!(records::<Item>(&store), stopped);
    }
}

fn export_signed(store: &NetabaseStore) -> String {
    let mut file = Vec::new();
    let options = ExportOptions { signed: true, ..ExportOptions::default() };
    let report = store.export_json(&mut file, options).unwrap();
    assert!(report.is_whole(), "{report:?}");
    String::from_utf8(file).unwrap()
}

/// Hands over an order as its author has signed it, in a version of the model.
fn deliver(store: &NetabaseStore, author: u8, id: i64, version: u8, expires: u64) -> Envelope {
    let key = RecordKey::of(&OrderPrimaryKey(id)).unwrap();
    let mut payload = EncodedRecord::of(&order(id, 7)).unwrap().payload;
    payload[0] = 0x80 + version;
    let time = Timestamp::from_unix_millis(START + u64::from(author));
    let envelope = Envelope::sign(&identity(author), &key, time, expires, Some(&payload));
    assert_eq!(store.replica().admit(key.as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
    envelope
}

fn signed_versions_come_back_as_they_were(place: &Place) {
    let store = place.open();
    fill(&store);
    let theirs = [
        deliver(&store, 9, 1, 1, 0),
        deliver(&store, 8, 2, 1, START + 60_000),
        // A program of a later version wrote it, so that it has no value here.
        deliver(&store, 9, 3, 2, 0),
    ];
    let (file, visits) = (export_signed(&store), records::<Visit>(&store));
    let key = |id| RecordKey::of(&OrderPrimaryKey(id)).unwrap();
    for options in
        [place.options.clone(), StoreOptions { identity: Some(identity(2)), ..place.options.clone() }]
    {
        let mut other = place.elsewhere();
        other.options = StoreOptions { clock: other.time.clock(), ..options };
        let store = other.open();
        let report = import(&store, &file, ImportOptions::default());
        assert!(report.is_whole() && report.records == 255, "{report:?}");
        for (id, envelope) in (1..).zip(&theirs) {
            assert_eq!(store.envelope(&key(id)).unwrap().as_ref(), Some(envelope));
        }
        assert_eq!(records::<Visit>(&store), visits);
        let again = import(&store, &file, ImportOptions::default());
        let new = if place.options.identity.is_some() { 0 } else { 252 };
        assert_eq!((again.records, again.skipped), (new, 255 - new), "{again:?}");
        if place.options.identity.is_some() {
            assert_eq!(
                export_signed(&store).lines().skip(1).collect::<Vec<_>>(),
                file.lines().skip(1).collect::<Vec<_>>()
            );
        }
    }
}

fn signed_versions_are_checked_as_those_of_peers_are(place: &Place) {
    let store = place.open();
    let envelope = deliver(&store, 9, 1, 1, 0);
    let line: serde_json::Value =
        serde_json::from_str(export_signed(&store).lines().nth(1).unwrap()).unwrap();
    let other = place.elsewhere();
    let store = other.open();
    let with = |field: &str, value: &str| {
        let mut line = line.clone();
        line[field] = value.into();
        line.to_string()
    };
    let signed = line["signed"].as_str().unwrap();
    let last = if signed.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{last}", &signed[..signed.len() - 1]);
    let (first, middle) = signed.split_at(signed.len() / 2);
    let changed = format!("{first}{}{}", if middle.starts_with('A') { "B" } else { "A" }, &middle[1..]);
    for (file, reasons) in [
        (with("signed", &changed), &[Refusal::InvalidSignature, Refusal::InvalidEnvelope][..]),
        (with("signed", &forged), &[Refusal::InvalidSignature, Refusal::InvalidEnvelope]),
        (with("signed", "?"), &[Refusal::InvalidEnvelope]),
        (with("key", "?"), &[Refusal::InvalidKey]),
        (with("model", "Visit"), &[Refusal::InvalidKey]),
    ] {
        let report = import(&store, &file, ImportOptions::default());
        let LineError::Signed(reason) = &report.bad_lines[0].error else { panic!("{report:?}") };
        assert!(reasons.contains(reason) && report.records == 0, "{report:?}");
    }
    let file = line.to_string();
    for (on_conflict, expected) in
        [(OnConflict::Fail, (1, 0, 0)), (OnConflict::Fail, (0, 0, 1)), (OnConflict::Skip, (0, 1, 0))]
    {
        let report = import(&store, &file, ImportOptions { on_conflict, ..ImportOptions::default() });
        assert_eq!((report.records, report.skipped, report.bad), expected, "{report:?}");
    }
    // What others have written since stays.
    let newer = deliver(&store, 10, 1, 1, 0);
    assert_eq!(import(&store, &file, ImportOptions::default()).skipped, 1);
    let key = RecordKey::of(&OrderPrimaryKey(1)).unwrap();
    assert_eq!(store.envelope(&key).unwrap(), Some(newer));
    assert_ne!(store.envelope(&key).unwrap(), Some(envelope));
}
