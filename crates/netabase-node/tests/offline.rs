//! Commands on a database that no node has open.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Ended, Node, command, program, readable, run, run_with};
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

    // Another node has them as their author has signed them.
    let signed = |export: &str| export.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    database.run(&["export", &file, "--signed"]).ok();
    let restored = Database::new(backend);
    restored.run(&["import", &file]).ok();
    let again = restored.run(&["export", "--signed"]).ok().out;
    assert_eq!(signed(&again), signed(&std::fs::read_to_string(&file).unwrap()));
    assert!(again.contains(r#""signed":""#), "{again}");
    database.run(&["export", &file]).ok();

    let checked = database.run(&["check", "--json"]).ok();
    assert_eq!((&checked.json()["is_clean"], &checked.json()["records"]), (&json!(true), &json!(300)));
    assert!(checked.err.contains("which no node has open"), "{checked:?}");

    if backend == "redb" {
        // A file that was written once has nothing to give back.
        database.run(&["import", &file]).ok();
        let compacted = database.run(&["compact", "--json"]).ok().json();
        let size = std::fs::metadata(database.file()).unwrap().len();
        assert!(compacted["after_bytes"].as_u64() < compacted["before_bytes"].as_u64(), "{compacted}");
        assert!(size <= compacted["before_bytes"].as_u64().unwrap(), "{compacted} {size}");
    } else {
        database.run(&["compact"]).failed(1, "the sled backend has no compaction");
    }
    let own = format!("{}.peers", database.file().display());
    database.run(&["backup", &own]).failed(1, "is a name for files of the database");

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
        database.run_with(&lines, &["import", "-"]).failed(1, "1 lines could not be stored; correct them");
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
fn what_killed_exports_and_backups_have_left_goes_with_the_next_one() {
    let database = Database::new("redb");
    database.run_with(&score("chess", 1, 1), &["import", "-"]).ok();
    let left = ["out.ndjson.AbCdEf.partial", "out.ndjson.ghijkl.partial"].map(|name| database.path(name));
    let others = ["out.ndjson.AbCdEf", "other.AbCdEf.partial", "out.ndjson.long-er.partial.partial"];
    let others = others.map(|name| database.path(name));
    left.iter().chain(&others).for_each(|path| std::fs::write(path, "{").unwrap());
    // The export that writes this one is still under way.
    let busy = std::fs::File::open(&left[1]).unwrap();
    busy.lock().unwrap();
    let exported = database.run(&["export", &database.path("out.ndjson")]).ok();
    assert!(exported.err.contains("an export that was not completed was removed"), "{exported:?}");
    assert!(!Path::new(&left[0]).exists() && Path::new(&left[1]).exists());
    assert!(others.iter().all(|path| Path::new(path).exists()));
    drop(busy);
    database.run(&["export", &database.path("out.ndjson")]).ok();
    assert!(!Path::new(&left[1]).exists());

    let left = database.path("chat.redb.AbCdEf.partial");
    std::fs::write(&left, "").unwrap();
    database.run(&["backup", &database.path("copy")]).ok();
    assert!(!Path::new(&left).exists());
}

#[test]
fn a_database_that_may_only_be_read_is_exported_copied_and_checked_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    for backend in ["redb", "sled"] {
        let database = Database::new(backend);
        database.run_with(&score("chess", 1, 1), &["import", "-"]).ok();
        let directory = database.directory.path().join("node");
        // A missing identity is not created.
        std::fs::remove_file(format!("{}.identity", database.file().display())).unwrap();
        let before = files(&directory);
        let allow = |file: u32, folder: u32| {
            for path in before.keys().map(PathBuf::as_path).chain([&*directory, &*database.file()]) {
                let mode = if path.is_dir() { folder } else { file };
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
        };
        allow(0o444, 0o555);
        let exported = database.run(&["export"]);
        let copied = database.run(&["backup", &database.path("copy")]);
        let checked = database.run(&["check"]);
        allow(0o600, 0o700);
        assert_eq!(records(&exported.ok().out).len(), 1);
        copied.ok();
        checked.ok();
        assert!(files(&directory) == before, "{backend}");
    }
}

/// Returns the files in a directory and below, with what is in them.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_database_that_a_node_has_open_and_serves_is_asked_of_the_node() {
    let database = Database::new("redb");
    let path = database.directory.path().join("node");
    let token = database.path("token");
    std::fs::write(&token, "a-token-that-only-a-file-tells").unwrap();
    let listen = ["--schema", SCHEMA, "--listen", "/ip4/127.0.0.1/tcp/0", "--token-file", &token];
    let mut node = Node::start(&path, &listen);
    let url = node.api();
    let imported = database.run_with(&score("chess", 1, 1), &["import", "-"]).ok();
    assert!(imported.err.contains(&format!("importing into the node at {url}")), "{imported:?}");
    assert!(database.run(&["check"]).ok().err.contains("asking the node at"));
    assert_eq!(records(&database.run(&["export"]).ok().out).len(), 1);
    // Commands that only a node answers find it, too, by its directory and by its file.
    let by = |place: &str, command: &[&str]| run(&[command, &["--path", place]].concat());
    let got = by(&path.display().to_string(), &["get", "Score", "[\"chess\",1]", "--json"]).ok();
    assert_eq!(got.json()["value"]["points"], 1);
    by(&database.file().display().to_string(), &["status"]).ok();

    node.terminate();
    assert!(node.ended().success());
    assert!(!path.join("chat.redb.api").exists());
    by(&path.display().to_string(), &["status"]).failed(3, "no program serves a database in");
    assert!(database.run(&["check"]).ok().err.contains("which no node has open"));
}

#[test]
fn a_database_that_nobody_serves_is_named_with_its_owner_and_can_be_waited_for() {
    let database = Database::new("redb");
    let path = database.directory.path().join("node");
    let mut node = Node::start(&path, &["--schema", SCHEMA, "--listen", "/ip4/127.0.0.1/tcp/0", "--no-api"]);
    node.printed("database");
    for command in [&["check"][..], &["export"], &["backup", "copy"]] {
        let refused = database.run(command).failed(1, "another process has it open (pid ");
        assert!(refused.err.contains("--lock-timeout 30s"), "{refused:?}");
    }
    let second =
        run(&["serve", "--no-mdns", "--no-api", "--path", &path.display().to_string(), "--schema", SCHEMA]);
    second.failed(1, "another process has it open (pid ");
    let own = database.arguments();
    let arguments: Vec<_> = own.iter().map(String::as_str).chain(["--lock-timeout", "60s"]).collect();
    let mut waiting = Node::spawn(&mut program(&[&["check"], &arguments[..]].concat()));
    node.terminate();
    assert!(node.ended().success() && waiting.ended().success());
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

/// Returns what other users of the machine can read below a directory.
fn readable_below(directory: &Path) -> Vec<PathBuf> {
    let is_readable = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o077 != 0;
    let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| is_readable(path))
        .flat_map(|path| if path.is_dir() { readable_below(&path) } else { vec![path] })
        .collect()
}

fn a_node_keeps_its_files(backend: &'static str) {
    let database = Database::new(backend);
    let directory = database.directory.path().join("node");
    std::fs::DirBuilder::new().mode(0o755).create(&directory).unwrap();
    let own = database.arguments();
    let own: Vec<&str> = own[2..].iter().map(String::as_str).collect();
    let mut node = Node::spawn(&mut readable(&command(&directory, &own)));
    let api = node.api();
    run(&["put", "Score", r#"{"game":"go","player":1,"points":2}"#, "--api", &api]).ok();
    run(&["backup", "copy.redb", "--api", &api]).ok();
    assert_eq!(readable_below(&directory), Vec::<PathBuf>::new(), "while it runs");
    node.terminate();
    node.ended();
    assert_eq!(readable_below(&directory), Vec::<PathBuf>::new());

    let (export, mode) =
        (directory.join("export"), |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777);
    let name = export.display().to_string();
    let own = database.arguments();
    let own = own.each_ref().map(String::as_str);
    let arguments = [&["export", &name][..], &own].concat();
    for expected in [0o644, 0o600] {
        assert!(readable(&program(&arguments)).status().unwrap().success());
        assert_eq!(mode(&export), expected, "{:o}", mode(&export));
        // An export that is replaced keeps what its owner has made of its mode.
        std::fs::set_permissions(&export, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn nobody_else_reads_the_files_of_a_node_on_redb() {
    a_node_keeps_its_files("redb");
}

#[test]
fn nobody_else_reads_the_files_of_a_node_on_sled() {
    a_node_keeps_its_files("sled");
}
