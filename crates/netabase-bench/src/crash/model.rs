//! The records that are written, each of which follows from its key and its stamp.

use netabase_store::{SigningKey, netabase_definition_module};

use crate::dice::Dice;

#[netabase_definition_module(CrashDefinition, CrashKeys)]
mod definition {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// Is put, put many at a time, and removed.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(CrashDefinition)]
    pub(crate) struct Note {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub tag: u32,
        #[secondary_key]
        pub author: String,
        pub stamp: u64,
        pub text: String,
    }

    /// Is written together with notes, in a transaction.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(CrashDefinition)]
    pub(crate) struct Mark {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub tag: u32,
        pub stamp: u64,
    }

    /// Money that was moved from one account to another, and stays.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(CrashDefinition)]
    pub(crate) struct Transfer {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub tag: u32,
        pub from: u32,
        pub to: u32,
        pub cents: i64,
        pub stamp: u64,
    }

    /// What the transfers add up to; all threads write to the same accounts.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(CrashDefinition)]
    pub(crate) struct Account {
        #[primary_key]
        pub id: u32,
        #[secondary_key]
        pub cents: i64,
    }
}
pub(super) use definition::*;

/// How many tags there are.
pub(super) const TAGS: u32 = 16;
/// How many authors there are.
pub(super) const AUTHORS: u32 = 5;
/// How many accounts there are.
pub(super) const ACCOUNTS: u32 = 8;
const MOST_CENTS: u64 = 1000;
/// Enough that some records take several pages.
const MOST_WORDS: u64 = 600;

/// Returns the one who signs, in databases that are signed.
pub(super) fn identity() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(super) fn author(number: u32) -> String {
    format!("author-{number}")
}

pub(super) fn note(id: u64, stamp: u64) -> Note {
    let mut dice = Dice::new(&[id, stamp]);
    let tag = dice.below_u32(TAGS);
    let author = author(dice.below_u32(AUTHORS));
    // Most are short.
    let words = if dice.below(8) == 0 { dice.below(MOST_WORDS) } else { dice.below(8) };
    let text = (0..words).map(|word| format!("{stamp:x}.{word}")).collect::<Vec<_>>().join(" ");
    Note { id, tag, author, stamp, text }
}

pub(super) fn mark(id: u64, stamp: u64) -> Mark {
    Mark { id, tag: Dice::new(&[id, stamp]).below_u32(TAGS), stamp }
}

pub(super) fn transfer(id: u64, stamp: u64) -> Transfer {
    let mut dice = Dice::new(&[id, stamp]);
    let from = dice.below_u32(ACCOUNTS);
    let to = (from + 1 + dice.below_u32(ACCOUNTS - 1)) % ACCOUNTS;
    let cents = i64::try_from(1 + dice.below(MOST_CENTS)).unwrap_or(1);
    Transfer { id, tag: dice.below_u32(TAGS), from, to, cents, stamp }
}
