use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = 2, migrate_from = MessageV1)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseVersion, Deserialize)]
    #[netabase(version = 1)]
    pub struct MessageV1 {
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = 2, migrate_from = RoomV1)]
    pub struct Room {
        #[primary_key]
        pub id: u64,
    }

    pub struct RoomV1;

    impl From<RoomV1> for Room {
        fn from(_: RoomV1) -> Self {
            Self { id: 0 }
        }
    }
}

fn main() {}
