//! The records that are kept alive.

use netabase::{RecordKey, netabase_definition_module};

#[netabase_definition_module(ChurnDefinition, ChurnKeys)]
mod definition {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChurnDefinition)]
    pub(crate) struct Entry {
        #[primary_key]
        pub id: u64,
        pub revision: u32,
        pub text: String,
    }
}
pub(super) use definition::{ChurnDefinition, Entry, EntryPrimaryKey};

const TEXT_BYTES: usize = 100;

/// Returns a revision of the record with this id; its payload has about 110 bytes.
pub(super) fn entry(id: u64, revision: u32) -> Entry {
    let word = format!("{id:x}.{revision} ");
    Entry { id, revision, text: word.chars().cycle().take(TEXT_BYTES).collect() }
}

pub(super) fn key(id: u64) -> anyhow::Result<RecordKey> {
    Ok(RecordKey::of(&EntryPrimaryKey(id))?)
}
