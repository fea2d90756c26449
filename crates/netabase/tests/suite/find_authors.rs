//! Queries that are limited to authors: strangers fill no page.

use std::time::Duration;

use netabase::members::{MemberList, MembersError};
use netabase::query::{Authors, CutOff, HolderAnswer, NetworkPage};
use netabase::{
    Author, Envelope, Freshness, Identity, NetabaseConfig, NetabaseError, QueryOptions, RecordKey,
    StoreError, StoreOptions, Timestamp,
};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::*;

const ADA: u8 = 3;
const STRANGER: u8 = 9;
/// More than a page of a peer has.
const FLOOD: u64 = 3000;
const START: u64 = 1_700_000_000_000;

fn author(seed: u8) -> Author {
    Author::of(&SigningKey::from_bytes(&[seed; 32]))
}

fn popular(id: u64, text: &str) -> Note {
    Note { id, topic: "popular".into(), text: text.into() }
}

/// Gives a node alone notes that `seed` has signed so many milliseconds after the start.
fn have(node: &Notes, seed: u8, notes: impl IntoIterator<Item = Note>, after: u64) {
    for note in notes {
        let key = RecordKey::of(&NotePrimaryKey(note.id)).unwrap();
        let payload = EncodedRecord::of(&note).unwrap().payload;
        let time = Timestamp::from_unix_millis(START + after);
        let envelope = Envelope::sign(&SigningKey::from_bytes(&[seed; 32]), &key, time, 0, Some(&payload));
        node.store().replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap();
    }
    node.store().flush().unwrap();
}

fn ids(page: &NetworkPage<Note>) -> Vec<u64> {
    page.records.iter().map(|note| note.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_author_is_full_however_many_records_others_have() {
    let nodes = network_without_repair(2).await;
    let [node, peer] = &nodes[..] else { panic!("there are two") };
    have(peer, STRANGER, (0..FLOOD).map(|id| popular(id, "flood")), 0);
    have(node, STRANGER, (0..FLOOD).map(|id| popular(id, "flood")), 0);
    have(peer, ADA, (FLOOD..FLOOD + 30).map(|id| popular(id, "hello")), 0);

    let all = node.query::<Note>().topic("popular").limit(20);
    assert_eq!(ids(&all.page().await.unwrap()), (0..20).collect::<Vec<_>>());
    let of_ada = all.clone().written_by([author(ADA)]);
    let page = of_ada.page().await.unwrap();
    assert_eq!(ids(&page), (FLOOD..FLOOD + 20).collect::<Vec<_>>());
    assert_eq!(page.report.of_others, 2 * FLOOD);
    assert!(page.report.is_complete(), "{:?}", page.report);
    let next = of_ada.clone().after(page.cursor.unwrap()).page().await.unwrap();
    assert_eq!((ids(&next), next.cursor), ((FLOOD + 20..FLOOD + 30).collect::<Vec<_>>(), None));

    let mut rows = of_ada.clone().reverse().stream().unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().id, FLOOD + 29);
    let both = all.written_by([author(ADA), author(STRANGER)]);
    assert_eq!(ids(&both.page().await.unwrap()), (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_if_others_have_more_than_is_read() {
    let nodes = network_without_repair(2).await;
    let [node, peer] = &nodes[..] else { panic!("there are two") };
    have(peer, STRANGER, (0..FLOOD).map(|id| popular(id, "flood")), 0);
    have(peer, ADA, [popular(1 << 40, "hello")], 0);
    let mut options = QueryOptions::default();
    options.authors = [author(ADA)].into();
    options.max_peer_records = 1000;
    let page = node.query::<Note>().topic("popular").options(options).page().await.unwrap();
    assert_eq!(ids(&page), [] as [u64; 0]);
    assert_eq!(page.report.peers[0].answer, HolderAnswer::CutOff(CutOff::Records), "{:?}", page.report);
    assert!(!page.report.is_complete() && page.report.of_others < FLOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_replaces_a_record_does_not_hide_it() {
    let nodes = network_without_repair(3).await;
    have(&nodes[1], ADA, [popular(1, "hello")], 0);
    have(&nodes[2], STRANGER, [popular(1, "flood")], 1);
    have(&nodes[0], STRANGER, [popular(1, "flood here")], 2);
    for freshness in [Freshness::Found, Freshness::Newest] {
        let mut options = QueryOptions::default();
        options.freshness = freshness;
        let all = nodes[0].query::<Note>().topic("popular").options(options);
        let page = all.clone().page().await.unwrap();
        assert_eq!(page.records, [popular(1, "flood here")]);
        let page = all.written_by([author(ADA)]).page().await.unwrap();
        assert_eq!(page.records, [popular(1, "hello")], "{freshness:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_page_is_that_of_the_same_authors() {
    let nodes = network_without_repair(1).await;
    have(&nodes[0], ADA, [popular(1, "hello")], 0);
    have(&nodes[0], STRANGER, [popular(2, "flood")], 0);
    let mut options = QueryOptions::default();
    options.freshness = Freshness::Cached(Duration::from_secs(3600));
    let all = nodes[0].query::<Note>().topic("popular").options(options);
    for _ in 0..2 {
        assert_eq!(ids(&all.page().await.unwrap()), [1, 2]);
        assert_eq!(ids(&all.clone().written_by([author(ADA)]).page().await.unwrap()), [1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_record_is_found_by_each_of_its_authors() {
    let nodes = network_without_repair(2).await;
    let (one, two) = (&nodes[0], &nodes[1]);
    let authors = [one, two].map(|node| node.store().author().unwrap());
    one.store().open_tree::<Tally>().unwrap().put(&Tally { id: 1, count: 2 }).unwrap();
    two.store().open_tree::<Tally>().unwrap().put(&Tally { id: 1, count: 3 }).unwrap();
    for author in authors {
        let page = one.query::<Tally>().written_by([author]).page().await.unwrap();
        assert_eq!(page.records.len(), 1);
    }
    let page = one.query::<Tally>().written_by([author(STRANGER)]).page().await.unwrap();
    assert_eq!(page.records, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_for_members_leaves_out_whose_membership_has_ended() {
    let open = started(memory_config()).await;
    let error = open.query::<Note>().written_by(Authors::Members).page().await.unwrap_err();
    assert!(matches!(error, NetabaseError::Store(StoreError::Members(MembersError::OpenNetwork))), "{error}");

    let root = Identity::generate();
    let store = StoreOptions { root: Some(root.author()), ..memory_config().store };
    let node = started(NetabaseConfig { store, ..memory_config() }).await;
    let mut members = MemberList::default();
    members.add(author(ADA)).unwrap();
    members.add(author(STRANGER)).unwrap();
    node.publish_members(&members, &root).await.unwrap();
    have(&node, ADA, [popular(1, "hello")], 0);
    have(&node, STRANGER, [popular(2, "flood")], 0);
    let of_members = node.query::<Note>().topic("popular").written_by(Authors::Members);
    assert_eq!(ids(&of_members.page().await.unwrap()), [1, 2]);
    // What a former member wrote before stays, and is no member's any more.
    assert!(members.revoke(author(STRANGER), Timestamp::from_unix_millis(START + 1000)));
    node.publish_members(&members, &root).await.unwrap();
    assert_eq!(ids(&of_members.page().await.unwrap()), [1]);
    assert_eq!(ids(&node.query::<Note>().topic("popular").page().await.unwrap()), [1, 2]);
}
