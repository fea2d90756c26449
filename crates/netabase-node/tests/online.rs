//! Commands that talk to a running node.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use netabase::netabase_store::text;
use serde_json::{Value, json};
use support::{Ended, Node, program, run, run_with};
use tempfile::TempDir;

mod support;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/chat.toml");

/// A node of the chat, and where its API is.
struct Chat {
    node: Node,
    api: String,
    directory: TempDir,
}

impl Chat {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let always = ["--schema", SCHEMA, "--listen", "/ip4/127.0.0.1/tcp/0"];
        let node = Node::start(directory.path(), &[&always, arguments].concat());
        let api = node.api();
        Self { node, api, directory }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        run(&[arguments, &["--api", &self.api]].concat())
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

fn message(id: &str, room: &str) -> Value {
    json!({ "id": id, "room": room, "text": format!("hello {id}"), "tags": ["a"], "reply_to": null, "mood": "Calm" })
}

#[test]
fn a_record_is_put_found_and_removed() {
    let chat = Chat::start(&[]);
    let value = message("42", "general");
    let said = chat.run(&["put", "Message", &value.to_string()]).ok().out;
    assert_eq!(said, "stored Message 42 on this node; it is sent to peers when they connect\n");
    let outcome =
        run_with(&value.to_string(), &["put", "Message", "-", "--json", "--api", &chat.api]).ok().json();
    assert_eq!(
        (&outcome["model"], &outcome["key"], &outcome["replaced"]),
        (&json!("Message"), &json!("42"), &json!(true))
    );

    let found = chat.run(&["get", "Message", "42", "--json"]).ok().json();
    assert_eq!((&found["key"], &found["value"]), (&json!("42"), &value));
    let shown = chat.run(&["get", "Message", "42"]).ok().out;
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["value.text", "hello", "42"])), "{shown}");

    chat.run(&["get", "Message", "43"]).failed(4, "There is no such record");
    chat.run(&["get", "Massage", "43"]).failed(4, "the schema has no model `Massage`");
    chat.run(&["remove", "Message", "42"]).ok();
    chat.run(&["get", "Message", "42"]).failed(4, "There is no such record");
    chat.run(&["remove", "Message", "42"]).failed(4, "There is no such record");
}

#[test]
fn what_is_no_value_is_refused() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Message", "{id:42}"]).failed(2, "the value is not JSON");
    chat.run(&["put", "Message", r#"{"id":"42"}"#]).failed(1, "room");
    let mut value = message("42", "general");
    value["colour"] = json!("red");
    chat.run(&["put", "Message", &value.to_string()]).failed(1, "colour");
}

#[test]
fn records_are_found_by_keys_in_order_and_by_pages() {
    let chat = Chat::start(&[]);
    for id in 0..5 {
        let room = if id % 2 == 0 { "even" } else { "odd" };
        chat.run(&["put", "Message", &message(&id.to_string(), room).to_string()]).ok();
    }
    let keys = |arguments: &[&str]| {
        let found = chat.run(&[&["query", "Message", "--json"], arguments].concat()).ok();
        let keys =
            found.lines().iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect::<String>();
        (keys, found.err)
    };
    assert_eq!(keys(&[]).0, "01234");
    assert_eq!(keys(&["--by", "room=even"]).0, "024");
    assert_eq!(keys(&["--by", "room=even", "--reverse"]).0, "420");
    assert_eq!(keys(&["--by", "room", "--prefix", "o"]).0, "13");
    assert_eq!(keys(&["--from", "1", "--to", "3"]).0, "12");
    assert_eq!(keys(&["--limit", "2", "--all"]).0, "01234");
    let (first, said) = keys(&["--limit", "2"]);
    assert_eq!(first, "01");
    let cursor = said.strip_prefix("there is more: add --cursor ").unwrap().split(',').next().unwrap();
    assert_eq!(keys(&["--limit", "2", "--cursor", cursor]).0, "23");

    let table = chat.run(&["query", "Message", "--by", "room=odd"]).ok().out;
    let heads: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads.first(), Some(&"KEY"));
    assert_eq!(heads.last(), Some(&"WRITTEN"));
    assert_eq!(table.lines().count(), 3);
    chat.run(&["query", "Message", "--by", "room=a", "--prefix", "b"])
        .failed(2, "--by KEY=VALUE asks for one value");
    chat.run(&["query", "Message", "--by", "colour=red"]).failed(1, "colour");
    let usage = chat.run(&["query", "Message", "--limit", "0"]);
    assert_eq!(usage.code, Some(2), "{usage:?}");
}

