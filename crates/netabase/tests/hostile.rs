//! A peer of bare libp2p that sends what it should not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::bare::*;
use common::*;
use futures::StreamExt;
use libp2p::Swarm;
use libp2p::kad::{self, Quorum, Record};
use libp2p::swarm::SwarmEvent;
use netabase::{Envelope, NetabaseSwarmEvent, RecordKey, Refusal, Timestamp};
use netabase_store::{
    DEFAULT_MAX_VALUE_BYTES, ENVELOPE_OVERHEAD_BYTES, EncodedRecord, MAX_CLOCK_SKEW, SigningKey,
};

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

struct Attack {
    reason: Refusal,
    record: Record,
}

fn attack(reason: Refusal, key: &[u8], value: Vec<u8>) -> Attack {
    Attack { reason, record: Record::new(key.to_vec(), value) }
}

fn key(id: u64) -> RecordKey {
    RecordKey::of(&NotePrimaryKey(id)).unwrap()
}

fn payload(note: &Note) -> Vec<u8> {
    EncodedRecord::of(note).unwrap().payload
}

fn millis(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// What a stranger may try on the record 1 of the victim.
fn attacks() -> Vec<Attack> {
    let identity = SigningKey::from_bytes(&[7; 32]);
    let now = Timestamp::from_unix_millis(millis(std::time::SystemTime::now()));
    let sign = |time, expires, value: &[u8]| Envelope::sign(&identity, &key(1), time, expires, Some(value));
    let valid = sign(now, 0, &payload(&note(1, "forged"))).as_bytes().to_vec();
    let changed = |at: usize, to: u8| {
        let mut bytes = valid.clone();
        bytes[at] ^= to;
        bytes
    };
    let future = Timestamp::from_unix_millis(millis(std::time::SystemTime::now() + MAX_CLOCK_SKEW * 2));
    let long = vec![0; DEFAULT_MAX_VALUE_BYTES + ENVELOPE_OVERHEAD_BYTES + 1];
    vec![
        // The author's bytes start at 18, the signature is at the end.
        attack(Refusal::InvalidSignature, key(1).as_bytes(), changed(18, 1)),
        attack(Refusal::InvalidSignature, key(1).as_bytes(), changed(valid.len() - 1, 1)),
        attack(Refusal::InvalidSignature, key(1).as_bytes(), sign_for_another_key(&identity, now)),
        attack(Refusal::InvalidEnvelope, key(1).as_bytes(), changed(0, 0x0f)),
        attack(Refusal::InvalidEnvelope, key(1).as_bytes(), valid[..valid.len() / 2].to_vec()),
        attack(
            Refusal::InvalidEnvelope,
            key(1).as_bytes(),
            Envelope::unsigned(&payload(&note(1, "x"))).as_bytes().to_vec(),
        ),
        attack(Refusal::InvalidEnvelope, key(1).as_bytes(), Vec::new()),
        attack(Refusal::TooLarge, key(1).as_bytes(), long),
        attack(Refusal::InvalidKey, b"not a record key", valid.clone()),
        attack(
            Refusal::KeyMismatch,
            key(1).as_bytes(),
            sign(now, 0, &payload(&note(2, "x"))).as_bytes().to_vec(),
        ),
        attack(Refusal::InvalidValue, key(1).as_bytes(), sign(now, 0, b"\x01no note").as_bytes().to_vec()),
        attack(
            Refusal::FutureTimestamp,
            key(1).as_bytes(),
            sign(future, 0, &payload(&note(1, "x"))).as_bytes().to_vec(),
        ),
        attack(
            Refusal::Expired,
            key(1).as_bytes(),
            sign(now, 1, &payload(&note(1, "x"))).as_bytes().to_vec(),
        ),
        attack(
            Refusal::Outdated,
            key(1).as_bytes(),
            sign(Timestamp::from_unix_millis(1), 0, &payload(&note(1, "old"))).as_bytes().to_vec(),
        ),
    ]
}

fn sign_for_another_key(identity: &SigningKey, now: Timestamp) -> Vec<u8> {
    Envelope::sign(identity, &key(2), now, 0, Some(&payload(&note(1, "forged")))).as_bytes().to_vec()
}

#[tokio::test]
async fn a_bad_record_is_refused_counted_and_reported_and_changes_nothing() {
    let victim = started(memory_config()).await;
    victim.put_record(note(1, "honest")).await.unwrap();
    let mut hostile = hostile_peer(&victim).await;
    for (round, attack) in attacks().into_iter().enumerate() {
        let Attack { reason, record } = attack;
        let counted = |victim: &Notes| victim.store().refusals().iter().map(|(_, count)| count).sum::<u64>();
        let before = counted(&victim);
        let refused = send(&mut hostile, &victim, record).await;
        assert_eq!(refused, Some(reason), "attack {round}");
        assert_eq!(counted(&victim), before + 1, "attack {round}");
        assert_eq!(
            victim.get_record(NotePrimaryKey(1)).await.unwrap(),
            Some(note(1, "honest")),
            "attack {round}"
        );
        assert_eq!(victim.query_local_records(None).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_valid_record_of_a_stranger_is_accepted() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let now = Timestamp::from_unix_millis(millis(std::time::SystemTime::now()));
    let envelope =
        Envelope::sign(&SigningKey::from_bytes(&[7; 32]), &key(1), now, 0, Some(&payload(&note(1, "fine"))));
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
    let peer = tokio::spawn(async move {
        loop {
            hostile.select_next_some().await;
        }
    });
    let mut events = victim.subscribe_to_broadcasts();
    assert_eq!(victim.get_record(NotePrimaryKey(1)).await.unwrap(), None);
    let reason = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { reason, .. } => Some(*reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, Refusal::InvalidSignature);
    peer.abort();
}
