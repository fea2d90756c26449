//! Nodes that have not heard of others for longer than deletions are remembered.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use netabase_store::{
    Clock, DEFAULT_TOMBSTONE_FLOOR, DefinitionSchema, Envelope, NetabaseStore, RecordKey, SigningKey,
    StorageBackend, StoreOptions, Timestamp,
};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;

use super::record_protocol::Frame;
use super::record_protocol::wire::{Response, get_request};
use super::{Command, FoundPages, Live, Parts, Replications, RunningSwarm, Sanctions, Traces, fetch};
use crate::config::{DHTDiscoveryConfig, MDNSDiscoveryConfig, NetabaseConfig};
use crate::identity;
use crate::metrics::Metrics;

/// No model.
static SCHEMA: DefinitionSchema = DefinitionSchema { name: "Def", models: &[] };
const START: u64 = 1_700_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, and the time that it believes.
struct Told {
    node: RunningSwarm,
    parts: Parts,
    time: Arc<AtomicU64>,
}

fn key(id: u8) -> RecordKey {
    RecordKey::new("Def", "Model", &[id]).unwrap()
}

/// A record of somebody who is not here.
fn theirs() -> Envelope {
    let author = SigningKey::from_bytes(&[9; 32]);
    Envelope::sign(&author, &key(1), Timestamp::from_unix_millis(START), 0, Some(b"theirs"))
}

impl Told {
    async fn start(repair_interval: Option<Duration>, bootstrap: Option<&Self>) -> Self {
        let keys = Keypair::generate_ed25519();
        let time = Arc::new(AtomicU64::new(START));
        let clock = Clock::from_fn({
            let time = Arc::clone(&time);
            move || time.load(Ordering::Relaxed)
        });
        let identity = Some(identity::signing_key(&keys).unwrap());
        let options = StoreOptions { backend: StorageBackend::Memory, identity, clock, ..Default::default() };
        let store = NetabaseStore::open_with("", Some(&SCHEMA), options).unwrap();
        store.discard_unvouched().unwrap();
        let dht = DHTDiscoveryConfig {
            bootstrap_peers: bootstrap.map(Self::address).into_iter().collect(),
            replication_factor: NonZeroUsize::new(20).unwrap(),
            repair_interval,
            ..DHTDiscoveryConfig::default()
        };
        let config = NetabaseConfig {
            dht,
            listen_addresses: vec!["/memory/0".parse().unwrap()],
            mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
            ..NetabaseConfig::default()
        };
        let (live, sanctions) = (Live::new("Def".into(), &SCHEMA), Sanctions::default());
        let metrics = Metrics::new(&store, &live, &sanctions, &Replications::default());
        let parts = Parts {
            config: Arc::new(config),
            network: "Def".into(),
            identity: keys,
            store,
            events: broadcast::channel(100).0,
            known_peers: None,
            sanctions,
            traces: Traces::default(),
            members_news: Arc::default(),
            live,
            metrics,
            found_pages: FoundPages::default(),
            replications: Replications::default(),
            blob_window: Arc::new(Semaphore::new(fetch::WINDOW_GROUPS)),
        };
        Self { node: RunningSwarm::start(parts.clone()).await.unwrap(), parts, time }
    }

    fn peer(&self) -> PeerId {
        self.parts.identity.public().to_peer_id()
    }

    fn address(&self) -> Multiaddr {
        self.node.listen_addresses().remove(0).with_p2p(self.peer()).unwrap()
    }

    async fn knows(&self, other: &Self) {
        let mut events = self.parts.events.subscribe();
        let known = async {
            loop {
                let view = self.node.call(|reply| Command::View { reply }).await.unwrap();
                if HashSet::<PeerId>::from_iter(view.peers()).contains(&other.peer()) {
                    return;
                }
                let _ = events.recv().await;
            }
        };
        timeout(PATIENCE, known).await.expect("they know each other");
    }

    fn advance(&self, millis: u64) {
        self.time.fetch_add(millis, Ordering::Relaxed);
    }

