//! Errors of a store.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

#[cfg(feature = "import-export")]
use crate::admin::import::ImportError;
use crate::changes::position::ChangePosition;
use crate::engine::is_sled_corruption;
use crate::model::limits::MAX_LEVELS;
use crate::model::scope::Scope;
use crate::options::StorageBackend;
use crate::platform;
use crate::read::cursor::CursorError;
use crate::replica::limits::MAX_REFUSED_AUTHORS;
use crate::version::envelope::{Author, EnvelopeError};
use crate::version::members::{MembersError, Membership};
use crate::version::record_key::{RecordKey, RecordKeyError, WritePolicy};

/// The reason why bytes are not a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes end in the middle of a value.
    #[error("the key bytes end in the middle of a value")]
    Truncated,
    /// Bytes are left over after the last value.
    #[error("{extra} bytes are left over after the key")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// The bytes are not the encoding of the expected type.
    #[error("the key bytes are not {expected}")]
    Malformed {
        /// The expected type or part.
        expected: &'static str,
    },
}

/// The reason why a value cannot be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value cannot be written as postcard.
    #[error("the value cannot be encoded")]
    Encode(#[source] postcard::Error),
    /// The bytes are not a value of this model.
    #[error("the bytes are not a value of this model")]
    Decode(#[source] postcard::Error),
    /// The fields are not a value of this model, or cannot be written.
    #[error("the fields are not a value of this model: {message}")]
    Fields {
        /// The reason.
        message: String,
    },
    /// Bytes are left over after the value.
    #[error("{extra} bytes are left over after the value")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// The bytes decode to a value but are not its canonical encoding: a number is longer than
    /// needed, or a set or a map has elements out of order or twice.
    #[error("the bytes are not the one encoding of the value")]
    NotCanonical,
    /// The value, or a part of it, nests deeper than values may.
    #[error("the value nests more than {limit} levels deep")]
    TooDeep {
        /// The limit, in levels.
        limit: usize,
    },
    /// The value cannot be written as JSON, or the JSON is not a value of this model.
    #[error("the JSON and the value do not fit: {message}")]
    Json {
        /// The error of the JSON parser, with its place.
        message: String,
    },
    /// The value was written by a version of the model that this program does not know.
    #[error("the value has model version {found}, this program knows version {known}")]
    Version {
        /// The version in the bytes.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// The conversion from an earlier version of the model failed.
    #[error("the value of model version {from} cannot be migrated to version {to}: {message}")]
    Migration {
        /// The version before the conversion.
        from: u32,
        /// The version after it.
        to: u32,
        /// The error of the conversion.
        message: String,
    },
    /// The model's own code panicked on the value.
    #[error("the model's own code panicked on the value")]
    Panicked,
    /// The value does not survive a round trip through JSON.
    #[error(
        "the value does not survive a round trip through JSON: NaN, infinity and maps without text keys do not"
    )]
    NotJson,
    /// The definition has no model of that name.
    #[error("the definition has no model called `{name}`")]
    UnknownModel {
        /// The name.
        name: String,
    },
}

impl ValueError {
    pub(crate) const TOO_DEEP: Self = Self::TooDeep { limit: MAX_LEVELS };

    pub(crate) fn json(error: &serde_json::Error) -> Self {
        Self::Json { message: error.to_string() }
    }
}

