//! The requests that a collector receives.

use std::net::TcpListener;

use netabase::{DHTDiscoveryConfig, MDNSDiscoveryConfig, Netabase, NetabaseConfig, PutOptions, StoreOptions};
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::models::{Package, PackageDefinition};

/// A collector that passes on the spans it receives.
fn collector(answer: &'static str) -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, spans) = sync_channel(10_000);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let resource = &body["resourceSpans"][0];
            let attributes = resource["resource"]["attributes"].as_array().unwrap();
            let named = |name: &str| attributes.iter().find(|attribute| attribute["key"] == name);
            assert_eq!(named("service.name").unwrap()["value"]["stringValue"], "netabase");
            for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                let mut span = span.clone();
                span["instance"] = named("service.instance.id")
                    .map_or(Value::Null, |instance| instance["value"]["stringValue"].clone());
                sender.send(span).unwrap();
            }
            write!(reader.get_mut(), "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    (endpoint, spans)
}

fn config(bootstrap: Vec<netabase::Multiaddr>) -> NetabaseConfig {
    NetabaseConfig {
        store: StoreOptions::in_memory(),
        listen_addresses: vec!["/memory/0".parse().unwrap()],
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        dht: DHTDiscoveryConfig { bootstrap_peers: bootstrap, ..DHTDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    }
}

fn package() -> Package {
    Package {
        name: "coreutils".into(),
        section: "utils".into(),
        priority: "required".into(),
        version: "9.1-1".into(),
        architecture: "amd64".into(),
        installed_size: None,
        depends: Vec::new(),
        description: "what nobody else may read".into(),
    }
}

#[test]
fn a_put_and_its_serving_by_another_node_are_sent_as_one_trace() {
    let (endpoint, spans) = collector("200 OK");
    let (exporter, layer) = Exporter::begin(&endpoint).unwrap();
    // Only threads of this test's runtime are traced, since other tests have spans as well.
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(layer.layer()));
    let of_threads = dispatch.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&of_threads)))
        .build()
        .unwrap();
    let context = TraceContext::begin();
    let work = async move {
        let one = Netabase::<PackageDefinition>::new_with_config(config(Vec::new())).unwrap();
        one.start_swarm().await.unwrap();
        let address = one.listen_addresses()[0].clone().with_p2p(one.local_peer_id()).unwrap();
        let other = Netabase::<PackageDefinition>::new_with_config(config(vec![address])).unwrap();
        other.start_swarm().await.unwrap();
        // Before the nodes are connected no peer serves the request.
        loop {
            let put = one.put_record_with(package(), PutOptions::default());
            if !context.scope(put).await.unwrap().accepted.is_empty() {
                break;
            }
        }
        one.stop_swarm().await.unwrap();
        other.stop_swarm().await.unwrap();
    };
    runtime.block_on(runtime.spawn(work.with_subscriber(dispatch))).unwrap();
    drop(runtime);
    exporter.flush();
    let trace: String = hex(&context.trace_id());
    let spans: Vec<Value> = spans.try_iter().filter(|span| span["traceId"] == trace.as_str()).collect();
    let served = spans.iter().find(|span| span["kind"] == SERVER).unwrap_or_else(|| panic!("{spans:#?}"));
    let put = spans.iter().find(|span| span["spanId"] == served["parentSpanId"]).unwrap();
    assert_eq!((&put["name"], &put["kind"]), (&json!("put"), &json!(INTERNAL)));
    let inside = spans.iter().filter(|span| span["parentSpanId"] == put["spanId"]);
    let inside: Vec<&str> = inside.map(|span| span["name"].as_str().unwrap()).collect();
    assert!(inside.contains(&"store_write") && inside.contains(&"put_record"), "{inside:?}");
    assert!(spans.iter().all(|span| !span.to_string().contains("nobody else")), "{spans:#?}");
    assert_eq!(exporter.dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn what_the_collector_does_not_take_is_counted_and_holds_nobody_up() {
    let (endpoint, _spans) = collector("503 Service Unavailable");
    let (exporter, layer) = Exporter::begin(&endpoint).unwrap();
    let subscriber = tracing_subscriber::registry().with(layer.layer());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..3 {
            drop(tracing::info_span!(target: "netabase", "call", trace_id = trace));
        }
        drop(tracing::info_span!(target: "netabase", "of no trace"));
    });
    exporter.flush();
    assert_eq!(exporter.dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn more_spans_than_the_queue_has_room_for_are_dropped_and_counted() {
    let (exporter, _messages) = Exporter::new(2, Resource::default());
    (0..5).for_each(|number| exporter.push(json!(number), number % 2 == 0));
    assert_eq!(exporter.dropped.load(Ordering::Relaxed), 3);
    assert_eq!(exporter.of_peers.load(Ordering::Relaxed), 1, "what was dropped takes no place");
}

#[test]
fn peers_leave_most_of_the_queue_to_the_nodes_own_spans() {
    const CALLS: usize = QUEUE_SPANS - QUEUE_PEER_SPANS;
    let (exporter, messages) = Exporter::new(QUEUE_SPANS, Resource::default());
    let subscriber = tracing_subscriber::registry().with(Spans(exporter.clone()).layer());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..QUEUE_SPANS {
            let serve = tracing::info_span!(target: "netabase", "serve", trace_id = trace).entered();
            drop(tracing::info_span!(target: "netabase", "inside"));
            drop(serve);
        }
        for _ in 0..CALLS {
            drop(tracing::info_span!(target: "netabase", "call", trace_id = trace));
        }
    });
    let of_peers = |message: &Message| matches!(message, Message::Span { is_of_peer: true, .. });
    let (of_peers, own): (Vec<_>, Vec<_>) = messages.try_iter().partition(of_peers);
    assert_eq!((of_peers.len(), own.len()), (QUEUE_PEER_SPANS, CALLS));
    let dropped = u64::try_from(2 * QUEUE_SPANS - QUEUE_PEER_SPANS).unwrap();
    assert_eq!(exporter.dropped.load(Ordering::Relaxed), dropped);
}

