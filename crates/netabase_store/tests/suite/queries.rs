//! Queries by every kind of key, compared with a sorted list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use netabase_store::query::{CursorError, QueryKey, RawQuery};
use netabase_store::{Cursor, NetabaseStore, Query, StorageBackend, StoreError, Tree, prefix, starts_with};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use crate::common::chat::*;
use crate::common::{Place, on_every_backend};

on_every_backend! {
    queries_find_what_a_sorted_list_has,
    pages_stay_true_while_others_write,
    an_empty_store_answers,
    a_range_that_ends_before_it_begins_has_nothing,
    a_limit_of_nothing_finds_nothing,
    a_snapshot_sees_one_moment,
    what_a_query_finds_is_removed,
    a_query_of_another_key_is_refused,
    a_cursor_continues_its_own_query_alone,
    queries_by_index_are_true_while_others_write,
}

fn open(place: &Place) -> (NetabaseStore, Tree<Message>) {
    let store = place.try_open::<ChatDefinition>().unwrap();
    let messages = store.open_tree().unwrap();
    (store, messages)
}

/// Ranges of every form.
#[derive(Debug, Clone)]
enum Keys<T> {
    Exact(T),
    Range(T, T),
    Inclusive(T, T),
    From(T),
    To(T),
    ToInclusive(T),
    All,
}

impl<T: Ord> Keys<T> {
    fn has(&self, key: &T) -> bool {
        match self {
            Self::Exact(exact) => key == exact,
            Self::Range(start, end) => (start..end).contains(&key),
            Self::Inclusive(start, end) => (start..=end).contains(&key),
            Self::From(start) => start <= key,
            Self::To(end) => key < end,
            Self::ToInclusive(end) => key <= end,
            Self::All => true,
        }
    }
}

/// Calls a method of a query with a range, whose type depends on its form.
macro_rules! select {
    ($keys:expr, |$range:ident| $query:expr) => {
        match $keys {
            Keys::Exact($range) => $query,
            Keys::Range(start, end) => {
                let $range = start..end;
                $query
            }
            Keys::Inclusive(start, end) => {
                let $range = start..=end;
                $query
            }
            Keys::From(start) => {
                let $range = start..;
                $query
            }
            Keys::To(end) => {
                let $range = ..end;
                $query
            }
            Keys::ToInclusive(end) => {
                let $range = ..=end;
                $query
            }
            Keys::All => {
                let $range = ..;
                $query
            }
        }
    };
}

/// A query, and its key.
#[derive(Debug, Clone)]
enum Asked {
    Nothing,
    Id(Keys<u64>),
    Room(Keys<String>),
    RoomPrefix(String),
    Slug(Keys<String>),
    ReplyTo(Keys<i64>),
    Tags(Keys<String>),
    TagsPrefix(String),
    RoomTime(String, Keys<i64>),
    RoomTimes(Keys<String>),
    RoomTimesPrefix(String),
    Initial(Keys<char>),
}

#[derive(Debug, Clone)]
struct Question {
    asked: Asked,
    reverse: bool,
    limit: u64,
    page: u64,
}

const IDS: [u64; 8] = [0, 1, 2, 3, 255, 256, 65_536, u64::MAX];
const WORDS: [&str; 8] = ["", "a", "a\0", "a\0b", "a\u{1}", "ab", "b", "\u{10ffff}"];
const NUMBERS: [i64; 6] = [i64::MIN, -256, -1, 0, 7, i64::MAX];

fn an_id() -> impl Strategy<Value = u64> + Clone {
    prop::sample::select(&IDS[..])
}

fn a_word() -> impl Strategy<Value = String> + Clone {
    prop::sample::select(&WORDS[..]).prop_map(Into::into)
}

fn a_number() -> impl Strategy<Value = i64> + Clone {
    prop::sample::select(&NUMBERS[..])
}

fn a_range<T: Debug + Clone + 'static>(
    key: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Keys<T>> {
    let pair = (key.clone(), key.clone());
    prop_oneof![
        key.clone().prop_map(Keys::Exact),
        pair.clone().prop_map(|(start, end)| Keys::Range(start, end)),
        pair.prop_map(|(start, end)| Keys::Inclusive(start, end)),
        key.clone().prop_map(Keys::From),
        key.clone().prop_map(Keys::To),
        key.prop_map(Keys::ToInclusive),
        Just(Keys::All),
    ]
}

