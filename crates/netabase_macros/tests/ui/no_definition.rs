use netabase_store::{NetabaseModel, netabase_definition_module};
use serde::{Deserialize, Serialize};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(name = "room")]
    pub struct Room {
        #[primary_key]
        pub id: String,
    }
}

#[derive(NetabaseModel, Clone, Serialize, Deserialize)]
pub struct Outside {
    #[primary_key]
    pub id: String,
}

fn main() {
    let _ = chat::ChatKeys::from(chat::MessagePrimaryKey("1".into()));
    let _ = OutsidePrimaryKey("1".into());
}
