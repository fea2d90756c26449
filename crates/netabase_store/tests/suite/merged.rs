//! Merged models: records that several authors contribute to.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::export::ExportOptions;
use netabase_store::import::ImportOptions;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, Envelope, KeyField, NetabaseStore, Origin, RecordKey, Refusal, StorageBackend, StoreError,
    StoreOptions, Timestamp, Tree, WriteError, WritePolicy, netabase_definition_module,
};

use crate::common::tables::rewrite;
use crate::common::*;

#[netabase_definition_module(PollDefinition, PollKeys)]
mod polls {
    use std::collections::BTreeSet;

    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(PollDefinition)]
    pub(crate) struct Poll {
        #[primary_key]
        pub(crate) id: u32,
        #[secondary_key]
        pub(crate) title: String,
        #[merge(counter)]
        #[secondary_key]
        pub(crate) votes: i64,
        #[merge(set)]
        #[secondary_key]
        pub(crate) tags: BTreeSet<String>,
        #[merge(max)]
        pub(crate) best: u8,
        #[merge(min)]
        pub(crate) worst: u8,
    }
}
use polls::*;

/// The same with another rule, and a version that has one more field.
#[netabase_definition_module(LaterDefinition, LaterKeys, name = "PollDefinition")]
mod later {
    use std::collections::BTreeSet;

    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct PollV1 {
        id: u32,
        title: String,
        votes: i64,
        tags: BTreeSet<String>,
        best: u8,
        worst: u8,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LaterDefinition, version = 2, migrate_from = PollV1)]
    pub(crate) struct Poll {
        #[primary_key]
        pub(crate) id: u32,
        #[merge(max)]
        #[secondary_key]
        pub(crate) votes: i64,
    }

    impl From<PollV1> for Poll {
        fn from(PollV1 { id, votes, .. }: PollV1) -> Self {
            Self { id, votes }
        }
    }
}
use later::LaterDefinition;

on_every_backend! {
    a_put_is_read_as_it_was_given,
    an_update_returns_what_is_stored,
    a_bundle_of_peers_is_merged_and_found_by_what_it_makes,
    a_deleted_record_returns_with_what_is_later,
    a_bundle_survives_a_restart_and_a_check,
    a_wrong_merge_is_found_and_repaired,
    another_rule_merges_anew,
    a_program_without_the_model_keeps_the_contributions,
    an_export_has_the_merged_value,
    a_merged_record_expires_with_its_last_contribution,
}

fn poll(title: &str, votes: i64, tags: &[&str]) -> Poll {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Poll { id: 1, title: title.into(), votes, tags, best: 5, worst: 5 }
}

fn key() -> RecordKey {
    RecordKey::of(&PollPrimaryKey(1)).unwrap()
}

fn author(seed: u8) -> Author {
    Author::from_bytes(identity(seed).verifying_key().to_bytes())
}

/// The version of author `seed`, so many milliseconds after the start.
fn signed(seed: u8, after: u64, poll: Option<&Poll>) -> Envelope {
    let payload = poll.map(|poll| EncodedRecord::of(poll).unwrap().payload);
    let time = Timestamp::from_unix_millis(START + after);
    Envelope::sign(&identity(seed), &key(), time, 0, payload.as_deref())
}

fn bundle(parts: &[Envelope]) -> Envelope {
    Envelope::bundle(parts).unwrap()
}

fn open(place: &Place) -> (NetabaseStore, Tree<Poll>) {
    let store = place.try_open::<PollDefinition>().unwrap();
    let polls = store.open_tree().unwrap();
    (store, polls)
}

fn in_memory(seed: u8) -> (NetabaseStore, Tree<Poll>, Place) {
    let mut place = Place::new(StorageBackend::Memory);
    place.options.identity = Some(identity(seed));
    let (store, polls) = open(&place);
    (store, polls, place)
}

fn get(polls: &Tree<Poll>) -> Option<Poll> {
    polls.get(&PollPrimaryKey(1)).unwrap()
}

/// Gives one store what another has, as a peer would.
fn send(from: &NetabaseStore, to: &NetabaseStore) {
    let envelope = from.envelope(&key()).unwrap().unwrap().to_wire();
    let _ = to.replica().admit(key().as_bytes(), envelope.as_bytes());
    to.flush().unwrap();
}

fn exchange(one: &NetabaseStore, other: &NetabaseStore) {
    send(one, other);
    send(other, one);
    assert_eq!(one.envelope(&key()).unwrap(), other.envelope(&key()).unwrap());
}