/// The reason why a database cannot be opened. Its records are unchanged.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another store in this process, has the database open.
    #[error("cannot open {path:?}: {}", locked(*pid, api.as_deref()))]
    Locked {
        /// The database's path.
        path: PathBuf,
        /// The process that has it open, or `None` if the system does not tell.
        pid: Option<u32>,
        /// The address of the HTTP interface at which that process serves the database, or `None`;
        /// see [`ApiFile`](crate::admin::ApiFile).
        api: Option<String>,
    },
    /// The file is not a database of the chosen backend, or is damaged.
    #[error(
        "{} cannot be opened as a {backend} database; choose another path, or restore a backup if it is damaged",
        path.display()
    )]
    NotADatabase {
        /// The database's path.
        path: PathBuf,
        /// The backend that tried.
        backend: StorageBackend,
        /// The backend's error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The database was written by a newer program.
    #[error("the database has format {found}, this program knows up to {known}; use a newer program")]
    UnknownFormat {
        /// The format in the database.
        found: u32,
        /// The newest format of this program.
        known: u32,
    },
    /// The database holds another definition.
    #[error("the database holds the definition `{found}`, not `{expected}`; choose another path")]
    OtherDefinition {
        /// The definition in the database.
        found: String,
        /// The definition of this program.
        expected: &'static str,
    },
    /// The database has records of a model under another write policy than the program's. Records
    /// under another policy belong to another model, so this program would not find them.
    #[error(
        "the database has {records} records of the model `{model}` as {found}, and in this program it is {expected}, \
         so they would not be found: export them with the former schema and import the file into a new database, or \
         set `set_aside_other_policy` to keep them aside and begin the model anew"
    )]
    OtherPolicy {
        /// The model.
        model: &'static str,
        /// Its policy in the database.
        found: WritePolicy,
        /// Its policy in this program.
        expected: WritePolicy,
        /// The number of those records.
        records: u64,
    },
    /// The database has records of a model that were written with other fields under the same
    /// version, which this program could not read, or would take for other values.
    #[error(
        "the database has {records} records of the model `{model}` in which {place} is {}, and in this program it is {}, \
         under the same version {version}, so they would not be read, or be taken for other values: put it back as it \
         was{}, or give the model a new version with a conversion from the former one",
        or_nothing(found.as_deref()),
        or_nothing(expected.as_deref()),
        if found.is_none() { ", let it be absent (an `Option`, or a default)" } else { "" }
    )]
    OtherShape {
        /// The model.
        model: &'static str,
        /// Its version.
        version: u32,
        /// The number of those records.
        records: u64,
        /// The first place that differs, such as ``field `x` of `Place` ``; of the model itself
        /// there is the field alone. In records of earlier programs, which wrote fields without
        /// names, it is their number.
        place: String,
        /// The name and the type there in the database, or `None` if there is nothing.
        found: Option<String>,
        /// The same in this program.
        expected: Option<String>,
    },
    /// The database has records of an earlier version of a model, and the program no conversion
    /// from it, so it would not read them.
    #[error(
        "the database has {records} records of version {found} of the model `{model}`, which this program, with version \
         {version}, cannot convert: declare the former one with `migrate_from`, or export them with the former program \
         and import the file into a new database, or set `keep_unread_versions` to leave them unread"
    )]
    NoConversion {
        /// The model.
        model: &'static str,
        /// The version of the records.
        found: u32,
        /// The version of this program.
        version: u32,
        /// The number of those records.
        records: u64,
    },
}

fn or_nothing(part: Option<&str>) -> String {
    part.map_or_else(|| "nothing".to_owned(), |part| format!("`{part}`"))
}

/// A use of a store that does not fit the definition it was opened with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The model is not part of the definition that the store was opened with.
    #[error("the store holds the definition `{definition}`, which has no model `{model}`")]
    OtherModel {
        /// The store's definition.
        definition: &'static str,
        /// The model.
        model: &'static str,
    },
    /// The store's schema has the model with other keys, another version or another write policy.
    #[error(
        "the store was opened with another form of the model `{model}`: its version, policy or keys differ; \
         open the database with the schema that this program writes records of"
    )]
    OtherSchema {
        /// The model.
        model: &'static str,
    },
    /// The store was opened without a schema, so it knows no models.
    #[error("the store was opened without a schema; open it with the definition whose records it has")]
    Missing,
}

