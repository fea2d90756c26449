//! All routes but those of records: conditions, peers, imports, exports, checks and descriptions.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures::{StreamExt, stream};
use netabase::health::ConnectionInfo;
use netabase::{MDNSDiscoveryConfig, Netabase, NetabaseConfig};
use netabase_client::{Client, ClientError, Condition};
use netabase_http::{ApiConfig, Limits};
use serde_json::{Value, json};

use crate::common::{ChatDefinition, Served, config, message, node, node_config};

const METRICS: &str = include_str!("../../../../docs/metrics.md");
const RECORD: &str = "/v1/models/Message/records/1";

fn slug(error: &ClientError) -> &str {
    error.problem().unwrap_or_else(|| panic!("{error}"))
}

fn value(text: &str) -> Value {
    json!({ "id": "1", "room": "general", "text": text })
}

/// Returns two nodes that are connected, the second one served, too.
async fn pair() -> (Served, Served) {
    connected(node(), node()).await
}

/// Starts, serves and connects two nodes.
async fn connected(one: Netabase<ChatDefinition>, two: Netabase<ChatDefinition>) -> (Served, Served) {
    one.start_swarm().await.unwrap();
    two.start_swarm().await.unwrap();
    let (one, two) = (Served::with(one, config()).await, Served::with(two, config()).await);
    let mut events = one.client.events("/v1/events", None).await.unwrap();
    let address = two.netabase.listen_addresses().remove(0);
    let address = format!("{address}/p2p/{}", two.netabase.local_peer_id());
    one.client.post("/v1/peers", &json!({ "address": address })).await.unwrap();
    loop {
        if events.next().await.unwrap().unwrap().event == "connected" {
            return (one, two);
        }
    }
}

