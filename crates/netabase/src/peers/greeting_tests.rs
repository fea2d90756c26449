//! Nodes that tell each other of their clocks, their runs and their scores.

use std::sync::atomic::Ordering;

use libp2p::identity::Keypair;
use netabase_store::changes::StoreEvent;
use netabase_store::dynamic::Schema;
use netabase_store::{Refusal, StoreError, WriteError};
use tokio::sync::broadcast;

use crate::event::NetabaseSwarmEvent;
use crate::event_loop::command::PutTerms;
use crate::outcome::WriteAnswer;
use crate::peers::standing::ClockComparison;
use crate::platform::timeout;
use crate::replication::absence_tests::{PATIENCE, SCHEMA, START, Told, key};
use crate::swarm::Deadline;

const HOUR: u64 = 60 * 60 * 1000;

async fn start(time: u64, bootstrap: Option<&Told>) -> Told {
    Told::start_as(&SCHEMA, Keypair::generate_ed25519(), time, None, bootstrap).await
}

type Subscription = broadcast::Receiver<NetabaseSwarmEvent>;

/// Waits for an event of which `select` makes something.
async fn wait<T>(events: &mut Subscription, select: impl Fn(&NetabaseSwarmEvent) -> Option<T>) -> T {
    let selected = async {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Some(selected) = select(&event) {
                        return selected;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => panic!("the node is gone"),
            }
        }
    };
    timeout(PATIENCE, selected).await.expect("the event comes")
}

