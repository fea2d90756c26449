use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        pub id: String,
        #[secondary_key]
        pub room: String,
    }
}

// The rest of the program still compiles: no errors but the one.
fn main() {
    let key = chat::MessagePrimaryKey("1".into());
    let message = chat::Message { id: key.0.clone(), room: "lobby".into() };
    let _ = (chat::ChatKeys::from(key), chat::ChatDefinition::from(message));
    let _ = chat::MessageKey::from(chat::MessageRoomSecondaryKey("lobby".into()));
}
