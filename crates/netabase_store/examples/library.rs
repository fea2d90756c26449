//! A library on the store alone: models, queries, changes, a transaction and a backup. No network.
//!
//! `cargo run -p netabase_store --example library`
#![allow(missing_docs, clippy::print_stdout, reason = "an example explains itself, and prints")]
#![allow(clippy::disallowed_methods, reason = "an example uses files, threads and clocks directly")]

use std::error::Error;

use netabase_store::{NetabaseStore, StoreError, WatchFrom, netabase_definition_module};

#[netabase_definition_module(LibraryDefinition, LibraryKeys)]
pub mod library {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    #[secondary_key(name = "author_year", fields(author, year))]
    pub struct Book {
        #[primary_key]
        pub isbn: u64,
        pub author: String,
        pub year: u16,
        #[secondary_key]
        pub title: String,
        pub copies: u32,
    }

    /// The reader and the book together name a loan.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    pub struct Loan {
        #[primary_key]
        pub reader: String,
        #[primary_key]
        pub isbn: u64,
    }
}
use library::*;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = NetabaseStore::open::<LibraryDefinition>(directory.path().join("library.redb"))?;
    let books = store.open_tree::<Book>()?;
    let mut changes = store.open_tree::<Loan>()?.watch(WatchFrom::Now)?;

    // One commit for all of them.
    let book = |isbn, author: &str, year, title: &str| {
        let (author, title) = (author.into(), title.into());
        Book { isbn, author, year, title, copies: 1 }
    };
    books.put_many(&[
        book(1, "Austen", 1813, "Pride and Prejudice"),
        book(2, "Austen", 1815, "Emma"),
        book(3, "Darwin", 1859, "On the Origin of Species"),
    ])?;

    // The latest first, by a compound key: one author, and a range of years.
    for book in books.query().author_year(("Austen", 1800..1900)).reverse().rows()? {
        println!("by Austen: {}", book?.title);
    }

    println!("lent: {}", lend(&store, "ada", 2)?);
    println!("lent again: {}", lend(&store, "grace", 2)?);
    while let Some(change) = changes.try_next()? {
        println!("change {}: {:?}", change.sequence, change.event);
    }

    // While it is in use; a backup can be opened like any store.
    let backup = directory.path().join("backup.redb");
    store.backup(&backup)?;
    let copy = NetabaseStore::open::<LibraryDefinition>(&backup)?;
    println!("in the backup: {} books", copy.open_tree::<Book>()?.len()?);
    Ok(())
}

/// Lends a book if a copy of it is here; both models change, or none.
fn lend(store: &NetabaseStore, reader: &str, isbn: u64) -> Result<bool, StoreError> {
    let mut transaction = store.begin_write();
    let Some(mut book) = transaction.get(&BookPrimaryKey(isbn))?.filter(|book| book.copies > 0) else {
        return Ok(false);
    };
    book.copies -= 1;
    transaction.put(&book)?;
    transaction.insert(&Loan { reader: reader.into(), isbn })?;
    // Fails if another writer has changed the book since it was read.
    transaction.commit()?;
    Ok(true)
}