fn differs(event: &NetabaseSwarmEvent) -> Option<ClockComparison> {
    match event {
        NetabaseSwarmEvent::ClockDiffers(clock) => Some(*clock),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_wrong_is_told_so_and_those_whose_clocks_are_right_are_not() {
    let [hub, other] = [start(START, None).await, start(START, None).await];
    let mut of_hub = hub.parts.events.subscribe();
    let third = start(START, Some(&hub)).await;
    let is_other =
        |event: &NetabaseSwarmEvent| matches!(event, NetabaseSwarmEvent::Identify(_)).then_some(());
    wait(&mut of_hub, is_other).await;
    drop(other);
    let ahead = start(START + HOUR, None).await;
    let mut events = ahead.parts.events.subscribe();
    for peer in [&hub, &third] {
        let (peer, address) = (peer.peer(), peer.address());
        let add = |reply| crate::event_loop::command::Command::AddAddress { peer, address, reply };
        ahead.node.call(add).await.unwrap();
    }
    let clock = wait(&mut events, differs).await;
    assert_eq!(clock.ahead_millis / 60_000, 60, "{clock:?}");
    // The hub compares with two peers, one of which is right.
    let clock = hub.parts.standings.now().clock;
    assert!(clock.is_none_or(|clock| clock.peers == 1 || !clock.differs()), "{clock:?}");

    ahead.time.store(START, Ordering::Relaxed);
    wait(&mut events, |event| matches!(event, NetabaseSwarmEvent::ClockAgrees).then_some(())).await;
    let clock = ahead.parts.standings.now().clock;
    assert!(clock.is_none_or(|clock| !clock.differs()), "{clock:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_its_date_costs_nothing_and_is_signed_again_when_the_clock_is_right() {
    let schema = r#"
        name = "Def"
        [[models]]
        name = "Model"
        primary_key = ["id"]
        fields = [{ name = "id", type = "u8" }, { name = "text", type = "string" }]
    "#;
    let schema = Schema::from_toml(schema).unwrap().definition();
    let start = |time, bootstrap| Told::start_as(schema, Keypair::generate_ed25519(), time, None, bootstrap);
    let peer = start(START, None).await;
    let ahead = start(START + HOUR, Some(&peer)).await;
    let mut events = ahead.parts.events.subscribe();
    wait(&mut events, differs).await;
    let mut written = Vec::new();
    for id in 0..20 {
        let json = format!(r#"{{"id":{id},"text":"ahead"}}"#);
        let record = schema.model("Model").unwrap().codec.from_json(1, &json).unwrap();
        let (key, envelope) = ahead.parts.store.replica().submit(&record, |_| {}).unwrap();
        let deadline = Deadline::after(PATIENCE);
        let terms = PutTerms { concern: Some(1), ..PutTerms::default() };
        let published = ahead.node.publish(key.clone(), envelope, terms, deadline).await.unwrap();
        let answers: Vec<_> = published.peers.iter().map(|peer| peer.answer.clone()).collect();
        assert_eq!(answers, [WriteAnswer::Refused(Refusal::FutureTimestamp)]);
        written.push(key);
    }
    assert_eq!(ahead.parts.standings.now().refused, [(Refusal::FutureTimestamp, 20)]);
    let report = peer.parts.scores.report(&ahead.peer()).unwrap();
    assert_eq!((report.score, report.throttled), (0, 0), "a wrong clock is no offence: {report:?}");

    let (sender, mut changed) = tokio::sync::mpsc::channel(100);
    peer.parts.store.set_observer(move |event| {
        if matches!(event, StoreEvent::Changed(_)) {
            sender.try_send(()).unwrap();
        }
    });
    // With the wall clock set right, the rest happens by itself.
    ahead.time.store(START + 1, Ordering::Relaxed);
    let stored = async {
        for _ in 0..20 {
            changed.recv().await.unwrap();
        }
    };
    timeout(PATIENCE, stored).await.expect("the peer has them all");
    // A version that was sent once more with its old date has the peer asked for its clock.
    let forgotten = async {
        while !ahead.parts.standings.now().refused.is_empty() {
            ahead.node.call(|reply| crate::event_loop::command::Command::View { reply }).await.unwrap();
        }
    };
    timeout(PATIENCE, forgotten).await.expect("the warning goes");
    for key in &written {
        let [here, there] = [&ahead, &peer].map(|node| node.parts.store.envelope(key).unwrap().unwrap());
        assert_eq!((here.as_bytes(), here.payload()), (there.as_bytes(), there.payload()));
        assert!(here.timestamp().unwrap().unix_millis() < START + HOUR, "{here:?}");
    }
}

fn shared(event: &NetabaseSwarmEvent) -> Option<libp2p::PeerId> {
    match event {
        NetabaseSwarmEvent::IdentityShared { peer } => Some(*peer),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_identity_are_told_so_write_nothing_and_their_peer_knows() {
    let watcher = start(START, None).await;
    let mut seen = watcher.parts.events.subscribe();
    let keys = Keypair::generate_ed25519();
    let begin = || Told::start_as(&SCHEMA, keys.clone(), START, None, Some(&watcher));
    // One that was restarted is no twin.
    let former = begin().await;
    wait(&mut seen, |event| matches!(event, NetabaseSwarmEvent::Identify(_)).then_some(())).await;
    former.node.stop().await;
    let [first, second] = [begin().await, begin().await];
    let mut told = [&first, &second].map(|node| node.parts.events.subscribe());
    assert_eq!(wait(&mut seen, shared).await, first.peer());
    for (node, told) in [&first, &second].into_iter().zip(&mut told) {
        assert_eq!(wait(told, shared).await, node.peer());
        assert_eq!(node.parts.standings.now().shared_identities, [node.peer()]);
        let refused = node.parts.store.replica().submit_removal(&key(1), |_| {});
        assert!(matches!(refused, Err(StoreError::Write(WriteError::IdentityShared { .. }))), "{refused:?}");
    }
    assert_eq!(watcher.parts.standings.now().shared_identities, [first.peer()]);
    assert!(
        watcher.parts.store.replica().submit_removal(&key(1), |_| {}).is_ok(),
        "it has an identity of its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_peer_that_comes_back_is_told_once() {
    use crate::admission::Severity;

    let victim = start(START, None).await;
    let banned = start(START, None).await;
    let (mut events, mut of_victim) = (banned.parts.events.subscribe(), victim.parts.events.subscribe());
    let add = || {
        let (peer, address) = (victim.peer(), victim.address());
        move |reply| crate::event_loop::command::Command::AddAddress { peer, address, reply }
    };
    banned.node.call(add()).await.unwrap();
    wait(&mut events, |event| matches!(event, NetabaseSwarmEvent::Identify(_)).then_some(())).await;
    for _ in 0..5 {
        victim.parts.scores.refused(banned.peer(), None, Refusal::InvalidSignature, Severity::Grave);
    }
    let part = |reply| crate::event_loop::command::Command::RemovePeer { peer: banned.peer(), reply };
    victim.node.call(part).await.unwrap();
    let ban = |event: &NetabaseSwarmEvent| match event {
        NetabaseSwarmEvent::BannedBy { peer, rest, reason } => Some((*peer, rest.as_secs(), *reason)),
        _ => None,
    };
    let (peer, rest, reason) = wait(&mut events, ban).await;
    assert_eq!((peer, reason), (victim.peer(), Refusal::InvalidSignature));
    assert!((590..=600).contains(&rest), "{rest}");
    assert_eq!(banned.parts.standings.now().banned_by.len(), 1);
    // After that it is not let in.
    let (established, denied) = (
        |event: &NetabaseSwarmEvent| matches!(event, NetabaseSwarmEvent::ConnectionEstablished { .. }),
        |event: &NetabaseSwarmEvent| matches!(event, NetabaseSwarmEvent::IncomingConnectionError { .. }),
    );
    let closed = |event: &NetabaseSwarmEvent| match event {
        NetabaseSwarmEvent::ConnectionClosed { connections: 0, .. } => Some(()),
        _ => None,
    };
    wait(&mut events, closed).await;
    banned.node.call(add()).await.unwrap();
    let mut connections = 0;
    loop {
        let event = wait(&mut of_victim, |event| Some(event.clone())).await;
        connections += usize::from(established(&event));
        if denied(&event) {
            break;
        }
    }
    assert!(connections <= 2, "{connections}");
}