fn a_question() -> impl Strategy<Value = Question> {
    let asked = prop_oneof![
        Just(Asked::Nothing),
        a_range(an_id()).prop_map(Asked::Id),
        a_range(a_word()).prop_map(Asked::Room),
        a_word().prop_map(Asked::RoomPrefix),
        a_range(a_word()).prop_map(Asked::Slug),
        a_range(a_number()).prop_map(Asked::ReplyTo),
        a_range(a_word()).prop_map(Asked::Tags),
        a_word().prop_map(Asked::TagsPrefix),
        (a_word(), a_range(a_number())).prop_map(|(room, times)| Asked::RoomTime(room, times)),
        a_range(a_word()).prop_map(Asked::RoomTimes),
        a_word().prop_map(Asked::RoomTimesPrefix),
        a_range(prop::sample::select(vec!['\0', 'a', 'b', '\u{10ffff}'])).prop_map(Asked::Initial),
    ];
    (asked, any::<bool>(), 0..9_u64, 1..5_u64).prop_map(|(asked, reverse, limit, page)| Question {
        asked,
        reverse,
        limit,
        page,
    })
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let content = (a_word(), prop::option::of(a_number()), prop::collection::vec(a_word(), 0..4), a_number());
    let message = (an_id(), content).prop_map(|(id, (room, reply_to, tags, sent_at))| Message {
        reply_to,
        tags,
        sent_at,
        slug: format!("a\0{id}"),
        ..message(id, &room)
    });
    prop::collection::vec(message, 0..16)
}

fn all<K: QueryKey<Message>>(messages: &Tree<Message>, query: Query<Message, K>) -> Vec<Message> {
    messages.ask(query).rows().unwrap().collect::<Result<_, _>>().unwrap()
}

/// Compares everything that a query answers with the records whose keys it is about, in order.
fn compare<K: QueryKey<Message>, V: Ord>(
    tree: &Tree<Message>,
    query: Query<Message, K>,
    question: &Question,
    keys: impl Fn(&Message) -> Vec<V>,
    asked: impl Fn(&V) -> bool,
    data: &BTreeMap<u64, Message>,
) -> TestCaseResult {
    let entries = data.values().flat_map(|message| keys(message).into_iter().map(|key| (key, message.id)));
    let entries: BTreeSet<_> = entries.filter(|(key, _)| asked(key)).collect();
    let mut expected: Vec<_> = entries.into_iter().map(|(_, id)| data[&id].clone()).collect();
    let backwards: Vec<_> = expected.iter().rev().cloned().collect();
    let mut query = query;
    if question.reverse {
        expected.clone_from(&backwards);
        query = query.reverse();
    }
    prop_assert_eq!(all(tree, query.clone()), &expected[..]);
    prop_assert_eq!(all(tree, query.clone().reverse().reverse()), &expected[..]);
    let mut from_back: Vec<_> = tree.ask(query.clone()).rows().unwrap().rev().map(Result::unwrap).collect();
    from_back.reverse();
    prop_assert_eq!(from_back, &expected[..]);
    prop_assert_eq!(tree.ask(query.clone()).count().unwrap(), u64::try_from(expected.len()).unwrap());
    prop_assert_eq!(tree.ask(query.clone()).first().unwrap(), expected.first().cloned());
    prop_assert_eq!(tree.ask(query.clone()).last().unwrap(), expected.last().cloned());

    let limit = usize::try_from(question.limit).unwrap().min(expected.len());
    let limited = query.clone().limit(question.limit);
    prop_assert_eq!(all(tree, limited.clone()), &expected[..limit]);
    prop_assert_eq!(tree.ask(limited.clone()).count().unwrap(), u64::try_from(limit).unwrap());
    prop_assert_eq!(tree.ask(limited.clone()).last().unwrap(), expected.last().cloned());

    let mut paged = Vec::new();
    let mut page = tree.ask(query.clone().limit(question.page)).page().unwrap();
    for _ in 0..=expected.len() {
        let full = page.records.len() == usize::try_from(question.page).unwrap();
        prop_assert!(full || page.next.is_none());
        paged.append(&mut page.records);
        let Some(next) = page.next.take() else { break };
        let next = query.clone().limit(question.page).after(next);
        page = tree.ask(send(&next)?).page().unwrap();
        prop_assert!(!page.records.is_empty());
    }
    prop_assert_eq!(paged, &expected[..]);

    prop_assert_eq!(all(tree, send(&limited)?), &expected[..limit]);
    Ok(())
}

