//! Files as people have them: lines, arrays and tables, whole and damaged, slow and large.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{self, BufReader, Read};

use netabase_store::dynamic::Schema;
use netabase_store::export::ExportOptions;
use netabase_store::import::{ImportEnd, ImportError, ImportFormat, ImportOptions, ImportReport, LineError};
use netabase_store::{
    NetabaseDefinition, NetabaseStore, RecordKey, SigningKey, StorageBackend, StoreError, StoreOptions,
    netabase_definition_module,
};
use serde_json::{Value, json};

#[netabase_definition_module(ShelfDefinition, ShelfKeys)]
mod shelf {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ShelfDefinition)]
    pub(crate) struct Book {
        #[primary_key]
        pub(crate) id: u32,
        pub(crate) title: String,
        pub(crate) lent_to: Option<String>,
        pub(crate) pages: Option<u16>,
        pub(crate) tags: Vec<String>,
        pub(crate) read: bool,
    }
}

use shelf::{Book, BookPrimaryKey, ShelfDefinition};

fn book(id: u32) -> Book {
    let title = format!("Book, \"{id}\"");
    Book { id, title, lent_to: None, pages: Some(100), tags: vec!["a".into()], read: id.is_multiple_of(2) }
}

fn values(ids: std::ops::Range<u32>) -> Vec<Value> {
    ids.map(|id| serde_json::to_value(book(id)).unwrap()).collect()
}

/// Lines of records without their version.
fn lines(ids: std::ops::Range<u32>) -> Vec<String> {
    values(ids).iter().map(|value| json!({ "model": "Book", "value": value }).to_string()).collect()
}

fn of_model() -> ImportOptions<'static> {
    ImportOptions { model: Some("Book".into()), ..ImportOptions::default() }
}

fn store() -> NetabaseStore {
    NetabaseStore::in_memory::<ShelfDefinition>().unwrap()
}

fn books(store: &NetabaseStore) -> Vec<Book> {
    store.open_tree().unwrap().iter().unwrap().map(Result::unwrap).collect()
}

fn import(file: impl AsRef<[u8]>, options: ImportOptions<'_>) -> (ImportReport, Vec<Book>) {
    let store = store();
    let report = store.import_json(file.as_ref(), options).unwrap();
    assert_eq!(report.bytes, file.as_ref().len() as u64);
    (report, books(&store))
}

