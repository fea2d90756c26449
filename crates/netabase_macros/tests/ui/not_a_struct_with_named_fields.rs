use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Tuple(#[primary_key] pub String);

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Unit;

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub enum Either {
        Left(String),
        Right(String),
    }

    #[derive(NetabaseModel, Clone, Copy)]
    #[netabase(ChatDefinition)]
    pub union Bits {
        pub number: u32,
        pub bytes: [u8; 4],
    }
}

fn main() {
    let _ = chat::ChatKeys::from(chat::TuplePrimaryKey("1".into()));
    let _ = chat::ChatDefinition::from(chat::Either::Left(String::new()));
}
