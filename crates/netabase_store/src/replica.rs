//! The store's interface for replication, reached by [`NetabaseStore::replica`].
//!
//! The methods of [`Replica`] check and store versions of peers, sign and queue versions for peers,
//! list records by their place in the keyspace or by time, and keep the schedules of publication
//! and renewal. A program that uses a store alone calls none of them.

use std::fmt;

use crate::core::Core;
use crate::store::NetabaseStore;
use crate::version::clock::Clock;

pub(crate) mod absence;
pub(crate) mod admission;
pub(crate) mod authors;
pub(crate) mod index_values;
pub(crate) mod keyspace;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod mark;
pub(crate) mod members;
#[cfg(feature = "libp2p")]
pub(crate) mod provider;
pub(crate) mod publication;
pub(crate) mod quota;
#[cfg(feature = "libp2p")]
pub(crate) mod record_store;
pub(crate) mod redate;
pub(crate) mod submit;
pub(crate) mod sweep;
pub(crate) mod sync_set;
pub(crate) mod usage;

pub use crate::error::ScopeError;
pub use crate::model::scope::{Scope, ScopePart};
pub use crate::version::admit::{AuthorLimit, Refusal};
pub use absence::Discarded;
pub use admission::CheckedRecord;
pub use keyspace::Placed;
pub use redate::AheadOfClock;
pub use submit::ExpectedVersion;
pub use sync_set::{Pin, SyncBound, SyncDifference, SyncError, SyncItem, SyncNeed, SyncSet, SyncStep};
pub use usage::Usage;

/// The interface of a store for replication, which a node uses and an application does not.
///
/// [`NetabaseStore::replica`] returns it. The value is a reference, so a copy costs nothing.
///
/// ```
/// # use netabase_store::{NetabaseDefinition, NetabaseModel, NetabaseStore, netabase_definition_module};
/// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// # mod library {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(LibraryDefinition)]
/// #     pub struct Book { #[primary_key] pub isbn: String }
/// # }
/// # use library::*;
/// use netabase_store::{SigningKey, StorageBackend, StoreOptions};
///
/// let open = |seed| {
///     let identity = Some(SigningKey::from_bytes(&[seed; 32]));
///     let options = StoreOptions { backend: StorageBackend::Memory, identity, ..StoreOptions::default() };
///     NetabaseStore::open_with("", Some(LibraryDefinition::SCHEMA), options)
/// };
/// let (ours, theirs) = (open(1)?, open(2)?);
/// let book = Book { isbn: "978-0-13-110362-7".into() };
/// theirs.open_tree()?.put(&book)?;
///
/// for placed in theirs.replica().positions(&[0; 32], 10)? {
///     let version = theirs.replica().version_for_peers(&placed.key)?.expect("it is there");
///     ours.replica().admit(placed.key.as_bytes(), version.to_wire().as_bytes())?;
/// }
/// assert_eq!(ours.open_tree::<Book>()?.get(&BookPrimaryKey(book.isbn.clone()))?, Some(book));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Replica<'a> {
    store: &'a NetabaseStore,
}

impl NetabaseStore {
    /// Returns the store's interface for replication.
    pub fn replica(&self) -> Replica<'_> {
        Replica { store: self }
    }
}

impl<'a> Replica<'a> {
    /// Sets whether another running program signs with the same identity; while one does, writes
    /// that need a signature fail with
    /// [`WriteError::IdentityShared`](crate::WriteError::IdentityShared). Default: `false`.
    pub fn set_identity_shared(self, is_shared: bool) {
        self.core().set_identity_shared(is_shared);
    }

    /// Returns the last value that was set.
    pub fn is_identity_shared(self) -> bool {
        self.core().is_identity_shared()
    }

    /// Returns the clock that the store was opened with.
    pub fn clock(self) -> &'a Clock {
        &self.core().options().clock
    }

    /// Returns the number of groups of writes that were committed since the store was opened, by
    /// which a caller detects changes.
    pub fn commits(self) -> u64 {
        self.core().commits()
    }

    fn core(self) -> &'a Core {
        self.store.core()
    }
}

impl fmt::Debug for Replica<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replica").field(self.store).finish()
    }
}
