//! Every macro, in a crate that knows `netabase_store` as `db`.
#![deny(warnings, missing_docs)]

/// A definition.
#[db::netabase_definition_module(ChatDefinition, ChatKeys)]
pub mod chat {
    use db::{NetabaseKey, NetabaseModel};
    use serde::{Deserialize, Serialize};

    /// A model.
    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        /// A primary key.
        #[primary_key]
        pub id: String,
        /// A secondary key.
        #[secondary_key]
        pub room: RoomId,
    }

    /// A key type.
    #[derive(NetabaseKey, Clone, Debug, Serialize, Deserialize)]
    pub struct RoomId(pub u32);
}
