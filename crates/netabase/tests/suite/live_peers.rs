//! Live messages that no honest peer sends.

use std::collections::HashSet;

use futures::StreamExt;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode, Version};
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, SwarmBuilder, Transport, noise, yamux};
use netabase::{
    DhtMode, Envelope, LiveWatch, NetabaseSwarmEvent, Query, RecordKey, Refusal, Timestamp, WatchEvent,
};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::*;

type Bare = Swarm<gossipsub::Behaviour>;

/// The topic of all notes, as `docs/formats.md` says.
fn topic() -> IdentTopic {
    let mut hasher = blake3::Hasher::new_derive_key("netabase 2026 live topic 1");
    for part in [&b"NotesDefinition"[..], b"NotesDefinition", &[0], b"Note"] {
        hasher.update(&u32::try_from(part.len()).unwrap().to_be_bytes()).update(part);
    }
    IdentTopic::new(&hasher.finalize().to_hex()[..32])
}

/// A peer that speaks gossipsub alone.
fn bare(victim: &Notes, protocol: &'static str) -> Bare {
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id(protocol, Version::V1_1)
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| gossipsub::MessageId::new(blake3::hash(&message.data).as_bytes()))
        .build()
        .unwrap();
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|identity| {
            let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
            memory.authenticate(noise::Config::new(identity).unwrap()).multiplex(yamux::Config::default())
        })
        .unwrap()
        .with_behaviour(|_| gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    swarm.dial(full_address(victim)).unwrap();
    swarm
}

const PROTOCOL: &str = "/netabase/NotesDefinition/live/1.0.0";

/// Such a peer, once it knows what the victim follows.
async fn connected(victim: &Notes) -> Bare {
    let mut swarm = bare(victim, PROTOCOL);
    let topic = topic().hash();
    within_deadline("a subscription", async {
        loop {
            if let SwarmEvent::Behaviour(gossipsub::Event::Subscribed { topic: followed, .. }) =
                swarm.select_next_some().await
                && followed == topic
            {
                return;
            }
        }
    })
    .await;
    swarm
}

fn stranger() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn signed(note: &Note) -> (RecordKey, Vec<u8>) {
    let key = RecordKey::of(&NotePrimaryKey(note.id)).unwrap();
    let payload = EncodedRecord::of(note).unwrap().payload;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Timestamp::from_unix_millis(u64::try_from(now.as_millis()).unwrap());
    let envelope = Envelope::sign(&stranger(), &key, now, 0, Some(&payload));
    (key, envelope.as_bytes().to_vec())
}

fn forged(id: u64) -> (RecordKey, Vec<u8>) {
    let (key, mut bytes) = signed(&note(id, "forged"));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    (key, bytes)
}