/// Sends a query to another program, in each encoding.
fn send<K: QueryKey<Message>>(query: &Query<Message, K>) -> Result<Query<Message, K>, TestCaseError> {
    let json = serde_json::to_string(query).unwrap();
    let from_json: Query<Message, K> = serde_json::from_str(&json).unwrap();
    let postcard = postcard::to_stdvec(query).unwrap();
    let raw: RawQuery = postcard::from_bytes(&postcard).unwrap();
    prop_assert_eq!(&raw, &query.raw());
    let from_postcard: Query<Message, K> = postcard::from_bytes(&postcard).unwrap();
    prop_assert_eq!(&from_json, query);
    prop_assert_eq!(&from_postcard, query);
    Ok(from_postcard)
}

fn ask(tree: &Tree<Message>, question: &Question, data: &BTreeMap<u64, Message>) -> TestCaseResult {
    let q = Query::<Message>::new;
    let id = |message: &Message| vec![message.id];
    let room = |message: &Message| vec![message.room.clone()];
    let tags = |message: &Message| message.tags.clone();
    let times = |message: &Message| vec![(message.room.clone(), message.sent_at)];
    match question.asked.clone() {
        Asked::Nothing => compare(tree, q(), question, id, |_| true, data),
        Asked::Id(keys) => {
            select!(keys.clone(), |range| compare(
                tree,
                q().id(range),
                question,
                id,
                |key| keys.has(key),
                data
            ))
        }
        Asked::Room(keys) => {
            select!(keys.clone(), |range| compare(
                tree,
                q().room(range),
                question,
                room,
                |key| keys.has(key),
                data
            ))
        }
        Asked::RoomPrefix(start) => {
            compare(tree, q().room(prefix(&start)), question, room, |key| key.starts_with(&start), data)
        }
        Asked::Slug(keys) => {
            let slug = |message: &Message| vec![message.slug.clone()];
            select!(keys.clone(), |range| compare(
                tree,
                q().slug(range),
                question,
                slug,
                |key| keys.has(key),
                data
            ))
        }
        Asked::ReplyTo(keys) => {
            let reply = |message: &Message| message.reply_to.into_iter().collect();
            select!(keys.clone(), |range| compare(
                tree,
                q().reply_to(range),
                question,
                reply,
                |key| keys.has(key),
                data
            ))
        }
        Asked::Tags(keys) => {
            select!(keys.clone(), |range| compare(
                tree,
                q().tags(range),
                question,
                tags,
                |key| keys.has(key),
                data
            ))
        }
        Asked::TagsPrefix(start) => {
            compare(tree, q().tags(prefix(&start)), question, tags, |key| key.starts_with(&start), data)
        }
        Asked::RoomTime(room, keys) => select!(keys.clone(), |range| {
            let asked = |(of_room, time): &(String, i64)| *of_room == room && keys.has(time);
            compare(tree, q().room_time((room.clone(), range)), question, times, asked, data)
        }),
        Asked::RoomTimes(keys) => select!(keys.clone(), |range| {
            let asked = |(room, _): &(String, i64)| keys.has(room);
            compare(tree, q().room_time(starts_with((range,))), question, times, asked, data)
        }),
        Asked::RoomTimesPrefix(start) => {
            let asked = |(room, _): &(String, i64)| room.starts_with(&start);
            compare(tree, q().room_time(starts_with((prefix(&start),))), question, times, asked, data)
        }
        Asked::Initial(keys) => {
            let initial = |message: &Message| message.initial().into_iter().collect();
            select!(keys.clone(), |range| compare(
                tree,
                q().initial(range),
                question,
                initial,
                |key| keys.has(key),
                data
            ))
        }
    }
}

