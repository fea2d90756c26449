use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use std::collections::HashSet;

    use netabase_store::{Author, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Rules {
        #[primary_key]
        #[merge(max)]
        pub id: u64,
        #[merge]
        pub nothing: u32,
        #[merge(sum)]
        pub unknown: u32,
        #[merge(max)]
        #[merge(min)]
        pub twice: u32,
        #[secondary_key(unique)]
        #[merge(lww)]
        pub unique: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, owned, merged)]
    pub struct OwnedAndMerged {
        #[primary_key]
        pub author: Author,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, owned)]
    pub struct OwnedWithRules {
        #[primary_key]
        pub author: Author,
        #[merge(counter)]
        pub votes: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Types {
        #[primary_key]
        pub id: u64,
        #[merge(counter)]
        pub votes: f64,
        #[merge(set)]
        pub tags: HashSet<String>,
        #[merge(max)]
        pub temperature: f32,
    }
}

fn main() {}