fn refusal(file: impl AsRef<[u8]>, options: ImportOptions<'_>) -> ImportError {
    match store().import_json(file.as_ref(), options) {
        Err(StoreError::Import(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn bad(report: &ImportReport) -> Vec<(u64, Option<u64>)> {
    report.bad_lines.iter().map(|bad| (bad.line, bad.item)).collect()
}

#[test]
fn a_file_of_any_form_is_stored() {
    let expected: Vec<_> = (0..3).map(book).collect();
    let lines = lines(0..3);
    let plain: Vec<_> = values(0..3).iter().map(Value::to_string).collect();
    let with = |end: &str| lines.iter().map(|line| format!("{line}{end}")).collect::<Vec<_>>().concat();
    let records = format!("[\n{}\n]\n", lines.join(",\n"));
    let table = "id,title,lent_to,pages,tags,read\n".to_owned()
        + &(0..3)
            .map(|id| format!("{id},\"Book, \"\"{id}\"\"\",,100,\"[\"\"a\"\"]\",{}\n", id % 2 == 0))
            .collect::<Vec<_>>()
            .concat();
    let semicolons = "read;id;title;tags;pages\r\n".to_owned()
        + &(0..3)
            .map(|id| format!("{};{id};\"Book, \"\"{id}\"\"\";[\"a\"];100\r\n", id % 2 == 0))
            .collect::<Vec<_>>()
            .concat();
    let forms = [
        ("lines", with("\n"), ImportOptions::default()),
        ("a byte order mark", format!("\u{feff}{}", with("\n")), ImportOptions::default()),
        ("both ends of lines", with("\r\n"), ImportOptions::default()),
        ("old ends of lines", with("\r"), ImportOptions::default()),
        ("no last end", lines.join("\n"), ImportOptions::default()),
        ("blank lines", format!("\n \n{}", with("\n\n  \n")), ImportOptions::default()),
        ("lines, and a model", with("\n"), of_model()),
        ("values", plain.join("\n"), of_model()),
        ("an array of records", records, ImportOptions::default()),
        ("an array of values", serde_json::to_string(&values(0..3)).unwrap(), of_model()),
        ("a spread array", serde_json::to_string_pretty(&values(0..3)).unwrap(), of_model()),
        ("a table", table.clone(), of_model()),
        ("a table that is said to be one", table, ImportOptions { format: ImportFormat::Csv, ..of_model() }),
        ("semicolons", semicolons, of_model()),
    ];
    for (form, file, options) in forms {
        let (report, stored) = import(&file, options);
        assert_eq!(stored, expected, "{form}: {report:?}");
        assert!(report.is_whole() && report.records == 3, "{form}: {report:?}");
    }
}

#[test]
fn a_described_model_is_read_as_its_type_is() {
    let schema = r#"
        name = "shelf"
        [[models]]
        name = "Book"
        primary_key = ["id"]
        fields = [
            { name = "id", type = "string" },
            { name = "pages", type = "option<u64>" },
            { name = "note", type = "option<string>" },
            { name = "tags", type = "set<string>" },
        ]
    "#;
    let schema = Schema::from_toml(schema).unwrap().definition();
    let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
    let store = NetabaseStore::open_with("", Some(schema), options).unwrap();
    let table = "id,pages,note,tags\n0042,1e2,,\"[\"\"b\"\",\"\"a\"\"]\"\ntrue,,[],[]\nx,many,,[]\n";
    let report = store.import_json(table.as_bytes(), of_model()).unwrap();
    assert_eq!((report.records, bad(&report)), (2, vec![(4, None)]));
    let value = |key: &str| {
        let key = RecordKey::new("shelf", "Book", format!("{key}\0").as_bytes()).unwrap();
        let envelope = store.envelope(&key).unwrap().unwrap();
        let json = schema.models[0].codec.to_json(envelope.payload()).unwrap();
        serde_json::from_str::<Value>(&json).unwrap()
    };
    assert_eq!(value("0042"), json!({ "id": "0042", "pages": 100, "note": null, "tags": ["a", "b"] }));
    assert_eq!(value("true"), json!({ "id": "true", "pages": null, "note": "[]", "tags": [] }));
}

#[test]
fn a_bad_line_is_one_bad_line() {
    let lines = lines(0..4);
    let file = ["# comment", &lines[0], &lines[1][..30], "", &lines[2], "[1]", &lines[3][..40]].join("\n");
    let (report, stored) = import(&file, ImportOptions::default());
    assert_eq!(bad(&report), [(1, None), (3, None), (6, None), (7, None)]);
    assert_eq!(stored, [book(0), book(2)]);
    assert_eq!((report.end, report.is_whole()), (ImportEnd::Complete, false));

    let (report, stored) = import(file.replace('\n', "\r\n"), ImportOptions::default());
    assert_eq!((bad(&report).len(), stored.len()), (4, 2));
    assert_eq!(report.bad_lines[3].line, 7);
}

#[test]
fn a_bad_element_is_named_by_its_position_and_its_line() {
    let lines = lines(0..4);
    let file = format!("[\n{},\noops,\n{},\n{{\"model\":\"Book\"}},{}\n", lines[0], lines[1], lines[2]);
    let (report, stored) = import(format!("{file}]"), ImportOptions::default());
    assert_eq!(bad(&report), [(3, Some(2)), (5, Some(4))]);
    assert_eq!(stored, [book(0), book(1), book(2)]);
    assert!(report.bad_lines[0].to_string().starts_with("element 2, on line 3: "), "{report:?}");
    assert_eq!((report.end, report.last_line), (ImportEnd::Complete, 5));

    let (report, _) = import(&file, ImportOptions::default());
    assert_eq!((report.end, report.records), (ImportEnd::CutOff, 3), "the bracket is missing");
    let (report, stored) =
        import(format!("{file}]"), ImportOptions { first_line: 3, ..ImportOptions::default() });
    assert_eq!((bad(&report), stored), (vec![(5, Some(4))], vec![book(1), book(2)]));
    assert!(import("[]", ImportOptions::default()).0.is_whole());
}

#[test]
fn a_refused_element_is_named_after_it_was_written_to_the_batch() {
    let mut values = values(0..3);
    values[1]["title"] = "x".repeat(2 * 1024 * 1024).into();
    let (report, stored) = import(serde_json::to_string_pretty(&values).unwrap(), of_model());
    assert_eq!((bad(&report), stored), (vec![(12, Some(2))], vec![book(0), book(2)]));
    assert!(matches!(report.bad_lines[0].error, LineError::Refused(_)), "{report:?}");
}

#[test]
fn a_row_that_does_not_fit_is_one_bad_row() {
    let title = "two\nlines";
    let table = format!(
        "id,title,tags,read\n1,\"{title}\",[],true\n2,b,[]\n3,c,[],true,more,and more\n4,d,[],maybe\n\n\"5\",\"\",[],false\n6,{},[],true\n7,e,[],true",
        "x".repeat(20_000),
    );
    let options = || ImportOptions { max_line_bytes: 10_000, ..of_model() };
    let (report, stored) = import(&table, options());
    assert_eq!(bad(&report), [(4, None), (5, None), (6, None), (9, None)]);
    assert_eq!(stored.iter().map(|book| book.id).collect::<Vec<_>>(), [1, 5, 7]);
    assert_eq!((&*stored[0].title, &*stored[1].title), (title, ""));
    assert!(matches!(report.bad_lines[3].error, LineError::TooLong { .. }));

    let csv = |model: Option<&str>| ImportOptions {
        format: ImportFormat::Csv,
        model: model.map(str::to_owned),
        ..ImportOptions::default()
    };
    assert_eq!(refusal(&table, csv(None)), ImportError::NoModel);
    for header in ["id,titel", "id,id", "1,2,3"] {
        let error = refusal(format!("{header}\n1,2\n"), csv(Some("Book")));
        assert!(matches!(error, ImportError::Columns { .. }), "{error}");
    }
    assert_eq!(refusal("{}", csv(Some("Books"))), ImportError::UnknownModel { name: "Books".into() });
}

#[test]
fn what_is_no_text_is_named() {
    let utf16 = |swap: bool| {
        let units = lines(0..2).join("\n").encode_utf16().collect::<Vec<_>>();
        units.into_iter().flat_map(move |unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() })
    };
    let files: [(Vec<u8>, &str); 6] = [
        (utf16(false).collect(), "UTF-16"),
        (utf16(true).collect(), "UTF-16"),
        ([0xff, 0xfe].into_iter().chain(utf16(false)).collect(), "UTF-16"),
        ([0xfe, 0xff].into_iter().chain(utf16(true)).collect(), "UTF-16"),
        (b"\x1f\x8b\x08\x00\x00".to_vec(), "gzip"),
        (b"PK\x03\x04".to_vec(), "ZIP"),
    ];
    for (file, name) in files {
        let error = refusal(&file, ImportOptions::default());
        assert!(matches!(error, ImportError::Encoding { .. }) && error.to_string().contains(name), "{error}");
    }
    for empty in ["", "\n\r\n  ", "\u{feff}"] {
        assert_eq!(refusal(empty, ImportOptions::default()), ImportError::Empty);
    }
}

#[test]
fn whole_numbers_are_integers_however_they_are_written() {
    let line = |id: &str| format!(r#"{{"id":{id},"title":"1.0","tags":[],"read":true}}"#);
    let file = ["1.0", "2e2", "-0.0", "1.5", "1e10"].map(line).join("\n");
    let (report, stored) = import(file, of_model());
    assert_eq!(stored.iter().map(|book| book.id).collect::<Vec<_>>(), [1, 200]);
    assert_eq!(bad(&report), [(3, None), (4, None), (5, None)]);
}

/// Gives a line at a time, and looks into the store when it is asked for more after it had nothing.
struct Slow<'a> {
    store: &'a NetabaseStore,
    lines: Vec<String>,
    given: usize,
    was_asked: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.was_asked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        assert_eq!(books(self.store).len(), self.given, "what came is stored");
        self.was_asked = false;
        let Some(line) = self.lines.get(self.given) else { return Ok(0) };
        out[..line.len()].copy_from_slice(line.as_bytes());
        self.given += 1;
        Ok(line.len())
    }
}

#[test]
fn a_slow_input_is_stored_as_it_comes() {
    let elements: Vec<_> = lines(0..3).iter().map(|line| format!(",{line},")).collect();
    let array = [&[format!("[{}", elements[0])], &elements[1..]].concat();
    let rows = ["id,title,tags,read\n1,a,[],true\n", "2,b,[],true\n", "3,c,[],true\n"].map(str::to_owned);
    let inputs = [
        (lines(0..3).iter().map(|line| format!("{line}\n")).collect(), ImportOptions::default()),
        (array, ImportOptions::default()),
        (rows.to_vec(), of_model()),
    ];
    for (lines, options) in inputs {
        let store = store();
        let slow = Slow { store: &store, lines, given: 0, was_asked: false };
        let report = store.import_json(BufReader::with_capacity(4096, slow), options).unwrap();
        assert_eq!((report.records, books(&store).len()), (3, 3));
    }
}

#[test]
fn what_is_imported_is_due_for_publication_at_once() {
    let identity = Some(SigningKey::from_bytes(&[1; 32]));
    let options = StoreOptions { backend: StorageBackend::Memory, identity, ..StoreOptions::default() };
    let store = NetabaseStore::open_with("", Some(ShelfDefinition::SCHEMA), options).unwrap();
    store.open_tree().unwrap().put(&book(9)).unwrap();
    assert_eq!(store.replica().due(9).unwrap(), [], "whoever puts a record has time to publish it");
    let lines = lines(0..3).join("\n");
    assert!(store.import_json(lines.as_bytes(), ImportOptions::default()).unwrap().is_whole());
    let mut due = store.replica().due(9).unwrap();
    due.sort();
    assert_eq!(due, [0, 1, 2].map(|id| RecordKey::of(&BookPrimaryKey(id)).unwrap()));
}

#[test]
fn a_model_with_the_fields_of_a_line_is_not_taken_for_one() {
    let schema = r#"
        name = "garage"
        [[models]]
        name = "Car"
        primary_key = ["id"]
        fields = [
            { name = "id", type = "u64" },
            { name = "model", type = "string" },
            { name = "value", type = "u64" },
        ]
    "#;
    let schema = Schema::from_toml(schema).unwrap().definition();
    let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
    let store = NetabaseStore::open_with("", Some(schema), options).unwrap();
    let file = r#"{"id":1,"model":"T","value":850}
        {"id":2,"model":"Car","value":900}
        {"model":"Car","value":{"id":3,"model":"Car","value":1}}"#;
    let options = || ImportOptions { model: Some("Car".into()), ..ImportOptions::default() };
    assert_eq!(store.import_json(file.as_bytes(), options()).unwrap().records, 3);
    let mut export = Vec::new();
    assert!(store.export_json(&mut export, ExportOptions::default()).unwrap().is_whole());
    let again = store.import_json(export.as_slice(), options()).unwrap();
    assert!(again.is_whole() && again.records == 3, "{again:?}");
}
