use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key]
    pub struct Message {
        #[primary_key]
        #[primary_key]
        pub id: String,
        #[netabase(name = "room")]
        pub room: String,
    }
}

fn main() {}
