use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key(name = "length", type = u64, with = Message::words)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        pub text: String,
    }

    impl Message {
        fn words(&self) -> Vec<String> {
            self.text.split(' ').map(str::to_owned).collect()
        }
    }
}

fn main() {}
