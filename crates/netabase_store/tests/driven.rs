//! The random calls of `model_based`, with the writer driven by its callers and a clock that moves
//! only when it is told. It is alone in its program, whose threads it counts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")]

#[path = "suite/common/mod.rs"]
mod common;

use common::model::*;
use common::*;
use netabase_store::StorageBackend;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestCaseResult, TestRunner};

/// Returns how many threads this program has, where the system tells.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// A driven place; sled is left out, which has threads of its own.
fn a_place() -> impl Strategy<Value = (StorageBackend, bool)> {
    (prop::sample::select(vec![StorageBackend::Redb, StorageBackend::Memory]), any::<bool>())
}

fn place((backend, is_signed): (StorageBackend, bool)) -> Place {
    if is_signed { Place::signed(backend).driven() } else { Place::new(backend).driven() }
}

/// Two stores that were given the same versions in different orders hold the same.
fn agree(
    versions: &[(netabase_store::RecordKey, netabase_store::Envelope)],
    orders: &[Vec<Index>; 2],
) -> TestCaseResult {
    let places = [StorageBackend::Memory, StorageBackend::Redb].map(|backend| Place::new(backend).driven());
    let stores = places.each_ref().map(Place::open);
    for (store, order) in stores.iter().zip(orders) {
        deliver(store, versions, order);
    }
    let states = stores.each_ref().map(state);
    prop_assert_eq!(&states[0], &states[1]);
    Ok(())
}

#[test]
fn a_driven_store_is_a_map_and_starts_no_thread() {
    let before = threads();
    // It would be seen.
    let (end, ended) = std::sync::mpsc::sync_channel::<()>(0);
    let other = std::thread::spawn(move || ended.recv());
    assert_eq!(threads(), before.map(|before| before + 1));
    drop(end);
    let _ = other.join().unwrap();
    // The system may still have it for a moment.
    while threads() != before {
        std::thread::yield_now();
    }
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    let calls = (prop::collection::vec(a_call(), 0..40), a_place());
    let run_calls = |(calls, of): (Vec<Call>, _)| {
        run(place(of), &calls)?;
        prop_assert_eq!(threads(), before);
        Ok(())
    };
    TestRunner::new(config.clone()).run(&calls, run_calls).unwrap();
    let orders = prop::array::uniform2(prop::collection::vec(any::<Index>(), 0..40));
    let deliveries = (prop::collection::vec(a_version(), 1..16), orders);
    let run_deliveries = |(versions, orders): (Vec<_>, _)| {
        agree(&versions, &orders)?;
        prop_assert_eq!(threads(), before);
        Ok(())
    };
    TestRunner::new(config).run(&deliveries, run_deliveries).unwrap();
}
