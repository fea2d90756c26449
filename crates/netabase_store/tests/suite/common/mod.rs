//! Models, places for stores, time and callbacks that the tests share.
#![allow(dead_code, unused_macros, unused_imports, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "every test file is a crate of its own")]
#![allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")]

pub mod chat;
pub mod disk;
pub mod model;
pub mod tables;
pub mod vectors;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netabase_store::changes::StoreEvent;
use netabase_store::{
    Change, Clock, NetabaseDefinition, NetabaseStore, SigningKey, StorageBackend, StoreError, StoreOptions,
    WriterMode, netabase_definition_module,
};
use tempfile::TempDir;

/// When the tests begin, in milliseconds since the Unix epoch.
pub const START: u64 = 1_700_000_000_000;
/// How long a test waits for an event that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[netabase_definition_module(ShopDefinition, ShopKeys)]
pub mod shop {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// A signed primary key and two secondary keys, one of them optional.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[netabase(ShopDefinition)]
    pub struct Customer {
        #[primary_key]
        pub id: i64,
        #[secondary_key]
        pub name: String,
        #[secondary_key]
        pub city: Option<String>,
        pub notes: String,
    }

    /// A compound key and no secondary keys.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[netabase(ShopDefinition)]
    pub struct Visit {
        #[primary_key]
        pub page: String,
        #[primary_key]
        pub number: u32,
        pub seconds: u32,
    }

    /// The same primary key type as a customer's.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[netabase(ShopDefinition)]
    pub struct Order {
        #[primary_key]
        pub id: i64,
        #[secondary_key]
        pub customer: i64,
        pub cents: u64,
    }
}

pub use shop::*;

pub fn customer(id: i64, name: &str) -> Customer {
    Customer { id, name: name.into(), city: None, notes: String::new() }
}

pub fn visit(page: &str, number: u32) -> Visit {
    Visit { page: page.into(), number, seconds: 1 }
}

pub fn order(id: i64, customer: i64) -> Order {
    Order { id, customer, cents: 100 }
}

pub fn identity(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A clock that stands still until it is told.
#[derive(Clone)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn advance(&self, duration: Duration) {
        self.0.fetch_add(duration.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    pub fn set_back(&self, duration: Duration) {
        self.0.fetch_sub(duration.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::from_fn(move || time.now())
    }
}

/// Where the stores of one test are, and how they are opened.
pub struct Place {
    directory: TempDir,
    pub time: Time,
    pub options: StoreOptions,
}

impl Place {
    pub fn new(backend: StorageBackend) -> Self {
        let time = Time::new();
        let options = StoreOptions { backend, clock: time.clock(), ..StoreOptions::default() };
        Self { directory: TempDir::new().unwrap(), time, options }
    }

    pub fn signed(backend: StorageBackend) -> Self {
        let mut place = Self::new(backend);
        place.options.identity = Some(identity(1));
        place
    }

    /// Has the writer driven by its callers, by a clock of which nothing moves before it is told.
    pub fn driven(mut self) -> Self {
        let time = self.time.clone();
        let clock = self.time.clock().with_monotonic(move || Duration::from_millis(time.now()));
        self.options = StoreOptions { clock, writer: WriterMode::Driven, ..self.options };
        self
    }

    /// Another place, with the same options, whose time begins anew.
    pub fn elsewhere(&self) -> Self {
        let time = Time::new();
        let options = StoreOptions { clock: time.clock(), ..self.options.clone() };
        Self { directory: TempDir::new().unwrap(), time, options }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub fn open(&self) -> NetabaseStore {
        self.try_open::<ShopDefinition>().unwrap()
    }

    pub fn try_open<D: NetabaseDefinition>(&self) -> Result<NetabaseStore, StoreError> {
        NetabaseStore::open_with(self.path(), Some(D::SCHEMA), self.options.clone())
    }

    pub fn is_on_disk(&self) -> bool {
        self.options.backend != StorageBackend::Memory
    }

    pub fn has_snapshots(&self) -> bool {
        self.options.backend != StorageBackend::Sled
    }
}

/// Opens a sled directory that a store has just closed: sled's own threads may still hold its lock.
pub fn open_sled(path: &std::path::Path) -> sled::Db {
    let begin = std::time::Instant::now();
    loop {
        match sled::open(path) {
            Err(sled::Error::Io(_)) if begin.elapsed() < PATIENCE => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Runs each test on every backend, with and without an identity.
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        on_every_backend! { @each [$($test)*]
            redb = $crate::common::Place::new(netabase_store::StorageBackend::Redb);
            redb_signed = $crate::common::Place::signed(netabase_store::StorageBackend::Redb);
            sled = $crate::common::Place::new(netabase_store::StorageBackend::Sled);
            sled_signed = $crate::common::Place::signed(netabase_store::StorageBackend::Sled);
            memory = $crate::common::Place::new(netabase_store::StorageBackend::Memory);
            memory_signed = $crate::common::Place::signed(netabase_store::StorageBackend::Memory);
        }
    };
    (@each $tests:tt $($module:ident = $place:expr;)*) => {
        $(on_every_backend! { @module $module $place; $tests })*
    };
    (@module $module:ident $place:expr; [$($test:ident)*]) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::$test(&$place);
            })*
        }
    };
}
pub(crate) use on_every_backend;

/// Sends every event of `store` to the receiver; the store never waits for it.
pub fn events(store: &NetabaseStore) -> Receiver<StoreEvent> {
    let (sender, receiver) = sync_channel(100_000);
    store.set_observer(move |event| {
        let _ = sender.try_send(event);
    });
    receiver
}

/// Waits for the next change; fails on a refusal.
pub fn next_change(events: &Receiver<StoreEvent>) -> Change {
    match events.recv_timeout(PATIENCE).unwrap() {
        StoreEvent::Changed(change) => change,
        event @ StoreEvent::Refused { .. } => panic!("{event:?}"),
    }
}

/// Holds up the writer of a store inside its observer, at the first change.
pub struct HeldWriter {
    release: std::sync::mpsc::SyncSender<()>,
}

impl HeldWriter {
    /// Returns once the writer is held: `write` must cause a change, and must not wait for it.
    pub fn hold(store: &NetabaseStore, write: impl FnOnce(&NetabaseStore)) -> Self {
        let (held, is_held) = sync_channel(1);
        let (release, released) = sync_channel(1);
        let released = Mutex::new(Some(released));
        store.set_observer(move |event| {
            if matches!(event, StoreEvent::Changed(_))
                && let Some(released) = released.lock().unwrap().take()
            {
                held.send(()).unwrap();
                let _ = released.recv();
            }
        });
        write(store);
        is_held.recv_timeout(PATIENCE).unwrap();
        Self { release }
    }

    pub fn release(self) {
        self.release.send(()).unwrap();
    }
}