fn message(records: &[(RecordKey, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![1];
    for (key, envelope) in records {
        bytes.extend(u16::try_from(key.as_bytes().len()).unwrap().to_be_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(u32::try_from(envelope.len()).unwrap().to_be_bytes());
        bytes.extend(envelope);
    }
    bytes
}

async fn next(watch: &mut LiveWatch<Note>) -> WatchEvent<Note> {
    within_deadline("a change", watch.next()).await.unwrap().unwrap().event
}

/// Runs a peer until `done`.
async fn drive<T>(swarm: &mut Bare, done: impl Future<Output = T>) -> T {
    tokio::pin!(done);
    loop {
        tokio::select! {
            done = &mut done => return done,
            _ = swarm.select_next_some() => {}
        }
    }
}

/// A victim that watches all notes, and somebody to whom it would pass on what is good.
async fn scene() -> (Notes, LiveWatch<Note>, Notes, LiveWatch<Note>) {
    let victim = started(memory_config()).await;
    let watch = victim.watch(Query::<Note>::new()).unwrap();
    let mut config = config_knowing(&victim);
    config.dht.mode = DhtMode::Client;
    let next_one = started(config).await;
    let mut next_watch = next_one.watch(Query::<Note>::new()).unwrap();
    // Written until the subscription has arrived.
    let mut version = 0;
    while next_one.live_stats().accepted == 0 {
        version += 1;
        victim.put_record(note(1 << 40, &format!("probe {version}"))).await.unwrap();
        tokio::task::yield_now().await;
    }
    let last = note(1 << 40, "the last probe");
    victim.put_record(last.clone()).await.unwrap();
    loop {
        match next(&mut next_watch).await {
            WatchEvent::Inserted { record } | WatchEvent::Updated { new: record, .. } if record == last => {
                break;
            }
            _ => {}
        }
    }
    let watch = watch.from(netabase::WatchFrom::Now).unwrap();
    (victim, watch, next_one, next_watch)
}

#[tokio::test]
async fn a_good_record_of_a_stranger_is_shown_and_passed_on() {
    let (victim, mut watch, _next_one, mut next_watch) = scene().await;
    let mut peer = connected(&victim).await;
    let good = note(1, "good");
    peer.behaviour_mut().publish(topic(), message(&[signed(&good)])).unwrap();
    let expected = WatchEvent::Inserted { record: good };
    assert_eq!(drive(&mut peer, next(&mut watch)).await, expected);
    assert_eq!(drive(&mut peer, next(&mut next_watch)).await, expected);
}

#[tokio::test]
async fn forged_records_are_neither_shown_nor_passed_on_and_their_sender_is_banned() {
    let (victim, mut watch, next_one, mut next_watch) = scene().await;
    let (seen, mut events) = (next_one.live_stats().received, victim.subscribe_to_broadcasts());
    let mut peer = connected(&victim).await;
    let id = *peer.local_peer_id();
    // A good one in the company of forged ones is not passed on either.
    let company = std::iter::once(signed(&note(100, "company")));
    let records: Vec<_> = company.chain((0..5).map(forged)).collect();
    peer.behaviour_mut().publish(topic(), message(&records)).unwrap();
    let banned = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::PeerBanned { peer, reason, .. } => Some((*peer, *reason)),
        _ => None,
    });
    assert_eq!(drive(&mut peer, banned).await, (id, Refusal::InvalidSignature));
    assert_eq!(victim.live_stats().rejected, 1);
    let honest = note(1, "honest");
    victim.put_record(honest.clone()).await.unwrap();
    let expected = WatchEvent::Inserted { record: honest };
    let mut shown = HashSet::new();
    loop {
        match next(&mut watch).await {
            event if event == expected => break,
            WatchEvent::Inserted { record } => assert!(shown.insert(record.id) && record.text == "company"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next(&mut next_watch).await, expected);
    assert_eq!(next_one.live_stats().received - seen, 1);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_an_offence() {
    let (victim, _watch, _next_one, _) = scene().await;
    let mut events = victim.subscribe_to_broadcasts();
    let mut peer = connected(&victim).await;
    peer.behaviour_mut().publish(topic(), b"\x01garbage".to_vec()).unwrap();
    let refused = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { peer, reason, .. } => peer.map(|peer| (peer, *reason)),
        _ => None,
    });
    let refused = drive(&mut peer, refused).await;
    assert_eq!(refused, (*peer.local_peer_id(), Refusal::InvalidEnvelope));
}

#[tokio::test]
async fn a_message_of_an_unknown_kind_is_passed_over() {
    let (victim, mut watch, next_one, mut next_watch) = scene().await;
    let seen = next_one.live_stats().received;
    let mut peer = connected(&victim).await;
    // Ten forged ones would have it banned.
    for count in 0..10 {
        peer.behaviour_mut().publish(topic(), vec![9; 10 + count]).unwrap();
    }
    peer.behaviour_mut().publish(topic(), message(&[signed(&note(7, "good"))])).unwrap();
    let expected = WatchEvent::Inserted { record: note(7, "good") };
    drive(&mut peer, async {
        while next(&mut watch).await != expected {}
        while next(&mut next_watch).await != expected {}
    })
    .await;
    let stats = victim.live_stats();
    assert_eq!((stats.ignored, stats.rejected), (10, 0));
    assert_eq!(next_one.live_stats().received - seen, 1, "the unknown ones are not passed on");
    assert_eq!(victim.peer_report(*peer.local_peer_id()).map_or(0, |report| report.score), 0);
}

#[tokio::test]
async fn a_flood_is_not_looked_at_and_keeps_nobody_out() {
    let (victim, mut watch, next_one, _) = scene().await;
    let mut peer = connected(&victim).await;
    let records: Vec<_> = (0..100).map(|id| signed(&note(id, "flood"))).collect();
    let looked_at = |stats: netabase::health::LiveStats| stats.accepted + stats.ignored + stats.rejected;
    let mut sent = 0;
    within_deadline("the flood to be noticed", async {
        while victim.live_stats().dropped == 0 {
            for _ in 0..50 {
                sent += 1;
                // Another order is another message.
                let mut records = records.clone();
                records.rotate_left(sent % 100);
                records.truncate(100 - sent / 100);
                let _ = peer.behaviour_mut().publish(topic(), message(&records));
                let _ = tokio::time::timeout(std::time::Duration::ZERO, peer.select_next_some()).await;
            }
        }
    })
    .await;
    let stats = victim.live_stats();
    assert!(looked_at(stats) + stats.dropped <= stats.received, "{stats:?}");
    let honest = note(1 << 30, "honest");
    next_one.put_record(honest.clone()).await.unwrap();
    let expected = WatchEvent::Inserted { record: honest };
    drive(&mut peer, async { while next(&mut watch).await != expected {} }).await;
}

#[tokio::test]
async fn a_peer_of_another_network_is_told_nothing() {
    let (victim, ..) = scene().await;
    let mut peer = bare(&victim, "/netabase/Other/live/1.0.0");
    within_deadline("the peer to give up", async {
        loop {
            match peer.select_next_some().await {
                SwarmEvent::Behaviour(gossipsub::Event::GossipsubNotSupported { .. }) => return,
                SwarmEvent::Behaviour(event) => panic!("{event:?}"),
                // It has nothing to say until it follows something.
                SwarmEvent::ConnectionEstablished { .. } => {
                    peer.behaviour_mut().subscribe(&topic()).unwrap();
                }
                _ => {}
            }
        }
    })
    .await;
}