#[test]
fn a_record_has_any_text_as_its_key() {
    let chat = Chat::start(&[]);
    for key in ["", ".", "..", "~", "/"] {
        let value = message(key, "general");
        chat.run(&["put", "Message", &value.to_string()]).ok();
        assert_eq!(chat.run(&["get", "Message", key, "--json"]).ok().json()["value"], value);
        assert_eq!(chat.run(&["why", "Message", key, "--json"]).ok().json()["key"], json!(key));
        chat.run(&["remove", "Message", key]).ok();
        chat.run(&["get", "Message", key]).failed(4, "There is no such record");
    }
}

#[test]
fn a_cursor_of_another_query_is_refused() {
    let chat = Chat::start(&[]);
    for id in 0..3 {
        chat.run(&["put", "Message", &message(&id.to_string(), "general").to_string()]).ok();
    }
    let said = chat.run(&["query", "Message", "--by", "room", "--limit", "2"]).ok().err;
    let cursor = said.strip_prefix("there is more: add --cursor ").unwrap().split(',').next().unwrap();
    let next = chat.run(&["query", "Message", "--by", "room", "--cursor", cursor, "--json"]).ok();
    assert_eq!(next.lines()[0]["key"], json!("2"));
    chat.run(&["query", "Message", "--cursor", cursor]).failed(1, "belongs to another query");
    chat.run(&["query", "Message", "--cursor", "32"]).failed(1, "is no cursor");
}

#[test]
fn changes_are_followed_and_followed_on() {
    let chat = Chat::start(&[]);
    let watch = |arguments: &[&str]| {
        let always = ["watch", "Message", "--json", "--api", &chat.api];
        Node::spawn(&mut program(&[&always, arguments].concat()))
    };
    // A change from which on everything is followed.
    chat.run(&["put", "Message", &message("0", "odd").to_string()]).ok();
    let mut first = watch(&["--since", "0"]);
    let (sequence, position) =
        first.json_line(|line| Some((line["sequence"].as_u64()?, line["position"].as_str()?.to_owned())));
    chat.run(&["put", "Message", &message("1", "odd").to_string()]).ok();
    chat.run(&["remove", "Message", "0"]).ok();
    first.json_line(|line| (line["event"] == "put" && line["record"]["key"] == "1").then_some(()));
    first.json_line(|line| (line["event"] == "remove" && line["record"]["key"] == "0").then_some(()));
    first.signal("INT");
    first.logged(&["resume with --since"]);
    assert_eq!(first.ended().code(), Some(0));

    for since in [&sequence.to_string(), &position] {
        let second = watch(&["--since", since, "--by", "room=odd"]);
        let next = second.json_line(|line| Some(line.clone()));
        assert_eq!((&next["event"], &next["record"]["key"]), (&json!("put"), &json!("1")));
    }
    // A database that does not have the history says so, instead of leaving changes out.
    let other = Chat::start(&[]);
    for id in 0..3 {
        other.run(&["put", "Message", &message(&id.to_string(), "odd").to_string()]).ok();
    }
    other.run(&["watch", "--since", &position]).failed(1, "does not have the history");
    other.run(&["watch", "--since", "1_"]).code.filter(|code| *code == 2).unwrap();
    run(&["watch", "--by", "room=odd", "--api", &chat.api]).failed(2, "are about one model; name it");
}

#[test]
fn those_who_follow_hear_that_the_node_is_gone() {
    let mut chat = Chat::start(&[]);
    let mut watch = Node::spawn(&mut program(&["watch", "--since", "0", "--api", &chat.api]));
    chat.run(&["put", "Message", &message("1", "odd").to_string()]).ok();
    watch.printed("1 put Message");
    chat.node.terminate();
    assert_eq!(chat.node.ended().code(), Some(0));
    watch.logged(&["closed the stream; start it"]);
    assert_eq!(watch.ended().code(), Some(3));
}