fn an_update_returns_what_is_stored(place: &Place) {
    let (store, polls) = open(place);
    polls.put(&poll("a", 1, &["ours"])).unwrap();
    if store.author().is_some() {
        let theirs = bundle(&[signed(7, 1, Some(&poll("b", 2, &["theirs"])))]);
        assert!(store.replica().admit(key().as_bytes(), theirs.as_bytes()).unwrap());
    }
    let updated = polls.update(&PollPrimaryKey(1), |poll| poll.tags.clear()).unwrap();
    assert_eq!(updated, get(&polls));
    let theirs = updated.unwrap().tags.contains("theirs");
    assert_eq!(theirs, store.author().is_some(), "what others have added stays");
}

fn a_put_is_read_as_it_was_given(place: &Place) {
    let (store, polls) = open(place);
    for given in [poll("a", 3, &["x", "y"]), poll("b", -2, &["y"]), poll("c", 0, &[])] {
        polls.put(&given).unwrap();
        assert_eq!(get(&polls), Some(given.clone()));
        assert_eq!(polls.find(PollVotesSecondaryKey(given.votes)).unwrap(), [given]);
    }
    let updated = polls.update(&PollPrimaryKey(1), |poll| poll.votes += 1).unwrap();
    assert_eq!((updated, get(&polls)), (Some(poll("c", 1, &[])), Some(poll("c", 1, &[]))));
    let envelope = store.envelope(&key()).unwrap().unwrap();
    assert_eq!(envelope.is_bundle(), store.author().is_some());
    assert!(polls.remove(&PollPrimaryKey(1)).unwrap());
    assert_eq!((get(&polls), polls.len().unwrap()), (None, 0));
    polls.insert(&poll("d", 7, &["z"])).unwrap();
    assert_eq!(get(&polls), Some(poll("d", 7, &["z"])));
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

fn a_bundle_of_peers_is_merged_and_found_by_what_it_makes(place: &Place) {
    let (store, polls) = open(place);
    let (one, other) = (poll("one", 3, &["x"]), Poll { best: 9, worst: 7, ..poll("other", 4, &["y"]) });
    let both = bundle(&[signed(8, 1, Some(&one)), signed(9, 2, Some(&other))]);
    let events = events(&store);
    assert_eq!(store.replica().admit(key().as_bytes(), both.as_bytes()), Ok(true));
    let merged = Poll { best: 9, ..poll("other", 7, &["x", "y"]) };
    assert_eq!(get(&polls), Some(merged.clone()), "also before it is on the disk");
    let change = next_change(&events);
    assert_eq!(
        (change.origin, change.envelope.as_ref().map(Envelope::to_wire)),
        (Origin::Network, Some(both.clone()))
    );
    assert_eq!(get(&polls), Some(merged.clone()));
    assert_eq!(polls.find(PollVotesSecondaryKey(7)).unwrap(), std::slice::from_ref(&merged));
    assert_eq!(polls.find(PollTagsSecondaryKey("x".into())).unwrap(), std::slice::from_ref(&merged));
    assert_eq!(polls.find(PollVotesSecondaryKey(3)).unwrap(), []);
    assert_eq!(store.replica().admit(key().as_bytes(), both.as_bytes()), Ok(false));
    let early = bundle(&[signed(8, 0, Some(&one))]);
    assert_eq!(store.replica().admit(key().as_bytes(), early.as_bytes()), Err(Refusal::Outdated));
    if store.author().is_some() {
        polls.put(&Poll { votes: 10, ..merged.clone() }).unwrap();
        assert_eq!(get(&polls), Some(Poll { votes: 10, ..merged }));
        let ours = store.envelope(&key()).unwrap().unwrap().contribution_of(author(1)).unwrap();
        let ours: Poll = netabase_store::schema::decode_payload(ours.payload()).unwrap();
        assert_eq!((ours.votes, ours.tags.len()), (3, 0), "what others have is not ours");
    }
}

fn a_deleted_record_returns_with_what_is_later(place: &Place) {
    let (store, polls) = open(place);
    let admit = |parts: &[Envelope]| {
        let outcome = store.replica().admit(key().as_bytes(), bundle(parts).as_bytes());
        store.flush().unwrap();
        outcome
    };
    assert_eq!(admit(&[signed(8, 1, Some(&poll("one", 1, &["x"])))]), Ok(true));
    assert_eq!(admit(&[signed(9, 3, None)]), Ok(true));
    assert_eq!((get(&polls), polls.find(PollVotesSecondaryKey(1)).unwrap().len()), (None, 0));
    assert_eq!(admit(&[signed(7, 2, Some(&poll("early", 1, &[])))]), Err(Refusal::Outdated));
    assert_eq!(admit(&[signed(7, 4, Some(&poll("late", 2, &[])))]), Ok(true));
    assert_eq!(get(&polls), Some(poll("late", 2, &[])));
    // The one who has deleted writes again, and what was deleted stays so.
    assert_eq!(admit(&[signed(9, 5, Some(&poll("again", 4, &[])))]), Ok(true));
    assert_eq!(admit(&[signed(8, 1, Some(&poll("one", 1, &["x"])))]), Err(Refusal::Outdated));
    assert_eq!(get(&polls), Some(poll("again", 6, &[])));
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

fn a_bundle_survives_a_restart_and_a_check(place: &Place) {
    let (store, polls) = open(place);
    let parts = [
        signed(7, 1, None),
        signed(8, 2, Some(&poll("a", 3, &["x"]))),
        signed(9, 3, Some(&poll("b", 4, &[]))),
    ];
    store.replica().admit(key().as_bytes(), bundle(&parts).as_bytes()).unwrap();
    store.flush().unwrap();
    let report = store.check(CheckOptions::default()).unwrap();
    assert_eq!((report.is_clean(), report.records, report.signatures), (true, 1, 3), "{report:?}");
    if place.is_on_disk() {
        drop((store, polls));
        let (_, polls) = open(place);
        assert_eq!(get(&polls), Some(poll("b", 7, &["x"])));
        assert_eq!(polls.find(PollVotesSecondaryKey(7)).unwrap().len(), 1);
    }
}

fn a_wrong_merge_is_found_and_repaired(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let (store, polls) = open(place);
    store
        .replica()
        .admit(key().as_bytes(), bundle(&[signed(8, 2, Some(&poll("a", 3, &["x"])))]).as_bytes())
        .unwrap();
    store.flush().unwrap();
    drop((store, polls));
    rewrite(place, |tables| {
        let record = tables.get_mut(&("records/+Poll".into(), 1_u32.to_key_bytes())).unwrap();
        // The votes of the merged payload: after the header, the version, the id and the title.
        assert_eq!(record[6 + 1 + 1 + 2], 6, "zigzag of 3");
        record[6 + 1 + 1 + 2] = 8;
    });
    let (store, polls) = open(place);
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.problems.contains(&Problem::NotMerged { key: key() }), "{report:?}");
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(polls.find(PollVotesSecondaryKey(3)).unwrap(), [poll("a", 3, &["x"])]);
}

fn another_rule_merges_anew(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let (store, polls) = open(place);
    let parts = [signed(8, 2, Some(&poll("a", 3, &["x"]))), signed(9, 3, Some(&poll("b", 4, &[])))];
    store.replica().admit(key().as_bytes(), bundle(&parts).as_bytes()).unwrap();
    if store.author().is_some() {
        polls.update(&PollPrimaryKey(1), |poll| poll.votes += 1).unwrap();
    }
    store.flush().unwrap();
    let ours = store.author().is_some();
    drop((store, polls));
    let store = place.try_open::<LaterDefinition>().unwrap();
    let polls = store.open_tree::<later::Poll>().unwrap();
    let merged = later::Poll { id: 1, votes: 4 };
    assert_eq!(polls.find(later::PollVotesSecondaryKey(4)).unwrap(), [merged]);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    let report = store.migrate(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.rewritten, report.other_authors), (u64::from(ours), u64::from(!ours)));
    let report = store.migrate(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.rewritten, report.other_authors), (0, 1));
    drop((store, polls));
    // The earlier program reads what it can.
    let (store, polls) = open(place);
    assert_eq!(get(&polls), Some(poll("b", 7, &["x"])));
    if ours {
        let refused = polls.put(&poll("c", 1, &[])).unwrap_err();
        assert!(
            matches!(refused, StoreError::Write(WriteError::NewerRecord { found: 2, known: 1, .. })),
            "{refused:?}"
        );
    }
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

