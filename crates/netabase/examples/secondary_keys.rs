//! Finds records by secondary keys, and writes to two models in one transaction. No network.
//!
//! `cargo run -p netabase --example secondary_keys`
#![allow(missing_docs, clippy::print_stdout, reason = "an example explains itself, and prints")]

use netabase::{Netabase, NetabaseConfig, NetabaseError, StoreOptions, netabase_definition_module};

#[netabase_definition_module(ShopDefinition, ShopKeys)]
pub mod shop {
    use netabase::{NetabaseKey, NetabaseModel};
    use serde::{Deserialize, Serialize};

    /// A key type of our own.
    #[derive(NetabaseKey, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Status {
        Open,
        Shipped,
    }

    /// The customer and the number together name an order.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ShopDefinition)]
    pub struct Order {
        #[primary_key]
        pub customer: String,
        #[primary_key]
        pub number: u32,
        #[secondary_key]
        pub status: Status,
        #[secondary_key]
        pub cents: u64,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ShopDefinition)]
    pub struct Customer {
        #[primary_key]
        pub name: String,
        pub orders: u32,
    }
}
use shop::*;

#[tokio::main]
async fn main() -> Result<(), NetabaseError> {
    let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
    let netabase = Netabase::<ShopDefinition>::new_with_config(config)?;

    // All of it is stored, or none.
    let mut transaction = netabase.store().begin_write();
    transaction.put(&Customer { name: "ada".into(), orders: 2 })?;
    transaction.put(&Order { customer: "ada".into(), number: 1, status: Status::Open, cents: 1250 })?;
    transaction.put(&Order { customer: "ada".into(), number: 2, status: Status::Shipped, cents: 990 })?;
    transaction.commit()?;

    let orders = netabase.store().open_tree::<Order>()?;
    for order in orders.find(OrderStatusSecondaryKey(Status::Open))? {
        println!("open: {order:?}");
    }

    // Replacing a record replaces its index entries too.
    orders.put(&Order { customer: "ada".into(), number: 1, status: Status::Shipped, cents: 1250 })?;
    println!("still open: {}", orders.find(OrderStatusSecondaryKey(Status::Open))?.len());
    println!("order 2: {:?}", orders.get(&OrderPrimaryKey("ada".into(), 2))?);
    Ok(())
}