#[tokio::test]
async fn a_write_with_a_condition_replaces_only_what_was_expected() {
    let served = Served::start().await;
    let put = async |text: &str, condition: Condition| {
        served.client.put(RECORD, &value(text), Some(&condition)).await
    };
    let first = put("first", Condition::Absent).await.unwrap();
    assert_eq!(slug(&put("again", Condition::Absent).await.unwrap_err()), "precondition-failed");
    let version = Condition::Version(first.etag.unwrap());
    let second = put("second", version.clone()).await.unwrap();
    assert_eq!(second.status, 200);
    assert_eq!(slug(&put("third", version.clone()).await.unwrap_err()), "precondition-failed");
    assert_eq!(served.client.get(RECORD).await.unwrap().json["value"]["text"], "second");

    assert_eq!(slug(&served.client.delete(RECORD, Some(&version)).await.unwrap_err()), "precondition-failed");
    served.client.delete(RECORD, Some(&Condition::Version(second.etag.unwrap()))).await.unwrap();
    assert_eq!(slug(&put("gone", Condition::Present).await.unwrap_err()), "precondition-failed");
    put("anew", Condition::Absent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_who_expect_the_same_version_one_wins_each_time() {
    const WRITERS: u64 = 8;
    const TURNS: u64 = 10;
    let served = Served::start().await;
    served.client.put(RECORD, &value("0"), None).await.unwrap();
    let writer = async |client: Client| {
        for _ in 0..TURNS {
            loop {
                let read = client.get(RECORD).await.unwrap();
                let next = read.json["value"]["text"].as_str().unwrap().parse::<u64>().unwrap() + 1;
                let condition = Condition::Version(read.etag.unwrap());
                match client.put(RECORD, &value(&next.to_string()), Some(&condition)).await {
                    Ok(_) => break,
                    Err(error) => assert_eq!(slug(&error), "precondition-failed"),
                }
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(|_| writer(served.client.clone()))).await;
    let read = served.client.get(RECORD).await.unwrap();
    assert_eq!(read.json["value"]["text"], (WRITERS * TURNS).to_string());
}

#[tokio::test]
async fn what_one_node_writes_is_found_at_the_other() {
    let (one, two) = pair().await;
    let written = one.client.put(RECORD, &value("hello"), None).await.unwrap();
    let read = two.client.get(&format!("{RECORD}?consistency=newest")).await.unwrap();
    assert_eq!((&read.json["value"], &read.etag), (&value("hello"), &written.etag));
    // The former name of the same.
    let read = two.client.get(&format!("{RECORD}?consistency=latest")).await.unwrap();
    assert_eq!(&read.etag, &written.etag);
    let page = one.client.get("/v1/models/Message/records?scope=network&room=general").await.unwrap().json;
    assert_eq!(page["records"][0]["key"], "1");
    assert!(page["report"]["all_holders_found"].is_boolean());

    let health = one.client.get(&format!("{RECORD}/health")).await.unwrap().json;
    assert_eq!(health["holders"][0]["peer"], two.netabase.local_peer_id().to_string());
    let repaired = one.client.post(&format!("{RECORD}/health"), &Value::Null).await.unwrap().json;
    assert!(repaired["repairs"].is_array());
    let why = one.client.get(&format!("{RECORD}/why")).await.unwrap().json;
    assert_eq!(why["current"]["value"], value("hello"));
    assert!(why["history"].as_array().is_some_and(|history| !history.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_are_listed_refused_and_removed() {
    let (one, two) = pair().await;
    one.client.put(RECORD, &value("flood"), None).await.unwrap();
    two.netabase.store().flush().unwrap();
    let author = one.netabase.store().author().unwrap().to_string();
    let path = format!("/v1/authors/{author}");
    let refusal = format!("{path}/refusal");
    let listed = two.client.get("/v1/authors").await.unwrap().json;
    assert_eq!(
        (&listed["authors"][0]["author"], &listed["authors"][0]["records"]),
        (&json!(author), &json!(1))
    );
    assert_eq!(listed["refused"], json!([]));
    let status = two.client.get("/v1/status").await.unwrap().json;
    assert_eq!(status["largest_authors"], listed["authors"]);

    let removed = two.client.delete(&path, None).await.unwrap().json;
    assert_eq!((&removed["records"], &removed["refused"]), (&json!(1), &json!(false)));
    for changed in [true, false] {
        let refused = two.client.put(&refusal, &json!({}), None).await.unwrap().json;
        assert_eq!(refused, json!({ "author": author, "refused": true, "changed": changed }));
    }
    assert_eq!(two.client.get("/v1/authors").await.unwrap().json["refused"], json!([author]));
    let outcome = one.client.put(RECORD, &value("more"), None).await.unwrap().json;
    assert_eq!(outcome["peers"][0]["reason"], "this node refuses the records of the author");
    for changed in [true, false] {
        let allowed = two.client.delete(&refusal, None).await.unwrap().json;
        assert_eq!(allowed, json!({ "author": author, "refused": false, "changed": changed }));
    }
    assert_eq!(slug(&one.client.put(&refusal, &json!({}), None).await.unwrap_err()), "not-allowed");
    assert_eq!(slug(&one.client.delete("/v1/authors/me", None).await.unwrap_err()), "bad-parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_whose_records_come_too_fast_are_named() {
    let limit = NetabaseConfig { author_records_per_second: 1, author_record_burst: 1, ..node_config() };
    let (one, two) = connected(node(), Netabase::new_with_config(limit).unwrap()).await;
    let author = one.netabase.store().author().unwrap().to_string();
    let warnings = async || {
        let status = two.client.get("/v1/status").await.unwrap().json;
        let warnings = status["warnings"].as_array().unwrap().clone();
        warnings.into_iter().filter(|warning| warning["kind"] == "author_rate").collect::<Vec<_>>()
    };
    assert_eq!(two.client.get("/v1/authors").await.unwrap().json["fast"], json!([]));
    assert_eq!(warnings().await, [] as [Value; 0]);
    let mut refused = 0;
    for id in 0.. {
        let record = json!({ "id": id.to_string(), "room": "general", "text": "fast" });
        let path = format!("/v1/models/Message/records/{id}");
        let outcome = one.client.put(&path, &record, None).await.unwrap().json;
        if outcome["peers"][0]["answer"] == "refused" {
            refused += 1;
        }
        if refused == 3 {
            break;
        }
    }
    let listed = two.client.get("/v1/authors").await.unwrap().json;
    assert_eq!(listed["fast"], json!([{ "author": author, "refused": 3 }]));
    assert_eq!(listed["records_per_second"], json!(1));
    let warnings = warnings().await;
    assert_eq!((&warnings[0]["reason"], &warnings[0]["count"]), (&json!("too_fast"), &json!(3)));
    assert!(warnings[0]["message"].as_str().unwrap().contains(&author), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_some_authors_is_full() {
    let (one, two) = pair().await;
    for id in 0..30 {
        let served = if id < 20 { &one } else { &two };
        let record = json!({ "id": format!("{id:02}"), "room": "general", "text": "text" });
        served.client.put(&format!("/v1/models/Message/records/{id:02}"), &record, None).await.unwrap();
    }
    two.netabase.store().flush().unwrap();
    let authors = [&one, &two].map(|served| served.netabase.store().author().unwrap().to_string());
    let ids = async |query: &str| {
        let page = two.client.get(&format!("/v1/models/Message/records?{query}")).await.unwrap().json;
        let ids: Vec<_> =
            page["records"].as_array().unwrap().iter().map(|record| record["key"].clone()).collect();
        (ids, page)
    };
    for reach in ["local", "network"] {
        let of_two = format!("room=general&scope={reach}&limit=5&authors={}", authors[1]);
        let (found, page) = ids(&of_two).await;
        assert_eq!(found, ["20", "21", "22", "23", "24"], "{reach}: {page}");
        let (rest, page) = ids(&format!("{of_two}&cursor={}", page["next"].as_str().unwrap())).await;
        assert_eq!(rest, ["25", "26", "27", "28", "29"], "{reach}: {page}");
        let (both, _) = ids(&format!("scope={reach}&authors={},{}", authors[0], authors[1])).await;
        assert_eq!(both.len(), 30);
    }
    let (_, page) = ids(&format!("scope=network&authors={}", authors[1])).await;
    assert!(page["report"]["of_others"].as_u64().unwrap() >= 20, "{page}");
    for wrong in ["members", "me", ""] {
        let error = two.client.get(&format!("/v1/models/Message/records?authors={wrong}")).await.unwrap_err();
        assert_eq!(slug(&error), "bad-parameter", "{wrong}");
    }
}

#[tokio::test]
async fn peers_are_listed_and_can_be_disconnected() {
    let (one, two) = pair().await;
    let name = two.netabase.local_peer_id().to_string();
    let mut peers = one.client.get("/v1/peers").await.unwrap().json;
    assert_eq!((&peers["peers"][0]["peer"], &peers["peers"][0]["connected"]), (&json!(name), &json!(true)));
    while !peers["peers"][0]["rtt_ms"].is_f64() {
        tokio::task::yield_now().await;
        peers = one.client.get("/v1/peers").await.unwrap().json;
    }
    let status = one.client.get("/v1/status").await.unwrap().json;
    assert_eq!((&status["peers"], &status["warnings"]), (&json!([name]), &json!([])));
    let mut events = one.client.events("/v1/events", None).await.unwrap();
    one.client.delete(&format!("/v1/peers/{name}"), None).await.unwrap();
    while events.next().await.unwrap().unwrap().event != "disconnected" {}
    let nobody = netabase::PeerId::random();
    assert_eq!(slug(&one.client.get(&format!("/v1/peers/{nobody}")).await.unwrap_err()), "unknown-peer");
}

#[tokio::test]
async fn a_peer_that_was_connected_before_it_was_served_is_described_in_full() {
    let (one, two) = (node(), node());
    one.start_swarm().await.unwrap();
    two.start_swarm().await.unwrap();
    let mut events = one.subscribe_to_broadcasts();
    let (name, address) = (two.local_peer_id(), two.listen_addresses().remove(0));
    one.add_address(name, address.clone()).await.unwrap();
    let is_known = async || {
        let connections = one.connections().await.unwrap();
        let known = |known: &ConnectionInfo| known.agent.is_some() && known.round_trip.is_some();
        connections.iter().any(known)
    };
    // Each event may be the one that says the rest.
    while !is_known().await {
        events.recv().await.unwrap();
    }
    let served = Served::with(one, config()).await;
    let peers = served.client.get("/v1/peers").await.unwrap().json;
    let one_peer = served.client.get(&format!("/v1/peers/{name}")).await.unwrap().json;
    for peer in [&peers["peers"][0], &one_peer] {
        let connection = &peer["connections"][0];
        assert_eq!((&peer["peer"], &connection["direction"]), (&json!(name.to_string()), &json!("outgoing")));
        assert!(connection["address"].as_str().unwrap().starts_with(&address.to_string()), "{connection}");
        assert!(peer["agent"].is_string() && peer["rtt_ms"].is_f64(), "{peer}");
        assert!(connection["since"].is_string(), "{peer}");
    }
}

#[tokio::test]
async fn an_export_is_imported_at_another_node() {
    let (one, two) = (Served::start().await, Served::start().await);
    for id in 0..500 {
        one.netabase.put_record(message(&id.to_string(), "general")).await.unwrap();
    }
    let mut lines = one.client.lines("/v1/export").await.unwrap();
    let mut export = Vec::new();
    while let Some(line) = lines.next().await {
        export.push(Ok::<_, Infallible>(format!("{}\n", line.unwrap()).into_bytes()));
    }
    assert_eq!(export.len(), 502, "a first and a last line");
    let report = two.client.post_lines("/v1/import", stream::iter(export.clone())).await.unwrap().json;
    assert_eq!((&report["records"], &report["is_whole"]), (&json!(500), &json!(true)));
    let mut signed = one.client.lines("/v1/export?signed=true").await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = signed.next().await {
        lines.push(Ok::<_, Infallible>(format!("{}\n", line.unwrap()).into_bytes()));
    }
    let older = two.client.post_lines("/v1/import", stream::iter(lines)).await.unwrap().json;
    assert_eq!((&older["skipped"], &older["is_whole"]), (&json!(500), &json!(true)), "it has newer versions");
    export.truncate(10);
    let again =
        two.client.post_lines("/v1/import?on_conflict=skip", stream::iter(export)).await.unwrap().json;
    assert_eq!((&again["skipped"], &again["end"]), (&json!(9), &json!("cut_off")));
}

#[tokio::test]
async fn an_import_takes_what_the_store_takes() {
    let served = Served::start().await;
    let import = async |query: &str, body: &str| {
        let body = stream::iter([Ok::<_, Infallible>(body.as_bytes().to_vec())]);
        served.client.post_lines(&format!("/v1/import{query}"), body).await
    };
    let plain = value("plain").to_string();
    let array = format!("[{}, {{\"model\":\"Message\",\"value\":{plain}}}]", value("second"));
    for (query, body) in [
        ("?model=Message", plain.as_str()),
        ("?model=Message", &array),
        ("?model=Message&format=csv", "room,id,text\nr,3,\"a, b\"\n"),
        ("?model=Message", "id,room,text\n4,r,t\n"),
    ] {
        let report = import(query, body).await.unwrap().json;
        assert_eq!(
            (&report["is_whole"], &report["end"]),
            (&json!(true), &json!("complete")),
            "{body}: {report}"
        );
    }
    let report = import("", &format!("[{plain}]")).await.unwrap().json;
    assert_eq!((&report["bad_lines"][0]["line"], &report["bad_lines"][0]["item"]), (&json!(1), &json!(1)));
    for (query, body) in [("", ""), ("?model=Massage", "{}"), ("?model=Message&format=csv", "idd\n1")] {
        assert_eq!(slug(&import(query, body).await.unwrap_err()), "invalid-value", "{body}");
    }
}

#[tokio::test]
async fn a_slow_import_is_stored_as_it_comes() {
    let served = Served::start().await;
    let mut changes = served.client.events("/v1/changes?model=Message", None).await.unwrap();
    let (pieces, sent) = futures::channel::mpsc::channel::<Result<Vec<u8>, Infallible>>(1);
    let client = served.client.clone();
    let import = tokio::spawn(async move { client.post_lines("/v1/import?model=Message", sent).await });
    let mut pieces = pieces;
    for id in ["1", "2"] {
        let line = format!("{}\n", json!({ "id": id, "room": "r", "text": "t" }));
        futures::SinkExt::send(&mut pieces, Ok(line.into_bytes())).await.unwrap();
        // The change is received before the import continues.
        assert_eq!(changes.next().await.unwrap().unwrap().data["key"], json!(id));
    }
    drop(pieces);
    assert_eq!(import.await.unwrap().unwrap().json["records"], json!(2));
}

#[tokio::test]
async fn an_import_that_brings_nothing_ends_and_keeps_what_came() {
    let limits = Limits { import_timeout: Duration::from_millis(300), ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    let line = format!("{}\n", json!({ "id": "1", "room": "r", "text": "t" }));
    let body = stream::iter([Ok::<_, Infallible>(line.into_bytes())]).chain(stream::pending());
    let error = served.client.post_lines("/v1/import?model=Message", body).await.unwrap_err();
    assert_eq!(slug(&error), "too-slow");
    assert_eq!(served.client.get(RECORD).await.unwrap().json["key"], json!("1"));
}

#[tokio::test]
async fn a_database_is_checked_and_backed_up_where_it_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let config_of_node = NetabaseConfig {
        database_path: Some(directory.path().join("chat.redb")),
        mdns: MDNSDiscoveryConfig { enabled: false, ..Default::default() },
        ..NetabaseConfig::default()
    };
    let netabase = Netabase::<ChatDefinition>::new_with_config(config_of_node).unwrap();
    let served = Served::with(netabase, config()).await;
    served.client.put(RECORD, &value("kept"), None).await.unwrap();
    let report = served.client.post("/v1/check", &json!({})).await.unwrap().json;
    assert_eq!((&report["is_clean"], &report["records"]), (&json!(true), &json!(1)));
    let backup = async |path: &str| served.client.post("/v1/backup", &json!({ "path": path })).await;
    backup("copy.redb").await.unwrap();
    assert!(directory.path().join("copy.redb").is_file());
    assert_eq!(slug(&backup("copy.redb").await.unwrap_err()), "occupied");
    let own = ["chat.redb.peers", "chat.redb.identity", "chat.redb.blobs", "chat.redb.peers.new"];
    for path in ["../escaped", "/etc/passwd", "", ".", "a/b"].into_iter().chain(own) {
        assert_eq!(slug(&backup(path).await.unwrap_err()), "invalid-value", "{path}");
    }
    let compacted = served.client.post("/v1/compact", &json!({})).await.unwrap().json;
    assert!(compacted["after_bytes"].as_u64() <= compacted["before_bytes"].as_u64(), "{compacted}");
}

#[tokio::test]
async fn a_node_describes_itself() {
    let served = Served::start().await;
    let description = served.client.get("/openapi.json").await.unwrap().json;
    assert_eq!(description["openapi"], "3.1.0");
    let fields = &description["components"]["schemas"]["Value.Message"]["properties"];
    assert_eq!(fields.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "room", "text"]);
    for kind in description["x-problems"].as_array().unwrap() {
        let known = served.client.get(kind["type"].as_str().unwrap()).await.unwrap().json;
        assert_eq!(known["meaning"], kind["meaning"]);
    }
    let schema = served.client.get("/v1/schema").await.unwrap().json;
    assert_eq!(schema["models"][0]["fields"][0], json!({ "name": "id", "type": "string" }));
    assert_eq!(schema["models"][0]["secondary_keys"][0]["name"], "room");

    let status = served.client.get("/v1/status").await.unwrap().json;
    assert_eq!(status["warnings"][0]["kind"], "not_running");
    assert_eq!(served.client.get("/health/ready").await.unwrap().json["status"], "ready");
    let mut metrics = served.client.lines("/metrics").await.unwrap();
    let mut own = BTreeSet::new();
    while let Some(line) = metrics.next().await {
        let line = line.unwrap();
        own.extend(
            line.split(' ').next().filter(|name| name.starts_with("netabase_api_")).map(str::to_owned),
        );
    }
    let rows = METRICS.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented = rows.filter_map(|row| row.split('`').next());
    let documented = documented.filter(|name| name.starts_with("netabase_api_")).map(str::to_owned);
    assert_eq!(own, documented.collect::<BTreeSet<_>>());
    let mut page = served.client.lines("/docs").await.unwrap();
    while let Some(line) = page.next().await {
        let line = line.unwrap();
        assert!(!line.contains("http://") && !line.contains("https://"), "{line}");
    }
}