fn a_program_without_the_model_keeps_the_contributions(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let parts = [signed(8, 2, Some(&poll("a", 3, &["x"]))), signed(9, 3, Some(&poll("b", 4, &[])))];
    let (store, polls) = open(place);
    store.replica().admit(key().as_bytes(), bundle(&parts[..1]).as_bytes()).unwrap();
    store.flush().unwrap();
    drop((store, polls));
    {
        #[netabase_definition_module(EmptyDefinition, EmptyKeys, name = "PollDefinition")]
        mod empty {
            use netabase_store::NetabaseModel;
            use serde::{Deserialize, Serialize};

            #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
            #[netabase(EmptyDefinition)]
            pub(crate) struct Other {
                #[primary_key]
                id: u32,
            }
        }
        let store = place.try_open::<empty::EmptyDefinition>().unwrap();
        assert_eq!(store.envelope(&key()).unwrap(), Some(bundle(&parts[..1])));
        assert_eq!(store.replica().admit(key().as_bytes(), bundle(&parts[1..]).as_bytes()), Ok(true));
        store.flush().unwrap();
        assert_eq!(store.envelope(&key()).unwrap(), Some(bundle(&parts)));
        assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    }
    let (_, polls) = open(place);
    assert_eq!(get(&polls), Some(poll("b", 7, &["x"])));
    assert_eq!(polls.find(PollTagsSecondaryKey("x".into())).unwrap().len(), 1);
}

