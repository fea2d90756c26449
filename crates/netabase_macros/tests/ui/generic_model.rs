use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Typed<T> {
        #[primary_key]
        pub id: String,
        pub value: T,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Borrowed<'a> {
        #[primary_key]
        pub id: &'a str,
    }

    #[derive(NetabaseModel, Clone)]
    #[netabase(ChatDefinition)]
    pub struct Sized<const N: usize> {
        #[primary_key]
        pub id: [u8; N],
    }
}

fn main() {}
