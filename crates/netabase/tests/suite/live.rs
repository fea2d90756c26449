//! Watching across nodes: each change once, to those who watch it and to nobody else.

use std::collections::{BTreeMap, HashSet};

use netabase::changes::Origin;
use netabase::changes::{RemovalReason, Watched};
use netabase::{
    DhtMode, LiveWatch, NetabaseConfig, Query, StorageBackend, StoreOptions, WatchEvent, WatchFrom,
};

use crate::common::*;

/// A node that holds nothing for others: what it has of them came live.
fn client_config(peer: &Notes) -> NetabaseConfig {
    let mut config = config_knowing(peer);
    config.dht.mode = DhtMode::Client;
    config
}

async fn client(peer: &Notes) -> Notes {
    let node = started(client_config(peer)).await;
    knows_peers(&node, 1).await;
    node
}

async fn next<M: netabase::NetabaseModel>(watch: &mut LiveWatch<M>) -> Watched<M> {
    within_deadline("a change", watch.next()).await.expect("the database is open").unwrap()
}

fn in_topic(id: u64, topic: &str) -> Note {
    Note { id, topic: topic.into(), text: format!("note {id}") }
}

/// Writes notes at `writer` until `watch` sees one of them: from then on it is told of everything.
async fn linked(writer: &Notes, watch: &mut LiveWatch<Note>, probe: &Note) {
    within_deadline("the watch to be known to the writer", async {
        let mut version = 0;
        loop {
            version += 1;
            let note = Note { text: format!("probe {version}"), ..probe.clone() };
            writer.put_record(note.clone()).await.unwrap();
            let seen = async {
                loop {
                    match next(watch).await.event {
                        WatchEvent::Inserted { record } | WatchEvent::Updated { new: record, .. }
                            if record == note =>
                        {
                            return;
                        }
                        _ => {}
                    }
                }
            };
            if tokio::time::timeout(std::time::Duration::from_millis(200), seen).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

/// Passes over what is shown before.
async fn until(watch: &mut LiveWatch<Note>, event: &WatchEvent<Note>) {
    while next(watch).await.event != *event {}
}

const PROBE: u64 = 1 << 40;

#[tokio::test]
async fn a_watcher_sees_what_another_node_writes_each_change_once() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut watch = reader.watch(Query::<Note>::new()).unwrap();
    linked(&writer, &mut watch, &in_topic(PROBE, "probe")).await;
    writer.put_record(in_topic(1, "a")).await.unwrap();
    writer.put_record(in_topic(1, "b")).await.unwrap();
    writer.remove_record(NotePrimaryKey(1)).await.unwrap();
    let mut seen = vec![next(&mut watch).await, next(&mut watch).await, next(&mut watch).await];
    reader.put_record(in_topic(2, "a")).await.unwrap();
    seen.push(next(&mut watch).await);
    let (events, origins): (Vec<_>, Vec<_>) = seen.into_iter().map(|seen| (seen.event, seen.origin)).unzip();
    let (a, b) = (in_topic(1, "a"), in_topic(1, "b"));
    let expected = [
        WatchEvent::Inserted { record: a.clone() },
        WatchEvent::Updated { old: a, new: b.clone() },
        WatchEvent::Removed { record: b, reason: RemovalReason::Deleted },
        WatchEvent::Inserted { record: in_topic(2, "a") },
    ];
    assert_eq!(events, expected);
    assert_eq!(origins, [Origin::Network, Origin::Network, Origin::Network, Origin::Local]);
}

#[tokio::test]
async fn only_those_who_watch_a_value_are_sent_its_records() {
    let writer = started(memory_config()).await;
    let (reader, other, idle) = (client(&writer).await, client(&writer).await, client(&writer).await);
    let mut watch = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    let mut elsewhere = other.watch(Query::<Note>::new().topic("b")).unwrap();
    linked(&writer, &mut watch, &in_topic(PROBE, "a")).await;
    linked(&writer, &mut elsewhere, &in_topic(PROBE + 1, "b")).await;
    let before = (other.live_stats().received, idle.live_stats().received);
    for id in 0..20 {
        writer.put_record(in_topic(id, "a")).await.unwrap();
    }
    for id in 0..20 {
        assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: in_topic(id, "a") });
    }
    // What came to the others would have come before this.
    writer.put_record(in_topic(100, "b")).await.unwrap();
    assert_eq!(next(&mut elsewhere).await.event, WatchEvent::Inserted { record: in_topic(100, "b") });
    assert_eq!((other.live_stats().received - before.0, idle.live_stats().received), (1, 0));
    assert_eq!(before.1, 0);
}

#[tokio::test]
async fn a_record_that_leaves_a_value_is_removed_for_those_who_watch_the_value() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut watch = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    linked(&writer, &mut watch, &in_topic(PROBE, "a")).await;
    writer.put_record(in_topic(1, "a")).await.unwrap();
    writer.put_record(in_topic(1, "b")).await.unwrap();
    writer.put_record(in_topic(2, "a")).await.unwrap();
    writer.remove_record(NotePrimaryKey(2)).await.unwrap();
    let expected = [
        WatchEvent::Inserted { record: in_topic(1, "a") },
        WatchEvent::Removed { record: in_topic(1, "a"), reason: RemovalReason::Left },
        WatchEvent::Inserted { record: in_topic(2, "a") },
        WatchEvent::Removed { record: in_topic(2, "a"), reason: RemovalReason::Deleted },
    ];
    for expected in expected {
        assert_eq!(next(&mut watch).await.event, expected);
    }
}

