//! What becomes of a peer that sends what it should not.

use futures::StreamExt;
use libp2p::kad::{self, Quorum, Record};
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, identify};
use netabase::health::PeerState;
use netabase::{Envelope, NetabaseError, NetabaseSwarmEvent, Refusal, Timestamp};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::bare::*;
use crate::common::*;
use crate::scene::{key, now};

/// Sends a record to `victim`; returns why the victim refused it, if it did.
async fn send(swarm: &mut Swarm<Hostile>, victim: &Notes, record: Record) -> Option<Refusal> {
    let mut events = victim.subscribe_to_broadcasts();
    let refused = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { reason, .. } => Some(*reason),
        _ => None,
    });
    tokio::pin!(refused);
    let kad = &mut swarm.behaviour_mut().kad;
    let query = kad.put_record_to(record, std::iter::once(victim.local_peer_id()), Quorum::One);
    loop {
        tokio::select! {
            reason = &mut refused => return Some(reason),
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(HostileEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, .. }))
                    if id == query =>
                {
                    assert!(matches!(result, kad::QueryResult::PutRecord(Ok(_))), "{result:?}");
                    return None;
                }
                _ => {}
            }
        }
    }
}

fn payload(note: &Note) -> Vec<u8> {
    EncodedRecord::of(note).unwrap().payload
}

fn sign_for_another_key(identity: &SigningKey, now: Timestamp) -> Vec<u8> {
    Envelope::sign(identity, &key(2), now, 0, Some(&payload(&note(1, "forged")))).as_bytes().to_vec()
}

#[tokio::test]
async fn a_valid_record_of_a_stranger_is_accepted() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let envelope = Envelope::sign(
        &SigningKey::from_bytes(&[7; 32]),
        &key(1),
        now(),
        0,
        Some(&payload(&note(1, "fine"))),
    );
    let record = Record::new(key(1).as_bytes().to_vec(), envelope.as_bytes().to_vec());
    assert_eq!(send(&mut hostile, &victim, record).await, None);
    assert_eq!(victim.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "fine")));
}

#[tokio::test]
async fn a_forged_answer_is_not_returned() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let forged = Record::new(
        key(1).as_bytes().to_vec(),
        sign_for_another_key(&SigningKey::from_bytes(&[7; 32]), Timestamp::default()),
    );
    kad::store::RecordStore::put(hostile.behaviour_mut().kad.store_mut(), forged).unwrap();
    let mut events = victim.subscribe_to_broadcasts();
    let found = meanwhile(&mut hostile, victim.get_record(NotePrimaryKey(1))).await;
    assert_eq!(found.unwrap(), None);
    let reason = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { reason, .. } => Some(*reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, Refusal::InvalidSignature);
}

/// Answers what the victim asks for with forged records, until it is banned for it.
async fn forge_until_banned(hostile: &mut Swarm<Hostile>, victim: &Notes) {
    let peer = *hostile.local_peer_id();
    let mut events = victim.subscribe_to_broadcasts();
    for id in 0..5 {
        let forged = Envelope::sign(
            &SigningKey::from_bytes(&[7; 32]),
            &key(99),
            Timestamp::default(),
            0,
            Some(&payload(&note(id, "forged"))),
        );
        let record = Record::new(key(id).as_bytes().to_vec(), forged.as_bytes().to_vec());
        kad::store::RecordStore::put(hostile.behaviour_mut().kad.store_mut(), record).unwrap();
        let answer = meanwhile(hostile, victim.get_record(NotePrimaryKey(id))).await;
        assert_eq!(answer.unwrap(), None);
    }
    let banned = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::PeerBanned { peer, until, reason } => Some((*peer, *until, *reason)),
        _ => None,
    })
    .await;
    assert_eq!((banned.0, banned.2), (peer, Refusal::InvalidSignature));
    assert!(banned.1 > std::time::SystemTime::now());
    let closed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(meanwhile(hostile, closed).await, peer);
}

#[tokio::test]
async fn a_forger_is_banned_until_it_is_pardoned() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let peer = *hostile.local_peer_id();
    forge_until_banned(&mut hostile, &victim).await;
    let report = victim.peer_report(peer).unwrap();
    assert!(matches!(report.state, PeerState::Banned { .. }), "{report:?}");
    assert_eq!((report.refused.as_slice(), report.bans), (&[(Refusal::InvalidSignature, 5)][..], 1));
    assert_eq!(victim.peer_reports(), [report]);
    assert!(victim.connected_peers().await.unwrap().is_empty());
    assert!(matches!(victim.bootstrap().await, Err(NetabaseError::NoKnownPeers)), "it has left the table");

    let mut events = victim.subscribe_to_broadcasts();
    // It is let in once, to be told.
    hostile.dial(full_address(&victim)).unwrap();
    let closed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(meanwhile(&mut hostile, closed).await, peer);
    assert!(victim.connected_peers().await.unwrap().is_empty());
    hostile.dial(full_address(&victim)).unwrap();
    let denied = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::IncomingConnectionError { .. } => Some(true),
        NetabaseSwarmEvent::ConnectionEstablished { .. } => Some(false),
        _ => None,
    });
    assert!(meanwhile(&mut hostile, denied).await);

    assert!(victim.pardon(peer) && victim.peer_report(peer).is_none());
    hostile.dial(full_address(&victim)).unwrap();
    let established = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionEstablished { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(meanwhile(&mut hostile, established).await, peer);
}

