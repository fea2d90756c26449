//! Records are read, written, removed and followed.

use netabase::netabase_definition_module;
use netabase_client::{Client, ClientError, escape, record_path};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common;
use crate::common::{Message, Served, config, message, node_of};

#[netabase_definition_module(NumberDefinition, NumberKeys)]
mod numbers {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(NumberDefinition)]
    pub(crate) struct Number {
        #[primary_key]
        pub(crate) n: u64,
        pub(crate) wide: i128,
    }
}
use numbers::NumberDefinition;

fn problem(error: &ClientError) -> String {
    error.problem().unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[tokio::test]
async fn a_record_is_written_read_and_removed() {
    let served = Served::start().await;
    let path = "/v1/models/Message/records/a%2Fb%20c";
    let value = json!({ "id": "a/b c", "room": "general", "text": "hello" });
    let written = served.client.put(path, &value, None).await.unwrap();
    assert_eq!((written.status, &written.json["replaced"]), (201, &json!(false)));

    let read = served.client.get(path).await.unwrap();
    assert_eq!((&read.json["value"], &read.json["key"]), (&value, &json!("a/b c")));
    assert_eq!(read.etag, written.etag);
    assert_eq!(read.json["author"], json!(served.netabase.store().author().unwrap().to_string()));

    let removed = served.client.delete(path, None).await.unwrap();
    assert_eq!((removed.status, &removed.json["replaced"]), (200, &json!(true)));
    assert_eq!(problem(&served.client.get(path).await.unwrap_err()), "no-record");
    assert_eq!(problem(&served.client.delete(path, None).await.unwrap_err()), "no-record");
    assert_eq!(served.netabase.store().statistics().unwrap().tombstones.count, 1);
}

#[tokio::test]
async fn a_record_is_answered_as_the_bytes_that_peers_exchange() {
    let served = Served::start().await;
    served.netabase.put_record(message("7", "general")).await.unwrap();
    let key = netabase::RecordKey::of(&common::MessagePrimaryKey("7".into())).unwrap();
    let envelope = served.netabase.store().envelope(&key).unwrap().unwrap();
    let mut stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    let request = format!(
        "GET /v1/models/Message/records/7?format=envelope HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        served.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("application/octet-stream"), "{head}");
    assert!(answer.ends_with(&[b"\r\n\r\n", envelope.to_wire().as_bytes()].concat()));
}

#[tokio::test]
async fn the_pages_of_a_query_have_every_record_once_and_in_order() {
    let served = Served::start().await;
    for id in 0..25 {
        let room = if id % 5 == 0 { "rare" } else { "general" };
        served.netabase.put_record(message(&format!("{id:02}"), room)).await.unwrap();
    }
    let ids = async |query: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page =
                served.client.get(&format!("/v1/models/Message/records?{query}{cursor}")).await.unwrap().json;
            ids.extend(page["records"].as_array().unwrap().iter().map(|record| record["key"].clone()));
            match &page["next"] {
                Value::String(next) => cursor = format!("&cursor={next}"),
                _ => return ids,
            }
        }
    };
    let all: Vec<_> = (0..25).map(|id| json!(format!("{id:02}"))).collect();
    assert_eq!(ids("limit=7").await, all);
    let mut reversed = ids("limit=10&reverse=true").await;
    reversed.reverse();
    assert_eq!(reversed, all);
    assert_eq!(ids("limit=2&room=rare").await, ["00", "05", "10", "15", "20"].map(Value::from));
    assert_eq!(ids("from=03&to=06").await, ["03", "04", "05"].map(Value::from));
}

#[tokio::test]
async fn a_cursor_continues_its_own_query_alone() {
    let served = Served::start().await;
    for id in 0..9 {
        served.netabase.put_record(message(&format!("{id}"), "general")).await.unwrap();
    }
    let records = "/v1/models/Message/records";
    let page = served.client.get(&format!("{records}?index=room&limit=3")).await.unwrap().json;
    let cursor = page["next"].as_str().unwrap();
    served.client.delete(&format!("{records}/2"), None).await.unwrap();
    let next = served.client.get(&format!("{records}?index=room&limit=1&cursor={cursor}")).await.unwrap();
    assert_eq!(next.json["records"][0]["key"], json!("3"), "its record is gone, and the limit is another");

    let refused = async |query: &str| {
        let error = served.client.get(&format!("{records}?{query}")).await.unwrap_err();
        assert_eq!(error.problem(), Some("bad-parameter"), "{query}: {error}");
        error.to_string()
    };
    for other in ["index=room&reverse=true", "room=general", "", "from=1"] {
        let error = refused(&format!("{other}&cursor={cursor}")).await;
        assert!(error.contains("belongs to another query"), "{other}: {error}");
    }
    let cut = &cursor[..cursor.len() - 2];
    for rubbish in ["", "x", "00", cut, &"A".repeat(3000)] {
        let error = refused(&format!("index=room&cursor={rubbish}")).await;
        assert!(error.contains("is no cursor"), "{rubbish}: {error}");
    }
}

#[tokio::test]
async fn the_bound_of_a_range_that_is_wrong_is_named() {
    let served = Served::<NumberDefinition>::with(node_of(), config()).await;
    for (query, name) in [("from=a&to=1", "`from`"), ("from=1&to=b", "`to`"), ("to=b", "`to`")] {
        let error = served.client.get(&format!("/v1/models/Number/records?{query}")).await.unwrap_err();
        assert!(error.to_string().contains(&format!("{name} is not valid")), "{query}: {error}");
    }
}

