//! Prints everything that happens while a record is put, changed and removed.
//!
//! `cargo run -p netabase --example events`
#![allow(clippy::disallowed_methods, reason = "an example uses clocks and tasks directly")]
#![allow(missing_docs, clippy::print_stdout, reason = "an example explains itself, and prints")]

use netabase::{
    EventError, Netabase, NetabaseConfig, NetabaseSwarmEvent, StoreOptions, netabase_definition_module,
};

#[netabase_definition_module(TodoDefinition, TodoKeys)]
pub mod todo {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(TodoDefinition)]
    pub struct Task {
        #[primary_key]
        pub id: u64,
        pub title: String,
        pub done: bool,
    }
}
use todo::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
    let netabase = Netabase::<TodoDefinition>::new_with_config(config)?;

    // A subscription may be made before the start, and goes on across restarts.
    let mut events = netabase.subscribe_to_broadcasts();
    let printer = tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(NetabaseSwarmEvent::Record(record)) => {
                    println!("{:?} from {:?}: {:?}", record.kind(), record.origin(), record.model::<Task>());
                }
                Ok(NetabaseSwarmEvent::Stopped) | Err(EventError::Closed) => break,
                Ok(event) => println!("{event:?}"),
                Err(EventError::Lagged { missed }) => println!("too slow: missed {missed} events"),
            }
        }
    });

    netabase.start_swarm().await?;
    netabase.put_record(Task { id: 1, title: "write an example".into(), done: false }).await?;
    netabase.put_record(Task { id: 1, title: "write an example".into(), done: true }).await?;
    netabase.remove_record(TaskPrimaryKey(1)).await?;
    netabase.stop_swarm().await?;
    printer.await?;
    Ok(())
}
