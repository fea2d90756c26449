use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys, name = "")]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, name = "a/b")]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, name = "room", name = "rooms")]
    pub struct Room {
        #[primary_key]
        pub id: String,
        #[secondary_key]
        pub _1: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct AMessageOfWhichTheNameIsLongerThanTheSixtyFourBytesThatRecordKeysHold {
        #[primary_key]
        pub id: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, name = "..")]
    pub struct Up {
        #[primary_key]
        pub id: String,
    }
}

fn main() {
    let _ = chat::ChatKeys::from(chat::MessagePrimaryKey("1".into()));
}
