//! Random sequences of calls, compared with a `BTreeMap`; random deliveries, compared with each
//! other.

use netabase_store::{RecordKey, StorageBackend};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::common::model::*;
use crate::common::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn redb_is_a_map(calls in prop::collection::vec(a_call(), 0..40), signed: bool) {
        let place = if signed { Place::signed(StorageBackend::Redb) } else { Place::new(StorageBackend::Redb) };
        run(place, &calls)?;
    }

    #[test]
    fn sled_is_a_map(calls in prop::collection::vec(a_call(), 0..40), signed: bool) {
        let place = if signed { Place::signed(StorageBackend::Sled) } else { Place::new(StorageBackend::Sled) };
        run(place, &calls)?;
    }

    #[test]
    fn memory_is_a_map(calls in prop::collection::vec(a_call(), 0..60), signed: bool) {
        let place = if signed { Place::signed(StorageBackend::Memory) } else { Place::new(StorageBackend::Memory) };
        run(place, &calls)?;
    }

    #[test]
    fn stores_that_saw_the_same_versions_hold_the_same(
        versions in prop::collection::vec(a_version(), 1..16),
        orders in prop::array::uniform3(prop::collection::vec(any::<Index>(), 0..40)),
    ) {
        let backends = [StorageBackend::Memory, StorageBackend::Redb, StorageBackend::Sled];
        let places = backends.map(Place::new);
        let stores = places.each_ref().map(Place::open);
        for (store, order) in stores.iter().zip(&orders) {
            deliver(store, &versions, order);
        }
        let states = stores.each_ref().map(state);
        prop_assert_eq!(&states[0], &states[1]);
        prop_assert_eq!(&states[0], &states[2]);
        // And it is the winner of each record.
        for id in 0..3 {
            let key = RecordKey::of(&CustomerPrimaryKey(id)).unwrap();
            let of_key = versions.iter().filter(|(other, _)| *other == key);
            let winner = of_key.map(|(_, envelope)| envelope).max_by_key(|envelope| envelope.version());
            let held = stores[0].envelope(&key).unwrap();
            prop_assert_eq!(held.as_ref(), winner);
        }
    }
}