#[test]
fn a_node_says_how_it_is() {
    let chat = Chat::start(&["--network", "friends"]);
    let status = chat.run(&["status", "--json"]).ok().json();
    assert_eq!((&status["definition"], &status["network"]), (&json!("chat"), &json!("friends")));
    let shown = chat.run(&["status"]).ok().out;
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["network", "friends"])), "{shown}");
}

#[test]
fn peers_are_added_and_shown() {
    let (one, other) = (Chat::start(&[]), Chat::start(&[]));
    let status = other.run(&["status", "--json"]).ok().json();
    let peer = status["peer_id"].as_str().unwrap();
    let address = format!("{}/p2p/{peer}", status["listen_addresses"][0].as_str().unwrap());
    let none = one.run(&["peers"]).ok();
    assert!(none.err.contains("no peers; add one with `netabase peers add ADDRESS`"), "{none:?}");
    one.run(&["peers", "show", peer]).failed(4, "There is no such peer");
    one.run(&["peers", "add", "here"]).failed(1, "must be a multiaddr");
    one.run(&["peers", "add", &format!("/ip4/127.0.0.1/tcp/9/p2p/{peer}")])
        .failed(1, "The peer was not reached");
    assert_eq!(one.run(&["peers", "add", &address]).ok().out, "connected\n");
    other.run(&["peers", "add", &address]).failed(1, "is an address of this node");
    other.node.logged(&["connected"]);
    one.node.logged(&["connected"]);
    let table = one.run(&["peers"]).ok().out;
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], [peer, "outgoing"], "{table}");
    assert_eq!(one.run(&["peers", "--json"]).ok().json()["peers"][0]["peer"], peer);
    assert_eq!(one.run(&["peers", "show", peer, "--json"]).ok().json()["connected"], true);

    let value = message("42", "general");
    let said = one.run(&["put", "Message", &value.to_string()]).ok().out;
    assert_eq!(said, "stored Message 42 on this node, and accepted by 1 of 1 peers\n");
    let here = other.run(&["query", "Message", "--by", "room=general", "--network", "--json"]).ok();
    assert!(here.err.contains("1 of 1 peers have answered"), "{here:?}");
    let here = here.lines();
    assert_eq!(here.iter().map(|record| &record["value"]).collect::<Vec<_>>(), [&value]);
    let health = one.run(&["why", "Message", "42", "--health", "--json"]).ok().json();
    assert!(health.is_object(), "{health}");
    let why = one.run(&["why", "Message", "42"]).ok().out;
    assert!(why.contains(peer), "{why}");
    one.run(&["peers", "remove", peer]).ok();
}

#[test]
fn authors_are_listed_refused_allowed_and_removed() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Message", &message("42", "general").to_string()]).ok();
    let own = chat.run(&["status", "--json"]).ok().json()["author"].as_str().unwrap().to_owned();
    let listed = chat.run(&["authors"]).ok().out;
    assert!(
        listed.lines().any(|line| line.contains(&own) && line.trim_end().ends_with("this node")),
        "{listed}"
    );
    let status = chat.run(&["status"]).ok().out;
    assert!(status.contains(&format!("author {own}: 1 records")), "{status}");
    chat.run(&["authors", "refuse", &own]).failed(1, "name another author");

    let other = "03".repeat(32);
    let said = |action: &str| chat.run(&["authors", action, &other]).ok().out;
    assert_eq!(said("refuse"), "refused; its stored records are being removed\n");
    assert_eq!(said("refuse"), "the author was refused already\n");
    let listed = chat.run(&["authors", "list"]).ok().out;
    assert!(listed.contains(&format!("refused: {other}")), "{listed}");
    assert_eq!(said("remove"), "removed 0 records and 0 tombstones\n");
    assert_eq!((said("allow"), said("allow")), ("allowed\n".into(), "the author was not refused\n".into()));
    let removed = chat.run(&["authors", "remove", &other]).ok();
    assert!(removed.err.contains("netabase authors refuse"), "{removed:?}");
}