fn an_export_has_the_merged_value(place: &Place) {
    let (store, _) = open(place);
    let parts = [signed(8, 2, Some(&poll("a", 3, &["x"]))), signed(9, 3, Some(&poll("b", 4, &[])))];
    store.replica().admit(key().as_bytes(), bundle(&parts).as_bytes()).unwrap();
    store.flush().unwrap();
    let mut lines = Vec::new();
    let _ = store.export_json(&mut lines, ExportOptions::default()).unwrap();
    let (store, polls, _place) = in_memory(3);
    assert!(store.import_json(&lines[..], ImportOptions::default()).unwrap().is_whole());
    assert_eq!(get(&polls), Some(poll("b", 7, &["x"])));
}

fn a_merged_record_expires_with_its_last_contribution(place: &Place) {
    let (store, polls) = open(place);
    let expiring = |seed, after: u64| {
        let payload = EncodedRecord::of(&poll("a", 1, &[])).unwrap().payload;
        let time = Timestamp::from_unix_millis(START);
        Envelope::sign(&identity(seed), &key(), time, START + after, Some(&payload))
    };
    let parts = bundle(&[expiring(8, 1000), expiring(9, 5000)]);
    assert_eq!(parts.expires(), Some(START + 5000));
    assert_eq!(bundle(&[expiring(8, 1000), signed(9, 0, Some(&poll("a", 1, &[])))]).expires(), None);
    store.replica().admit(key().as_bytes(), parts.as_bytes()).unwrap();
    store.flush().unwrap();
    place.time.advance(Duration::from_secs(2));
    assert_eq!(get(&polls).map(|poll| poll.votes), Some(2));
    place.time.advance(Duration::from_secs(4));
    assert_eq!(get(&polls), None);
    assert_eq!(store.replica().admit(key().as_bytes(), parts.as_bytes()), Err(Refusal::Expired));
}

#[test]
fn counts_of_two_stores_add_up_and_sets_unite() {
    let ((one, polls_1, _p1), (two, polls_2, _p2)) = (in_memory(1), in_memory(2));
    polls_1.put(&poll("one", 3, &["x", "y"])).unwrap();
    polls_2.put(&Poll { best: 8, worst: 2, ..poll("two", 4, &["y"]) }).unwrap();
    exchange(&one, &two);
    let both = get(&polls_1).unwrap();
    assert_eq!((both.votes, both.best, both.worst, both.tags.len()), (7, 8, 2, 2));
    // Both go on counting before they hear of each other.
    polls_1.update(&PollPrimaryKey(1), |poll| poll.votes += 10).unwrap();
    polls_2.update(&PollPrimaryKey(1), |poll| poll.votes -= 20).unwrap();
    polls_2.update(&PollPrimaryKey(1), |poll| poll.tags.retain(|tag| tag == "y")).unwrap();
    exchange(&one, &two);
    let both = get(&polls_2).unwrap();
    assert_eq!((both.votes, both.tags.len()), (-3, 2), "one has added x, so two cannot remove it");
    polls_1.update(&PollPrimaryKey(1), |poll| poll.tags.clear()).unwrap();
    exchange(&one, &two);
    assert_eq!(get(&polls_2).unwrap().tags, BTreeSet::from(["y".to_owned()]), "which two has added, too");
    polls_2.remove(&PollPrimaryKey(1)).unwrap();
    exchange(&one, &two);
    assert_eq!((get(&polls_1), get(&polls_2)), (None, None));
    polls_1.put(&poll("new", 1, &[])).unwrap();
    exchange(&one, &two);
    assert_eq!(get(&polls_2), Some(poll("new", 1, &[])));
}