#[test]
fn what_has_failed_is_sent_as_failed_and_in_the_name_of_the_node() {
    let (endpoint, spans) = collector("200 OK");
    let (exporter, layer) = Exporter::begin(&endpoint).unwrap();
    let subscriber = tracing_subscriber::registry().with(layer.layer());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    exporter.name_instance("12D3KooW".to_owned());
    tracing::subscriber::with_default(subscriber, || {
        for outcome in ["ok", "missing", "cancelled", "error", "timeout", "refused", "failure"] {
            drop(tracing::info_span!(target: "netabase", "call", trace_id = trace, outcome));
        }
    });
    exporter.flush();
    let spans: Vec<Value> = spans.try_iter().collect();
    assert!(spans.iter().all(|span| span["instance"] == "12D3KooW"), "{spans:?}");
    let failed: Vec<bool> = spans.iter().map(|span| span["status"]["code"] == FAILED).collect();
    assert_eq!(failed, [false, false, false, true, true, true, true]);
}

#[test]
fn the_first_loss_is_told_and_then_once_a_minute() {
    let (mut losses, begun) = (Losses::default(), Instant::now());
    let told = [(0, 0), (0, 1), (1, 5), (2, 6), (30, 64), (40, 65), (40, 500), (41, 501)]
        .map(|(second, lost)| losses.news(lost, begun + Duration::from_secs(second)));
    assert_eq!(told.map(Option::unwrap_or_default), [0, 1, 0, 0, 0, 0, 0, 0]);
    let later = [(60, 500), (61, 501), (600, 501), (601, 502)]
        .map(|(second, lost)| losses.news(lost, begun + Duration::from_secs(second)));
    assert_eq!(later.map(Option::unwrap_or_default), [500, 0, 501, 0]);
}

#[tokio::test]
async fn a_call_of_a_trace_that_is_not_sampled_is_not_sent() {
    let (exporter, messages) = Exporter::new(QUEUE_SPANS, Resource::default());
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(Spans(exporter).layer()));
    let node = Netabase::<PackageDefinition>::new_with_config(config(Vec::new())).unwrap();
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";
    for (flags, is_sent) in [("00", false), ("01", true)] {
        let context = TraceContext::parse(&format!("{header}{flags}")).unwrap();
        let put = context.scope(node.put_record(package()));
        put.with_subscriber(dispatch.clone()).await.unwrap();
        assert_eq!(messages.try_iter().count() > 0, is_sent, "{flags}");
    }
}

#[test]
fn endpoints_are_read() {
    let endpoint = |host: &str, path: &str| Endpoint { host: host.into(), path: path.into() };
    let cases = [
        ("http://127.0.0.1:4318", endpoint("127.0.0.1:4318", "/v1/traces")),
        ("http://collector/", endpoint("collector:4318", "/v1/traces")),
        ("http://[::1]:80/otlp/", endpoint("[::1]:80", "/otlp/v1/traces")),
    ];
    for (text, expected) in cases {
        assert_eq!(Endpoint::parse(text).unwrap(), expected);
    }
    for bad in ["", "https://collector:4318", "http://", "http://a b", "http://a\r\nX: y"] {
        assert!(Endpoint::parse(bad).is_err(), "{bad:?}");
    }
}
