//! Every macro, in a crate that knows `netabase_store` as `db`.
#![deny(warnings, missing_docs)]

/// A definition.
#[db::netabase_definition_module(ChatDefinition, ChatKeys)]
pub mod chat {
    use db::{NetabaseKey, NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    /// A model with a compound key and a computed one.
    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = 2, migrate_from = MessageV1)]
    #[secondary_key(name = "place", fields(room, id))]
    #[secondary_key(name = "length", type = u64, with = Message::length)]
    pub struct Message {
        /// A primary key.
        #[primary_key]
        pub id: String,
        /// A secondary key.
        #[secondary_key]
        pub room: RoomId,
        /// A secondary key with several values.
        #[secondary_key]
        pub tags: Vec<String>,
    }

    impl Message {
        fn length(&self) -> u64 {
            u64::try_from(self.tags.len()).unwrap_or(u64::MAX)
        }
    }

    /// Its first version.
    #[derive(NetabaseVersion, Deserialize)]
    #[netabase(version = 1)]
    pub struct MessageV1 {
        /// The key.
        pub id: String,
    }

    impl From<MessageV1> for Message {
        fn from(MessageV1 { id }: MessageV1) -> Self {
            Self { id, room: RoomId(0), tags: Vec::new() }
        }
    }

    /// A key type.
    #[derive(NetabaseKey, Clone, Debug, Serialize, Deserialize)]
    pub struct RoomId(pub u32);
}

/// A query.
pub fn in_room(room: u32) -> db::Query<chat::Message, chat::MessageRoomSecondaryKey> {
    use chat::{MessageQuery, RoomId};
    db::Query::new().room(RoomId(room))
}
