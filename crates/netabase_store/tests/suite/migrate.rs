//! Records of earlier model versions, rewritten in the present one.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::Duration;

use netabase_store::admin::{LeftReason, MigrationReport};
use netabase_store::schema::SchemaError;
use netabase_store::schema::{EncodedRecord, payload_version};
use netabase_store::{
    Envelope, NetabaseModel, NetabaseStore, RecordKey, SigningKey, StoreError, Timestamp, ValueError,
    netabase_definition_module,
};

use crate::common::*;

on_every_backend! {
    old_records_are_rewritten,
    a_migration_keeps_expiry_and_authorship,
    records_of_others_are_left_and_converted_when_read,
    a_migration_does_not_change_who_has_signed,
    what_cannot_be_converted_is_left_and_reported,
    a_concurrent_writer_wins,
    a_record_that_shares_a_unique_value_with_a_peers_is_rewritten,
    a_migration_that_was_stopped_goes_on,
    a_store_without_old_records_is_left_as_it_is,
}

/// The definition in an earlier program.
#[netabase_definition_module(EarlierDefinition, EarlierKeys, name = "NotesDefinition")]
mod earlier {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(EarlierDefinition)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u32,
        pub(crate) text: String,
    }
}

#[netabase_definition_module(NotesDefinition, NotesKeys)]
mod notes {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition, version = 2, migrate_from = NoteV1)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u32,
        #[secondary_key]
        pub(crate) text: String,
        #[secondary_key(unique)]
        pub(crate) number: Option<u32>,
    }

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct NoteV1 {
        id: u32,
        text: String,
    }

    impl TryFrom<NoteV1> for Note {
        type Error = &'static str;

        fn try_from(NoteV1 { id, text }: NoteV1) -> Result<Self, Self::Error> {
            super::on_conversion(id);
            match text.as_str() {
                "wrong" => Err("it is wrong"),
                "moved" => Ok(Self { id: id + 1000, text, number: None }),
                _ => Ok(Self { id, number: text.parse().ok(), text }),
            }
        }
    }
}

use notes::{Note, NotePrimaryKey, NoteTextSecondaryKey, NotesDefinition};

type Hook = Box<dyn FnOnce()>;

thread_local! {
    /// A callback for the next conversion of a note on this thread.
    static HOOK: RefCell<Option<(u32, Hook)>> = const { RefCell::new(None) };
}

/// Runs the hook of the note, once.
fn on_conversion(id: u32) {
    let hook = HOOK.with_borrow_mut(|hook| hook.take_if(|(of, _)| *of == id));
    if let Some((_, run)) = hook {
        run();
    }
}

fn old(id: u32, text: &str) -> earlier::Note {
    earlier::Note { id, text: text.into() }
}

fn note(id: u32, text: &str) -> Note {
    Note { id, text: text.into(), number: text.parse().ok() }
}

fn key(id: u32) -> RecordKey {
    RecordKey::of(&NotePrimaryKey(id)).unwrap()
}

fn signed(author: &SigningKey, note: &earlier::Note) -> Envelope {
    let payload = EncodedRecord::of(note).unwrap().payload;
    Envelope::sign(author, &key(note.id), Timestamp::from_unix_millis(START), 0, Some(&payload))
}

/// Opens a store in which an earlier program, with the same identity, has written `notes`.
///
/// `None` where there can be none: in memory, without an identity.
fn open_with(place: &Place, notes: &[earlier::Note]) -> Option<NetabaseStore> {
    if place.is_on_disk() {
        let store = place.try_open::<earlier::EarlierDefinition>().unwrap();
        store.open_tree().unwrap().put_many(notes).unwrap();
        drop(store);
        return Some(place.try_open::<NotesDefinition>().unwrap());
    }
    let author = place.options.identity.clone()?;
    let store = place.try_open::<NotesDefinition>().unwrap();
    admit(&store, notes.iter().map(|note| (note.id, signed(&author, note))));
    Some(store)
}

/// Takes records from a peer, and returns when they are written.
fn admit(store: &NetabaseStore, records: impl IntoIterator<Item = (u32, Envelope)>) {
    for (id, envelope) in records {
        assert!(store.replica().admit(key(id).as_bytes(), envelope.as_bytes()).unwrap());
    }
    store.flush().unwrap();
}

