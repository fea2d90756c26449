//! Commands on a database that no node has open.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Ended, Node, run, run_with};
use tempfile::TempDir;

mod support;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/chat.toml");

/// A database, which each command opens for itself.
struct Database {
    directory: TempDir,
    backend: &'static str,
}

impl Database {
    fn new(backend: &'static str) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), backend }
    }

    fn arguments(&self) -> [String; 6] {
        let path = self.directory.path().join("node").display().to_string();
        ["--path".into(), path, "--schema".into(), SCHEMA.into(), "--backend".into(), self.backend.into()]
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with("", arguments)
    }

    fn run_with(&self, input: &str, arguments: &[&str]) -> Ended {
        let own = self.arguments();
        run_with(input, &arguments.iter().copied().chain(own.iter().map(String::as_str)).collect::<Vec<_>>())
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join(format!("node/chat.{}", self.backend))
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

fn score(game: &str, player: u32, points: i64) -> String {
    json!({ "model": "Score", "version": 1, "value": { "game": game, "player": player, "points": points } })
        .to_string()
}

fn records(export: &str) -> Vec<Value> {
    let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("model").is_some()).map(|line| line["value"].clone()).collect()
}

fn round_trip(backend: &'static str) {
    let database = Database::new(backend);
    let lines: String = (0..300).map(|player| score("chess", player, -5) + "\n").collect();
    let imported = database.run_with(&lines, &["import", "-"]).ok();
    assert_eq!(imported.out, "300 records stored, 0 lines could not be\n");
    let says = format!("importing into the database {}, which no node has open", database.file().display());
    assert!(imported.err.contains(&says), "{imported:?}");

    let exported = database.run(&["export"]).ok();
    assert_eq!(records(&exported.out).len(), 300);
    assert!(
        exported.err.contains("which no node has open") && exported.err.contains("300 records"),
        "{exported:?}"
    );
    let file = database.path("export.ndjson");
    database.run(&["export", &file]).ok();
    assert_eq!(records(&std::fs::read_to_string(&file).unwrap()), records(&exported.out));

    let other = Database::new("redb");
    let report = other.run(&["import", &file, "--json"]).ok().json();
    assert_eq!((&report["records"], &report["is_whole"]), (&json!(300), &json!(true)));
    assert_eq!(records(&other.run(&["export"]).ok().out), records(&exported.out));

    let checked = database.run(&["check", "--json"]).ok();
    assert_eq!((&checked.json()["is_clean"], &checked.json()["records"]), (&json!(true), &json!(300)));
    assert!(checked.err.contains("which no node has open"), "{checked:?}");

    let copy = database.path("copy.redb");
    let copied = database.run(&["backup", &copy, "--json"]).ok().json();
    assert_eq!(copied["path"], copy);
    let again = Database::new("redb");
    std::fs::create_dir(again.directory.path().join("node")).unwrap();
    std::fs::rename(&copy, again.file()).unwrap();
    assert_eq!(records(&again.run(&["export"]).ok().out), records(&exported.out));
}

#[test]
fn records_go_out_and_in_again_on_redb() {
    round_trip("redb");
}

#[test]
fn records_go_out_and_in_again_on_sled() {
    round_trip("sled");
}

#[test]
fn bad_lines_are_named_and_the_others_are_stored() {
    let database = Database::new("redb");
    let lines = format!("{}\nrubbish\n{}\n", score("chess", 1, 1), score("chess", 2, 1));
    let imported =
        database.run_with(&lines, &["import", "-"]).failed(1, "1 lines could not be stored; mend them");
    assert_eq!(imported.out, "2 records stored, 1 lines could not be\n");
    assert!(imported.err.contains("line 2: "), "{imported:?}");
}

#[test]
fn an_export_that_was_cut_off_is_told() {
    let database = Database::new("redb");
    database.run_with(&score("chess", 1, 1), &["import", "-"]).ok();
    let export = database.run(&["export"]).ok().out;
    let cut: String = export.split_inclusive('\n').take(2).collect();
    database.run_with(&cut, &["import", "-"]).failed(1, "the file was cut off");
    let of_another = export.replace("\"chat\"", "\"other\"");
    database.run_with(&of_another, &["import", "-"]).failed(1, "the export is of the definition `other`");
    database.run(&["import", "/nowhere"]).failed(1, "name a file that exists, or - for standard input");
}

#[test]
fn a_database_that_is_not_there_is_not_made_to_look_at_it() {
    let database = Database::new("redb");
    for command in [&["check"][..], &["export"], &["backup", "copy"]] {
        database.run(command).failed(4, "there is no database");
    }
    assert!(!database.file().exists());
}

#[test]
fn a_backup_replaces_nothing() {
    let database = Database::new("redb");
    database.run_with(&score("chess", 1, 1), &["import", "-"]).ok();
    let copy = database.path("copy");
    std::fs::write(&copy, "mine").unwrap();
    database.run(&["backup", &copy]).failed(1, "name a file that does not exist");
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "mine");
}

#[test]
fn a_database_that_a_node_has_open_is_left_to_the_node() {
    let database = Database::new("redb");
    let path = database.directory.path().join("node");
    let node = Node::start(&path, &["--schema", SCHEMA, "--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.api();
    for command in [&["check"][..], &["export"], &["backup", "copy"]] {
        database.run(command).failed(1, "if a node has the database open, leave --path away to ask the node");
    }
}

#[test]
fn a_check_tells_what_is_wrong() {
    let database = Database::new("redb");
    database.run_with(&score("chess", 1, 1), &["import", "-"]).ok();
    damage(&database.file());
    let checked = database.run(&["check"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.err.lines().last().unwrap().starts_with("error: "), "{checked:?}");
}

/// Changes a byte of the record's signature, wherever it is.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let chess = b"\x05chess";
    let mut places: Vec<_> = bytes
        .windows(chess.len())
        .enumerate()
        .filter(|(_, window)| window == chess)
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty());
    places.reverse();
    for place in places {
        bytes[place + 1] = b'C';
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn which_database_is_meant_is_clear() {
    let both = run(&["check", "--path", "a", "--api", "http://127.0.0.1:1"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    let schema_alone = run(&["check", "--schema", SCHEMA]);
    assert_eq!(schema_alone.code, Some(2), "{schema_alone:?}");
    run(&["serve"]).failed(2, "no directory for the database is given; add --path DIR, set NETABASE_PATH");
}
