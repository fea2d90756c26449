use std::collections::HashMap;

use netabase_store::{NetabaseKey, netabase_definition_module};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use std::collections::HashMap;

    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub struct RoomId(u32);

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: HashMap<String, u32>,
        #[secondary_key]
        pub room: RoomId,
    }
}

#[derive(NetabaseKey, Clone, Debug)]
enum Tag {
    Word(String),
    Words(HashMap<String, u32>),
}

fn main() {
    let _ = chat::ChatKeys::from(chat::MessagePrimaryKey(HashMap::new()));
    let _ = (Tag::Word(String::new()), Tag::Words(HashMap::new()));
}
