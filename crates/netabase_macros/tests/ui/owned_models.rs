use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::{Author, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, owned)]
    pub struct NoOwner {
        #[primary_key]
        pub id: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, owned)]
    pub struct NotFirst {
        #[primary_key]
        pub id: u64,
        #[primary_key]
        pub author: Author,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, owned, owned)]
    pub struct Twice {
        #[primary_key]
        pub author: Author,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, owned = true)]
    pub struct Valued {
        #[primary_key]
        pub author: Author,
    }
}

fn main() {}
