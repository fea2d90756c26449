//! The records that are written, joined and looked for.

use std::ops::Range;
use std::path::Path;

use anyhow::ensure;
use netabase_store::{
    Clock, Durability, Envelope, NetabaseDefinition, NetabaseStore, RecordKey, SigningKey, StoreOptions,
    Timestamp, netabase_definition_module,
};

#[netabase_definition_module(SyncDefinition, SyncKeys)]
mod definition {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(SyncDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
pub(super) use definition::{Message, MessageQuery, SyncDefinition};

/// How many rooms there are.
pub(super) const ROOMS: u64 = 100;
const TEXT_BYTES: usize = 85;
/// How many records are written in a transaction.
pub(super) const BATCH: u64 = 1000;

/// Returns the record with this id; its payload has about 100 bytes.
pub(super) fn message(id: u64) -> Message {
    let text = format!("{id:08x} ").chars().cycle().take(TEXT_BYTES).collect();
    Message { id, room: room(id), text }
}

pub(super) fn room(id: u64) -> String {
    format!("room-{}", id % ROOMS)
}

/// Signs a record as another author would have, at a time.
pub(super) fn signed(id: u64, author: &SigningKey, at: Timestamp) -> anyhow::Result<(RecordKey, Envelope)> {
    let encoded = SyncDefinition::from(message(id)).encode()?;
    let key = encoded.model.record_key(SyncDefinition::SCHEMA.name, &encoded.keys.primary)?;
    let envelope = Envelope::sign(author, &key, at, 0, Some(&encoded.payload));
    Ok((key, envelope))
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_unix_millis(Clock::default().unix_millis())
}

/// Opens or creates a store in a directory; what it is given to write, it signs.
pub(super) fn open(directory: &Path, durability: Durability) -> anyhow::Result<NetabaseStore> {
    const AUTHOR: [u8; 32] = [7; 32];
    let identity = Some(SigningKey::from_bytes(&AUTHOR));
    let options = StoreOptions { identity, durability, ..StoreOptions::default() };
    Ok(NetabaseStore::open_with(directory.join("sync.redb"), Some(SyncDefinition::SCHEMA), options)?)
}

/// Writes the records with these ids, [`BATCH`] to a transaction.
pub(super) fn fill(store: &NetabaseStore, ids: Range<u64>) -> anyhow::Result<()> {
    let tree = store.open_tree::<Message>()?;
    let mut next = ids.start;
    while next < ids.end {
        let end = next.saturating_add(BATCH).min(ids.end);
        let batch: Vec<Message> = (next..end).map(message).collect();
        tree.put_many(&batch)?;
        next = end;
    }
    Ok(())
}

/// Reads every record; fails unless they are those with the ids below `records`, as they were
/// written.
pub(super) fn check(store: &NetabaseStore, records: u64) -> anyhow::Result<()> {
    let mut count = 0;
    for found in store.open_tree::<Message>()?.iter()? {
        let found = found?;
        ensure!(found.id < records && found == message(found.id), "{found:?} was never written");
        count += 1;
    }
    ensure!(count == records, "{count} of {records} records can be read");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_about_a_hundred_bytes() {
        let author = SigningKey::from_bytes(&[1; 32]);
        for id in [0, 99_999] {
            let (key, envelope) = signed(id, &author, now()).unwrap();
            envelope.verify(&key).unwrap();
            assert!((92..108).contains(&envelope.payload().len()), "{}", envelope.payload().len());
        }
    }

    #[test]
    fn a_missing_record_is_noticed() {
        let store = NetabaseStore::in_memory::<SyncDefinition>().unwrap();
        fill(&store, 0..2500).unwrap();
        check(&store, 2500).unwrap();
        assert!(check(&store, 2501).is_err());
        assert!(check(&store, 2499).is_err());
    }
}