#[test]
fn a_query_is_limited_to_authors() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Message", &message("42", "general").to_string()]).ok();
    let own = chat.run(&["status", "--json"]).ok().json()["author"].as_str().unwrap().to_owned();
    let other = "03".repeat(32);
    let query =
        |more: &[&str]| chat.run(&[&["query", "Message", "--json"][..], more].concat()).ok().lines().len();
    assert_eq!((query(&["--author", &own]), query(&["--author", &other])), (1, 0));
    assert_eq!(query(&["--author", &other, "--author", &own, "--network"]), 1);
    chat.run(&["query", "Message", "--members"]).failed(1, "open network");
}

#[test]
fn keys_of_several_fields_are_arrays() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Score", r#"{"game":"chess","player":7,"points":-3}"#]).ok();
    let found = chat.run(&["get", "Score", r#"["chess",7]"#, "--json"]).ok().json();
    assert_eq!((&found["key"], &found["value"]["points"]), (&json!(["chess", 7]), &json!(-3)));
    chat.run(&["get", "Score", r#"["chess",8]"#]).failed(4, "There is no such record");
    chat.run(&["get", "Score", "chess"]).failed(1, "key");
}

#[test]
fn a_running_node_is_cared_for() {
    let chat = Chat::start(&[]);
    let lines: String = (0..250).fold(String::new(), |lines, id| {
        let value = message(&id.to_string(), "general");
        format!("{lines}{}\n", json!({ "model": "Message", "version": 1, "value": value }))
    });
    let imported = run_with(&lines, &["import", "-", "--api", &chat.api]).ok();
    assert_eq!(imported.out, "250 records stored, 0 lines could not be\n");
    assert!(imported.err.contains(&format!("importing into the node at {}", chat.api)), "{imported:?}");
    let bad = run_with(&format!("{lines}rubbish\n"), &["import", "-", "--api", &chat.api]);
    assert!(bad.failed(1, "1 lines could not be stored").err.contains("line 251: "));

    let exported = chat.run(&["export"]).ok();
    assert!(exported.err.contains("250 records"), "{exported:?}");
    let file = chat.path("export.ndjson");
    chat.run(&["export", &file]).ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 252);
    let again = chat.run(&["import", &file, "--json"]).ok().json();
    assert_eq!((&again["records"], &again["is_whole"]), (&json!(250), &json!(true)));

    let checked = chat.run(&["check", "--json"]).ok();
    assert_eq!((&checked.json()["is_clean"], &checked.json()["records"]), (&json!(true), &json!(250)));
    assert!(checked.err.contains("asking the node at"), "{checked:?}");
    chat.run(&["backup", "copy.redb"]).ok();
    assert!(chat.directory.path().join("copy.redb").exists());
    chat.run(&["backup", "copy.redb"]).failed(1, "There already is a file");
    chat.run(&["backup", "/tmp/elsewhere"]).failed(1, "backups are written to");
}

#[test]
fn files_of_every_form_are_imported() {
    let chat = Chat::start(&[]);
    let table = chat.path("scores.csv");
    std::fs::write(&table, "\u{feff}game;player;points\r\nchess;7;-3\r\ngo;8;1.0\r\n").unwrap();
    let imported = chat.run(&["import", &table, "--model", "Score"]).ok();
    assert_eq!(imported.out, "2 records stored, 0 lines could not be\n");
    let array =
        format!("[{},\n{}]", json!({ "game": "go", "player": 9, "points": 2 }), json!({ "game": "go" }));
    let bad = run_with(&array, &["import", "-", "--model", "Score", "--api", &chat.api]);
    assert!(bad.failed(1, "1 lines could not be stored").err.contains("element 2, on line 2: "));
    let found = chat.run(&["query", "Score", "--json"]).ok();
    let points: Vec<_> = found.lines().iter().map(|record| record["value"]["points"].clone()).collect();
    assert_eq!(points, [json!(-3), json!(1), json!(2)]);

    let line = json!({ "game": "chess", "player": 7, "points": 0 }).to_string();
    let import = ["import", "-", "--model", "Score", "--on-conflict", "skip", "--json", "--api", &chat.api];
    assert_eq!(run_with(&line, &import).ok().json()["skipped"], json!(1));
    run_with(&line, &["import", "-", "--api", &chat.api]).failed(1, "1 lines could not be stored");
    run_with("", &["import", "-", "--api", &chat.api]).failed(1, "there is nothing to import");
    chat.run(&["import", &chat.path("")]).failed(1, "is a directory");
    let rest = ["import", "-", "--first-line", "3", "--json", "--api", &chat.api];
    assert_eq!(run_with(&format!("x\nx\n{line}"), &rest).json()["bad"], json!(1));
}

#[test]
fn a_key_may_begin_with_a_hyphen() {
    let chat = Chat::start(&[]);
    for id in ["-2", "--to", "1"] {
        chat.run(&["put", "Message", &message(id, id).to_string()]).ok();
    }
    let keys = |arguments: &[&str]| {
        let found = chat.run(&[&["query", "Message", "--json"], arguments].concat()).ok();
        found.lines().iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&["--from", "-2"]), ["-2", "1"]);
    assert_eq!(keys(&["--from", "--to", "--to", "-3"]), ["--to", "-2"]);
    assert_eq!(keys(&["--prefix", "-"]), ["--to", "-2"]);
    assert_eq!(keys(&["--by", "room=-2"]), ["-2"]);
    assert_eq!(chat.run(&["get", "Message", "-2", "--json"]).ok().json()["key"], json!("-2"));
    let get = ["get", "--json", "--api", &chat.api, "Message", "--", "--to"];
    assert_eq!(run(&get).ok().json()["key"], json!("--to"));
    let range = ["query", "Score", "--from", "[\"chess\",1]", "--to", "[\"chess\",-1]"];
    chat.run(&range).failed(1, "`to` is not valid");
}

#[test]
fn what_happened_to_a_record_is_told_in_lines() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Message", &message("42", "general").to_string()]).ok();
    let said = chat.run(&["why", "Message", "42"]).ok().out;
    assert!(!said.contains("\\n"), "{said}");
    assert!(
        said.lines().any(|line| line.trim_start().starts_with("change 1: stored by this program")),
        "{said}"
    );
}