#[tokio::test]
async fn whatever_this_program_writes_is_published_and_nothing_twice() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut watch = reader.watch(Query::<Note>::new()).unwrap();
    linked(&writer, &mut watch, &in_topic(PROBE, "probe")).await;
    let before = writer.live_stats().published;
    let notes = writer.store().open_tree::<Note>().unwrap();
    writer.put_record(in_topic(1, "a")).await.unwrap();
    let blocking = tokio::task::spawn_blocking({
        let store = writer.store().clone();
        move || {
            notes.put(&in_topic(2, "a")).unwrap();
            notes.put_many(&[in_topic(3, "a"), in_topic(4, "a")]).unwrap();
            let mut transaction = store.begin_write();
            transaction.put(&in_topic(5, "a")).unwrap();
            transaction.put(&in_topic(6, "a")).unwrap();
            transaction.commit().unwrap();
            notes.remove(&NotePrimaryKey(3)).unwrap();
        }
    });
    blocking.await.unwrap();
    let inserted = |id| WatchEvent::Inserted { record: in_topic(id, "a") };
    let removed = |id| WatchEvent::Removed { record: in_topic(id, "a"), reason: RemovalReason::Deleted };
    let expected = [inserted(1), inserted(2), inserted(3), inserted(4), inserted(5), inserted(6), removed(3)];
    for expected in expected {
        assert_eq!(next(&mut watch).await.event, expected);
    }
    assert_eq!(writer.live_stats().published - before, 7);
}

#[tokio::test]
async fn records_with_unique_keys_are_published_when_they_are_written() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut notes = reader.watch(Query::<Note>::new()).unwrap();
    let mut watch = reader.watch(Query::<Page>::new()).unwrap();
    linked(&writer, &mut notes, &in_topic(PROBE, "probe")).await;
    let page = |id, slug: &str| Page { id, slug: slug.into() };
    writer.put_record(page(1, "one")).await.unwrap();
    writer.put_record(page(2, "one")).await.unwrap_err();
    writer.put_record(page(3, "three")).await.unwrap();
    assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: page(1, "one") });
    assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: page(3, "three") });
}

#[tokio::test]
async fn a_record_on_several_topics_is_shown_once() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut all = reader.watch(Query::<Note>::new()).unwrap();
    let mut values = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    linked(&writer, &mut all, &in_topic(PROBE, "a")).await;
    linked(&writer, &mut values, &in_topic(PROBE, "a")).await;
    let before = reader.live_stats().received;
    writer.put_record(in_topic(1, "a")).await.unwrap();
    until(&mut values, &WatchEvent::Inserted { record: in_topic(1, "a") }).await;
    until(&mut all, &WatchEvent::Inserted { record: in_topic(1, "a") }).await;
    assert_eq!(
        reader.live_stats().received - before,
        1,
        "whoever follows the model needs no topic of a value"
    );
    assert_eq!(reader.store().history_of(&key(1), 10).unwrap().len(), 1);
}

fn key(id: u64) -> netabase::RecordKey {
    netabase::RecordKey::of(&NotePrimaryKey(id)).unwrap()
}