fn migrate(store: &NetabaseStore) -> MigrationReport {
    let report = store.migrate(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete);
    report
}

fn stored_version(store: &NetabaseStore, id: u32) -> u32 {
    payload_version(store.envelope(&key(id)).unwrap().unwrap().payload()).unwrap()
}

fn records<M: NetabaseModel>(store: &NetabaseStore) -> Vec<M> {
    store.open_tree().unwrap().iter().unwrap().map(Result::unwrap).collect()
}

fn old_records_are_rewritten(place: &Place) {
    let Some(store) = open_with(place, &[old(1, "a"), old(2, "b"), old(3, "17")]) else { return };
    let tree = store.open_tree::<Note>().unwrap();
    tree.put(&note(3, "c")).unwrap();
    let before = records::<Note>(&store);
    assert_eq!((stored_version(&store, 1), stored_version(&store, 3)), (1, 2));
    let mut seen = Vec::new();
    let report = store.migrate(|progress| {
        seen.push((progress.done, progress.total, progress.rewritten));
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert_eq!((report.rewritten, report.present, report.left.len()), (2, 1, 0));
    assert_eq!(seen, [(3, 3, 2)]);
    assert_eq!((stored_version(&store, 1), stored_version(&store, 2)), (2, 2));
    assert_eq!(records::<Note>(&store), before);
    assert_eq!(tree.find(NoteTextSecondaryKey("a".into())).unwrap(), [note(1, "a")]);
    let report = migrate(&store);
    assert_eq!((report.rewritten, report.present), (0, 3));
}

fn a_migration_keeps_expiry_and_authorship(place: &Place) {
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(Duration::from_secs(100));
    let Some(store) = open_with(&place, &[old(1, "a")]) else { return };
    let before = store.envelope(&key(1)).unwrap().unwrap();
    place.time.advance(Duration::from_secs(10));
    assert_eq!(migrate(&store).rewritten, 1);
    let after = store.envelope(&key(1)).unwrap().unwrap();
    assert_eq!((after.author(), after.expires()), (before.author(), before.expires()));
    if store.author().is_some() {
        assert!(after.timestamp() > before.timestamp());
        after.verify(&key(1)).unwrap();
    }
}

fn records_of_others_are_left_and_converted_when_read(place: &Place) {
    let store = place.try_open::<NotesDefinition>().unwrap();
    let theirs = signed(&identity(9), &old(1, "a"));
    admit(&store, [(1, theirs.clone())]);
    let report = migrate(&store);
    assert_eq!((report.rewritten, report.other_authors), (0, 1));
    assert_eq!(store.envelope(&key(1)).unwrap(), Some(theirs));
    assert_eq!(records::<Note>(&store), [note(1, "a")]);
}

fn a_migration_does_not_change_who_has_signed(place: &Place) {
    let Some(store) = open_with(place, &[old(1, "a")]) else { return };
    if !place.is_on_disk() {
        return;
    }
    let before = store.envelope(&key(1)).unwrap();
    drop(store);
    let mut options = place.options.clone();
    options.identity = if options.identity.is_some() { None } else { Some(identity(1)) };
    let schema = <NotesDefinition as netabase_store::NetabaseDefinition>::SCHEMA;
    let store = NetabaseStore::open_with(place.path(), Some(schema), options).unwrap();
    let report = migrate(&store);
    if store.author().is_some() {
        assert_eq!((report.rewritten, stored_version(&store, 1)), (1, 2));
        assert!(!store.envelope(&key(1)).unwrap().unwrap().is_signed());
    } else {
        assert_eq!((report.other_authors, store.envelope(&key(1)).unwrap()), (1, before));
    }
}

fn what_cannot_be_converted_is_left_and_reported(place: &Place) {
    let notes = [old(1, "wrong"), old(2, "moved"), old(3, "good")];
    let notes = if place.is_on_disk() { &notes[..] } else { &notes[2..] };
    let Some(store) = open_with(place, notes) else { return };
    let on_disk = u64::from(place.is_on_disk());
    let newer = Envelope::sign(&identity(9), &key(4), Timestamp::from_unix_millis(START), 0, Some(b"\x07x"));
    admit(&store, [(4, newer.clone())]);
    let report = migrate(&store);
    assert_eq!((report.rewritten, report.newer), (1, 1));
    assert_eq!((report.unreadable, report.key_changed, report.refused), (on_disk, on_disk, 0));
    let reasons: Vec<_> = report.left.iter().map(|left| &left.reason).collect();
    assert!(matches!(reasons.last().unwrap(), LeftReason::Newer { found: 7, known: 2 }), "{reasons:?}");
    if on_disk == 1 {
        let message = "it is wrong".to_owned();
        let expected = ValueError::Migration { from: 1, to: 2, message };
        assert!(matches!(reasons[0], LeftReason::Value(error) if *error == expected), "{reasons:?}");
        assert!(matches!(reasons[1], LeftReason::KeyChanged), "{reasons:?}");
        assert_eq!((stored_version(&store, 1), stored_version(&store, 2)), (1, 1));
    }
    assert_eq!(store.envelope(&key(4)).unwrap(), Some(newer));
}

fn a_concurrent_writer_wins(place: &Place) {
    let Some(store) = open_with(place, &[old(1, "a"), old(2, "b"), old(3, "c"), old(4, "d")]) else { return };
    let tree = store.open_tree::<Note>().unwrap();
    let change = move || {
        tree.put(&note(2, "changed")).unwrap();
        tree.remove(&NotePrimaryKey(3)).unwrap();
    };
    // The record has been read, and is written after this.
    HOOK.set(Some((3, Box::new(change))));
    let report = migrate(&store);
    assert!(HOOK.take().is_none(), "it was changed in between");
    assert_eq!(report.rewritten, 2, "{report:?}");
    assert_eq!(report.overtaken, 2, "{report:?}");
    assert_eq!(records::<Note>(&store), [note(1, "a"), note(2, "changed"), note(4, "d")]);
    assert_eq!(migrate(&store).present, 3);
}

fn a_record_that_shares_a_unique_value_with_a_peers_is_rewritten(place: &Place) {
    let notes: Vec<_> = (0..50).map(|id| old(id, if id == 40 { "7" } else { "x" })).collect();
    let Some(store) = open_with(place, &notes) else { return };
    // A peer's record is not asked whether its key is unique.
    admit(&store, [(99, signed(&identity(9), &old(99, "7")))]);
    let report = migrate(&store);
    // It keeps the value that it has.
    assert_eq!((report.rewritten, report.refused, report.other_authors), (50, 0, 1));
    assert_eq!((stored_version(&store, 40), stored_version(&store, 41)), (2, 2));
}

fn a_migration_that_was_stopped_goes_on(place: &Place) {
    let notes: Vec<_> = (0..1200).map(|id| old(id, "x")).collect();
    let Some(store) = open_with(place, &notes) else { return };
    let report = store.migrate(|_| ControlFlow::Break(())).unwrap();
    assert!(!report.complete);
    assert_eq!(report.rewritten, 1000);
    let report = migrate(&store);
    assert_eq!((report.rewritten, report.present), (200, 1000));
}

fn a_store_without_old_records_is_left_as_it_is(place: &Place) {
    let store = place.try_open::<NotesDefinition>().unwrap();
    assert_eq!(migrate(&store).present, 0);
    store.open_tree().unwrap().put(&note(1, "a")).unwrap();
    let (envelope, commits) = (store.envelope(&key(1)).unwrap(), store.counters().commits);
    assert_eq!(migrate(&store).present, 1);
    assert_eq!((store.envelope(&key(1)).unwrap(), store.counters().commits), (envelope, commits));
}

#[test]
fn a_store_without_a_schema_has_nothing_to_migrate() {
    let place = Place::new(netabase_store::StorageBackend::Memory);
    let store = NetabaseStore::open_with("", None, place.options).unwrap();
    assert!(matches!(
        store.migrate(|_| ControlFlow::Continue(())),
        Err(StoreError::Schema(SchemaError::Missing))
    ));
}
