//! Writes and reads while the collector looks at a blob.
#![allow(unreachable_pub, reason = "models of a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::blobs::Hold;
use crate::schema::EncodedRecord;
use crate::{Clock, NetabaseDefinition, NetabaseStore, SigningKey, StoreOptions};

#[crate::netabase_definition_module(GalleryDefinition, GalleryKeys)]
mod gallery {
    use netabase_store::{Blob, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(GalleryDefinition)]
    pub struct Picture {
        #[primary_key]
        pub id: u64,
        #[blob]
        pub file: Blob,
    }
}
use gallery::*;

/// So short that the writer does not look by itself before a test is over.
const GRACE: Duration = Duration::from_secs(10);

/// A store in a directory whose clock is turned by hand.
struct Turned {
    directory: TempDir,
    now: Arc<AtomicU64>,
}

impl Turned {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), now: Arc::new(AtomicU64::new(1_000_000_000)) }
    }

    fn open(&self) -> NetabaseStore {
        let now = Arc::clone(&self.now);
        let clock = Clock::from_fn(move || now.load(Ordering::Relaxed));
        let identity = Some(SigningKey::from_bytes(&[7; 32]));
        let options = StoreOptions { identity, clock, blob_grace: GRACE, ..StoreOptions::default() };
        let path = self.directory.path().join("database");
        let store = NetabaseStore::open_with(path, Some(GalleryDefinition::SCHEMA), options).unwrap();
        // The writer looks by itself after the first of them at the latest.
        for _ in 0..2 {
            store.blobs().collect().unwrap();
        }
        store
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(millis(time), Ordering::Relaxed);
    }
}

/// Lets `act` come between the look at a blob and what follows from it.
fn between(store: &NetabaseStore, act: impl FnOnce(&BlobHash) + Send + 'static) {
    *store.blobs().inner().looked.0.lock() = Some(Box::new(act));
}

#[test]
fn a_blob_that_is_added_again_while_it_is_to_go_stays() {
    let turned = Turned::new();
    let store = turned.open();
    let blob = store.blobs().add_bytes(b"again").unwrap();
    store.blobs().collect().unwrap();
    turned.pass(GRACE);
    between(&store, {
        let blobs = Arc::clone(store.blobs().inner());
        move |_| assert_eq!(blobs.add(&b"again"[..]).unwrap(), blob)
    });
    assert_eq!(store.blobs().collect().unwrap().deleted, 0);
    assert_eq!(store.blobs().read(&blob, 0..5).unwrap(), b"again");
    turned.pass(GRACE);
    assert_eq!(store.blobs().collect().unwrap().deleted, 1);
}

#[test]
fn a_blob_that_is_held_while_it_is_to_go_stays() {
    let turned = Turned::new();
    let store = turned.open();
    let blob = store.blobs().add_bytes(b"held").unwrap();
    store.blobs().collect().unwrap();
    turned.pass(GRACE);
    let (sender, holds) = std::sync::mpsc::sync_channel(1);
    between(&store, {
        let blobs = Arc::clone(store.blobs().inner());
        move |hash| sender.send(Hold::new(&blobs, *hash)).unwrap()
    });
    assert_eq!(store.blobs().collect().unwrap().deleted, 0);
    assert!(store.blobs().has(&blob));
    drop(holds.recv().unwrap());
    assert_eq!(store.blobs().collect().unwrap().unreferenced, 1);
}

#[test]
fn a_blob_that_is_named_while_it_is_looked_at_begins_anew() {
    let turned = Turned::new();
    let store = turned.open();
    let blob = store.blobs().add_bytes(b"named").unwrap();
    let (picture, (sender, written)) = (Picture { id: 1, file: blob }, std::sync::mpsc::sync_channel(1));
    between(&store, {
        let store = store.clone();
        // It is written when the writer goes on.
        move |_| {
            let record = EncodedRecord::of(&picture).unwrap();
            let written = move |written: Result<_, _>| sender.send(written.map(drop)).unwrap();
            drop(store.replica().submit(&record, written).unwrap());
        }
    });
    assert_eq!(store.blobs().collect().unwrap().unreferenced, 1);
    written.recv().unwrap().unwrap();
    let pictures = store.open_tree::<Picture>().unwrap();
    assert_eq!(store.blobs().references(&blob.hash, 2).unwrap().len(), 1);
    turned.pass(GRACE / 2);
    pictures.remove(&PicturePrimaryKey(1)).unwrap();
    turned.pass(GRACE / 2);
    assert_eq!(store.blobs().collect().unwrap().deleted, 0, "no record has named it for half of the time");
    turned.pass(GRACE);
    assert_eq!(store.blobs().collect().unwrap().deleted, 1);
}

#[test]
fn a_blob_that_was_added_again_is_kept_for_as_long_after_a_restart() {
    let turned = Turned::new();
    let store = turned.open();
    let blob = store.blobs().add_bytes(&vec![1; 50_000]).unwrap();
    store.blobs().collect().unwrap();
    turned.pass(GRACE);
    store.blobs().add_bytes(&vec![1; 50_000]).unwrap();
    drop(store);
    let store = turned.open();
    turned.pass(GRACE.saturating_sub(Duration::from_millis(1)));
    store.blobs().collect().unwrap();
    assert!(store.blobs().has(&blob));
    turned.pass(Duration::from_millis(1));
    store.blobs().collect().unwrap();
    assert!(!store.blobs().has(&blob));
}