#[test]
fn concurrent_updates_of_one_store_are_all_counted() {
    let (store, polls, _place) = in_memory(1);
    polls.put(&poll("a", 0, &[])).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    polls.update(&PollPrimaryKey(1), |poll| poll.votes += 1).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for time in 0..50 {
                let part = signed(9, time, Some(&poll("b", i64::try_from(time).unwrap(), &[])));
                let _ = store.replica().admit(key().as_bytes(), bundle(&[part]).as_bytes());
            }
        });
    });
    store.flush().unwrap();
    assert_eq!(get(&polls).unwrap().votes, 100 + 49);
}

#[test]
fn what_is_submitted_is_sent_alone_and_published_until_it_is_replaced() {
    let (store, polls, place) = in_memory(1);
    let later = || place.time.advance(Duration::from_secs(60));
    store
        .replica()
        .admit(key().as_bytes(), bundle(&[signed(9, 0, Some(&poll("b", 4, &[])))]).as_bytes())
        .unwrap();
    store.flush().unwrap();
    assert_eq!(store.replica().due(10).unwrap(), [], "others publish what they contribute");
    let record = EncodedRecord::of(&poll("a", 5, &[])).unwrap();
    let (submitted, envelope) = store.replica().submit(&record, |done| assert!(done.is_ok())).unwrap();
    store.flush().unwrap();
    assert_eq!((submitted, envelope.contributions().len()), (key(), 1));
    assert_eq!(envelope.author(), store.author());
    later();
    assert_eq!(store.replica().due(10).unwrap(), [key()]);
    // Later contributions of others do not unschedule it.
    store
        .replica()
        .admit(key().as_bytes(), bundle(&[signed(8, 1, Some(&poll("b", 4, &[])))]).as_bytes())
        .unwrap();
    store.replica().schedule(&key(), &envelope, Some(u64::MAX));
    store.flush().unwrap();
    assert_eq!(store.replica().due(10).unwrap(), [], "it was published");
    polls.update(&PollPrimaryKey(1), |poll| poll.votes += 1).unwrap();
    later();
    assert_eq!(store.replica().due(10).unwrap(), [key()]);
    store.replica().schedule(&key(), &envelope, None);
    store.flush().unwrap();
    assert_eq!(store.replica().due(10).unwrap(), [key()], "another version was published");
}

