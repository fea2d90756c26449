use netabase_store::{NetabaseStore, netabase_definition_module};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::Serialize;

    #[derive(NetabaseModel, Clone, Serialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
        #[secondary_key]
        pub room: String,
    }
}

// The rest of the program still compiles: no errors but the one.
fn main() {
    let store = NetabaseStore::temporary::<chat::ChatDefinition>().unwrap();
    let message = chat::Message { id: "1".into(), room: "lobby".into() };
    let tree = store.open_tree::<chat::Message>().unwrap();
    tree.put(&message).unwrap();
    let _ = tree.get(&chat::MessagePrimaryKey("1".into()));
    let _ = chat::ChatDefinition::from(message).clone();
}
