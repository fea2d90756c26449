//! Starting, stopping, opening twice, and calls that cannot be answered.

use std::net::TcpListener;

use netabase::netabase_store::OpenError;
use netabase::netabase_store::WriteError;
use netabase::{
    ConfigError, DhtMode, Mode, Netabase, NetabaseConfig, NetabaseError, PeerId, StorageBackend, StoreError,
    StoreOptions,
};

use crate::common::*;

fn disk_config(directory: &tempfile::TempDir) -> NetabaseConfig {
    NetabaseConfig {
        store: StoreOptions { backend: StorageBackend::Redb, ..StoreOptions::default() },
        database_path: Some(directory.path().join("notes.redb")),
        ..memory_config()
    }
}

#[tokio::test]
async fn a_handle_is_a_cheap_clone_that_any_thread_may_use() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let netabase = started(memory_config()).await;
    shared(&netabase);
    let clone = netabase.clone();
    tokio::spawn(async move { clone.put_record(note(1, "from a task")).await }).await.unwrap().unwrap();
    assert!(netabase.get_record(NotePrimaryKey(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_swarm_starts_again_after_a_stop() {
    let nodes = network(2).await;
    nodes[0].stop_swarm().await.unwrap();
    assert!(nodes[0].listen_addresses().is_empty());
    nodes[0].put_record(note(1, "while stopped")).await.unwrap();
    let mut events = nodes[1].subscribe_to_broadcasts();
    nodes[0].start_swarm().await.unwrap();
    nodes[0].start_swarm().await.unwrap();
    let address = nodes[1].listen_addresses().remove(0);
    nodes[0].add_address(nodes[1].local_peer_id(), address).await.unwrap();
    wait_for_record(&mut events, |_| true).await;
    assert_eq!(nodes[1].get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "while stopped")));
}

#[tokio::test]
async fn everything_is_there_after_a_restart_of_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let netabase = started(disk_config(&directory)).await;
    let peer_id = netabase.local_peer_id();
    netabase.put_record(note(1, "durable")).await.unwrap();
    netabase.put_record(note(2, "removed")).await.unwrap();
    netabase.remove_record(NotePrimaryKey(2)).await.unwrap();
    netabase.stop_swarm().await.unwrap();
    drop(netabase);
    let netabase = started(disk_config(&directory)).await;
    assert_eq!(netabase.local_peer_id(), peer_id);
    assert_eq!(netabase.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "durable")));
    assert_eq!(netabase.get_record(NotePrimaryKey(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_record_put_offline_is_published_after_a_restart_too() {
    let directory = tempfile::tempdir().unwrap();
    let netabase = started(disk_config(&directory)).await;
    netabase.put_record(note(1, "before the restart")).await.unwrap();
    netabase.stop_swarm().await.unwrap();
    drop(netabase);
    let netabase = started(disk_config(&directory)).await;
    let peer = Notes::new_with_config(config_knowing(&netabase)).unwrap();
    let mut events = peer.subscribe_to_broadcasts();
    peer.start_swarm().await.unwrap();
    let stored = wait_for_record(&mut events, |_| true).await;
    assert_eq!(stored.model::<Note>(), Some(Ok(note(1, "before the restart"))));
}

#[tokio::test]
async fn a_database_that_is_open_elsewhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for backend in [StorageBackend::Redb, StorageBackend::Sled] {
        let path = directory.path().join(backend.to_string());
        let config = NetabaseConfig {
            store: StoreOptions { backend, ..memory_config().store },
            database_path: Some(path.clone()),
            ..memory_config()
        };
        let _first = Notes::new_with_config(config.clone()).unwrap();
        let error = Notes::new_with_config(config).unwrap_err();
        assert!(
            matches!(&error, NetabaseError::Store(StoreError::Open(OpenError::Locked { path: locked, .. })) if *locked == path),
            "{error}"
        );
        assert!(
            error.to_string().starts_with("cannot open") && error.to_string().contains("choose another path")
        );
    }
}

#[tokio::test]
async fn two_instances_in_one_process_answer_their_own_callers() {
    let left = started(memory_config()).await;
    let right = started(memory_config()).await;
    left.put_record(note(1, "left")).await.unwrap();
    right.put_record(note(1, "right")).await.unwrap();
    assert_eq!(left.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "left")));
    assert_eq!(right.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "right")));
}