#[test]
fn what_is_no_good_bundle_is_refused() {
    let (store, _, _place) = in_memory(1);
    let good = poll("a", 1, &[]);
    let admit = |bytes: &[u8]| store.replica().admit(key().as_bytes(), bytes);
    // Not a bundle, and a bundle elsewhere.
    assert_eq!(admit(signed(8, 0, Some(&good)).as_bytes()), Err(Refusal::InvalidEnvelope));
    let open = RecordKey::new("Other", "Poll", &1_u32.to_key_bytes()).unwrap();
    let one = bundle(&[signed(8, 0, Some(&good))]);
    assert_eq!(store.replica().admit(open.as_bytes(), one.as_bytes()), Err(Refusal::InvalidEnvelope));
    // A merged payload that a peer has made up.
    let mut merged = one.as_bytes().to_vec();
    merged.splice(2..6, [0, 0, 0, 1, 7]);
    assert!(Envelope::parse(&merged).is_ok());
    assert_eq!(admit(&merged), Err(Refusal::InvalidEnvelope));
    // Of another key, of another model, from the future, forged, and too large for its share.
    let elsewhere = Poll { id: 2, ..good.clone() };
    assert_eq!(admit(bundle(&[signed(8, 0, Some(&elsewhere))]).as_bytes()), Err(Refusal::KeyMismatch));
    let nonsense = Envelope::sign(&identity(8), &key(), Timestamp::from_unix_millis(START), 0, Some(&[1, 1]));
    assert_eq!(admit(bundle(&[nonsense]).as_bytes()), Err(Refusal::InvalidValue));
    let early = signed(8, 3_600_000, Some(&good));
    assert_eq!(admit(bundle(&[early, signed(9, 0, Some(&good))]).as_bytes()), Err(Refusal::FutureTimestamp));
    let mut forged = one.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(admit(&forged), Err(Refusal::InvalidSignature));
    let tags: Vec<_> = (0..20).map(|tag| format!("{tag:01000}")).collect();
    let large = poll("large", 0, &tags.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(admit(bundle(&[signed(8, 0, Some(&large))]).as_bytes()), Err(Refusal::TooLarge));
    let refused = store.open_tree().unwrap().put(&large).unwrap_err();
    assert!(matches!(refused, StoreError::Write(WriteError::ContributionTooLarge { .. })), "{refused:?}");
    // A good one among bad ones does not count.
    assert_eq!(store.envelope(&key()).unwrap(), None);
    assert_eq!(admit(one.as_bytes()), Ok(true));
}

#[test]
fn only_contributions_that_are_news_are_verified() {
    let (store, _, _place) = in_memory(1);
    let (here, news) = (signed(8, 0, Some(&poll("a", 1, &[]))), signed(9, 0, Some(&poll("b", 1, &[]))));
    store.replica().admit(key().as_bytes(), bundle(std::slice::from_ref(&here)).as_bytes()).unwrap();
    assert_eq!(store.replica().admit(key().as_bytes(), bundle(&[here, news]).as_bytes()), Ok(true));
    store.flush().unwrap();
    assert_eq!(store.envelope(&key()).unwrap().unwrap().contributions().len(), 2);
}

#[test]
fn the_latest_authors_of_too_many_stay() {
    let (store, polls, _place) = in_memory(1);
    let count = u8::try_from(Envelope::MAX_CONTRIBUTIONS).unwrap() + 6;
    for seed in 2..2 + count {
        let part = signed(seed, seed.into(), Some(&poll("a", 1, &[])));
        store.replica().admit(key().as_bytes(), bundle(&[part]).as_bytes()).unwrap();
    }
    store.flush().unwrap();
    let envelope = store.envelope(&key()).unwrap().unwrap();
    assert_eq!(envelope.contributions().len(), Envelope::MAX_CONTRIBUTIONS);
    assert!(envelope.contribution_of(author(7)).is_none() && envelope.contribution_of(author(8)).is_some());
    assert_eq!(get(&polls).unwrap().votes, i64::try_from(Envelope::MAX_CONTRIBUTIONS).unwrap());
    let early = bundle(&[signed(2, 2, Some(&poll("a", 1, &[])))]);
    assert_eq!(store.replica().admit(key().as_bytes(), early.as_bytes()), Err(Refusal::Outdated));
    polls.update(&PollPrimaryKey(1), |poll| poll.votes += 1).unwrap();
    assert_eq!(store.envelope(&key()).unwrap().unwrap().contributions().len(), Envelope::MAX_CONTRIBUTIONS);
}

#[test]
fn a_store_without_a_schema_holds_bundles() {
    let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
    let store = NetabaseStore::open_with("unused", None, options).unwrap();
    let parts = [signed(8, 2, Some(&poll("a", 3, &["x"]))), signed(9, 3, Some(&poll("b", 4, &[])))];
    for part in &parts {
        assert_eq!(
            store.replica().admit(key().as_bytes(), bundle(std::slice::from_ref(part)).as_bytes()),
            Ok(true)
        );
    }
    store.flush().unwrap();
    assert_eq!(store.envelope(&key()).unwrap(), Some(bundle(&parts)));
    assert_eq!(key().policy(), WritePolicy::Merged);
    let checked = |part: &Envelope| {
        store.replica().check_record(&key(), bundle(std::slice::from_ref(part)).as_bytes()).unwrap()
    };
    assert_eq!(checked(&parts[0]).join(checked(&parts[1])).envelope(), &bundle(&parts));
}

/// A bundle in a bundle in a bundle, as deep as a value may be long.
#[test]
fn a_bundle_of_bundles_is_refused_however_deep_it_is() {
    let store = Place::new(StorageBackend::Memory).try_open::<PollDefinition>().unwrap();
    for levels in [1, 2, 80_000] {
        let mut nested = Vec::new();
        for level in (0..levels).rev() {
            nested.extend([0x02, 0, 0, 0, 0, 0, 0, 1]);
            nested.extend(u32::try_from(12 * level).unwrap().to_be_bytes());
        }
        assert_eq!(store.replica().admit(key().as_bytes(), &nested), Err(Refusal::InvalidEnvelope));
    }
}
