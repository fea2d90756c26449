//! The changes of a store, and their followers.
//!
//! `history` keeps changes on the disk, and `feed` wakes followers after a commit.

pub(crate) mod change;
pub(crate) mod feed;
pub(crate) mod history;
pub(crate) mod limits;
pub(crate) mod position;
pub(crate) mod watch;

pub use crate::error::HistoryError;
pub use change::{Change, ChangeKind, Observer, Origin, StoreEvent};
pub use position::{ChangePosition, ParsePositionError};
pub use watch::{
    ChangeStream, Changes, NumberedChange, RemovalReason, Watch, WatchEvent, WatchFrom, WatchStream, Watched,
};