/// The reason why a scope cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The store's schema has no such scope, or the scope has several models where one is required.
    #[error("the store has no scope {scope:?}")]
    Unknown {
        /// The scope.
        scope: Scope,
    },
    /// The scope of a value has more records than can be compared.
    #[error("more than {limit} records have the value; replicate their model")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// The reason why a write is refused. Nothing is stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The value is larger than the configured limit.
    #[error(
        "the value has {size} bytes, the limit is {limit}; raise the maximum value size or split the value"
    )]
    ValueTooLarge {
        /// Its encoded size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The contribution of this store's author to a merged record is larger than its share.
    #[error(
        "the contribution to {key} has {size} bytes with its signature, the limit is {limit}; raise the maximum \
         value size or split the value"
    )]
    ContributionTooLarge {
        /// The record.
        key: RecordKey,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A secondary key is too long to be indexed.
    #[error("the secondary key `{index}` has {size} bytes, the limit is {limit}")]
    IndexKeyTooLong {
        /// The secondary key's name.
        index: &'static str,
        /// Its encoded size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A record has too many secondary keys.
    #[error("the record has {count} secondary keys, the limit is {limit}")]
    TooManyIndexKeys {
        /// How many it has.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A record names too many blobs.
    #[error("the record names {count} blobs, the limit is {limit}; name some of them in another record")]
    TooManyBlobs {
        /// How many it names.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Another writer has changed a record that a transaction has read, or that was to be swapped
    /// or updated.
    #[error("the record {key} was changed by another writer; run the transaction again")]
    Conflict {
        /// The record.
        key: RecordKey,
    },
    /// The record belongs to another author than this store's identity, or the store has no
    /// identity.
    #[error(
        "the record {key} belongs to the author {owner}: open the store with that identity, or write a record \
         whose primary key starts with this store's own author"
    )]
    NotOwner {
        /// The record.
        key: RecordKey,
        /// The only author that may write it.
        owner: Author,
    },
    /// A record that was to be added is already there.
    #[error("there already is a record {key}; use `put` to replace it")]
    Exists {
        /// The record.
        key: RecordKey,
    },
    /// The update has changed the primary key.
    #[error("the update changed the primary key of {key}; remove the record and put another one")]
    KeyChanged {
        /// The record that was to be updated.
        key: RecordKey,
    },
    /// A mark's name or value is too long, or there are too many marks.
    #[error("the mark `{name}` is one too many, or its name or value is too long; marks are for a few facts")]
    Mark {
        /// Its name.
        name: String,
    },
    /// Another record has the value of a unique secondary key.
    #[error("the value of the unique key `{index}` already belongs to the record {holder}")]
    NotUnique {
        /// The secondary key's name.
        index: &'static str,
        /// The record that has the value.
        holder: RecordKey,
    },
    /// The record was written by a later version of the program. Replacing it would lose fields
    /// that this version does not know.
    #[error(
        "the record {key} has model version {found}, this program knows version {known}; update the program"
    )]
    NewerRecord {
        /// The record.
        key: RecordKey,
        /// Its model version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// The store was opened without an identity, so it cannot sign.
    #[error("the store has no identity to sign with; open it with `StoreOptions::identity`")]
    NoIdentity,
    /// Another running program signs with this store's identity, so each would overwrite the
    /// other's writes.
    #[error(
        "another running node has the identity {author} of this one, and each would overwrite what the other writes: \
         stop one of them, or give one a new identity by removing its `.identity` file"
    )]
    IdentityShared {
        /// The author that both sign for.
        author: Author,
    },
    /// The store's author may not write in this closed network: it was never a member, was revoked,
    /// or becomes a member at a later time.
    #[error("{author} {}", not_member(*root, *membership))]
    NotMember {
        /// The author that the store signs for.
        author: Author,
        /// The root, whose member list names the authors that may write.
        root: Author,
        /// The author's entry in the list, or `None` if it has none or there is no list yet.
        membership: Option<Membership>,
    },
    /// The author cannot be refused, and its records cannot be removed: it is this store's own, or
    /// the root of its network.
    #[error("{author} is this node's own author or the root of its network; name another author")]
    NeededAuthor {
        /// The author.
        author: Author,
    },
    /// The store refuses as many authors as it can.
    #[error(
        "a store refuses at most {MAX_REFUSED_AUTHORS} authors; allow one first, or close the network with a root"
    )]
    TooManyRefusedAuthors,
}

