//! Tests of nodes that were away for longer than tombstones are kept.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use netabase_store::schema::DefinitionSchema;
use netabase_store::{
    Clock, Envelope, NetabaseStore, RecordKey, SigningKey, StorageBackend, StoreOptions, Timestamp,
};
use tokio::sync::{Semaphore, broadcast};

use crate::config::{DHTDiscoveryConfig, MDNSDiscoveryConfig, NetabaseConfig};
use crate::connection::processor::Processor;
use crate::event_loop::command::Command;
use crate::identity::Identity;
use crate::limits::EVENT_CAPACITY;
use crate::peers::authors::AuthorRates;
use crate::peers::other_roots::OtherRoots;
use crate::peers::presence::Presence;
use crate::peers::score::PeerScores;
use crate::peers::standing::Standings;
use crate::platform::timeout;
use crate::protocol::record::{Response, get_request};
use crate::query::FoundPages;
use crate::replication::live::Live;
use crate::replication::repair::backlog::Backlog;
use crate::replication::sync::{ReplicateOptions, Replications};
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;
use crate::swarm::{Parts, RunningSwarm};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;

/// A schema without models.
pub(crate) static SCHEMA: DefinitionSchema = DefinitionSchema { name: "Def", models: &[] };
pub(crate) const START: u64 = 1_700_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;
const YEAR: u64 = 365 * DAY;
/// The time for which a store keeps a tombstone.
const TOMBSTONE_FLOOR: u64 = 30 * DAY;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node with a clock of its own.
pub(crate) struct Told {
    pub(crate) node: RunningSwarm,
    pub(crate) parts: Parts,
    pub(crate) time: Arc<AtomicU64>,
}

pub(crate) fn key(id: u8) -> RecordKey {
    RecordKey::new("Def", "Model", &[id]).unwrap()
}

/// Returns a record of an author that is not present.
fn theirs() -> Envelope {
    let author = SigningKey::from_bytes(&[9; 32]);
    Envelope::sign(&author, &key(1), Timestamp::from_unix_millis(START), 0, Some(b"theirs"))
}

/// Sends a request to a peer; returns the response.
async fn ask(node: &RunningSwarm, protocol: Protocol, peer: PeerId, request: Frame) -> Frame {
    node.call(|reply| Command::Ask { protocol, peer, request, reply }).await.unwrap().unwrap()
}

impl Told {
    async fn start(repair_interval: Option<Duration>, bootstrap: Option<&Self>) -> Self {
        Self::start_as(&SCHEMA, Keypair::generate_ed25519(), START, repair_interval, bootstrap).await
    }

    pub(crate) async fn start_as(
        schema: &'static DefinitionSchema,
        keys: Keypair,
        time: u64,
        repair_interval: Option<Duration>,
        bootstrap: Option<&Self>,
    ) -> Self {
        let time = Arc::new(AtomicU64::new(time));
        let clock = Clock::from_fn({
            let time = Arc::clone(&time);
            move || time.load(Ordering::Relaxed)
        });
        let identity = Some(Identity::try_from(&keys).unwrap().signing_key().clone());
        let options = StoreOptions { backend: StorageBackend::Memory, identity, clock, ..Default::default() };
        let store = NetabaseStore::open_with("", Some(schema), options).unwrap();
        store.replica().discard_unvouched().unwrap();
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
        let (live, scores) = (Live::new("Def".into(), schema), PeerScores::default());
        let metrics = Metrics::new(&store, &live, &scores, &Replications::default());
        let parts = Parts {
            config: Arc::new(config),
            network: "Def".into(),
            identity: keys,
            store,
            events: broadcast::channel(EVENT_CAPACITY).0,
            known_peers: None,
            scores,
            processor: Processor::new(),
            author_rates: AuthorRates::default(),
            other_roots: OtherRoots::new(None),
            standings: Standings::default(),
            traces: Traces::default(),
            members_news: Arc::default(),
            live,
            metrics,
            found_pages: FoundPages::default(),
            replications: Replications::default(),
            backlog: Backlog::default(),
            presence: Presence::default(),
            blob_window: Arc::new(Semaphore::new(crate::blobs::limits::WINDOW_GROUPS)),
        };
        Self { node: RunningSwarm::start(parts.clone()).await.unwrap(), parts, time }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.parts.identity.public().to_peer_id()
    }

