use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys, version = 2)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, nmae = "message", table("messages"))]
    pub struct Message {
        #[primary_key(auto)]
        pub id: String,
        #[secondary_key = "room"]
        pub room: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase = "ChatDefinition"]
    pub struct Room {
        #[primary_key]
        pub id: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, name = 7)]
    pub struct User {
        #[primary_key]
        pub id: String,
    }
}

fn main() {
    let _ = chat::ChatKeys::from(chat::MessagePrimaryKey("1".into()));
}
