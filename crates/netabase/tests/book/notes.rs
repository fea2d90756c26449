// The models of docs/start.md, as they stand there, for its other blocks.
use netabase::netabase_definition_module;

#[netabase_definition_module(NotesDefinition, NotesKeys)]
mod notes {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition)]
    pub struct Note {
        #[primary_key]
        pub title: String,
        #[secondary_key]
        pub author: String,
        pub text: String,
    }
}
use notes::*;
