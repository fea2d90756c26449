use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, migrate_from = MessageV1)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = 0)]
    pub struct Zero {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = "2", version = 1, migrate_from = "MessageV1")]
    pub struct Text {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = 4294967296)]
    pub struct Large {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseVersion, Deserialize)]
    pub struct MessageV1 {
        pub id: u64,
    }

    #[derive(NetabaseVersion, Deserialize)]
    #[netabase(ChatDefinition, version = 1, migrate_from = MessageV1, name = "message")]
    pub struct MessageV2 {
        pub id: u64,
    }

    #[derive(NetabaseVersion, Deserialize)]
    #[netabase(version = 3)]
    pub struct MessageV3<T> {
        pub id: T,
    }
}

fn main() {}