#[test]
fn a_schema_is_shown_by_the_node_and_by_its_file() {
    let chat = Chat::start(&[]);
    let file = run(&["schema", "--file", SCHEMA]).ok().out;
    let path = chat.path("again.toml");
    std::fs::write(&path, &file).unwrap();
    assert_eq!(run(&["schema", "--file", &path]).ok().out, file, "what is printed reads as the same");
    let names = |schema: Value| {
        let models = schema["models"].as_array().unwrap().iter();
        models.map(|model| model["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(run(&["schema", "--file", SCHEMA, "--json"]).ok().json()), ["Message", "Score"]);
    assert_eq!(names(chat.run(&["schema", "--json"]).ok().json()), ["Message", "Score"]);
    assert_eq!(chat.run(&["schema"]).ok().out, file);
}

#[test]
fn a_schema_is_checked_before_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let said = run(&["schema", "check", SCHEMA]).ok().out;
    assert!(said.contains("the schema `chat` is right"), "{said}");
    let checked = run(&["schema", "check", SCHEMA, "--json"]).ok().json();
    assert_eq!(checked["models"][1]["primary_key"], json!(["game", "player"]));
    let path = directory.path().join("bad.toml");
    let text = std::fs::read_to_string(SCHEMA).unwrap().replace("type = \"Mood\"", "type = \"Modd\"");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    run(&["schema", "check", &path]).failed(2, "line 13");
    run(&["serve", "--schema", &path, "--path", &path]).failed(2, "Modd");
    run(&["schema", "check", "/nowhere.toml"]).failed(2, "name a file that exists");
}

#[test]
fn without_a_node_commands_say_how_to_start_one() {
    // The port is nobody's when the listener is gone.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let api = format!("http://{address}");
    for command in [
        &["put", "Message", "{}"][..],
        &["get", "Message", "42"],
        &["remove", "Message", "42"],
        &["query", "Message"],
        &["watch"],
        &["peers"],
        &["status"],
        &["schema"],
        &["check"],
        &["backup", "copy"],
        &["export"],
        &["import", SCHEMA],
        &["why", "Message", "42"],
    ] {
        let ended = run(&[command, &["--api", &api]].concat());
        let ended = ended.failed(3, &format!("no node runs at {api}"));
        assert!(ended.err.contains("start one with `netabase serve`"), "{ended:?}");
        assert!(ended.out.is_empty(), "{ended:?}");
    }
    run(&["status", "--api", "ftp://here"]).failed(2, "write it as http://127.0.0.1:4080");
}

#[test]
fn what_is_no_node_is_told_from_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        Write::write_all(
            &mut stream,
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
        )
    });
    run(&["status", "--api", &api]).failed(3, "is not that of a node");
    other.join().unwrap().unwrap();
}

