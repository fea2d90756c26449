//! A node whose event loop is late.

use netabase::{Node, PeerId};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::common::{Served, config, message, node};

/// Stops the only thread of a runtime until the returned value is dropped.
async fn stop(runtime: &Runtime) -> std::sync::mpsc::SyncSender<()> {
    let (go_on, until) = std::sync::mpsc::sync_channel::<()>(1);
    let (begin, running) = oneshot::channel();
    runtime.spawn(async move {
        begin.send(()).unwrap();
        // The dropped sender is an error.
        let _ = until.recv();
    });
    running.await.unwrap();
    go_on
}

async fn connect(node: &Node, other: &Node) {
    node.connect(other.local_peer_id(), other.listen_addresses().remove(0)).await.unwrap();
}

#[tokio::test]
async fn a_node_whose_event_loop_is_late_answers_with_what_it_knows() {
    let peer = node();
    peer.start_swarm().await.unwrap();
    let event_loop = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let starting = event_loop.spawn(async {
        let netabase = node();
        netabase.start_swarm().await.unwrap();
        netabase
    });
    let served = Served::with(starting.await.unwrap(), config()).await;
    served.netabase.put_record(message("1", "general")).await.unwrap();
    connect(served.netabase.node(), peer.node()).await;
    let (name, nobody) = (peer.local_peer_id().to_string(), PeerId::random());
    let get = async |path: &str| served.client.get(path).await.map(|answer| answer.json);
    let status = get("/v1/status").await.unwrap();
    assert_eq!((&status["peers"], &status["late"]), (&json!([name]), &json!(false)));

    let stopped = stop(&event_loop).await;
    let (one_peer, other_peer) = (format!("/v1/peers/{name}"), format!("/v1/peers/{nobody}"));
    let (status, peers, one_peer, other_peer, why, ready, models) = tokio::join!(
        get("/v1/status"),
        get("/v1/peers"),
        get(&one_peer),
        get(&other_peer),
        get("/v1/models/Message/records/1/why"),
        get("/health/ready"),
        get("/v1/models"),
    );
    let status = status.unwrap();
    assert_eq!(
        (&status["peers"], &status["late"], &status["running"]),
        (&json!([name]), &json!(true), &json!(true))
    );
    let warnings: Vec<&Value> = status["warnings"].as_array().unwrap().iter().collect();
    assert!(warnings.iter().any(|warning| warning["kind"] == "late"), "{warnings:?}");
    let peers = peers.unwrap();
    assert_eq!((&peers["peers"][0]["peer"], &peers["late"]), (&json!(name), &json!(true)));
    assert_eq!(one_peer.unwrap()["connected"], true);
    assert_eq!(other_peer.unwrap_err().problem(), Some("timeout"));
    let why = why.unwrap();
    assert_eq!((&why["is_holder"], &why["current"]["key"]), (&Value::Null, &json!("1")));
    assert_eq!(ready.unwrap()["status"], "ready");
    assert_eq!(models.unwrap()["models"][0]["records"], 1);

    drop(stopped);
    while get("/v1/status").await.unwrap()["late"] == true {}
    assert_eq!(get("/v1/peers").await.unwrap()["late"], false);
    drop(served);
    event_loop.shutdown_background();
}
