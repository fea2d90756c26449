//! Refused requests: rates, hosts, origins, tokens and limits.

use std::num::NonZeroU32;
use std::time::Duration;

use netabase_client::{Client, ClientError};
use netabase_http::{ApiConfig, Limits, Rate, ServeError, Server, Token};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::common;
use crate::common::{MessagePrimaryKey, Served, config, node};

const RECORD: &str = "/v1/models/Message/records/1";
const VALUE: &str = r#"{"id":"1","room":"general","text":"hello"}"#;

/// Sends bytes, and returns the status and the content of what is answered until the server closes.
async fn raw(served: &Served, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, content)| content.to_owned()))
}

/// Sends a request with some headers, and returns the status and the slug of the problem.
async fn ask(served: &Served, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    let (status, content) = raw(served, &request).await;
    let problem: Value = serde_json::from_str(&content).unwrap_or_default();
    if status >= 400 {
        assert_eq!(problem["status"], json!(status), "{content}");
    }
    (status, problem["type"].as_str().unwrap_or_default().replace("/problems/", ""))
}

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn every_refusal_is_a_problem_document_with_its_own_type() {
    let limits = Limits { max_body_bytes: 1000, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    let other = VALUE.replace(r#""1""#, r#""2""#);
    let large = format!(r#"{{"id":"1","room":"general","text":"{}"}}"#, "x".repeat(1000));
    let unknown = VALUE.replace('}', r#","colour":"red"}"#);
    let cases: [(&str, &str, &str, &str, u16, &str); 16] = [
        ("GET", "/nowhere", "", "", 404, "not-found"),
        ("PATCH", RECORD, "", "", 405, "method-not-allowed"),
        ("GET", "/v1/models/Nothing/records", "", "", 404, "unknown-model"),
        ("GET", RECORD, "", "", 404, "no-record"),
        ("GET", "/v1/models/Message/records?limit=0", "", "", 400, "bad-parameter"),
        ("GET", "/v1/models/Message/records?colour=red", "", "", 400, "bad-parameter"),
        ("GET", "/v1/models/Message/records?limit=1&limit=2", "", "", 400, "bad-parameter"),
        ("GET", "/v1/models/Message/records/%ff", "", "", 400, "bad-parameter"),
        ("GET", "/v1/status", "accept: text/html\r\n", "", 406, "not-acceptable"),
        ("PUT", RECORD, "", VALUE, 415, "unsupported-media-type"),
        ("PUT", RECORD, JSON, "{", 400, "not-json"),
        ("PUT", RECORD, JSON, r#"{"id":7}"#, 422, "invalid-value"),
        ("PUT", RECORD, JSON, &unknown, 422, "invalid-value"),
        ("PUT", RECORD, JSON, &other, 409, "key-mismatch"),
        ("PUT", RECORD, JSON, &large, 413, "too-large"),
        ("GET", "/v1/models/Message/records/1/holders", "", "", 503, "not-running"),
    ];
    for (method, path, headers, body, status, slug) in cases {
        let answer = ask(&served, method, path, headers, body).await;
        assert_eq!(answer, (status, slug.to_owned()), "{method} {path} {body}");
    }
    assert_eq!(ask(&served, "PUT", RECORD, JSON, VALUE).await.0, 201);
}

#[tokio::test]
async fn an_import_takes_every_media_type_that_is_described() {
    let served = Served::start().await;
    let description = served.client.get("/openapi.json").await.unwrap().json;
    let described = &description["paths"]["/v1/import"]["post"]["requestBody"]["content"];
    let array = format!("[{VALUE}]");
    let bodies = [
        ("application/json", array.as_str()),
        ("application/jsonl", VALUE),
        ("application/x-ndjson", VALUE),
        ("text/csv", "id,room,text\n1,general,hello\n"),
    ];
    assert_eq!(described.as_object().unwrap().keys().collect::<Vec<_>>(), bodies.map(|(media, _)| media));
    for (media, body) in bodies {
        served.netabase.remove_record(MessagePrimaryKey("1".to_owned())).await.unwrap();
        let headers = format!("content-type: {media}\r\n");
        assert_eq!(ask(&served, "POST", "/v1/import?model=Message", &headers, body).await.0, 200, "{media}");
        assert_eq!(ask(&served, "GET", RECORD, "", "").await.0, 200, "{media}");
    }
    let refused =
        ask(&served, "POST", "/v1/import?model=Message", "content-type: text/plain\r\n", VALUE).await;
    assert_eq!(refused, (415, "unsupported-media-type".to_owned()));
}

#[tokio::test]
async fn a_name_that_is_not_the_nodes_own_is_refused() {
    let allow_hosts = vec!["node.example.org".to_owned()];
    let served = Served::with(node(), ApiConfig { allow_hosts, ..config() }).await;
    for host in ["localhost", "127.0.0.1:4080", "[::1]:80", "node.example.org:443"] {
        assert_eq!(
            ask(&served, "GET", "/v1/status", &format!("host: {host}\r\n"), "").await.0,
            200,
            "{host}"
        );
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""] {
        let answer = ask(&served, "GET", "/v1/status", &format!("host: {host}\r\n"), "").await;
        assert_eq!(answer, (403, "foreign-host".to_owned()), "{host}");
    }
    let answer = ask(&served, "GET", "/v1/status", "host: 192.0.2.1\r\n", "").await;
    assert_eq!(answer, (403, "foreign-host".to_owned()), "it is bound to loopback");
    let twice = "host: localhost\r\nhost: evil.example\r\n";
    assert_eq!(ask(&served, "GET", "/v1/status", twice, "").await.0, 400);
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing_unless_they_are_allowed() {
    let allow_origins = vec!["https://friend.example".to_owned()];
    let served = Served::with(node(), ApiConfig { allow_origins, ..config() }).await;
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let headers = format!("{JSON}origin: {origin}\r\n");
        let answer = ask(&served, "PUT", RECORD, &headers, VALUE).await;
        assert_eq!(answer, (403, "foreign-origin".to_owned()), "{origin}");
    }
    let cross_site = format!("{JSON}sec-fetch-site: cross-site\r\n");
    assert_eq!(ask(&served, "PUT", RECORD, &cross_site, VALUE).await.0, 403);
    // Reading has effects, too: peers are asked, and what they have is fetched. An image needs no
    // `Origin`.
    let reads = ["/v1/changes?scope=network", "/v1/models/Message/records/1?consistency=all", "/v1/store"];
    for path in reads {
        for site in [
            "sec-fetch-site: cross-site\r\n",
            "sec-fetch-site: same-site\r\n",
            "origin: https://evil.example\r\n",
        ] {
            assert_eq!(
                ask(&served, "GET", path, site, "").await,
                (403, "foreign-origin".to_owned()),
                "{path} {site}"
            );
        }
    }
    for (path, site) in [("/docs", "cross-site"), ("/v1/store", "same-origin"), ("/v1/store", "none")] {
        let answer = ask(&served, "GET", path, &format!("sec-fetch-site: {site}\r\n"), "").await;
        assert_eq!(answer.0, 200, "{path} {site}");
    }
    assert_eq!(served.netabase.store().record_counts().unwrap()[0].1, 0, "nothing was written");
    for origin in ["https://friend.example", "http://localhost"] {
        assert!(
            ask(&served, "PUT", RECORD, &format!("{JSON}origin: {origin}\r\n"), VALUE).await.0 < 300,
            "{origin}"
        );
    }
    let page = |origin: &str| {
        format!("GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\norigin: {origin}\r\n\r\n")
    };
    for (origin, allowed) in [("https://friend.example", true), ("https://evil.example", false)] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(page(origin).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.contains("access-control-allow-origin"), allowed, "{answer}");
    }
}

#[tokio::test]
async fn with_a_token_only_those_who_have_it_are_served() {
    let token: Token = "0123456789abcdef0123".parse().unwrap();
    let served = Served::with(node(), ApiConfig { token: Some(token), ..config() }).await;
    served.client.get("/v1/status").await.unwrap();
    let nobody = Client::new(&format!("http://{}", served.address)).unwrap();
    let guess = nobody.clone().with_token(&"0123456789abcdef0124".parse().unwrap());
    for client in [nobody, guess] {
        let error = client.get("/v1/status").await.unwrap_err();
        assert_eq!(error.problem(), Some("unauthorized"), "{error}");
        client.get("/health/live").await.unwrap();
    }
}

#[tokio::test]
async fn without_the_token_no_path_is_looked_at_and_no_body_read() {
    let token: Token = "0123456789abcdef0123".parse().unwrap();
    let served = Served::with(node(), ApiConfig { token: Some(token), ..config() }).await;
    let preflight = "access-control-request-method: GET\r\n";
    let own = format!("origin: http://localhost\r\n{preflight}");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    let awaited = "expect: 100-continue\r\ncontent-length: 100\r\n";
    for path in [RECORD, "/metrics", "/openapi.json", "/v1/import", "/nowhere"] {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "TRACE"] {
            for headers in ["", preflight, &own, upgrade, awaited] {
                let close = if headers == upgrade { "" } else { "connection: close\r\n" };
                let mut stream = TcpStream::connect(served.address).await.unwrap();
                let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}{close}\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut answer = String::new();
                BufReader::new(stream).read_line(&mut answer).await.unwrap();
                assert_eq!(answer, "HTTP/1.1 401 Unauthorized\r\n", "{head}");
            }
        }
    }
}

#[tokio::test]
async fn other_addresses_than_loopback_need_a_token() {
    let open = ApiConfig { bind: ([0, 0, 0, 0], 0).into(), ..ApiConfig::default() };
    let refused = Server::bind(node().node().clone(), open.clone()).await.unwrap_err();
    assert!(matches!(refused, ServeError::NoToken { .. }), "{refused}");
    let token = "0123456789abcdef0123".parse().ok();
    Server::bind(node().node().clone(), ApiConfig { token, ..open }).await.unwrap();
}

#[tokio::test]
async fn beyond_loopback_a_node_knows_all_its_addresses_and_the_names_it_is_told() {
    let token: Token = "0123456789abcdef0123".parse().unwrap();
    let allow_hosts = vec!["node.example.org".to_owned()];
    let open = ApiConfig { bind: ([0, 0, 0, 0], 0).into(), token: Some(token), ..ApiConfig::default() };
    let served = Served::with(node(), ApiConfig { allow_hosts, ..open }).await;
    let answer = async |host: &str| {
        let headers = format!("host: {host}\r\nauthorization: Bearer 0123456789abcdef0123\r\n");
        ask(&served, "GET", "/v1/status", &headers, "").await.0
    };
    for host in ["localhost", "127.0.0.1:4080", "192.0.2.1:4080", "[2001:db8::1]", "node.example.org"] {
        assert_eq!(answer(host).await, 200, "{host}");
    }
    assert_eq!(answer("evil.example").await, 403);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let one = NonZeroU32::MIN;
    let rate = Rate { per_second: one, burst: one.saturating_add(1) };
    let limits = Limits { rate, limit_loopback: true, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    let mut refused = 0;
    for _ in 0..20 {
        match served.client.get("/v1/status").await {
            Ok(_) => {}
            Err(ClientError::Problem(problem)) => {
                assert_eq!((problem.slug(), problem.status), ("too-many-requests", 429));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_client_that_sends_too_slowly_is_cut_off() {
    let short = Duration::from_millis(50);
    let limits = Limits { head_timeout: short, body_timeout: short, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    // The head never ends: the server closes, which is what reading to the end waits for.
    raw(&served, "GET /v1/status HTTP/1.1\r\nhost: localhost\r\n").await;
    let begun = format!("PUT {RECORD} HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 100\r\n\r\n{{");
    let (status, content) = raw(&served, &begun).await;
    assert_eq!(status, 408, "{content}");
}

#[tokio::test]
async fn a_body_of_which_nothing_more_comes_is_not_waited_for() {
    let (piece_timeout, body_timeout) = (Duration::from_millis(50), Duration::from_secs(3600));
    let limits = Limits { piece_timeout, body_timeout, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    let begun = format!("PUT {RECORD} HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 100\r\n\r\n{{");
    let (status, content) = raw(&served, &begun).await;
    assert_eq!(status, 408, "{content}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let limits = Limits { max_head_bytes: 8192, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    let long = "x".repeat(10_000);
    let (status, _) =
        raw(&served, &format!("GET /v1/status HTTP/1.1\r\nhost: localhost\r\nx-long: {long}\r\n\r\n")).await;
    assert_eq!(status, 431);
    let (status, _) = raw(&served, &format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    assert!((400..500).contains(&status), "{status}");
}

#[tokio::test]
async fn only_so_many_streams_are_open() {
    let limits = Limits { max_streams: 1, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    let _first = served.client.events("/v1/events", None).await.unwrap();
    let error = served.client.events("/v1/changes", None).await.unwrap_err();
    assert_eq!(error.problem(), Some("too-many-streams"), "{error}");
    assert!(error.to_string().contains("end one"), "{error}");
}

#[tokio::test]
async fn a_stream_begins_at_once_and_is_not_stored_by_caches() {
    let served = Served::start().await;
    for (path, first) in [("/v1/events", ": alive\n\n"), ("/v1/changes", "id: 0\n\n")] {
        let mut stream = BufReader::new(TcpStream::connect(served.address).await.unwrap());
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with(first) {
            assert_ne!(stream.read_line(&mut answer).await.unwrap(), 0, "{answer}");
        }
        assert!(answer.contains("content-type: text/event-stream\r\n"), "{answer}");
        assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
        assert!(!answer.contains("no-cache"), "{answer}");
    }
}

#[tokio::test]
async fn the_end_of_the_server_ends_open_streams() {
    let mut served = Served::start().await;
    let mut changes = served.client.events("/v1/changes", None).await.unwrap();
    let mut events = served.client.events("/v1/events", None).await.unwrap();
    let ended = served.stop();
    assert!(changes.next().await.is_none());
    assert!(events.next().await.is_none());
    ended.await.unwrap();
    let error = served.client.get("/v1/status").await.unwrap_err();
    assert!(matches!(error, ClientError::NoNode { .. }), "{error}");
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let limits = Limits { max_connections: 3, ..Limits::default() };
    let served = Served::with(node(), ApiConfig { limits, ..config() }).await;
    // An open stream is a request in progress.
    let mut events = served.client.events("/v1/changes", None).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(served.address).await.unwrap());
    }
    let another = Client::new(&format!("http://{}", served.address)).unwrap();
    assert_eq!(another.get("/v1/status").await.unwrap().status, 200);
    // The first ones were closed: nothing more comes of them.
    assert_eq!(idle[0].read(&mut [0]).await.unwrap_or(0), 0);
    served.netabase.put_record(common::message("1", "general")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().event, "put");
}

#[tokio::test]
async fn a_node_that_says_nothing_is_not_waited_for() {
    // The system takes connections for a process that is stopped.
    let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", stopped.local_addr().unwrap())).unwrap();
    let error = client.get("/v1/status").await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
}