fn config(place: &Place, cases: u32) -> ProptestConfig {
    let cases = if place.options.backend == StorageBackend::Memory { cases * 4 } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn queries_find_what_a_sorted_list_has(place: &Place) {
    let removed = prop::collection::vec(an_id(), 0..4);
    let input = (messages(), removed, messages(), prop::collection::vec(a_question(), 1..24));
    TestRunner::new(config(place, 16))
        .run(&input, |(first, removed, second, questions)| {
            let (_store, tree) = open(&place.elsewhere());
            let mut data = BTreeMap::new();
            // Replaced and removed records leave no entries.
            for (messages, removed) in [(first, removed), (second, Vec::new())] {
                tree.put_many(&messages).unwrap();
                data.extend(messages.into_iter().map(|message| (message.id, message)));
                for id in removed {
                    let was = data.remove(&id).is_some();
                    prop_assert_eq!(tree.remove(&MessagePrimaryKey(id)).unwrap(), was);
                }
            }
            questions.iter().try_for_each(|question| ask(&tree, question, &data))
        })
        .unwrap();
}

/// Reads page by page while `others` writes in between; the records in `constant` are never
/// touched.
fn page_through<K: QueryKey<Message>>(
    tree: &Tree<Message>,
    query: &Query<Message, K>,
    constant: &[u64],
    mut others: impl FnMut(),
) -> TestCaseResult {
    let mut seen = Vec::new();
    let mut next = None;
    loop {
        let query = match next.take() {
            None => query.clone(),
            Some(cursor) => query.clone().after(cursor),
        };
        let page = tree.ask(query).page().unwrap();
        seen.extend(page.records.iter().map(|message| message.id));
        others();
        let Some(cursor) = page.next else { break };
        next = Some(cursor);
        prop_assert!(seen.len() < 1000);
    }
    let kept: Vec<_> = seen.iter().filter(|id| constant.contains(id)).copied().collect();
    prop_assert_eq!(kept, constant);
    let distinct: BTreeSet<_> = seen.iter().collect();
    prop_assert_eq!(distinct.len(), seen.len());
    Ok(())
}

fn pages_stay_true_while_others_write(place: &Place) {
    let ids = || prop::collection::btree_set(0..40_u64, 1..20);
    let writes = prop::collection::vec((0..40_u64, any::<bool>()), 0..60);
    let input = (ids(), ids(), writes, 1..5_u64, any::<bool>());
    TestRunner::new(config(place, 8))
        .run(&input, |(constant, volatile, writes, page, reverse)| {
            let (_store, tree) = open(&place.elsewhere());
            tree.put_many(
                volatile.iter().chain(&constant).map(|id| message(*id, "hall")).collect::<Vec<_>>().iter(),
            )
            .unwrap();
            let constant: Vec<_> = constant.into_iter().collect();
            let mut writes = writes.iter().filter(|(id, _)| !constant.contains(id)).cycle();
            let mut others = || {
                for (id, put) in writes.by_ref().take(3) {
                    match put {
                        true => tree.put(&message(*id, "hall")).unwrap(),
                        false => drop(tree.remove(&MessagePrimaryKey(*id)).unwrap()),
                    }
                }
            };
            let mut query = Query::<Message>::new().limit(page);
            let ordered = if reverse {
                query = query.reverse();
                constant.iter().rev().copied().collect()
            } else {
                constant.clone()
            };
            page_through(&tree, &query, &ordered, &mut others)?;
            page_through(&tree, &query.clone().room("hall"), &ordered, &mut others)?;
            page_through(&tree, &query.clone().room_time(("hall", ..)), &ordered, &mut others)?;
            // By slug the order is that of the digits.
            let mut by_slug = constant.clone();
            by_slug.sort_by_key(|id| format!("m{id}"));
            if reverse {
                by_slug.reverse();
            }
            page_through(&tree, &query.slug(..), &by_slug, &mut others)
        })
        .unwrap();
}

fn an_empty_store_answers(place: &Place) {
    let (_store, tree) = open(place);
    let question = Question { asked: Asked::Nothing, reverse: true, limit: 3, page: 2 };
    ask(&tree, &question, &BTreeMap::new()).unwrap();
    assert_eq!(tree.query().tags("a").page().unwrap().next, None);
    assert_eq!(tree.remove_all(Query::new()).unwrap(), 0);
}

#[allow(clippy::reversed_empty_ranges, reason = "this is what is tested")]
fn a_range_that_ends_before_it_begins_has_nothing(place: &Place) {
    let (_store, tree) = open(place);
    tree.put_many(&[1, 2, 3].map(|id| message(id, "hall"))).unwrap();
    assert_eq!(tree.query().id(3..1).count().unwrap(), 0);
    assert_eq!(tree.query().id(3..=1).rows().unwrap().count(), 0);
    assert_eq!(tree.query().id(2..2).first().unwrap(), None);
    assert_eq!(tree.query().id(2..=2).count().unwrap(), 1);
    assert_eq!(tree.query().room("z".."a").reverse().last().unwrap(), None);
    assert_eq!(tree.query().room_time(("hall", 1..0)).page().unwrap().records, []);
    assert_eq!(tree.remove_all(Query::new().id(3..1)).unwrap(), 0);
    assert_eq!(tree.len().unwrap(), 3);
}

fn a_limit_of_nothing_finds_nothing(place: &Place) {
    let (_store, tree) = open(place);
    tree.put(&message(1, "hall")).unwrap();
    let page = tree.query().limit(0).page().unwrap();
    assert_eq!((page.records, page.next), (vec![], None));
    assert_eq!(tree.query().limit(0).count().unwrap(), 0);
    assert_eq!(tree.query().limit(0).first().unwrap(), None);
    assert_eq!(tree.remove_all(Query::new().limit(0)).unwrap(), 0);
}

fn a_snapshot_sees_one_moment(place: &Place) {
    let (store, tree) = open(place);
    if !place.has_snapshots() {
        let error = store.read().unwrap_err();
        assert!(matches!(error, StoreError::Unsupported { backend: StorageBackend::Sled, .. }), "{error:?}");
        assert_eq!(error.to_string(), "the sled backend has no snapshots");
        return;
    }
    let done = AtomicBool::new(false);
    tree.put_many(&[0, 1, 2].map(|id| message(id, "0"))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..100_u64 {
                let mut transaction = store.begin_write();
                for id in 0..3 {
                    transaction.put(&message(id, &round.to_string())).unwrap();
                }
                transaction.put(&message(round + 10, "added")).unwrap();
                transaction.remove(&MessagePrimaryKey(round + 9)).unwrap();
                transaction.commit().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let snapshot = store.read().unwrap();
            let tree = snapshot.open_tree::<Message>().unwrap();
            let room = tree.get(&MessagePrimaryKey(0)).unwrap().unwrap().room;
            thread::yield_now();
            let ids: Vec<_> =
                tree.find(MessageRoomSecondaryKey(room.clone())).unwrap().iter().map(|m| m.id).collect();
            assert_eq!(ids, [0, 1, 2]);
            let page = tree.query().room(room.as_str()).limit(2).page().unwrap();
            let rest = tree.query().room(room.as_str()).after(page.next.unwrap()).page().unwrap();
            assert_eq!((page.records.len(), rest.records.len(), rest.next), (2, 1, None));
            let len = tree.iter().unwrap().count();
            assert_eq!(tree.len().unwrap(), u64::try_from(len).unwrap());
            assert_eq!(len, if room == "0" { 3 } else { 4 });
            assert_eq!(tree.clone().query().room("added").count().unwrap(), u64::from(room != "0"));
        }
    });
}