/// A node that knows a peer whose port accepts connections and never says a word.
async fn with_silent_peer() -> (Notes, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = memory_config();
    config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let netabase = started(config).await;
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    netabase.add_address(PeerId::random(), address).await.unwrap();
    (netabase, silent)
}

#[tokio::test]
async fn a_call_in_flight_at_the_stop_ends_with_closed() {
    let (netabase, _silent) = with_silent_peer().await;
    let get = netabase.get_record(NotePrimaryKey(1));
    let put = netabase.put_record(note(2, "in flight"));
    let stop = async {
        // Both calls were polled first, and their queries wait for the silent peer.
        netabase.get_mode().await.unwrap();
        netabase.stop_swarm().await.unwrap();
    };
    let (get, put, ()) =
        within_deadline("the stop", Box::pin(async { futures::join!(get, put, stop) })).await;
    assert!(matches!(get, Err(NetabaseError::Closed)), "{get:?}");
    assert!(matches!(put, Err(NetabaseError::Closed)), "{put:?}");
    assert_eq!(netabase.get_record(NotePrimaryKey(2)).await.unwrap(), Some(note(2, "in flight")));
}

#[tokio::test]
async fn a_call_that_nobody_answers_ends_at_its_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = memory_config();
    config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.call_timeout = std::time::Duration::from_millis(50);
    let netabase = started(config).await;
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap();
    netabase.add_address(PeerId::random(), address).await.unwrap();
    let error = netabase.get_record(NotePrimaryKey(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the network did not answer within 0.05 s");
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_swarm() {
    let nodes = network(2).await;
    let [kept, dropped] = <[Notes; 2]>::try_from(nodes).unwrap();
    let gone = dropped.local_peer_id();
    let mut events = kept.subscribe_to_broadcasts();
    drop(dropped);
    wait_for(&mut events, |event| match event {
        netabase::NetabaseSwarmEvent::ConnectionClosed { peer, .. } => (*peer == gone).then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_with_its_size() {
    let netabase = Notes::new_with_config(NetabaseConfig {
        store: StoreOptions { max_value_bytes: 100, ..memory_config().store },
        ..memory_config()
    })
    .unwrap();
    let error = netabase.put_record(note(1, &"x".repeat(200))).await.unwrap_err();
    let NetabaseError::Store(StoreError::Write(WriteError::ValueTooLarge { size, limit: 100 })) = error
    else {
        panic!("{error}")
    };
    assert!(size > 200);
    assert_eq!(netabase.get_record(NotePrimaryKey(1)).await.unwrap(), None);
}

#[tokio::test]
async fn calls_that_need_the_network_say_so_before_the_start() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    assert!(matches!(netabase.get_mode().await, Err(NetabaseError::NotRunning)));
    assert!(matches!(netabase.fetch_record(NotePrimaryKey(1)).await, Err(NetabaseError::NotRunning)));
    netabase.put_record(note(1, "local")).await.unwrap();
    assert_eq!(netabase.query_local_records(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_listen_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let config = NetabaseConfig { listen_addresses: vec![address.parse().unwrap()], ..memory_config() };
    let netabase = Notes::new_with_config(config).unwrap();
    let error = netabase.start_swarm().await.unwrap_err();
    assert!(matches!(error, NetabaseError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn a_port_of_another_node_is_not_shared() {
    let config = |address: &str| {
        let listen_addresses = vec![address.parse().unwrap()];
        Notes::new_with_config(NetabaseConfig { listen_addresses, ..memory_config() }).unwrap()
    };
    for address in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let first = config(address);
        first.start_swarm().await.unwrap();
        let taken = first.listen_addresses().remove(0);
        let error = config(&taken.to_string()).start_swarm().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {taken};")), "{error}");
        let NetabaseError::Listen { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse, "{source}");
    }
}

#[tokio::test]
async fn a_database_is_free_once_the_swarm_was_stopped() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let netabase = started(disk_config(&directory)).await;
        netabase.put_record(note(round, "again")).await.unwrap();
        netabase.stop_swarm().await.unwrap();
    }
}

#[tokio::test]
async fn an_identity_that_is_given_names_the_peer_and_signs() {
    let identity = netabase::Keypair::generate_ed25519();
    let peer = identity.public().to_peer_id();
    let config = NetabaseConfig { identity: Some(identity), ..memory_config() };
    let netabase = Notes::new_with_config(config).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.put_record(note(1, "signed")).await.unwrap();
    let stored = wait_for_record(&mut events, |_| true).await;
    assert_eq!((netabase.local_peer_id(), stored.author_peer()), (peer, Some(peer)));
}

#[tokio::test]
async fn an_invalid_configuration_is_refused() {
    let config = NetabaseConfig { network: Some("no spaces".into()), ..memory_config() };
    let error = Netabase::<NotesDefinition>::new_with_config(config).unwrap_err();
    assert!(matches!(error, NetabaseError::Config(ConfigError::NetworkName { .. })), "{error}");
}

#[tokio::test]
async fn the_mode_is_server_until_it_is_changed() {
    let netabase = started(memory_config()).await;
    assert_eq!(netabase.get_mode().await.unwrap(), Mode::Server);
    netabase.set_mode(DhtMode::Client).await.unwrap();
    assert_eq!(netabase.get_mode().await.unwrap(), Mode::Client);
    netabase.set_mode(DhtMode::Server).await.unwrap();
    assert_eq!(netabase.get_mode().await.unwrap(), Mode::Server);
    let names = netabase.get_protocol_names().await.unwrap();
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["/netabase/NotesDefinition/kad/1.0.0"]
    );
}

#[tokio::test]
async fn providers_are_announced_found_and_withdrawn() {
    let nodes = network(3).await;
    let key = || NotePrimaryKey(1);
    nodes[0].put_record(note(1, "provided")).await.unwrap();
    assert!(nodes[2].get_providers(key()).await.unwrap().is_empty());
    nodes[0].start_providing(key()).await.unwrap();
    let found = nodes[2].get_providers(key()).await.unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [nodes[0].local_peer_id()]);
    nodes[0].stop_providing(key()).await.unwrap();
    assert!(nodes[0].store().replica().provided_by(&nodes[0].local_peer_id()).is_empty());
}

#[tokio::test]
async fn peers_are_added_and_removed() {
    let left = started(memory_config()).await;
    let right = started(memory_config()).await;
    assert!(matches!(left.bootstrap().await, Err(NetabaseError::NoKnownPeers)));
    let (peer, address) = (right.local_peer_id(), right.listen_addresses().remove(0));
    let mut events = left.subscribe_to_broadcasts();
    left.add_address(peer, address.clone()).await.unwrap();
    wait_for(&mut events, |event| match event {
        netabase::NetabaseSwarmEvent::Identify(event) => {
            matches!(**event, libp2p::identify::Event::Received { .. }).then_some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(left.connected_peers().await.unwrap(), [peer]);
    assert_eq!(left.bootstrap().await.unwrap(), 1);
    assert!(!left.remove_address(peer, "/memory/1".parse().unwrap()).await.unwrap());
    assert!(left.remove_address(peer, address.clone()).await.unwrap());
    assert!(!left.remove_address(peer, address).await.unwrap());
    assert!(left.remove_peer(peer).await.unwrap());
    wait_for(&mut events, |event| match event {
        netabase::NetabaseSwarmEvent::ConnectionClosed { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(left.connected_peers().await.unwrap(), []);
    let own = left.listen_addresses().remove(0);
    let refused = left.add_address(left.local_peer_id(), own).await;
    assert!(matches!(refused, Err(NetabaseError::OwnAddress { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_connect_says_what_became_of_it() {
    let (left, right) = (started(memory_config()).await, started(memory_config()).await);
    let (peer, address) = (right.local_peer_id(), right.listen_addresses().remove(0));
    let nobody = PeerId::random();
    let failed = left.connect(nobody, address.clone()).await.unwrap_err().to_string();
    assert!(failed.contains("cannot connect to") && failed.contains(&format!("is {peer}")), "{failed}");
    let failed = left.connect(nobody, "/memory/1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(failed, NetabaseError::NotReached { peer, .. } if peer == nobody), "{failed:?}");
    let own = left.listen_addresses().remove(0);
    for peer in [left.local_peer_id(), nobody] {
        let failed = left.connect(peer, own.clone()).await.unwrap_err().to_string();
        assert_eq!(failed, format!("{own} is an address of this node; give the address of another one"));
    }
    left.connect(peer, address.clone()).await.unwrap();
    assert_eq!(left.connected_peers().await.unwrap(), [peer]);
    left.connect(peer, address).await.unwrap();
}

#[tokio::test]
async fn a_peer_is_connected_to_though_its_bucket_is_full_of_dead_ones() {
    use libp2p::identity::Keypair;
    use libp2p::kad::KBucketKey;
    let node = started(memory_config()).await;
    let here = KBucketKey::from(node.local_peer_id());
    // Half of all peers are in one bucket, which has room for 40.
    let is_far = |peer: PeerId| KBucketKey::from(peer).distance(&here).ilog2() == Some(255);
    let dead = std::iter::repeat_with(PeerId::random).filter(|peer| is_far(*peer)).take(45);
    let mut events = node.subscribe_to_broadcasts();
    for peer in dead {
        node.add_address(peer, "/memory/1".parse().unwrap()).await.unwrap();
    }
    wait_for(&mut events, |event| match event {
        netabase::NetabaseSwarmEvent::OutgoingConnectionError { .. } => Some(()),
        _ => None,
    })
    .await;
    let identity = std::iter::repeat_with(Keypair::generate_ed25519)
        .find(|identity| is_far(identity.public().to_peer_id()));
    let alive = started(NetabaseConfig { identity, ..memory_config() }).await;
    alive.connect(node.local_peer_id(), node.listen_addresses().remove(0)).await.unwrap();
    within_deadline("the peer to be in the routing table", async {
        loop {
            let outcome = node.put_record(note(1, "room")).await.unwrap();
            if outcome.accepted == [alive.local_peer_id()] {
                break;
            }
            let _ = events.recv().await;
        }
    })
    .await;
}

#[tokio::test]
async fn local_records_are_listed_up_to_the_limit() {
    let netabase = started(memory_config()).await;
    for id in 0..5 {
        netabase.put_record(note(id, "local")).await.unwrap();
    }
    netabase.put_record(Topic { name: "a".into(), title: "A".into() }).await.unwrap();
    assert_eq!(netabase.query_local_records(None).await.unwrap().len(), 6);
    let first = netabase.query_local_records(Some(2)).await.unwrap();
    let first: Vec<Note> = first.into_iter().map(|record| record.try_into().unwrap()).collect();
    assert_eq!(first, [note(0, "local"), note(1, "local")]);
}

#[tokio::test]
async fn a_start_or_stop_that_nobody_waits_for_is_finished_all_the_same() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    for _ in 0..3 {
        let start = netabase.start_swarm();
        assert!(futures::poll!(Box::pin(start)).is_pending());
        wait_for(&mut events, |event| matches!(event, netabase::NetabaseSwarmEvent::Started).then_some(()))
            .await;
        let stop = netabase.stop_swarm();
        assert!(futures::poll!(Box::pin(stop)).is_pending());
        wait_for(&mut events, |event| matches!(event, netabase::NetabaseSwarmEvent::Stopped).then_some(()))
            .await;
    }
    netabase.start_swarm().await.unwrap();
    assert_eq!(netabase.get_mode().await.unwrap(), Mode::Server);
}