    pub(crate) fn address(&self) -> Multiaddr {
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
        let last = self.parts.store.replica().last_online().unwrap();
        u64::try_from(last.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    fn has(&self, id: u8) -> bool {
        self.parts.store.envelope(&key(id)).unwrap().is_some()
    }

    async fn repair(&self) -> crate::replication::repair::RepairReport {
        timeout(PATIENCE, self.node.repair()).await.unwrap().unwrap()
    }

    /// Repairs until everything was compared. After the clocks were set, peers have to send them
    /// first.
    async fn repair_when_told(&self) {
        let repaired = async {
            loop {
                let report = self.repair().await;
                if report.comparisons > 0 && report.unreachable == 0 {
                    return;
                }
            }
        };
        timeout(PATIENCE, repaired).await.expect("it is compared");
    }

    /// Waits until peers agree with this node's clock.
    async fn agrees(&self) {
        let agrees = async {
            while !self.parts.store.replica().is_clock_compared()
                || self.parts.standings.now().clock.is_none_or(|clock| clock.differs())
            {
                self.node.call(|reply| Command::View { reply }).await.unwrap();
            }
        };
        timeout(PATIENCE, agrees).await.expect("the clocks agree");
    }

    /// Asks a peer for a record until the peer sends it, which it does not do while it is away.
    async fn is_given_when_told(&self, peer: PeerId, id: u8) {
        let given = async { while !self.is_given(peer, id).await {} };
        timeout(PATIENCE, given).await.expect("the record is given");
    }

    /// Asks a peer for a record by the record protocol; returns whether the peer has sent it.
    async fn is_given(&self, peer: PeerId, id: u8) -> bool {
        let request = Frame::new(get_request([key(id).as_bytes()], 1 << 20));
        let frame = ask(&self.node, Protocol::Records, peer, request).await;
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
    node.parts.store.replica().admit(key(1).as_bytes(), theirs().as_bytes()).unwrap();
    node.advance(DAY);
    node.repair().await;
    assert_eq!(node.last_online(), START, "there is nobody");
    let (ghost, address) = (PeerId::random(), "/memory/1".parse().unwrap());
    node.node.call(|reply| Command::AddAddress { peer: ghost, address, reply }).await.unwrap();
    let report = node.repair().await;
    assert!(report.comparisons == 0 || report.unreachable > 0, "{report:?}");
    assert_eq!(node.last_online(), START, "nobody has answered");

    let keys = Keypair::generate_ed25519();
    let peer = Told::start_as(&SCHEMA, keys, START + DAY, WITH_REPAIR, Some(&node)).await;
    node.knows(&peer).await;
    let report = node.repair().await;
    assert!(report.comparisons > 0, "{report:?}");
    assert_eq!(node.last_online(), START + DAY);
    assert!(!node.parts.store.replica().was_away());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_gives_nobody_what_may_have_been_deleted() {
    let node = Told::start(None, None).await;
    let peer = Told::start(None, Some(&node)).await;
    node.knows(&peer).await;
    peer.knows(&node).await;
    let own = Envelope::sign(
        Identity::try_from(&node.parts.identity).unwrap().signing_key(),
        &key(2),
        Timestamp::from_unix_millis(START),
        0,
        Some(b"own"),
    );
    for (id, envelope) in [(1, &theirs()), (2, &own)] {
        node.parts.store.replica().admit(key(id).as_bytes(), envelope.as_bytes()).unwrap();
    }
    assert!(peer.is_given(node.peer(), 1).await, "it is given to whoever asks");
    let passed = TOMBSTONE_FLOOR + DAY;
    peer.advance(passed);
    node.advance(passed);
    // The record is discarded when the peer has sent its clock, and not sent to other nodes until
    // then.
    assert!(!peer.is_given(node.peer(), 1).await);
    let found = peer.node.call(|reply| Command::GetRecord { key: key(1), reply }).await.unwrap();
    assert_eq!(found.newest, None);
    peer.repair_when_told().await;
    assert!(!peer.has(1));
    node.repair_when_told().await;
    assert!(
        !node.parts.store.replica().was_away() && !node.has(1) && !peer.has(1),
        "it was not given by the repair"
    );
    assert!(node.has(2) && peer.has(2), "what it has written itself was");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_neither_answers_nor_begins_a_comparison_of_a_scope_before_it_has_discarded() {
    use crate::protocol::record::Failure;
    use crate::protocol::sync::{Response, WireScope, reconcile};
    use netabase_store::{Scope, ScopePart};

    let node = Told::start(None, None).await;
    let peer = Told::start(None, Some(&node)).await;
    node.knows(&peer).await;
    peer.knows(&node).await;
    let asked = async || {
        let scope = WireScope { model: [7; Scope::MODEL_TAG_BYTES], value: None };
        let request = Frame::new(reconcile(&scope, 0, &[0x61]));
        let frame = ask(&peer.node, Protocol::Sync, node.peer(), request).await;
        match Response::decode(frame.bytes().unwrap()).unwrap() {
            Response::Failure(failure) => failure,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked().await, Failure::Other, "it has no such model");
    let passed = TOMBSTONE_FLOOR + DAY;
    peer.advance(passed);
    node.advance(passed);
    let failure = asked().await;
    assert!(failure == Failure::Busy || !node.parts.store.replica().was_away(), "{failure:?}");
    // The scope of a definition without models is complete as soon as the peer has answered.
    let everything = Scope { definition: "Def".into(), part: ScopePart::All };
    let begin = || {
        let options = ReplicateOptions::default();
        node.parts.replications.begin(&node.parts.store, &node.parts.live, everything.clone(), &options)
    };
    let kept = begin().unwrap();
    timeout(PATIENCE, kept.caught_up()).await.unwrap().unwrap();
    assert!(!node.parts.store.replica().was_away());
    assert_eq!(asked().await, Failure::Other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_is_no_absence_and_a_long_absence_is_one() {
    let node = Told::start(None, None).await;
    let peer = Told::start(None, Some(&node)).await;
    node.knows(&peer).await;
    peer.knows(&node).await;
    node.parts.store.replica().admit(key(1).as_bytes(), theirs().as_bytes()).unwrap();
    node.advance(YEAR);
    peer.is_given_when_told(node.peer(), 1).await;
    assert!(node.has(1) && !node.parts.store.replica().was_away());
    let clock = node.parts.standings.now().clock.unwrap();
    assert!(clock.differs() && clock.ahead_millis > 0, "{clock:?}");
    // With the clock set right, the node continues.
    node.time.store(START, Ordering::Relaxed);
    node.agrees().await;
    peer.is_given_when_told(node.peer(), 1).await;
    assert!(node.has(1) && !node.parts.store.replica().was_away());
    // The clocks of all nodes advance, too.
    peer.advance(YEAR);
    node.advance(YEAR);
    node.repair_when_told().await;
    assert!(!node.has(1) && !node.parts.store.replica().was_away());
}