/// What of a database is damaged.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum DamageError {
    /// A stored envelope is damaged.
    #[error("the database holds a damaged record; write it again or remove it")]
    Record(#[source] EnvelopeError),
    /// The database file is damaged, and its contents cannot be trusted.
    #[error("the database file is damaged; restore a backup")]
    Database(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database file is damaged: the engine cannot read it or has panicked on it. The store
    /// writes to it no more.
    #[error(
        "the database {} is damaged; export what can be read, and restore a backup or begin a new database, which \
         peers fill again",
        path.display()
    )]
    File {
        /// The database's path.
        path: PathBuf,
        /// The engine's error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A stored entry does not match its checksum: a byte of it has changed.
    #[error(
        "the entry {} of the table `{table}` in {} is damaged; put the record again, restore a backup, or let \
         `netabase check --repair` remove it, so that it is fetched from peers again",
        entry.escape_ascii(),
        path.display()
    )]
    Entry {
        /// The name of the table.
        table: String,
        /// The key of the entry, as it is stored.
        entry: Vec<u8>,
        /// The database's path.
        path: PathBuf,
    },
    /// A table of the store itself is damaged.
    #[error("the table `{table}` is damaged; restore a backup, or export what can be read")]
    Table {
        /// The table's name.
        table: String,
    },
}

/// The reason why the history of changes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The changes that a follower has not read yet are no longer kept.
    #[error(
        "change {next} is no longer kept, the oldest is {oldest}; read the records anew, or keep a longer history"
    )]
    Trimmed {
        /// The number of the change that was asked for.
        next: u64,
        /// The number of the oldest change that is kept.
        oldest: u64,
    },
    /// The change does not exist yet: the number is of another database, or of a later state of
    /// this one.
    #[error("there is no change {sequence} yet, the newest is {newest}; was a backup restored?")]
    NoSuchChange {
        /// The number that was given.
        sequence: u64,
        /// The number of the newest change.
        newest: u64,
    },
    /// The position is of a history that this database does not have: the history of another
    /// database, or of changes after the copy that was restored.
    #[error(
        "the database does not have the history of the position {position}: it is another one, or an older copy was \
         restored; read the records anew, and follow from there"
    )]
    Gone {
        /// The position that was given.
        position: ChangePosition,
    },
    /// The store keeps no history, since `StoreOptions::history_bytes` is 0.
    #[error("the store keeps no history; open it with `StoreOptions::history_bytes` above 0")]
    NotKept,
}

/// The reason why a backup, a check, a compaction, an export or an import has not succeeded.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// A read of the database is in progress, and the operation needs exclusive access.
    #[error("iterators or snapshots of the store are in use; drop them and call again")]
    InUse,
    /// The path of a new file already exists.
    #[error("there already is something at {}; choose another path, or move it away", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// The path is reserved for the database's own files, which would overwrite the new file.
    #[error(
        "{} is a name for files of the database {}; choose one that does not begin like it",
        path.display(),
        database.display()
    )]
    OwnFile {
        /// The path that was given.
        path: PathBuf,
        /// The database's path.
        database: PathBuf,
    },
    /// The caller's own callback has stopped the operation.
    #[error("the operation was stopped before it was done, as asked")]
    Stopped,
    /// An export could not be written.
    #[cfg(feature = "import-export")]
    #[error("the export cannot be written; free disk space or choose another path, and export again")]
    Output(#[source] Arc<std::io::Error>),
    /// An import failed after it had begun to store records.
    #[cfg(feature = "import-export")]
    #[error(
        "the import failed; lines before {next_line} are done, so begin again with `first_line` {next_line}"
    )]
    ImportFailed {
        /// The first line that may not be stored.
        next_line: u64,
        /// The cause.
        #[source]
        source: Arc<StoreError>,
    },
    /// The input of an import could not be read.
    #[cfg(feature = "import-export")]
    #[error("the input cannot be read")]
    Input(#[source] Arc<std::io::Error>),
}

