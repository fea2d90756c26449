use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::{FieldType, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        pub name: String,
        pub pieces: Vec<Piece>,
    }

    #[derive(FieldType, Clone, Serialize, Deserialize)]
    pub struct Piece {
        pub pieces: u8,
        pub name: u8,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Renamed {
        #[primary_key]
        pub id: u64,
        #[serde(alias = "title")]
        pub name: String,
        pub pieces: u8,
    }
}

fn main() {}