fn what_a_query_finds_is_removed(place: &Place) {
    let (store, tree) = open(place);
    let tagged = |id, tags: &[&str]| Message {
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        ..message(id, "hall")
    };
    tree.put_many(&[tagged(1, &["a", "b"]), tagged(2, &["b", "c"]), tagged(3, &[]), tagged(4, &["d"])])
        .unwrap();
    let commits = store.counters().commits;
    assert_eq!(tree.remove_all(Query::new().tags("a"..="c")).unwrap(), 2, "each record counts once");
    assert_eq!(store.counters().commits, commits + 1);
    let left = |query: Query<Message>| all(&tree, query).iter().map(|message| message.id).collect::<Vec<_>>();
    assert_eq!(left(Query::new()), [3, 4]);
    assert_eq!(tree.query().tags(..).count().unwrap(), 1);
    assert_eq!(tree.remove_all(Query::new().reverse().limit(1)).unwrap(), 1);
    assert_eq!(left(Query::new()), [3]);
    assert_eq!(tree.remove_all(Query::new()).unwrap(), 1);
    assert!(tree.is_empty().unwrap());
    assert_eq!(tree.query().room(..).count().unwrap(), 0);
}

fn a_query_of_another_key_is_refused(place: &Place) {
    let (_store, tree) = open(place);
    let by_room = Query::<Message>::new().room("hall");
    let json = serde_json::to_string(&by_room).unwrap();
    serde_json::from_str::<Query<Message, MessageTagsSecondaryKey>>(&json).unwrap_err();
    serde_json::from_str::<Query<Message>>(&json).unwrap_err();
    serde_json::from_str::<Query<Account, AccountCitySecondaryKey>>(&json).unwrap_err();
    let again: Query<Message, MessageRoomSecondaryKey> = serde_json::from_str(&json).unwrap();
    assert_eq!(all(&tree, again), []);
}

