//! Declares a model, starts a node, puts a record and reads it back.
//!
//! `cargo run -p netabase --example quickstart`
#![allow(missing_docs, clippy::print_stdout, reason = "an example explains itself, and prints")]

use netabase::{Netabase, NetabaseError, netabase_definition_module};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
pub mod chat {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
        #[secondary_key]
        pub room: String,
        pub author: String,
        pub text: String,
    }
}
use chat::*;

#[tokio::main]
async fn main() -> Result<(), NetabaseError> {
    let path = std::env::temp_dir().join("netabase-quickstart.redb");
    let netabase = Netabase::<ChatDefinition>::new_with_path(path)?;
    netabase.start_swarm().await?;

    let message =
        Message { id: "42".into(), room: "general".into(), author: "ada".into(), text: "hello".into() };
    let outcome = netabase.put_record(message).await?;
    println!("stored here and at {} peers", outcome.accepted.len());

    let found = netabase.get_record(MessagePrimaryKey("42".into())).await?;
    println!("found {found:?}");

    netabase.stop_swarm().await
}
