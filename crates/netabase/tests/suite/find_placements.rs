//! Whatever each of several nodes has, a query of all of them finds what it would in one store that
//! has everything.

use std::ops::Range;

use netabase::query::QueryKey;
use netabase::query::Select;
use netabase::query::{NetworkQuery, TreeQuery};
use netabase::schema::PrimaryKey;
use netabase::{
    Author, Envelope, Freshness, NetabaseModel, NetabaseStore, QueryOptions, RecordKey, Timestamp, prefix,
    starts_with,
};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;
use proptest::prelude::*;

use crate::common::*;

const NODES: usize = 6;
const TOPICS: [&str; 5] = ["a", "ab", "b", "ba", "c"];

/// A version of a record, and which nodes have it.
#[derive(Debug, Clone)]
struct Write {
    id: u64,
    topic: usize,
    time: u64,
    author: u8,
    is_removal: bool,
    kind: Kind,
    nodes: Vec<bool>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Note,
    Card,
    Tally,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let kind = prop_oneof![4 => Just(Kind::Note), 1 => Just(Kind::Card), 1 => Just(Kind::Tally)];
    let write = (0..12_u64, 0..TOPICS.len(), 0..6_u64, 0..3_u8, prop::bool::weighted(0.2), kind, nodes())
        .prop_map(|(id, topic, time, author, is_removal, kind, nodes)| Write {
            id,
            topic,
            time,
            author,
            is_removal,
            kind,
            nodes,
        });
    prop::collection::vec(write, 0..60)
}

fn nodes() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), NODES).prop_filter("somebody has it", |nodes| nodes.contains(&true))
}

impl Write {
    fn record(&self, begin: u64) -> (RecordKey, Envelope) {
        let author = SigningKey::from_bytes(&[self.author + 1; 32]);
        let owner = Author::of(&author);
        let (key, payload) = match self.kind {
            Kind::Note => {
                let (topic, text) = (TOPICS[self.topic].to_owned(), format!("{}", self.time));
                of(&NotePrimaryKey(self.id), &Note { id: self.id, topic, text })
            }
            Kind::Card => {
                let card = Card { owner, number: self.id, text: format!("{}", self.time) };
                of(&card.primary_key(), &card)
            }
            Kind::Tally => {
                let count = i64::try_from(self.time).unwrap();
                of(&TallyPrimaryKey(self.id), &Tally { id: self.id, count })
            }
        };
        let payload = (!self.is_removal).then_some(payload.as_slice());
        let time = Timestamp::from_unix_millis(begin + self.time);
        let envelope = Envelope::sign(&author, &key, time, 0, payload);
        match self.kind {
            Kind::Tally => (key, Envelope::bundle([&envelope]).unwrap()),
            Kind::Note | Kind::Card => (key, envelope),
        }
    }
}

fn of<K: PrimaryKey>(key: &K, record: &K::Model) -> (RecordKey, Vec<u8>) {
    (RecordKey::of(key).unwrap(), EncodedRecord::of(record).unwrap().payload)
}

/// Puts every version where it belongs, and all of them into one store.
fn place(nodes: &[Notes], writes: &[Write]) -> NetabaseStore {
    let whole = NetabaseStore::in_memory::<NotesDefinition>().unwrap();
    let begin = whole.replica().clock().unix_millis() - 60_000;
    for write in writes {
        let (key, envelope) = write.record(begin);
        let stores = nodes.iter().zip(&write.nodes).filter(|(_, has)| **has).map(|(node, _)| node.store());
        for store in stores.chain([&whole]) {
            // An earlier version is refused where a later one is.
            let _ = store.replica().admit(key.as_bytes(), envelope.as_bytes());
        }
    }
    for store in nodes.iter().map(|node| node.store()).chain([&whole]) {
        store.flush().unwrap();
    }
    whole
}

fn newest() -> QueryOptions {
    let mut options = QueryOptions::default();
    options.freshness = Freshness::Newest;
    options
}

type Asked<M, K> = NetworkQuery<NotesDefinition, M, K>;

/// Compares the answers, whole and page by page, in both orders.
async fn compare<M, K>(asked: Asked<M, K>, tree: impl Fn() -> TreeQuery<M, K>, limit: u64)
where
    M: NetabaseModel + PartialEq + std::fmt::Debug + Clone,
    K: QueryKey<M>,
{
    for is_reverse in [false, true] {
        let (mut asked, mut local) = (asked.clone().options(newest()), tree());
        if is_reverse {
            (asked, local) = (asked.reverse(), local.reverse());
        }
        let expected = local.page().unwrap().records;
        let all = asked.collect().await.unwrap();
        assert!(all.report.is_complete(), "{:?}", all.report);
        assert_eq!((&all.records, all.cursor), (&expected, None), "{asked:?}");

        let first = asked.clone().limit(limit).page().await.unwrap();
        let most = usize::try_from(limit).unwrap().min(expected.len());
        assert_eq!(first.records, expected[..most], "{asked:?}");
        let (mut paged, mut cursor) = (first.records, first.cursor);
        while let Some(after) = cursor {
            let page = asked.clone().limit(limit).after(after).page().await.unwrap();
            paged.extend(page.records);
            cursor = page.cursor;
        }
        assert_eq!(paged, expected, "{asked:?} by pages of {limit}");

        let (mut rows, mut streamed) = (asked.stream().unwrap(), Vec::new());
        while let Some(record) = rows.next().await {
            streamed.push(record.unwrap());
        }
        assert_eq!(streamed, expected);
    }
}

async fn check(writes: &[Write], ids: Range<u64>, topic: usize, limit: u64) {
    let nodes = network_without_repair(NODES).await;
    let whole = place(&nodes, writes);
    let (tree, topic) = (whole.open_tree::<Note>().unwrap(), TOPICS[topic]);
    let asker = || nodes[0].query::<Note>();
    compare(asker().topic(topic), || tree.query().topic(topic), limit).await;
    compare(asker().topic(topic..), || tree.query().topic(topic..), limit).await;
    compare(asker().topic(prefix(topic)), || tree.query().topic(prefix(topic)), limit).await;
    compare(asker().id(ids.clone()), || tree.query().id(ids.clone()), limit).await;
    compare(asker(), || tree.query(), limit).await;

    let cards = whole.open_tree::<Card>().unwrap();
    let owner = (Author::of(&SigningKey::from_bytes(&[1; 32])),);
    let asker = nodes[0].query::<Card>().primary_key(starts_with(owner));
    compare(asker, || cards.query().primary_key(starts_with(owner)), limit).await;

    let tallies = whole.open_tree::<Tally>().unwrap();
    compare(nodes[0].query::<Tally>(), || tallies.query(), limit).await;
    for node in nodes {
        node.stop_swarm().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_query_of_several_nodes_finds_what_one_store_with_everything_would(
        writes in writes(),
        from in 0..12_u64,
        count in 0..8_u64,
        topic in 0..TOPICS.len(),
        limit in 1..8_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(&writes, from..from + count, topic, limit));
    }
}
