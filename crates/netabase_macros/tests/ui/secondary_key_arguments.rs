use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key]
    #[secondary_key()]
    #[secondary_key(fields(room, sent_at))]
    #[secondary_key(name = "nothing")]
    #[secondary_key(name = "unknown", fields(room, sent))]
    #[secondary_key(name = "none", fields())]
    #[secondary_key(name = "single", fields(room))]
    #[secondary_key(name = "same", fields(room, room))]
    #[secondary_key(name = "long", fields(id, room, sent_at, text, author, slug, tags))]
    #[secondary_key(name = "both", fields(room, sent_at), type = String, with = domain)]
    #[secondary_key(name = "typed", type = String)]
    #[secondary_key(name = "computed", with = domain)]
    #[secondary_key(name = "room-time", fields(room, sent_at))]
    #[secondary_key(name = room_time, fields(room, sent_at))]
    #[secondary_key(name = "id", fields(room, sent_at))]
    #[secondary_key(name = "room", fields(room, sent_at))]
    #[secondary_key(name = "mine", fields(room, sent_at))]
    #[secondary_key(name = "mine", fields(sent_at, room))]
    #[secondary_key(name = "often", name = "often", unique, unique, fields(room, sent_at))]
    #[secondary_key(name = "options", sorted, order(down), length = 7, fields(room, sent_at))]
    #[secondary_key(name = "nested", type = Option<Vec<String>>, with = domain)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub sent_at: u64,
        pub text: String,
        #[secondary_key(unique, unique)]
        pub author: String,
        #[secondary_key(name = "short")]
        pub slug: String,
        #[secondary_key(fields(slug, tags))]
        pub tags: Vec<String>,
        #[secondary_key]
        pub twice: Option<Option<u64>>,
        #[secondary_key]
        pub several: Option<Vec<String>>,
        #[secondary_key]
        pub missing: Vec<Option<String>>,
    }
}

use chat::{Message, MessageQuery};
use netabase_store::Query;

fn main() {
    // What was meant is there, so that nothing here is reported.
    let _ = Query::<Message>::new().room("general").reverse();
}