#[test]
fn a_node_with_a_token_answers_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let token = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (right, wrong) =
        (token("right", "0123456789abcdef-right\n"), token("wrong", "0123456789abcdef-wrong"));
    let chat = Chat::start(&["--token-file", &right]);
    chat.run(&["status", "--token-file", &right]).ok();
    chat.run(&["status", "--token-file", &wrong])
        .failed(1, "name the file with the node's token: --token-file FILE");
    chat.run(&["status"]).failed(1, "name the file with the node's token: --token-file FILE");
    chat.run(&["status", "--token-file", "/nowhere"]).failed(2, "the token in /nowhere cannot be used");
}

#[test]
fn an_api_is_found_by_the_environment_and_the_settings() {
    let chat = Chat::start(&[]);
    let status = program(&["status", "--json"]).env("NETABASE_API", &chat.api).output().unwrap();
    assert!(status.status.success());
    let path = chat.path("netabase.toml");
    let listen = chat.api.strip_prefix("http://").unwrap();
    std::fs::write(&path, format!("[api]\nlisten = \"{listen}\"\n")).unwrap();
    run(&["status", "--config", &path]).ok();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let chat = Chat::start(&[]);
    for id in 0..3 {
        chat.run(&["put", "Message", &message(&id.to_string(), "a").to_string()]).ok();
    }
    let mut query = program(&["query", "Message", "--json", "--api", &chat.api]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = query.stdout(writer).output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn a_command_does_its_work_though_nobody_reads_what_it_says() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Message", &message("1", "a").to_string()]).ok();
    let export = chat.path("export.ndjson");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = program(&["export", &export, "--api", &chat.api]).stderr(writer).output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(std::fs::read_to_string(&export).unwrap().contains("hello 1"));
}

#[test]
fn an_export_replaces_files_alone_and_follows_links() {
    let chat = Chat::start(&[]);
    chat.run(&["put", "Message", &message("1", "a").to_string()]).ok();
    let (file, link) = (chat.path("file.ndjson"), chat.path("link.ndjson"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    std::fs::write(&file, "an earlier export").unwrap();
    chat.run(&["export", &link]).ok();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&file).unwrap().contains("hello 1"));
    // To a pipe it goes as it comes.
    let pipe = chat.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    chat.run(&["export", &pipe]).ok();
    assert!(reader.join().unwrap().contains("hello 1"));
    assert!(!std::fs::metadata(&pipe).unwrap().is_file());
}

#[test]
fn an_export_that_breaks_off_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("export.ndjson").display().to_string();
    std::fs::write(&file, "an earlier export").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let node = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        let line = r#"{"model":"Message","version":1,"value":{}}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";
        writeln!(stream, "{head}{line}").unwrap();
    });
    run(&["export", &file, "--api", &api]).failed(1, "replaces nothing");
    node.join().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "an earlier export");
}

