//! More than a node can take: records, provider records, addresses, connections.

use std::ops::Range;

use futures::StreamExt;
use libp2p::kad::{self, store::RecordStore};
use libp2p::{Multiaddr, PeerId, Swarm, identify, request_response, swarm::SwarmEvent};
use netabase::limits::{RECORD_BURST, RECORDS_PER_SECOND};
use netabase::{Author, Envelope, NetabaseConfig, NetabaseSwarmEvent, Refusal, StoreOptions};
use netabase_store::SigningKey;

use crate::common::bare::*;
use crate::common::flood::{flood, limited};
use crate::common::*;
use crate::scene::*;

/// How many requests of the flood are under way at a time; a node lets 32 of a peer wait.
const WINDOW: usize = 16;
/// How many records are in each.
const PER_REQUEST: u64 = 256;

/// What became of a flood of records, as the answers say.
#[derive(Debug, Default)]
struct Flooded {
    stored: u64,
    refused: std::collections::BTreeMap<u8, u64>,
    unseen: u64,
}

impl Flooded {
    fn add(&mut self, answer: &[u8], records: u64) {
        if answer[0] == 0 {
            assert_eq!(answer[1], 4, "busy, and nothing else");
            self.unseen += records;
            return;
        }
        assert_eq!(items(answer) as u64, records);
        for answer in answer[3..].chunks(2) {
            match answer[0] {
                0 => self.stored += 1,
                _ => *self.refused.entry(answer[1]).or_default() += 1,
            }
        }
    }
}

/// The request with an author's records of a flood from `first` on, all of one topic.
fn flood_request(author: &SigningKey, first: u64, count: u64) -> Vec<u8> {
    let sign = |id| {
        let note = Note { id, topic: "popular".into(), text: "flood".into() };
        Envelope::sign(author, &key(id), now(), 0, Some(&payload(&note)))
    };
    let records: Vec<_> = (first..first + count).map(|id| (key(id), sign(id))).collect();
    let records: Vec<(&[u8], &[u8])> =
        records.iter().map(|(key, envelope)| (key.as_bytes(), envelope.as_bytes())).collect();
    put_request(&records)
}

