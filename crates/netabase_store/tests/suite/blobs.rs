//! Records that name blobs: the references, and the deletion of blobs without any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::blob::{BlobError, BlobHash, BlobStatus};
use netabase_store::export::ExportOptions;
use netabase_store::import::ImportOptions;
use netabase_store::{
    Blob, Clock, NetabaseDefinition, NetabaseStore, SigningKey, StorageBackend, StoreError, StoreOptions,
    WriteError, netabase_definition_module,
};
use proptest::prelude::*;

use crate::common::tables;

/// How long a blob stays that no record names.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// The most blobs that a record names.
const MAX_RECORD_BLOBS: usize = 1024;

#[netabase_definition_module(GalleryDefinition, GalleryKeys)]
mod gallery {
    use netabase_store::{Blob, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(GalleryDefinition)]
    pub struct Picture {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub title: String,
        #[blob]
        pub file: Blob,
        #[blob]
        pub thumbnail: Option<Blob>,
        #[blob]
        pub variants: Vec<Blob>,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(GalleryDefinition, merged)]
    pub struct Album {
        #[primary_key]
        pub name: String,
        #[blob]
        pub cover: Option<Blob>,
    }
}
use gallery::*;

/// A store whose clock is turned by hand.
struct Turned {
    store: NetabaseStore,
    now: Arc<AtomicU64>,
}