#[tokio::test]
async fn a_record_too_large_for_a_message_is_fetched() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut watch = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    linked(&writer, &mut watch, &in_topic(PROBE, "a")).await;
    let large = Note { text: "x".repeat(500_000), ..in_topic(1, "a") };
    writer.put_record(large.clone()).await.unwrap();
    assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: large });
    let stats = reader.live_stats();
    assert_eq!(stats.fetched, 1);
}

#[tokio::test]
async fn a_message_is_passed_on_by_those_who_watch() {
    // The writer knows the one in the middle alone.
    let middle = started(memory_config()).await;
    let mut far_watch;
    let mut near_watch = middle.watch(Query::<Note>::new().topic("a")).unwrap();
    let far = client(&middle).await;
    far_watch = far.watch(Query::<Note>::new().topic("a")).unwrap();
    let writer = client(&middle).await;
    linked(&writer, &mut near_watch, &in_topic(PROBE, "a")).await;
    linked(&middle, &mut far_watch, &in_topic(PROBE + 1, "a")).await;
    writer.put_record(in_topic(1, "a")).await.unwrap();
    until(&mut far_watch, &WatchEvent::Inserted { record: in_topic(1, "a") }).await;
    assert!(!writer.connected_peers().await.unwrap().contains(&far.local_peer_id()));
}

#[tokio::test]
async fn watching_goes_on_when_the_swarm_is_stopped_and_started() {
    let writer = started(memory_config()).await;
    let reader = netabase::Netabase::new_with_config(client_config(&writer)).unwrap();
    // Before the swarm is started for the first time.
    let mut watch = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    reader.put_record(in_topic(1, "a")).await.unwrap();
    assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: in_topic(1, "a") });
    for round in 0..2 {
        reader.start_swarm().await.unwrap();
        linked(&writer, &mut watch, &in_topic(PROBE, "a")).await;
        let note = in_topic(10 + round, "a");
        writer.put_record(note.clone()).await.unwrap();
        assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: note });
        reader.stop_swarm().await.unwrap();
        let note = in_topic(20 + round, "a");
        reader.put_record(note.clone()).await.unwrap();
        assert_eq!(next(&mut watch).await.event, WatchEvent::Inserted { record: note });
    }
}

