use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::{NetabaseKey, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        room: RoomId,
    }

    #[derive(NetabaseKey, Clone, Debug, Serialize, Deserialize)]
    struct RoomId(u32);
}

fn main() {}
