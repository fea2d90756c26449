use netabase_store::netabase_definition_module;

#[netabase_definition_module(LibraryDefinition, LibraryKeys)]
mod library {
    use netabase_store::{Blob, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    pub struct Text {
        #[primary_key]
        pub id: u64,
        #[blob]
        pub content: Vec<u8>,
        #[blob]
        pub cover: Option<Blob>,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    #[blob]
    pub struct Misplaced {
        #[primary_key]
        pub id: u64,
        #[blob(inline)]
        pub argument: Blob,
        #[blob]
        #[blob]
        pub twice: Blob,
        #[secondary_key]
        #[blob]
        pub key: Blob,
    }
}

fn main() {}
