//! Models with every kind of secondary key.

use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
pub mod models {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// Plain, unique, optional, multi-valued, compound and computed keys.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key(name = "room_time", fields(room, sent_at))]
    #[secondary_key(name = "initial", type = Option<char>, with = Message::initial)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        #[secondary_key(unique)]
        pub slug: String,
        #[secondary_key]
        pub reply_to: Option<i64>,
        #[secondary_key]
        pub tags: Vec<String>,
        pub sent_at: i64,
    }

    impl Message {
        /// The first letter of the room.
        pub fn initial(&self) -> Option<char> {
            self.room.chars().next()
        }
    }

    /// Unique keys that are optional and multi-valued, and one that is not unique.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Account {
        #[primary_key]
        pub name: String,
        #[secondary_key(unique)]
        pub email: Option<String>,
        #[secondary_key(unique)]
        pub aliases: Vec<String>,
        #[secondary_key]
        pub city: String,
        pub visits: u64,
    }
}

pub use models::*;

pub fn account(name: &str, email: &str) -> Account {
    Account {
        name: name.into(),
        email: Some(email.into()),
        aliases: Vec::new(),
        city: "Paris".into(),
        visits: 0,
    }
}

pub fn message(id: u64, room: &str) -> Message {
    Message { id, room: room.into(), slug: format!("m{id}"), reply_to: None, tags: Vec::new(), sent_at: 0 }
}