    fn last_online(&self) -> u64 {
        let last = self.parts.store.last_online().unwrap();
        u64::try_from(last.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    fn has(&self, id: u8) -> bool {
        self.parts.store.envelope(&key(id)).unwrap().is_some()
    }

    async fn repair(&self) -> super::RepairReport {
        timeout(PATIENCE, self.node.repair()).await.unwrap().unwrap()
    }

    /// Asks a peer for a record by the record protocol; returns whether it has given it.
    async fn is_given(&self, peer: PeerId, id: u8) -> bool {
        let request = Frame::new(get_request([key(id).as_bytes()], 1 << 20));
        let frame = self.node.call(|reply| Command::Ask { peer, request, reply }).await.unwrap();
        match Response::decode(frame.bytes().unwrap()).unwrap() {
            Response::Get(copies) => copies.iter().any(Option::is_some),
            Response::Failure(_) => false,
            other => panic!("{other:?}"),
        }
    }
}

const WITH_REPAIR: Option<Duration> = Some(Duration::from_secs(60 * 60));

#[tokio::test(flavor = "multi_thread")]
async fn who_was_compared_with_a_peer_is_online_and_who_was_not_is_not() {
    let node = Told::start(WITH_REPAIR, None).await;
    node.parts.store.admit(key(1).as_bytes(), theirs().as_bytes()).unwrap();
    node.advance(DAY);
    node.repair().await;
    assert_eq!(node.last_online(), START, "there is nobody");
    let (ghost, address) = (PeerId::random(), "/memory/1".parse().unwrap());
    node.node.call(|reply| Command::AddAddress { peer: ghost, address, reply }).await.unwrap();
    let report = node.repair().await;
    assert!(report.comparisons == 0 || report.unreachable > 0, "{report:?}");
    assert_eq!(node.last_online(), START, "nobody has answered");

    let peer = Told::start(WITH_REPAIR, Some(&node)).await;
    peer.advance(DAY);
    node.knows(&peer).await;
    let report = node.repair().await;
    assert!(report.comparisons > 0, "{report:?}");
    assert_eq!(node.last_online(), START + DAY);
    assert!(!node.parts.store.was_away());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_gives_nobody_what_may_have_been_deleted() {
    let node = Told::start(None, None).await;
    let peer = Told::start(None, Some(&node)).await;
    node.knows(&peer).await;
    peer.knows(&node).await;
    let own = Envelope::sign(
        &identity::signing_key(&node.parts.identity).unwrap(),
        &key(2),
        Timestamp::from_unix_millis(START),
        0,
        Some(b"own"),
    );
    for (id, envelope) in [(1, &theirs()), (2, &own)] {
        node.parts.store.admit(key(id).as_bytes(), envelope.as_bytes()).unwrap();
    }
    assert!(peer.is_given(node.peer(), 1).await, "it is given to whoever asks");
    let passed = u64::try_from(DEFAULT_TOMBSTONE_FLOOR.as_millis()).unwrap() + DAY;
    node.advance(passed);
    // It is discarded soon after that, and not given to anybody until then.
    assert!(!peer.is_given(node.peer(), 1).await);
    let found = peer.node.call(|reply| Command::GetRecord { key: key(1), reply }).await.unwrap();
    assert_eq!(found.newest, None);
    peer.advance(passed);
    peer.repair().await;
    assert!(!peer.has(1));
    let report = node.repair().await;
    assert!(report.comparisons > 0, "{report:?}");
    assert!(!node.parts.store.was_away() && !node.has(1) && !peer.has(1), "it was not given by the repair");
    assert!(node.has(2) && peer.has(2), "what it has written itself was");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_neither_answers_nor_begins_a_comparison_of_a_scope_before_it_has_discarded() {
    use super::record_protocol::wire::Failure;
    use super::sync::wire::{Response, WireScope, reconcile};
    use netabase_store::{Scope, ScopePart};

    let node = Told::start(None, None).await;
    let peer = Told::start(None, Some(&node)).await;
    node.knows(&peer).await;
    peer.knows(&node).await;
    let asked = async || {
        let scope = WireScope { model: [7; netabase_store::MODEL_TAG_BYTES], value: None };
        let request = Frame::new(reconcile(&scope, 0, &[0x61]));
        let frame =
            peer.node.call(|reply| Command::AskSync { peer: node.peer(), request, reply }).await.unwrap();
        match Response::decode(frame.bytes().unwrap()).unwrap() {
            Response::Failure(failure) => failure,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked().await, Failure::Other, "it has no such model");
    node.advance(u64::try_from(DEFAULT_TOMBSTONE_FLOOR.as_millis()).unwrap() + DAY);
    assert!(node.parts.store.was_away());
    assert_eq!(asked().await, Failure::Busy);
    // Of a definition without models everything is here as soon as it was asked for.
    let everything = Scope { definition: "Def".into(), part: ScopePart::All };
    let begin = || node.parts.replications.begin(&node.parts.store, &node.parts.live, everything.clone());
    let kept = begin().unwrap();
    assert!(node.parts.store.was_away());
    let (caught_up, report) = tokio::join!(timeout(PATIENCE, kept.caught_up()), async {
        assert!(kept.progress().current == 0);
        node.repair().await
    });
    caught_up.unwrap().unwrap();
    assert!(!node.parts.store.was_away(), "{report:?}");
    assert_eq!(asked().await, Failure::Other);
}