async fn flood_with_records(
    hostile: &mut Swarm<Hostile>,
    victim: &Notes,
    author: &SigningKey,
    ids: Range<u64>,
) -> Flooded {
    let mut flooded = Flooded::default();
    let mut under_way = std::collections::HashMap::new();
    let mut sent = ids.start;
    while sent < ids.end || !under_way.is_empty() {
        while sent < ids.end && under_way.len() < WINDOW {
            let records = PER_REQUEST.min(ids.end - sent);
            let request = flood_request(author, sent, records);
            let id = hostile.behaviour_mut().records.send_request(&victim.local_peer_id(), request);
            under_way.insert(id, records);
            sent += records;
        }
        match within_deadline("an answer to the flood", hostile.select_next_some()).await {
            SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
                message: request_response::Message::Response { request_id, response },
                ..
            })) => flooded.add(&response, under_way.remove(&request_id).unwrap()),
            SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::OutboundFailure {
                request_id,
                ..
            })) => {
                // The node may end a stream of many.
                flooded.unseen += under_way.remove(&request_id).unwrap();
            }
            _ => {}
        }
    }
    flooded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_valid_records_ends_at_the_quota_of_its_author() {
    const RECORDS: u64 = 100_000;
    const QUOTA: u64 = 1 << 20;
    let scene = Scene::new(NetabaseConfig {
        store: StoreOptions { max_author_bytes: QUOTA, ..config().store },
        author_records_per_second: 0,
        ..config()
    })
    .await;
    let victim = &scene.victim;
    let mut attack = scene.begin("record flood, valid, distinct keys, one author");
    let began = std::time::Instant::now();
    let mut hostile = hostile_peer(victim).await;
    let flooded = flood_with_records(&mut hostile, victim, &stranger(), 0..RECORDS).await;
    meanwhile(&mut hostile, scene.served()).await;
    attack.tally.sent = RECORDS;
    attack.tally.accepted = flooded.stored;
    let over_quota = flooded.refused.values().sum::<u64>();
    attack.tally.judged(victim, *hostile.local_peer_id(), over_quota).await;
    let report = victim.peer_report(*hostile.local_peer_id()).unwrap();
    assert!(flooded.refused.keys().all(|reason| *reason == Refusal::OverQuota.code()), "{flooded:?}");
    assert_eq!(report.refused, [(Refusal::OverQuota, over_quota)]);
    assert_eq!(flooded.stored + over_quota + flooded.unseen, RECORDS);
    assert!(over_quota > 0 && report.throttled <= flooded.unseen);
    let seen = RECORDS - report.throttled;
    assert!(
        seen <= u64::from(RECORD_BURST) + u64::from(RECORDS_PER_SECOND) * (began.elapsed().as_secs() + 1)
    );

    victim.store().flush().unwrap();
    let popular = Note { id: RECORDS, topic: "popular".into(), text: "flood".into() };
    let last = Envelope::sign(&stranger(), &key(RECORDS), now(), 0, Some(&payload(&popular)));
    let size = u64::try_from(key(RECORDS).as_bytes().len() + last.as_bytes().len()).unwrap();
    let flood = flood_notes(&scene);
    assert_eq!(flood, flooded.stored);
    // Small numbers take a byte or two less.
    assert!((QUOTA / size..=QUOTA / (size - 6)).contains(&flood), "{flood} of about {size} bytes");
    let more = format!(
        "quota {QUOTA} bytes, {flood} records kept of it; {} unseen ({} over the rate)",
        flooded.unseen, report.throttled
    );
    scene.end(attack, &more);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_a_few_authors_is_slowed_and_its_authors_are_named() {
    const AUTHORS: u8 = 4;
    const EACH: u64 = 10_240;
    let scene = Scene::new(config()).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("record flood of four authors into one value");
    let author = |number: u8| SigningKey::from_bytes(&[100 + number; 32]);
    let (rate, burst) = {
        let config = NetabaseConfig::default();
        (u64::from(config.author_records_per_second), u64::from(config.author_record_burst))
    };
    let mut peers = Vec::new();
    for _ in 0..AUTHORS {
        peers.push(hostile_peer(victim).await);
    }
    let began = std::time::Instant::now();
    let floods = peers.iter_mut().zip(0..AUTHORS).map(async |(hostile, number)| {
        let first = u64::from(number) * EACH;
        flood_with_records(hostile, victim, &author(number), first..first + EACH).await
    });
    let floods = futures::future::join_all(floods).await;
    let most = burst + rate * (began.elapsed().as_secs() + 1);
    for flooded in &floods {
        assert_eq!(flooded.refused.keys().collect::<Vec<_>>(), [&Refusal::TooFast.code()], "{flooded:?}");
        assert!(flooded.stored <= most, "{flooded:?}");
        attack.tally.accepted += flooded.stored;
        attack.tally.sent += EACH;
    }
    // They share a burst, whichever comes first.
    assert!(attack.tally.accepted < attack.tally.sent * 3 / 5, "{:?}", attack.tally);
    let mut fast: Vec<_> = victim.fast_authors().into_iter().map(|(author, _)| author).collect();
    fast.sort();
    let mut authors: Vec<_> = (0..AUTHORS).map(|number| Author::of(&author(number))).collect();
    authors.sort();
    assert_eq!(fast, authors);
    for hostile in &mut peers {
        assert_eq!(state(victim, *hostile.local_peer_id()), "good", "it may have passed them on");
    }
    let mut last = peers.pop().unwrap();
    meanwhile(&mut last, scene.served()).await;

    // Nothing is lost: what was refused is taken later.
    let (number, again) = (AUTHORS - 1, EACH * u64::from(AUTHORS));
    let accepted = async {
        loop {
            let answers = flood_with_records(&mut last, victim, &author(number), again - 1..again).await;
            if answers.refused.is_empty() {
                break;
            }
        }
    };
    within_deadline("a refused record to be accepted", accepted).await;
    victim.store().flush().unwrap();
    assert!(victim.store().open_tree::<Note>().unwrap().get(&NotePrimaryKey(again - 1)).unwrap().is_some());
    scene.end(attack, &format!("at most {most} of each author"));
    scene.close().await;
}

/// How many notes of a flood the victim has; those of the honest work may come at any time.
fn flood_notes(scene: &Scene) -> u64 {
    let tree = scene.victim.store().open_tree::<Note>().unwrap();
    tree.iter().unwrap().filter(|note| note.as_ref().unwrap().id < HONEST).count() as u64
}

/// A message of Kademlia: its length and its fields.
fn message(fields: &[u8]) -> Vec<u8> {
    assert!(fields.len() < 128);
    [&[u8::try_from(fields.len()).unwrap()][..], fields].concat()
}

/// A field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn add_provider(key: &[u8], provider: PeerId) -> Vec<u8> {
    const ADD_PROVIDER: u8 = 2;
    let provider = field(9, &field(1, &provider.to_bytes()));
    message(&[&[8, ADD_PROVIDER][..], &field(2, key), &provider].concat())
}

