use netabase::netabase_definition_module;

#[netabase_definition_module(ClubDefinition, ClubKeys)]
pub mod club {
    use netabase::{Blob, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ClubDefinition)]
    pub struct Event {
        #[primary_key]
        pub id: u64,
        pub title: String,
        pub guests: Vec<String>,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ClubDefinition)]
    pub struct Photo {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub event: u64,
        #[blob]
        pub file: Blob,
    }
}
use club::*;

fn settings(root: &str, path: &str) -> String {
    format!(
        "path = \"{path}\"\nnetwork = \"chess-club-of-zurich\"\nroot = \"{root}\"\n\
         listen = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns.enabled = false\n"
    )
}