fn a_cursor_continues_its_own_query_alone(place: &Place) {
    let (store, tree) = open(place);
    tree.put_many(&(0..20).map(|id| message(id, "hall")).collect::<Vec<_>>()).unwrap();
    let ids =
        |query: Query<Message, MessagePrimaryKey>| all(&tree, query).iter().map(|m| m.id).collect::<Vec<_>>();
    let range = || Query::<Message>::new().id(5..12);
    let first = tree.ask(range().limit(2)).page().unwrap();
    let cursor = first.next.unwrap();

    // The record that the cursor names may go, and the limit may be another one.
    tree.remove(&MessagePrimaryKey(6)).unwrap();
    assert_eq!(ids(range().limit(3).after(cursor.clone())), [7, 8, 9]);
    drop((tree, store));
    let (_store, tree) = open(place);
    if tree.is_empty().unwrap() {
        // In memory nothing outlives the store, and the cursor does.
        tree.put_many(&(0..20).map(|id| message(id, "hall")).collect::<Vec<_>>()).unwrap();
    }
    let kept: Cursor = serde_json::from_str(&serde_json::to_string(&cursor).unwrap()).unwrap();
    let rest = tree.ask(range().after(kept)).page().unwrap();
    assert_eq!(rest.records.iter().map(|message| message.id).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);

    let refused = |query: Query<Message, MessagePrimaryKey>| {
        let asked = tree.ask(query);
        let errors = [
            asked.rows().map(drop).unwrap_err(),
            asked.page().map(drop).unwrap_err(),
            asked.count().map(drop).unwrap_err(),
            asked.first().map(drop).unwrap_err(),
            asked.last().map(drop).unwrap_err(),
        ];
        errors.map(|error| match error {
            StoreError::Cursor(error) => error,
            other => panic!("{other}"),
        })
    };
    for other in [range().reverse(), Query::new().id(5..13), Query::new().id(5..), Query::new().id(..12)] {
        assert_eq!(refused(other.after(cursor.clone())), [CursorError::OtherQuery; 5]);
    }
    for rubbish in [vec![], vec![0; 8], b"x".to_vec(), cursor.as_bytes()[1..].to_vec()] {
        assert_eq!(refused(range().after(Cursor::new(rubbish))), [CursorError::Malformed; 5]);
    }
    let by_room = tree.ask(Query::<Message>::new().room("hall").after(cursor)).page();
    assert!(matches!(by_room, Err(StoreError::Cursor(CursorError::OtherQuery))));
}

/// Records change their keys all the time: each answer fits its question, and one value has no
/// record twice. Unchanged records are always found.
fn queries_by_index_are_true_while_others_write(place: &Place) {
    let (_store, tree) = open(place);
    let rooms = ["a", "b", "c"];
    tree.put_many(&(0..30).map(|id| message(id, "b")).collect::<Vec<_>>()).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..150_usize {
                let id = u64::try_from(round * 7 % 10 * 3).unwrap();
                match round % 4 {
                    3 => drop(tree.remove(&MessagePrimaryKey(id)).unwrap()),
                    room => tree.put(&message(id, rooms[room])).unwrap(),
                }
            }
            done.store(true, Ordering::Release);
        });
        let constant: Vec<u64> = (0..30).filter(|id| id % 3 != 0).collect();
        while !done.load(Ordering::Acquire) {
            for room in rooms {
                for reverse in [false, true] {
                    let query = Query::<Message>::new().room(room);
                    let query = if reverse { query.reverse() } else { query };
                    let found = all(&tree, query);
                    assert!(found.iter().all(|message| message.room == room), "{found:?}");
                    let ids: Vec<_> = found.iter().map(|message| message.id).collect();
                    let ordered = |ids: &[u64]| {
                        ids.windows(2).all(|ids| (ids[0] < ids[1]) != reverse && ids[0] != ids[1])
                    };
                    assert!(ordered(&ids), "{ids:?}");
                    if room == "b" {
                        let kept = ids.iter().filter(|id| **id % 3 != 0).count();
                        assert_eq!(kept, constant.len());
                    }
                }
            }
            let found = all(&tree, Query::<Message>::new().room("a".."c"));
            assert!(found.iter().all(|message| message.room.as_str() < "c"), "{found:?}");
            let kept: Vec<_> =
                found.iter().filter(|message| message.id % 3 != 0).map(|message| message.id).collect();
            assert_eq!(kept, constant);
        }
    });
}