impl Turned {
    fn new(signed: bool) -> Self {
        let now = Arc::new(AtomicU64::new(1_000_000_000));
        let clock = Clock::from_fn({
            let now = Arc::clone(&now);
            move || now.load(Ordering::Relaxed)
        });
        let identity = signed.then(|| SigningKey::from_bytes(&[7; 32]));
        let options =
            StoreOptions { backend: StorageBackend::Memory, identity, clock, ..StoreOptions::default() };
        let store = NetabaseStore::open_with("", Some(GalleryDefinition::SCHEMA), options).unwrap();
        Self { store, now }
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Collects twice, with the grace period between.
    fn collect_after_grace(&self) {
        self.store.blobs().collect().unwrap();
        self.pass(GRACE);
        self.store.blobs().collect().unwrap();
    }
}

fn picture(id: u64, file: Blob) -> Picture {
    Picture { id, title: format!("picture {id}"), file, thumbnail: None, variants: Vec::new() }
}

#[test]
fn a_blob_is_kept_while_a_record_names_it_and_collected_after_a_grace_period() {
    for signed in [false, true] {
        let turned = Turned::new(signed);
        let (store, blobs) = (&turned.store, turned.store.blobs());
        let pictures = store.open_tree::<Picture>().unwrap();
        let (kept, unnamed) =
            (blobs.add_bytes(&vec![1; 50_000]).unwrap(), blobs.add_bytes(b"unnamed").unwrap());
        pictures.put(&picture(1, kept)).unwrap();
        assert_eq!(blobs.references(&kept.hash, 10).unwrap().len(), 1);
        blobs.collect().unwrap();
        turned.pass(GRACE.saturating_sub(Duration::from_millis(1)));
        blobs.collect().unwrap();
        assert!(blobs.has(&unnamed), "it was added less than the grace period ago");
        turned.pass(Duration::from_millis(1));
        blobs.collect().unwrap();
        assert!(blobs.has(&kept) && !blobs.has(&unnamed));
        assert!(matches!(blobs.read(&unnamed, 0..1), Err(BlobError::Missing { .. })));

        pictures.remove(&PicturePrimaryKey(1)).unwrap();
        assert!(blobs.references(&kept.hash, 10).unwrap().is_empty());
        blobs.collect().unwrap();
        assert!(blobs.has(&kept));
        turned.pass(GRACE / 2);
        // Named again in time, it begins anew, even if that was between two looks.
        pictures.put(&picture(2, kept)).unwrap();
        pictures.remove(&PicturePrimaryKey(2)).unwrap();
        turned.pass(GRACE / 2);
        blobs.collect().unwrap();
        assert!(blobs.has(&kept));
        pictures.put(&picture(2, kept)).unwrap();
        turned.collect_after_grace();
        assert!(blobs.has(&kept));
        pictures.remove(&PicturePrimaryKey(2)).unwrap();
        turned.collect_after_grace();
        assert!(!blobs.has(&kept));
    }
}

#[test]
fn a_blob_that_is_held_or_being_fetched_is_not_collected() {
    let (from, turned) = (Turned::new(false), Turned::new(false));
    let blobs = turned.store.blobs();
    let held = blobs.add_bytes(b"held").unwrap();
    let handle = blobs.hold(&held);
    let fetched = from.store.blobs().add_bytes(&vec![5; 40_000]).unwrap();
    let partial = blobs.partial(&fetched).unwrap();
    partial.write_slice(0..1, &from.store.blobs().slice(&fetched, 0..1).unwrap()).unwrap();
    turned.collect_after_grace();
    assert!(blobs.has(&held));
    assert_eq!(blobs.status(&fetched), BlobStatus::Partial { present: 16 * 1024 });
    drop((handle, partial));
    turned.collect_after_grace();
    assert!(!blobs.has(&held));
    assert_eq!(blobs.status(&fetched), BlobStatus::Absent, "a part that nobody names goes, too");
    assert_eq!(blobs.statistics().fetched_bytes, 0);
}

#[test]
fn a_part_that_nobody_fetches_any_more_goes_however_often_it_is_read() {
    let (from, turned) = (Turned::new(false), Turned::new(false));
    let blobs = turned.store.blobs();
    let fetched = from.store.blobs().add_bytes(&vec![5; 40 * 16 * 1024]).unwrap();
    let partial = blobs.partial(&fetched).unwrap();
    for group in [0, 8, 9, 39] {
        let slice = from.store.blobs().slice(&fetched, group..group + 1).unwrap();
        partial.write_slice(group..group + 1, &slice).unwrap();
    }
    drop(partial);
    blobs.collect().unwrap();
    for _ in 0..2 {
        assert_eq!(blobs.read(&fetched, 8 * 16 * 1024..10 * 16 * 1024).unwrap(), vec![5; 2 * 16 * 1024]);
        assert!(blobs.slice(&fetched, 39..40).is_ok() && blobs.slice(&fetched, 0..1).is_ok());
        for missing in [0..2, 7..9, 9..11, 1..2, 38..40] {
            let slice = blobs.slice(&fetched, missing);
            assert!(matches!(slice, Err(BlobError::Missing { .. })), "{slice:?}");
        }
        assert_eq!(blobs.status(&fetched), BlobStatus::Partial { present: 4 * 16 * 1024 });
        turned.pass(GRACE / 2);
    }
    blobs.collect().unwrap();
    assert_eq!(blobs.status(&fetched), BlobStatus::Absent);
}

#[test]
fn a_merged_record_names_the_blob_of_its_value() {
    let turned = Turned::new(true);
    let albums = turned.store.open_tree::<Album>().unwrap();
    let (first, second) = (Blob::of(b"first"), Blob::of(b"second"));
    albums.put(&Album { name: "a".into(), cover: Some(first) }).unwrap();
    albums.put(&Album { name: "a".into(), cover: Some(second) }).unwrap();
    let named = |blob: Blob| turned.store.blobs().references(&blob.hash, 10).unwrap().len();
    assert_eq!((named(first), named(second)), (0, 1));
    albums.put(&Album { name: "a".into(), cover: None }).unwrap();
    assert_eq!(named(second), 0);
}

#[test]
fn a_record_names_no_more_blobs_than_the_limit() {
    let turned = Turned::new(false);
    let mut many = picture(1, Blob::of(b"1"));
    many.variants = vec![Blob::of(b"2"); MAX_RECORD_BLOBS];
    let refused = turned.store.open_tree().unwrap().put(&many);
    assert!(
        matches!(refused, Err(StoreError::Write(WriteError::TooManyBlobs { count, limit: MAX_RECORD_BLOBS })) if count == MAX_RECORD_BLOBS + 1)
    );
}

/// An operation on the records.
#[derive(Debug, Clone)]
enum Step {
    Put {
        id: u64,
        file: u8,
        thumbnail: Option<u8>,
        variants: Vec<u8>,
    },
    Remove {
        id: u64,
    },
    /// Two at once, of which the second cannot be stored.
    Refused {
        id: u64,
        file: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..4_u64;
    let put = (id.clone(), 0..6_u8, prop::option::of(0..6_u8), prop::collection::vec(0..6_u8, 0..3))
        .prop_map(|(id, file, thumbnail, variants)| Step::Put { id, file, thumbnail, variants });
    let remove = id.clone().prop_map(|id| Step::Remove { id });
    let refused = (id, 0..6_u8).prop_map(|(id, file)| Step::Refused { id, file });
    prop::collection::vec(prop_oneof![4 => put, 2 => remove, 1 => refused], 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn references_are_those_of_the_records(steps in steps(), signed in any::<bool>()) {
        let turned = Turned::new(signed);
        let pictures = turned.store.open_tree::<Picture>().unwrap();
        let blob = |content: u8| Blob::of(&[content]);
        for step in steps {
            match step {
                Step::Put { id, file, thumbnail, variants } => {
                    let variants = variants.into_iter().map(blob).collect();
                    let thumbnail = thumbnail.map(blob);
                    pictures.put(&Picture { thumbnail, variants, ..picture(id, blob(file)) }).unwrap();
                }
                Step::Remove { id } => drop(pictures.remove(&PicturePrimaryKey(id)).unwrap()),
                Step::Refused { id, file } => {
                    let mut transaction = turned.store.begin_write();
                    transaction.put(&picture(id, blob(file))).unwrap();
                    drop(transaction);
                }
            }
        }
        for content in 0..6 {
            let hash = blob(content).hash;
            let names = |picture: &Picture| {
                let mut all = vec![picture.file];
                all.extend(picture.thumbnail);
                all.extend(&picture.variants);
                all.iter().any(|blob| blob.hash == hash)
            };
            let rows = pictures.iter().unwrap().map(Result::unwrap);
            let mut expected: Vec<u64> = rows.filter(names).map(|picture| picture.id).collect();
            expected.sort_unstable();
            let found = turned.store.blobs().references(&hash, 100).unwrap();
            let mut found: Vec<u64> =
                found.iter().map(|key| u64::from_be_bytes(key.primary_key().try_into().unwrap())).collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
        let report = turned.store.check(CheckOptions::default()).unwrap();
        prop_assert!(report.is_clean(), "{:?}", report.problems);
    }
}

#[test]
fn an_export_has_the_names_of_blobs_and_no_values() {
    let turned = Turned::new(false);
    let blob = turned.store.blobs().add_bytes(&vec![3; 100_000]).unwrap();
    turned.store.open_tree().unwrap().put(&picture(1, blob)).unwrap();
    let mut out = Vec::new();
    assert_eq!(turned.store.export_json(&mut out, ExportOptions::default()).unwrap().records, 1);
    let text = String::from_utf8(out.clone()).unwrap();
    assert!(text.contains(&format!("\"file\":{{\"hash\":\"{}\",\"size\":100000}}", blob.hash)), "{text}");
    assert!(out.len() < 2000);
    let other = Turned::new(false);
    assert_eq!(other.store.import_json(&out[..], ImportOptions::default()).unwrap().records, 1);
    assert_eq!(other.store.blobs().references(&blob.hash, 10).unwrap().len(), 1);
    assert!(!other.store.blobs().has(&blob));
}

#[test]
fn a_backup_of_blobs_has_every_whole_one_and_names_the_others() {
    let turned = Turned::new(false);
    let (blobs, directory) = (turned.store.blobs(), tempfile::tempdir().unwrap());
    let (here, missing) = (blobs.add_bytes(&vec![3; 100_000]).unwrap(), Blob::of(b"elsewhere"));
    let pictures = turned.store.open_tree().unwrap();
    pictures.put(&Picture { thumbnail: Some(missing), ..picture(1, here) }).unwrap();
    let (database, path) = (directory.path().join("books.redb"), directory.path().join("books.redb.blobs"));
    turned.store.backup(&database).unwrap();
    let report = blobs.backup(&path).unwrap();
    assert_eq!((report.copied, report.bytes, report.total_missing), (1, 100_000, 1));
    assert_eq!(report.missing, [missing.hash]);
    assert_eq!(blobs.backup(&path).unwrap().kept, 1, "it is there already");
    let again = NetabaseStore::open::<GalleryDefinition>(&database).unwrap();
    assert_eq!(again.blobs().read(&here, 5..8).unwrap(), [3; 3]);
    assert_eq!(again.blobs().references(&here.hash, 10).unwrap().len(), 1);
}

#[test]
fn blobs_are_beside_the_database_and_their_directory_comes_with_the_first() {
    let directory = tempfile::tempdir().unwrap();
    for backend in [StorageBackend::Redb, StorageBackend::Sled] {
        let path = directory.path().join(format!("database.{backend}"));
        let open = || {
            let options = StoreOptions { backend, ..StoreOptions::default() };
            NetabaseStore::open_with(&path, Some(GalleryDefinition::SCHEMA), options).unwrap()
        };
        let beside = directory.path().join(format!("database.{backend}.blobs"));
        let store = open();
        assert!(!beside.exists());
        let blob = store.blobs().add_file(std::env::current_exe().unwrap()).unwrap();
        assert!(beside.join("added").join(blob.hash.to_string()).exists());
        drop(store);
        let store = open();
        store.blobs().verify(&blob).unwrap();
        assert_eq!(store.blobs().whole_after(None, 10), [blob]);
        assert!(store.blobs().remove(&blob.hash).unwrap());
        assert_eq!(store.blobs().status(&blob), BlobStatus::Absent);
    }
}

#[test]
fn a_model_that_begins_to_name_blobs_has_its_references_made() {
    #[netabase_definition_module(GalleryDefinition, GalleryKeys)]
    mod before {
        use netabase_store::{Blob, NetabaseModel};
        use serde::{Deserialize, Serialize};

        #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
        #[netabase(GalleryDefinition)]
        pub struct Album {
            #[primary_key]
            pub name: String,
            pub cover: Option<Blob>,
        }
    }
    #[netabase_definition_module(GalleryDefinition, GalleryKeys)]
    mod after {
        use netabase_store::{Blob, NetabaseModel};
        use serde::{Deserialize, Serialize};

        #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
        #[netabase(GalleryDefinition)]
        pub struct Album {
            #[primary_key]
            pub name: String,
            #[blob]
            pub cover: Option<Blob>,
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let cover = Blob::of(b"cover");
    let store = NetabaseStore::open::<before::GalleryDefinition>(&path).unwrap();
    store.open_tree().unwrap().put(&before::Album { name: "a".into(), cover: Some(cover) }).unwrap();
    let named = |store: &NetabaseStore| store.blobs().references(&cover.hash, 10).unwrap().len();
    assert_eq!(named(&store), 0);
    drop(store);
    let store = NetabaseStore::open::<after::GalleryDefinition>(&path).unwrap();
    assert_eq!(named(&store), 1);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    drop(store);
    // And when it stops to.
    let store = NetabaseStore::open::<before::GalleryDefinition>(&path).unwrap();
    assert_eq!(named(&store), 0);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn text_that_is_no_hash_is_refused() {
    assert!("".parse::<BlobHash>().is_err());
    assert!("zz".repeat(32).parse::<BlobHash>().is_err());
    assert_eq!("ab".repeat(32).parse(), Ok(BlobHash::from_bytes([0xab; 32])));
}

#[test]
fn a_problem_with_a_reference_says_what_to_do() {
    let key = netabase_store::RecordKey::new("Def", "Model", b"1").unwrap();
    let hash = Blob::of(b"1").hash;
    let problem = Problem::MissingBlobReference { key, hash };
    assert!(problem.is_fault() && problem.to_string().ends_with("repair the database"));
}

/// Changes an entry of the database of a store that is closed.
fn set(path: &std::path::Path, table: &str, key: &[u8], value: Option<&[u8]>) {
    tables::set(StorageBackend::Redb, path, table, key, value);
}

#[test]
fn references_that_are_wrong_are_found_and_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let open = || NetabaseStore::open::<GalleryDefinition>(&path).unwrap();
    let (named, unnamed) = (Blob::of(b"named").hash, Blob::of(b"unnamed").hash);
    open().open_tree().unwrap().put(&picture(1, Blob::of(b"named"))).unwrap();
    let key = open().blobs().references(&named, 1).unwrap().remove(0);
    let entry = |hash: &BlobHash| [&hash.as_bytes()[..], key.as_bytes()].concat();
    set(&path, "blobs", &entry(&named), None);
    set(&path, "blobs", &entry(&unnamed), Some(&[0, 32]));
    set(&path, "blobs", b"no reference at all", Some(&[]));
    let store = open();
    let report = store.check(CheckOptions::default()).unwrap();
    let missing = Problem::MissingBlobReference { key: key.clone(), hash: named };
    let superfluous = Problem::SuperfluousBlobReference { key: key.clone(), hash: unnamed };
    assert!(report.problems.contains(&missing) && report.problems.contains(&superfluous), "{report:?}");
    assert_eq!(report.faults, 3);
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.repaired.len(), 3);
    assert_eq!(store.blobs().references(&named, 10).unwrap(), [key]);
    assert!(store.blobs().references(&unnamed, 10).unwrap().is_empty());
}

#[test]
fn a_database_of_format_3_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let open = || NetabaseStore::open::<GalleryDefinition>(&path).unwrap();
    open().open_tree().unwrap().put(&picture(1, Blob::of(b"named"))).unwrap();
    set(&path, "meta", b"format", Some(&3_u32.to_be_bytes()));
    let report = open().check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
}
