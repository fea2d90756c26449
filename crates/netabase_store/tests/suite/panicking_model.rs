//! Models whose own code panics on some bytes: it must stop neither the network nor the writer.

use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Envelope, NetabaseStore, RecordKey, Refusal, StorageBackend, Timestamp, netabase_definition_module,
};
use serde::{Deserialize, Deserializer};

use crate::common::{Place, START, identity};

/// The value with which decoding a lamp panics.
const UNLUCKY: u8 = 13;

fn panicking<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let brightness = u8::deserialize(deserializer)?;
    assert_ne!(brightness, UNLUCKY, "the model of this test panics");
    Ok(brightness)
}

#[netabase_definition_module(HouseDefinition, HouseKeys)]
mod house {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(HouseDefinition)]
    pub(crate) struct Lamp {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) room: String,
        #[serde(deserialize_with = "super::panicking")]
        pub(crate) brightness: u8,
    }
}

/// The definition of the same name in an earlier program, which keeps no index.
#[netabase_definition_module(EarlierDefinition, EarlierKeys, name = "HouseDefinition")]
mod earlier {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(EarlierDefinition)]
    pub(crate) struct Lamp {
        #[primary_key]
        pub(crate) id: u64,
        pub(crate) room: String,
        pub(crate) brightness: u8,
    }
}

use earlier::EarlierDefinition;
use house::{HouseDefinition, Lamp, LampPrimaryKey, LampRoomSecondaryKey};

fn lamp(id: u64, brightness: u8) -> Lamp {
    Lamp { id, room: "hall".into(), brightness }
}

fn open(place: &Place) -> NetabaseStore {
    place.try_open::<HouseDefinition>().unwrap()
}

fn in_hall(store: &NetabaseStore) -> Vec<u64> {
    let lamps = store.open_tree::<Lamp>().unwrap().find(LampRoomSecondaryKey("hall".into())).unwrap();
    lamps.into_iter().map(|lamp| lamp.id).collect()
}

#[test]
fn a_peers_value_that_the_model_panics_on_is_refused() {
    let store = open(&Place::signed(StorageBackend::Memory));
    let key = RecordKey::of(&LampPrimaryKey(1)).unwrap();
    let version = |brightness| {
        let payload = EncodedRecord::of(&lamp(1, brightness)).unwrap().payload;
        Envelope::sign(&identity(9), &key, Timestamp::from_unix_millis(START), 0, Some(&payload))
    };
    let unlucky = version(UNLUCKY);
    assert_eq!(store.replica().admit(key.as_bytes(), unlucky.as_bytes()), Err(Refusal::InvalidValue));
    assert_eq!(store.replica().check_record(&key, unlucky.as_bytes()).unwrap_err(), Refusal::InvalidValue);
    assert_eq!(store.replica().refusals(), [(Refusal::InvalidValue, 2)]);
    assert_eq!(store.replica().admit(key.as_bytes(), version(1).as_bytes()), Ok(true));
}

#[test]
fn a_record_that_the_model_panics_on_can_be_replaced_and_removed() {
    let store = open(&Place::signed(StorageBackend::Memory));
    let tree = store.open_tree::<Lamp>().unwrap();
    tree.put_many(&[lamp(1, UNLUCKY), lamp(2, UNLUCKY)]).unwrap();
    tree.put(&lamp(1, 1)).unwrap();
    assert!(tree.remove(&LampPrimaryKey(2)).unwrap());
    assert_eq!(tree.get(&LampPrimaryKey(1)).unwrap(), Some(lamp(1, 1)));
    assert_eq!(in_hall(&store), [1]);
}

#[test]
fn a_store_with_a_record_that_the_model_panics_on_can_be_opened() {
    let place = Place::signed(StorageBackend::Redb);
    let store = place.try_open::<EarlierDefinition>().unwrap();
    let earlier = |id, brightness| earlier::Lamp { id, room: "hall".into(), brightness };
    store.open_tree().unwrap().put_many(&[earlier(1, UNLUCKY), earlier(2, 2)]).unwrap();
    drop(store);
    assert_eq!(in_hall(&open(&place)), [2], "the others are indexed");
    let store = place.try_open::<EarlierDefinition>().unwrap();
    let tree = store.open_tree::<earlier::Lamp>().unwrap();
    assert_eq!(tree.get(&earlier::LampPrimaryKey(1)).unwrap(), Some(earlier(1, UNLUCKY)), "it was kept");
}
