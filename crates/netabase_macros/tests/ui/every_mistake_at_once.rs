use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys, name = "chat room")]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ShopDefinition, nmae = "message", name = "a/b")]
    pub struct Message<T> {
        pub id: T,
        #[secondary_key]
        #[secondary_key]
        pub room: String,
        #[secondary_key(uniqe)]
        pub author: String,
    }
}

fn main() {}
