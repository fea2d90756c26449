use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition, version = 2, migrate_from = MessageV2)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseVersion, Deserialize)]
    #[netabase(version = 2)]
    pub struct MessageV2 {
        pub id: u64,
    }

    impl From<MessageV2> for Message {
        fn from(old: MessageV2) -> Self {
            Self { id: old.id }
        }
    }
}

fn main() {}
