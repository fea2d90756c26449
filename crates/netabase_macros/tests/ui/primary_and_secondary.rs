use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        #[secondary_key]
        pub id: String,
    }
}

fn main() {
    let _ = chat::ChatKeys::from(chat::MessagePrimaryKey("1".into()));
}