/// An error of a [`NetabaseStore`](crate::NetabaseStore).
///
/// Errors are cheap to clone, because a failed commit returns the same error to the caller of each
/// write in it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store was opened with another definition, or with none.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The scope cannot be compared.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The write is refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A part of the database is damaged.
    #[error(transparent)]
    Damage(#[from] DamageError),
    /// The history of changes cannot be read from there.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A backup, check, compaction, export or import has not succeeded.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The primary key cannot be part of a record key.
    #[error(transparent)]
    RecordKey(#[from] RecordKeyError),
    /// The text is not a cursor, or the cursor belongs to another query.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A value could not be encoded or decoded.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The backend does not support the operation.
    #[error("the {backend} backend has no {what}")]
    Unsupported {
        /// The backend.
        backend: StorageBackend,
        /// The missing feature.
        what: &'static str,
    },
    /// A member list cannot be used.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// A callback of the store waited for a write, which would be carried out only after the
    /// callback returns.
    #[error("a callback of the store cannot wait for a write; use `Replica::submit`, or another thread")]
    InCallback,
    /// The store was opened with [`StoreOptions::read_only`](crate::StoreOptions::read_only).
    #[error("the database was opened to be read only; open it without `StoreOptions::read_only`")]
    ReadOnly,
    /// This write or an earlier one failed, and the store takes no writes until the cause is gone.
    ///
    /// A redb store on a disk that was full resumes by itself once there is free space. After any
    /// other failure it has to be opened again.
    #[error(
        "a write failed, and the store refuses further writes; free disk space if the disk is full, else fix the cause \
         and open the store again"
    )]
    Poisoned(#[source] Arc<StoreError>),
    /// The disk or the backend failed.
    #[error("the database failed")]
    Backend(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The input of an import is not one that this store can take. Nothing was stored.
    #[cfg(feature = "import-export")]
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file beside the database could not be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: Arc<std::io::Error>,
    },
}

impl StoreError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source: Arc::new(source) }
    }

    /// Returns whether the error concerns one stored entry, and no other entry.
    pub(crate) fn is_of_entry(&self) -> bool {
        matches!(self, Self::Damage(DamageError::Record(_) | DamageError::Entry { .. }))
    }

    pub(crate) fn backend(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        if is_corruption(&source) {
            DamageError::Database(Arc::new(source)).into()
        } else {
            Self::Backend(Arc::new(source))
        }
    }
}

impl OpenError {
    /// Makes the error for a database that is open elsewhere.
    pub(crate) fn locked(path: &Path) -> Self {
        Self::Locked { path: path.to_owned(), pid: None, api: None }
    }
}

/// Tells which process has a database open, and what can be done.
fn locked(pid: Option<u32>, api: Option<&str>) -> String {
    let ask = api.map(|url| format!("use its interface at {url}, ")).unwrap_or_default();
    match pid {
        Some(pid) if pid == platform::process_id() => {
            format!(
                "this program (pid {pid}) has it open already; {ask}use the handle that it has, or choose another path"
            )
        }
        Some(pid) => format!("another process has it open (pid {pid}); stop it, {ask}or choose another path"),
        None => format!("another process has it open; stop it, {ask}or choose another path"),
    }
}

/// Says why an author may not write, and what can be done.
fn not_member(root: Author, membership: Option<Membership>) -> String {
    match membership {
        Some(Membership { revoked_from: Some(from), .. }) => format!(
            "was revoked as a member of this network from {from} on: what it has written since counts nowhere, and it \
             may write no more; only whoever holds the root key {root} can make it a member again"
        ),
        Some(Membership { since: Some(since), revoked_from: None }) => format!(
            "is a member of this network from {since} on, and this machine's clock is before that: set the clock, or \
             ask whoever holds the root key {root}"
        ),
        _ => format!(
            "is no member of this network and may not write; ask whoever holds the root key {root} to add it to the \
             members"
        ),
    }
}

/// Returns whether a backend's error says that the file is damaged.
fn is_corruption(error: &dyn Any) -> bool {
    use redb::{CommitError, StorageError, TableError, TransactionError};
    let storage = match error.downcast_ref::<TableError>() {
        // Every table of a store has the same type, and none is a multimap.
        Some(TableError::Storage(error)) => Some(error),
        Some(error) => return !matches!(error, TableError::TableAlreadyOpen(..)),
        None => error.downcast_ref::<StorageError>(),
    };
    let transaction = match error.downcast_ref::<TransactionError>() {
        Some(TransactionError::Storage(error)) => Some(error),
        _ => None,
    };
    let commit = match error.downcast_ref::<CommitError>() {
        Some(CommitError::Storage(error)) => Some(error),
        _ => None,
    };
    let redb = storage.or(transaction).or(commit);
    matches!(redb, Some(StorageError::Corrupted(_))) || is_sled_corruption(error)
}
