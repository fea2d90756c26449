// The models of docs/store.md, as they stand there, for its other blocks.

use netabase_store::netabase_definition_module;

#[netabase_definition_module(LibraryDefinition, LibraryKeys)]
pub mod library {
    use netabase_store::{NetabaseKey, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    #[secondary_key(name = "shelf_year", fields(shelf, year))]
    #[secondary_key(name = "words", type = Vec<String>, with = Book::words)]
    pub struct Book {
        #[primary_key]
        pub isbn: u64,
        #[secondary_key(unique)]
        pub barcode: Option<String>,
        #[secondary_key]
        pub authors: Vec<String>,
        pub shelf: Shelf,
        pub year: u16,
        pub title: String,
    }

    impl Book {
        pub fn new(isbn: u64, author: &str, shelf: Shelf, year: u16, title: &str) -> Self {
            Self { isbn, barcode: None, authors: vec![author.into()], shelf, year, title: title.into() }
        }

        fn words(&self) -> Vec<String> {
            self.title.split_whitespace().map(str::to_lowercase).collect()
        }
    }

    /// The reader and the book together name a loan.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    pub struct Loan {
        #[primary_key]
        pub reader: String,
        #[primary_key]
        pub isbn: u64,
        #[secondary_key]
        pub due_day: u32,
    }

    /// A key type of our own.
    #[derive(NetabaseKey, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Shelf {
        Fiction,
        Science,
        Children,
    }
}
use library::*;

/// Runs a block on a store of its own.
#[allow(dead_code)]
fn run(block: fn(&netabase_store::NetabaseStore) -> Result<(), netabase_store::StoreError>) {
    block(&netabase_store::NetabaseStore::temporary::<LibraryDefinition>().unwrap()).unwrap();
}

/// Runs a block in a directory of its own.
#[allow(dead_code)]
fn run_in(block: fn(&std::path::Path) -> Result<(), netabase_store::StoreError>) {
    block(tempfile::tempdir().unwrap().path()).unwrap();
}