#[tokio::test]
async fn the_last_watch_that_goes_takes_the_subscription_with_it() {
    let writer = started(memory_config()).await;
    let reader = client(&writer).await;
    let mut first = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    let mut second = reader.watch(Query::<Note>::new().topic("a")).unwrap();
    let mut other = reader.watch(Query::<Note>::new().topic("b")).unwrap();
    linked(&writer, &mut first, &in_topic(PROBE, "a")).await;
    linked(&writer, &mut other, &in_topic(PROBE + 1, "b")).await;
    drop(first);
    writer.put_record(in_topic(1, "a")).await.unwrap();
    until(&mut second, &WatchEvent::Inserted { record: in_topic(1, "a") }).await;
    drop(second);
    // Until the writer has heard of it, it sends what is written.
    within_deadline("the subscription to end", async {
        for id in 100.. {
            let before = writer.live_stats().published;
            writer.put_record(in_topic(id, "a")).await.unwrap();
            if writer.live_stats().published == before {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = reader.live_stats().received;
    writer.put_record(in_topic(2, "a")).await.unwrap();
    writer.put_record(in_topic(3, "b")).await.unwrap();
    until(&mut other, &WatchEvent::Inserted { record: in_topic(3, "b") }).await;
    assert!(reader.live_stats().received - before >= 1);
    assert!(reader.store().envelope(&key(2)).unwrap().is_none());
}

#[tokio::test]
async fn a_cursor_goes_on_after_a_restart_and_nothing_is_lost_or_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let writer = started(memory_config()).await;
    let config = NetabaseConfig {
        store: StoreOptions { backend: StorageBackend::Redb, ..StoreOptions::default() },
        database_path: Some(directory.path().join("notes.redb")),
        ..config_knowing(&writer)
    };
    let mut cursor = None;
    let mut seen: Vec<(u64, WatchEvent<Note>)> = Vec::new();
    let mut written = 0;
    for round in 0..3_u64 {
        let reader = started(config.clone()).await;
        let from = cursor.map_or(WatchFrom::Oldest, WatchFrom::After);
        let mut watch = reader.watch(Query::<Note>::new()).unwrap().from(from).unwrap();
        knows_peers(&reader, 1).await;
        knows_peers(&writer, 1).await;
        for _ in 0..10 {
            written += 1;
            writer.put_record(in_topic(written, "a")).await.unwrap();
        }
        let all: HashSet<u64> = (1..=written).collect();
        let mut have: HashSet<u64> = seen.iter().map(|(_, event)| inserted(event)).collect();
        // All but a few of the last round are read before the restart.
        while have.len() < all.len() - if round < 2 { 3 } else { 0 } {
            let Watched { sequence, event, .. } = next(&mut watch).await;
            have.insert(inserted(&event));
            seen.push((sequence, event));
            cursor = Some(sequence);
        }
        drop(watch);
        reader.stop_swarm().await.unwrap();
        drop(reader);
        // While it is away.
        written += 1;
        if round < 2 {
            writer.put_record(in_topic(written, "a")).await.unwrap();
        }
    }
    assert!(seen.is_sorted_by(|one, other| one.0 < other.0), "in order and without repetitions");
    let mut times = BTreeMap::<u64, usize>::new();
    for (_, event) in &seen {
        *times.entry(inserted(event)).or_default() += 1;
    }
    assert_eq!(times, (1..written).map(|id| (id, 1)).collect());
}

fn inserted(event: &WatchEvent<Note>) -> u64 {
    match event {
        WatchEvent::Inserted { record } => record.id,
        other => panic!("{other:?}"),
    }
}

/// What a watcher knows who believes its watch and nothing else.
#[derive(Default)]
struct Believer {
    notes: BTreeMap<u64, Note>,
    last: u64,
}

impl Believer {
    /// Takes a change in, which must fit what came before.
    fn take(&mut self, Watched { sequence, event, .. }: Watched<Note>) {
        assert!(sequence > self.last, "{sequence} after {}", self.last);
        self.last = sequence;
        match event {
            WatchEvent::Inserted { record } => assert_eq!(self.notes.insert(record.id, record), None),
            WatchEvent::Updated { old, new } => assert_eq!(self.notes.insert(new.id, new), Some(old)),
            WatchEvent::Removed { record, .. } => {
                assert_eq!(self.notes.remove(&record.id), Some(record));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn believing_a_watch_leads_to_what_is_in_the_store_whatever_happens_to_the_swarms() {
    const ROUNDS: u64 = 60;
    let nodes = network(4).await;
    let mut believers: Vec<Believer> = nodes.iter().map(|_| Believer::default()).collect();
    let query = || Query::<Note>::new().topic("a");
    let mut watches: Vec<_> = nodes.iter().map(|node| node.watch(query()).unwrap()).collect();
    for round in 0..ROUNDS {
        // Some mixture that is the same each time.
        let dice = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let at = usize::try_from(dice % 4).unwrap();
        let (node, id) = (&nodes[at], dice / 4 % 8);
        match dice / 32 % 8 {
            0 => node.stop_swarm().await.unwrap(),
            1 | 2 => node.start_swarm().await.unwrap(),
            3 => drop(node.remove_record(NotePrimaryKey(id)).await),
            4 => {
                watches[at] = node
                    .watch(query())
                    .unwrap()
                    .from(match believers[at].last {
                        0 => WatchFrom::Oldest,
                        last => WatchFrom::After(last),
                    })
                    .unwrap();
            }
            other => {
                let topic = if other == 5 { "b" } else { "a" };
                let written = Note { text: format!("round {round}"), ..in_topic(id, topic) };
                drop(node.put_record(written).await);
            }
        }
        if round % 3 == 0 {
            while let Ok(Some(seen)) =
                tokio::time::timeout(std::time::Duration::ZERO, watches[at].next()).await
            {
                believers[at].take(seen.unwrap());
            }
        }
    }
    for ((node, mut watch), mut believer) in nodes.iter().zip(watches).zip(believers) {
        node.stop_swarm().await.unwrap();
        // The last change that there will be.
        let last = Note { text: "the last".into(), ..in_topic(1 << 20, "a") };
        node.put_record(last.clone()).await.unwrap();
        loop {
            let seen = next(&mut watch).await;
            let is_last = matches!(&seen.event, WatchEvent::Inserted { record } if *record == last);
            believer.take(seen);
            if is_last {
                break;
            }
        }
        let stored = node.store().open_tree::<Note>().unwrap().find(NoteTopicSecondaryKey("a".into()));
        let stored: BTreeMap<u64, Note> = stored.unwrap().into_iter().map(|note| (note.id, note)).collect();
        assert_eq!(believer.notes, stored);
    }
}