#[tokio::test]
async fn every_key_of_text_is_reached_in_every_way() {
    let served = Served::start().await;
    let Served { client, .. } = &served;
    let keys = [
        "", ".", "..", "...", "~", "~.", "/", "//", "./", "%", "%2E", "%2e%2e", "?", "#", "a b", "a+b",
        "\u{0}", "\u{e9}",
    ];
    for key in keys {
        let value = json!({ "id": key, "room": "r", "text": key });
        let posted = client.post("/v1/models/Message/records", &value).await.unwrap();
        assert_eq!((posted.status, &posted.json["key"]), (201, &json!(key)));
    }
    for key in keys {
        let paths = [
            record_path("Message", key, None),
            format!("/v1/models/Message/record?key={}", escape(key)),
            // Clients that do not normalise paths send these.
            format!("/v1/models/Message/records/{}", escape(key)),
        ];
        for path in paths {
            let read = client.get(&path).await.unwrap();
            assert_eq!(read.json["value"]["text"], json!(key), "{path}");
            let again = client.put(&path, &read.json["value"], None).await.unwrap();
            assert_eq!((again.status, &again.json["key"]), (200, &json!(key)), "{path}");
        }
        let trace = client.get(&record_path("Message", key, Some("why"))).await.unwrap().json;
        assert_eq!(trace["key"], json!(key));
        let removed = client.delete(&record_path("Message", key, None), None).await.unwrap();
        assert_eq!(removed.json["replaced"], json!(true), "{key}");
    }
    let left = client.get("/v1/models/Message/records").await.unwrap().json;
    assert_eq!(left["records"], json!([]));
    for path in ["record", "record?key=1&key=2", "records/?key=1", "record?key=1&other=2"] {
        let error = client.get(&format!("/v1/models/Message/{path}")).await.unwrap_err();
        assert_eq!(error.problem(), Some("bad-parameter"), "{path}: {error}");
    }
}

#[tokio::test]
async fn changes_are_followed_and_go_on_where_they_stopped() {
    let served = Served::start().await;
    let mut events = served.client.events("/v1/changes?model=Message&room=general", None).await.unwrap();
    served.netabase.put_record(message("1", "general")).await.unwrap();
    served.netabase.put_record(message("2", "random")).await.unwrap();
    served.netabase.put_record(message("1", "random")).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!((first.event.as_str(), &first.data["value"]["room"]), ("put", &json!("general")));
    let left = events.next().await.unwrap().unwrap();
    assert_eq!((left.event.as_str(), &left.data["reason"]), ("remove", &json!("left")));
    drop(events);

    served.netabase.put_record(message("3", "general")).await.unwrap();
    let mut events =
        served.client.events("/v1/changes?model=Message&room=general", left.id.as_deref()).await.unwrap();
    let next = events.next().await.unwrap().unwrap();
    assert_eq!((&next.data["key"], &next.data["origin"]), (&json!("3"), &json!("local")));
}

#[tokio::test]
async fn a_follower_who_is_interrupted_again_and_again_sees_each_change_once() {
    const CHANGES: usize = 40;
    let served = Served::start().await;
    let (mut seen, mut last) = (Vec::new(), None);
    let mut events = served.client.events("/v1/changes", None).await.unwrap();
    for id in 0..CHANGES {
        served.netabase.put_record(message(&id.to_string(), "general")).await.unwrap();
        if id % 7 == 6 {
            // Some of what is there is read, and the rest is lost with the connection.
            for _ in 0..5 {
                let event = events.next().await.unwrap().unwrap();
                seen.push(event.data["key"].clone());
                last = event.id;
            }
            events = served.client.events("/v1/changes", last.as_deref()).await.unwrap();
        }
    }
    while seen.len() < CHANGES {
        seen.push(events.next().await.unwrap().unwrap().data["key"].clone());
    }
    assert_eq!(seen, (0..CHANGES).map(|id| json!(id.to_string())).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_that_is_not_here_is_gone_and_its_reader_begins_anew() {
    let served = Served::start().await;
    served.netabase.put_record(message("1", "general")).await.unwrap();
    // The number of another database, as after a restore.
    let gone = served.client.events("/v1/changes?model=Message", Some("1000")).await.unwrap_err();
    assert_eq!(problem(&gone), "history-trimmed");
}

#[tokio::test]
async fn a_page_of_large_values_ends_early_and_goes_on() {
    const RECORDS: usize = 14;
    let served = Served::start().await;
    // Each is a megabyte as JSON.
    for id in 0..RECORDS {
        let large = Message { text: "\u{1}".repeat(170_000), ..message(&format!("{id:02}"), "general") };
        served.netabase.put_record(large).await.unwrap();
    }
    let (mut path, mut sizes) = ("/v1/models/Message/records".to_owned(), Vec::new());
    loop {
        let page = served.client.get(&path).await.unwrap().json;
        sizes.push(page["records"].as_array().unwrap().len());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/models/Message/records?cursor={next}");
    }
    assert_eq!(sizes.iter().sum::<usize>(), RECORDS);
    assert!(sizes.len() > 1, "{sizes:?}");
}

#[tokio::test]
async fn a_reader_goes_on_after_the_last_change_that_has_come_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
                      id: 1\nevent: put\ndata: 1\n\nid: 2\nda";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let client = Client::new(&format!("http://{address}")).unwrap();
    let mut events = client.events("/v1/changes", None).await.unwrap();
    while events.next().await.is_some_and(|event| event.is_ok()) {}
    assert_eq!(events.last_id(), Some("1"));
}
