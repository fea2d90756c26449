use netabase_store::netabase_definition_module;

#[netabase_definition_module]
mod unnamed {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }
}

#[netabase_definition_module(ChatDefinition)]
mod without_keys {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }
}

#[netabase_definition_module(ChatDefinition, super::ChatKeys)]
mod with_path {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }
}

#[netabase_definition_module(ChatDefinition, ChatKeys, ChatEvents)]
mod with_three {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
    }
}

fn main() {}
