//! The README's quick start: declares a model, starts a node, puts a record and finds it.
//!
//! `cargo run -p netabase --example quickstart`
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::print_stdout,
    reason = "as a user writes it, who has other lints"
)]

use netabase::{Netabase, NetabaseError, netabase_definition_module};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
use chat::*;

#[tokio::main]
async fn main() -> Result<(), NetabaseError> {
    let netabase = Netabase::<ChatDefinition>::new_with_path("chat.redb")?;
    netabase.start_swarm().await?;

    let message = Message { id: "42".into(), room: "general".into(), text: "hello".into() };
    let outcome = netabase.put_record(message).await?;
    println!("stored here and at {} peers", outcome.accepted.len());

    // By primary key: from this disk, or from another peer.
    let found = netabase.get_record(MessagePrimaryKey("42".into())).await?;
    println!("found {found:?}");

    // By secondary key, in the local store.
    let messages = netabase.store().open_tree::<Message>()?;
    let general = messages.find(MessageRoomSecondaryKey("general".into()))?;
    println!("{} in general", general.len());

    netabase.stop_swarm().await
}
