//! The records that are moved.

use netabase::{NetabaseDefinition, RecordKey, netabase_definition_module};

#[netabase_definition_module(BenchDefinition, BenchKeys)]
mod definition {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(BenchDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
pub(crate) use definition::{BenchDefinition, Message, MessagePrimaryKey};

/// The first of the ids that are used to warm up.
pub(super) const WARM_UP: u64 = 1 << 32;
const TEXT_BYTES: usize = 130;

/// Returns the record with this id; its payload has about 150 bytes.
pub(crate) fn message(id: u64) -> Message {
    let word = format!("{id:08x} ");
    let text = word.chars().cycle().take(TEXT_BYTES).collect();
    Message { id, room: format!("room-{}", id % 100), text }
}

/// Returns the bytes of a record's key and payload, for a system that knows no models.
pub(crate) fn encoded(id: u64) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let record = BenchDefinition::from(message(id)).encode()?;
    Ok((key(id)?.as_bytes().to_vec(), record.payload))
}

pub(crate) fn key(id: u64) -> anyhow::Result<RecordKey> {
    Ok(RecordKey::of(&MessagePrimaryKey(id))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_about_150_bytes() {
        for id in [0, 999, WARM_UP] {
            let (_, payload) = encoded(id).unwrap();
            assert!((140..160).contains(&payload.len()), "{}", payload.len());
        }
    }
}