fn find_node(key: &[u8]) -> Vec<u8> {
    const FIND_NODE: u8 = 4;
    message(&[&[8, FIND_NODE][..], &field(2, key)].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_provider_records_takes_no_more_than_a_share() {
    const RECORDS: u64 = 12_000;
    // An eighth of all.
    const SHARE: usize = 8192;
    let scene = Scene::new(config()).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("provider-record flood, distinct keys");
    let mut hostile = hostile_peer(victim).await;
    let peer = *hostile.local_peer_id();
    let provided = |id: u64| format!("provided {id}").into_bytes();
    let mut stream: Vec<u8> = (0..RECORDS).flat_map(|id| add_provider(&provided(id), peer)).collect();
    // They are looked at one after the other, so the answer comes when all have been.
    stream.extend(find_node(b"the end"));
    let id = hostile.behaviour_mut().messages.send_request(&victim.local_peer_id(), stream);
    let answered = async {
        loop {
            match hostile.select_next_some().await {
                SwarmEvent::Behaviour(HostileEvent::Messages(request_response::Event::Message {
                    message: request_response::Message::Response { request_id, .. },
                    ..
                })) if request_id == id => return true,
                SwarmEvent::Behaviour(HostileEvent::Messages(request_response::Event::OutboundFailure {
                    request_id,
                    ..
                })) if request_id == id => return false,
                _ => {}
            }
        }
    };
    assert!(within_deadline("the flood", answered).await);
    meanwhile(&mut hostile, scene.served()).await;
    scene.honest.start_providing(NotePrimaryKey(7)).await.unwrap();
    let providers = meanwhile(&mut hostile, victim.get_providers(NotePrimaryKey(7))).await.unwrap();
    assert!(providers.contains(&scene.honest.local_peer_id()), "{providers:?}");
    let kept =
        (0..RECORDS).filter(|id| !victim.store().providers(&kad::RecordKey::new(&provided(*id))).is_empty());
    let kept = kept.count();
    attack.tally.sent = RECORDS;
    attack.tally.accepted = kept as u64;
    assert_eq!(kept, SHARE);
    let more = format!("{kept} kept, the peer is {}", state(victim, peer));
    scene.end(attack, &more);
    scene.close().await;
}

/// How many addresses a dial to a peer that is nowhere has tried, as the error says.
fn tried(cause: &str) -> usize {
    cause.matches("/memory/").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_many_addresses_make_nobody_knock_at_many_doors() {
    const PEERS: usize = 12;
    // Together they fit into one message.
    const ADDRESSES: u64 = 60;
    let scene = Scene::new(config()).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("huge address lists in kad answers");
    let mut hostile = hostile_peer(victim).await;
    let invented: Vec<PeerId> = (0..PEERS).map(|_| PeerId::random()).collect();
    for peer in &invented {
        for number in 0..ADDRESSES {
            let address: Multiaddr = format!("/memory/{}", u64::MAX - number).parse().unwrap();
            hostile.behaviour_mut().kad.add_address(peer, address);
        }
    }
    let mut events = victim.subscribe_to_broadcasts();
    let (told, mut dials) = tokio::sync::mpsc::channel(1000);
    let invented_peers = invented.clone();
    let listener = tokio::spawn(async move {
        loop {
            if let Ok(NetabaseSwarmEvent::OutgoingConnectionError { peer: Some(peer), cause }) =
                events.recv().await
                && invented_peers.contains(&peer)
            {
                let _ = told.try_send(tried(&cause));
            }
        }
    });
    for id in 0..20 {
        let found = meanwhile(&mut hostile, victim.fetch_record(NotePrimaryKey(id))).await;
        assert_eq!(found.unwrap(), None);
    }
    meanwhile(&mut hostile, scene.served()).await;
    listener.abort();
    let (mut attempts, mut most) = (0, 0);
    while let Ok(tried) = dials.try_recv() {
        attempts += 1;
        most = most.max(tried);
    }
    assert!(attempts > 0, "it was told of peers that are nowhere");
    assert!((1..=16).contains(&most), "{most} addresses of one peer were tried");
    let connected = victim.connected_peers().await.unwrap();
    assert!(connected.len() <= 2 && invented.iter().all(|peer| !connected.contains(peer)), "{connected:?}");
    let known = meanwhile(&mut hostile, victim.bootstrap()).await.unwrap();
    assert_eq!(known, 2, "none of the invented peers is in the routing table");
    attack.tally.sent = PEERS as u64 * ADDRESSES;
    let more = format!("{PEERS} invented peers, {attempts} dials, at most {most} addresses each");
    scene.end(attack, &more);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_keeps_nobody_out() {
    const MAX: u32 = 32;
    const PEERS: usize = 100;
    let scene = Scene::new(limited(config(), MAX)).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("connection flood");
    let mut events = victim.subscribe_to_broadcasts();
    let flood = tokio::spawn(flood(full_address(victim), PEERS));
    let (mut connected, mut thrown_out, mut most) = (0_u64, 0_u64, 0);
    within_deadline("the flood", async {
        while connected < 2 * PEERS as u64 || thrown_out < PEERS as u64 {
            match events.recv().await {
                Ok(NetabaseSwarmEvent::ConnectionEstablished { .. }) => connected += 1,
                Ok(NetabaseSwarmEvent::ConnectionClosed { .. }) => thrown_out += 1,
                _ => {}
            }
            most = most.max(victim.connected_peers().await.unwrap().len());
        }
    })
    .await;
    scene.served().await;
    assert!(victim.connected_peers().await.unwrap().contains(&scene.honest.local_peer_id()));
    // An eighth more until room is made.
    assert!(most <= 36, "{most} peers");
    assert!(!flood.is_finished(), "the flood went on all the time");
    flood.abort();
    attack.tally.sent = connected;
    scene.end(attack, &format!("{thrown_out} thrown out, at most {most} peers at a time"));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_enter_the_routing_table_and_go_hide_nobody() {
    const PEERS: u64 = 50;
    let scene = Scene::new(config()).await;
    let (victim, honest) = (&scene.victim, scene.honest.local_peer_id());
    let mut attack = scene.begin("peers that enter the routing table and go");
    for _ in 0..PEERS {
        // It is dropped as soon as it is known; the buckets may be full of those before it.
        let mut hostile = bare_swarm(victim, true);
        let mut events = victim.subscribe_to_broadcasts();
        let peer = *hostile.local_peer_id();
        let known = wait_for(&mut events, |event| match event {
            NetabaseSwarmEvent::Identify(event) => {
                matches!(**event, identify::Event::Received { peer_id, .. } if peer_id == peer).then_some(())
            }
            _ => None,
        });
        meanwhile(&mut hostile, known).await;
    }
    for id in 0..20 {
        let outcome = victim.put_record(note(id, "seen")).await.unwrap();
        assert!(outcome.accepted.contains(&honest), "{outcome:?}");
    }
    scene.served().await;
    attack.tally.sent = PEERS;
    scene.end(attack, "all 20 puts reached the one that was there");
    scene.close().await;
}
