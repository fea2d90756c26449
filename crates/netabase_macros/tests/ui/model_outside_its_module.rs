use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
use serde::{Deserialize, Serialize};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }
}

#[derive(NetabaseModel, Clone, Serialize, Deserialize)]
#[netabase(chat::ChatDefinition)]
pub struct Outside {
    #[primary_key]
    pub id: String,
}

// The rest of the program still compiles: no errors but the one.
fn main() {
    let store = NetabaseStore::temporary::<chat::ChatDefinition>().unwrap();
    let tree = store.open_tree::<Outside>().unwrap();
    tree.put(&Outside { id: "1".into() }).unwrap();
    let _ = tree.get(&OutsidePrimaryKey("1".into()));
}