#[tokio::test]
async fn a_peer_that_sends_forged_records_is_named_and_slowed() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let peer = *hostile.local_peer_id();
    let mut events = victim.subscribe_to_broadcasts();
    for _ in 0..2 {
        let forged = sign_for_another_key(&SigningKey::from_bytes(&[7; 32]), Timestamp::default());
        let record = Record::new(key(1).as_bytes().to_vec(), forged);
        assert_eq!(send(&mut hostile, &victim, record).await, Some(Refusal::InvalidSignature));
    }
    let refused = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { peer, key, reason } => Some((*peer, key.clone(), *reason)),
        _ => None,
    });
    assert_eq!(refused.await, (Some(peer), Some(key(1)), Refusal::InvalidSignature));
    let slowed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::PeerSlowed { peer } => Some(*peer),
        _ => None,
    });
    assert_eq!(slowed.await, peer);
    assert_eq!(victim.peer_report(peer).unwrap().state, PeerState::Slowed);
}

#[tokio::test]
async fn a_peer_that_is_only_behind_is_served_as_any_other() {
    let victim = started(memory_config()).await;
    victim.put_record(note(1, "newest")).await.unwrap();
    let mut hostile = hostile_peer(&victim).await;
    let identity = SigningKey::from_bytes(&[7; 32]);
    for time in 1..20 {
        let time = Timestamp::from_unix_millis(time);
        let old = Envelope::sign(&identity, &key(1), time, 0, Some(&payload(&note(1, "old"))));
        let record = Record::new(key(1).as_bytes().to_vec(), old.as_bytes().to_vec());
        assert_eq!(send(&mut hostile, &victim, record).await, Some(Refusal::Outdated));
    }
    let report = victim.peer_report(*hostile.local_peer_id()).unwrap();
    assert_eq!((report.state, report.score), (PeerState::Good, 0));
    assert_eq!(report.refused, [(Refusal::Outdated, 19)]);
}

/// Tells the victim once more who the peer is; returns when the victim has looked at it.
pub async fn introduce(hostile: &mut Swarm<Hostile>, victim: &Notes) {
    let mut events = victim.subscribe_to_broadcasts();
    hostile.behaviour_mut().identify.push([victim.local_peer_id()]);
    let introduced = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Identify(event) => {
            matches!(**event, identify::Event::Received { .. }).then_some(())
        }
        _ => None,
    });
    meanwhile(hostile, introduced).await;
}

#[tokio::test]
async fn a_peer_that_claims_many_addresses_is_known_by_its_own() {
    let victim = started(memory_config()).await;
    let mut events = victim.subscribe_to_broadcasts();
    let mut hostile = hostile_peer(&victim).await;
    let peer = *hostile.local_peer_id();
    let ours = victim.listen_addresses().remove(0);
    hostile.add_external_address(ours.clone());
    for port in 1..=150 {
        hostile.add_external_address(format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap());
    }
    for _ in 0..3 {
        introduce(&mut hostile, &victim).await;
    }
    // What kad says of it comes before the answer.
    meanwhile(&mut hostile, victim.bootstrap()).await.unwrap();
    let mut most = 0;
    while let Some(event) = events.try_recv().unwrap() {
        if let NetabaseSwarmEvent::Kad(event) = event
            && let kad::Event::RoutingUpdated { peer: routed, addresses, .. } = &*event
            && *routed == peer
        {
            most = most.max(addresses.len());
            assert!(addresses.iter().all(|address| !address.to_string().starts_with(&ours.to_string())));
        }
    }
    assert_eq!(most, 1);
}

#[tokio::test]
async fn a_peer_that_stops_to_serve_leaves_the_routing_table() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    hostile.behaviour_mut().kad.set_mode(Some(kad::Mode::Client));
    introduce(&mut hostile, &victim).await;
    assert!(matches!(victim.bootstrap().await, Err(NetabaseError::NoKnownPeers)));
}

#[tokio::test]
async fn a_request_full_of_forged_records_is_a_ban() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let peer = *hostile.local_peer_id();
    let mut events = victim.subscribe_to_broadcasts();
    let forged = sign_for_another_key(&SigningKey::from_bytes(&[7; 32]), Timestamp::default());
    let request = put_request(&[(key(1).as_bytes(), forged.as_slice()); 5]);
    let banned = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::PeerBanned { peer, reason, .. } => Some((*peer, *reason)),
        _ => None,
    });
    // The connection may be closed before the answer is there.
    let (_, banned) = futures::join!(ask(&mut hostile, &victim, request), banned);
    assert_eq!(banned, (peer, Refusal::InvalidSignature));
    assert_eq!(victim.peer_report(peer).unwrap().refused, [(Refusal::InvalidSignature, 5)]);
}