#[test]
fn no_digit_of_a_long_integer_is_lost() {
    const WIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/wide.toml");
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--schema", WIDE, "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let api = node.api();
    let (most, least) = (u128::MAX.to_string(), i128::MIN.to_string());
    let watch = Node::spawn(&mut program(&["watch", "Wide", "--since", "0", "--json", "--api", &api]));
    run(&["put", "Wide", &format!(r#"{{"id":{most},"least":{least}}}"#), "--api", &api]).ok();
    for command in
        [&["get", "Wide", &most, "--json"][..], &["query", "Wide", "--json"], &["get", "Wide", &most]]
    {
        let out = run(&[command, &["--api", &api]].concat()).ok().out;
        assert!(out.contains(&most) && out.contains(&least), "{command:?}: {out}");
    }
    assert!(watch.line().contains(&format!(r#""least":{least}"#)));
}

/// Some of each kind of character that is not text.
const HIDDEN: &str = "\u{1b}[31m\u{7}\n\t\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{200e}\u{2028}\u{202e}\u{2060}\u{2066}\u{fdd0}\u{feff}\u{ffff}\u{e0041}";

#[track_caller]
fn assert_shown(printed: &str) {
    let hidden = printed.chars().find(|character| *character != '\n' && text::is_hidden(*character));
    assert_eq!(hidden, None, "{printed:?}");
}

/// Returns what the API answers, up to `end` if the answer goes on.
fn answer(api: &str, path: &str, end: Option<&str>) -> String {
    let host = api.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !end.is_some_and(|end| String::from_utf8_lossy(&answer).contains(end)) {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).unwrap();
        if len == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..len]);
    }
    String::from_utf8(answer).unwrap().replace("\r\n", "\n")
}

#[test]
fn no_output_has_anything_but_text() {
    let mut chat = Chat::start(&[]);
    let value = message(HIDDEN, HIDDEN);
    let follow =
        |arguments: &[&str]| Node::spawn(&mut program(&[&["watch", "--api", &chat.api], arguments].concat()));
    let followers = [follow(&["--since", "0"]), follow(&["--since", "0", "--json"])];
    let address = format!("/dns4/{HIDDEN}/tcp/1/p2p/{}", netabase::PeerId::random());
    let (export, missing) = (chat.path("export"), format!("{HIDDEN}!"));
    for (command, code) in [
        (&["put", "Message", &value.to_string()][..], 0),
        (&["get", "Message", HIDDEN], 0),
        (&["get", "Message", HIDDEN, "--json"], 0),
        (&["get", "Message", &missing], 4),
        (&["get", &missing, "1"], 4),
        (&["query", "Message"], 0),
        (&["query", "Message", "--json"], 0),
        (&["query", "Message", "--by", &missing], 1),
        (&["why", "Message", HIDDEN], 0),
        (&["why", "Message", HIDDEN, "--json"], 0),
        (&["why", "Message", HIDDEN, "--health"], 0),
        (&["peers", "add", &address], 1),
        (&["peers"], 0),
        (&["status"], 0),
        (&["status", "--json"], 0),
        (&["export"], 0),
        (&["export", &export], 0),
        (&["import", &missing], 1),
    ] {
        let ended = chat.run(command);
        assert_eq!(ended.code, Some(code), "{command:?}: {ended:?}");
        assert_shown(&ended.out);
        assert_shown(&ended.err);
    }
    assert_shown(&std::fs::read_to_string(export).unwrap());
    for follower in &followers {
        assert_shown(&follower.line());
    }

    let escaped = netabase_client::escape(&missing);
    for (path, end) in [
        ("/v1/models/Message/records", None),
        (&*format!("/v1/models/{escaped}/records"), None),
        ("/v1/changes?since=0", Some("\nevent: put\ndata: {")),
        ("/v1/export", None),
        ("/v1/peers", None),
        ("/metrics", None),
    ] {
        assert_shown(&answer(&chat.api, path, end));
    }
    // The value of what is escaped is the same.
    assert_eq!(chat.run(&["get", "Message", HIDDEN, "--json"]).ok().json()["value"], value);

    chat.node.logged(&["cannot connect", "\\u{1b}[31m\\u{7}\\n"]);
    chat.node.terminate();
    chat.node.rest_of_the_log().iter().for_each(|line| assert_shown(line));
}
