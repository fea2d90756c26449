use netabase_store::{Query, netabase_definition_module, prefix};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key(name = "room_time", fields(room, sent_at))]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub sent_at: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Room {
        #[primary_key]
        pub name: String,
    }
}

use chat::*;

fn main() {
    let messages = || Query::<Message>::new();
    // Two keys.
    messages().room("general").room_time(("general", 5..));
    // Keys of another type.
    messages().room(7);
    messages().id("7");
    messages().id(prefix("7"));
    messages().room_time("general");
    // A range before the last part.
    messages().room_time(("a".."b", 5));
    // The key of another model.
    messages().name("general");
    messages().id(RoomPrimaryKey("general".into()));
}
