//! The macros of Netabase, which declare definitions, models and keys.
//!
//! Use them through `netabase` (or `netabase_store`), which re-export them. The generated code
//! reaches that crate by the name it has in your `Cargo.toml`.

mod arguments;
mod definition;
mod derives;
mod described;
mod expand;
mod fallback;
mod key;
mod krate;
mod merge;
mod mistakes;
mod model;
mod names;
mod secondary;
mod tag;
mod version;

use proc_macro::TokenStream;
use syn::{DeriveInput, Item, parse_macro_input};

/// Turns a module of models into a definition: a set of models that share a database and a network.
///
/// The two names are those of the generated enums: one with a variant for each model, one with a
/// variant for the keys of each model.
///
/// ```
/// # use netabase_store as netabase;
/// # use netabase::netabase_definition_module;
/// #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// pub mod chat {
/// #   use netabase_store as netabase;
///     use netabase::NetabaseModel;
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
///     #[netabase(ChatDefinition)]
///     pub struct Message {
///         #[primary_key]
///         pub id: String,
///         #[secondary_key]
///         pub room: String,
///         pub text: String,
///     }
/// }
///
/// let message = chat::Message { id: "1".into(), room: "lobby".into(), text: "hello".into() };
/// let any = chat::ChatDefinition::from(message);
/// assert!(chat::Message::try_from(any).is_ok());
/// ```
///
/// Every struct of the module that derives `NetabaseModel` is a model of the definition; everything
/// else in the module stays as it is. Conversions lead from a model to the definition (`From`) and
/// back (`TryFrom`, which returns the value where it is another model), and from the keys of a
/// model to the enum of keys.
///
/// Record keys start with the definition's name, `ChatDefinition`. A third argument,
/// `name = "chat"`, chooses another, so that the enum can be renamed without losing the records.
#[proc_macro_attribute]
pub fn netabase_definition_module(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as Item);
    definition::Definition::parse(arguments.into(), &item)
        .and_then(|definition| Ok(expand::definition(&definition, &krate::private()?)))
        .unwrap_or_else(|error| fallback::definition(item, &error))
        .into()
}

/// Makes a struct a model: a type of record with a primary key.
///
/// Needs `Clone`, `serde::Serialize` and `serde::Deserialize`, and belongs in a
/// [`macro@netabase_definition_module`].
///
/// - `#[netabase(ChatDefinition)]` on the struct names the definition. Record keys contain the
///   struct's name, or the one given by `#[netabase(ChatDefinition, name = "message")]`.
/// - `#[netabase(ChatDefinition, version = 2, migrate_from = MessageV1)]` gives the version of the
///   model, which is 1 otherwise, and says how records of earlier ones are read: see
///   [`macro@NetabaseVersion`].
/// - `#[netabase(ChatDefinition, owned)]` says that each record has an owner, the `Author` that its
///   primary key starts with: no other author can write or remove it, here or at any peer.
/// - `#[merge(counter)]` on a field, or `lww`, `max`, `min` or `set`, says that any author may
///   write a record, and how contributions to the field are merged;
///   `#[netabase(ChatDefinition, merged)]` keeps the latest value in every field. A `counter` is an
///   integer of at most 64 bits, a `set` a `BTreeSet`, and the type of a `max` or `min` is ordered.
///   Fields without it are `lww`: the last writer wins.
/// - `#[primary_key]` marks the field that names a record; on several fields, they do so together.
/// - `#[secondary_key]` marks each field that records are found by. A record is found by each value
///   of a `Vec` or a `BTreeSet`, and not at all by an `Option` that is `None`; the type must be
///   written with these names. A `Vec<u8>` is one value, a byte string.
/// - `#[secondary_key(name = "room_time", fields(room, sent_at))]` on the struct declares a key of
///   several fields, ordered by one after the other. Each counts as a whole, with any type.
/// - `#[secondary_key(name = "domain", type = String, with = Message::domain)]` on the struct
///   declares a key that is computed: the function takes `&Message` and returns the type, which may
///   be an `Option` or a `Vec` of values, too. The function must depend on nothing else, or records
///   will not be found.
/// - `#[blob]` marks a field that names large values kept beside the records: a `Blob`, an `Option`
///   or a `Vec` of it. A node keeps the blobs that its records name; see `docs/blobs.md`.
/// - `unique`, as in `#[secondary_key(unique)]`, declares any of these keys to be of one record
///   alone.
///
/// A key is made of at most six fields, and their types are as visible as the model. The method of
/// a key that is called like one of the methods of queries, such as `count`, is `count_`: see
/// `Select`.
///
/// For a struct `Message` with a secondary key `room`, the derive generates `MessagePrimaryKey`,
/// `MessageRoomSecondaryKey`, the enum `MessageSecondaryKeys` with a variant for each secondary
/// key, the enum `MessageKey` of all keys, and the trait `MessageQuery` with a method for each key.
/// Keys compare and hash by their encoded bytes, so they are equal if and only if they are equal in
/// the database.
///
/// ```
/// # use netabase_store as netabase;
/// # use netabase::netabase_definition_module;
/// #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// pub mod chat {
/// #   use netabase_store as netabase;
///     use netabase::NetabaseModel;
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
///     #[netabase(ChatDefinition)]
///     #[secondary_key(name = "room_time", fields(room, sent_at))]
///     #[secondary_key(name = "words", type = Vec<String>, with = Message::words)]
///     pub struct Message {
///         #[primary_key]
///         pub id: u64,
///         #[secondary_key]
///         pub reply_to: Option<u64>,
///         pub room: String,
///         pub sent_at: u64,
///         pub text: String,
///     }
///
///     impl Message {
///         fn words(&self) -> Vec<String> {
///             self.text.split_whitespace().map(str::to_lowercase).collect()
///         }
///     }
/// }
/// use chat::*;
/// use netabase::NetabaseModel;
///
/// let text = "Hello everybody".into();
/// let message = Message { id: 1, reply_to: None, room: "lobby".into(), sent_at: 5, text };
/// let keys = [
///     MessageRoomTimeSecondaryKey("lobby".into(), 5).into(),
///     MessageWordsSecondaryKey("hello".into()).into(),
///     MessageWordsSecondaryKey("everybody".into()).into(),
/// ];
/// assert_eq!(message.secondary_keys(), keys);
/// ```
#[proc_macro_derive(NetabaseModel, attributes(netabase, primary_key, secondary_key, merge, blob))]
pub fn netabase_model(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let private = match krate::private() {
        Ok(private) => private,
        Err(error) => return error.into_compile_error().into(),
    };
    model::Model::parse(&input)
        .map_or_else(
            |error| fallback::model(&input, &error, &private),
            |model| expand::model(&model, &private),
        )
        .into()
}

/// Makes a struct an earlier version of a model, which its records are migrated from.
///
/// Needs `serde::Deserialize`, of the fields that the model had then. `#[netabase(version = 1)]` is
/// the number of the version; `#[netabase(version = 2, migrate_from = MessageV1)]` names the one
/// before it. The later version names the earlier one, and implements `From` or `TryFrom` of it.
/// The message of a failed conversion is kept in the error, so its type must implement `Display`.
///
/// ```
/// # use netabase_store as netabase;
/// # use netabase::netabase_definition_module;
/// #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// pub mod chat {
/// #   use netabase_store as netabase;
///     use netabase::{NetabaseModel, NetabaseVersion};
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
///     #[netabase(ChatDefinition, version = 2, migrate_from = MessageV1)]
///     pub struct Message {
///         #[primary_key]
///         pub id: u64,
///         pub text: String,
///         pub likes: u32,
///     }
///
///     #[derive(NetabaseVersion, Serialize, Deserialize)]
///     #[netabase(version = 1)]
///     pub struct MessageV1 {
///         pub id: u64,
///         pub text: String,
///     }
///
///     impl From<MessageV1> for Message {
///         fn from(MessageV1 { id, text }: MessageV1) -> Self {
///             Self { id, text, likes: 0 }
///         }
///     }
/// }
///
/// // What a program stored when it knew version 1 alone: the version, the id, the text.
/// let payload = [1, 7, 2, b'h', b'i'];
/// let message: chat::Message = netabase::schema::decode_payload(&payload)?;
/// assert_eq!(message, chat::Message { id: 7, text: "hi".into(), likes: 0 });
/// # Ok::<(), netabase::ValueError>(())
/// ```
#[proc_macro_derive(NetabaseVersion, attributes(netabase))]
pub fn netabase_version(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let private = match krate::private() {
        Ok(private) => private,
        Err(error) => return error.into_compile_error().into(),
    };
    version::OldVersion::parse(&input)
        .map_or_else(
            |error| fallback::version(&input, &error, &private),
            |old| expand::old_version(&old.ident, &old.version, &private),
        )
        .into()
}

/// Makes a struct or an enum a type that can be part of a key.
///
/// A struct is encoded as its fields in order. An enum is the index of the variant in one byte,
/// then the fields of the variant: add new variants at the end, since moving one changes the stored
/// keys. The type must also be `Clone` and `Debug`, and may not be generic.
///
/// ```
/// # use netabase_store as netabase;
/// use netabase::key::KeyField;
/// use netabase::NetabaseKey;
///
/// #[derive(NetabaseKey, Clone, Debug)]
/// pub enum Priority {
///     Low,
///     High { deadline: u64 },
/// }
///
/// let (low, high) = (Priority::Low, Priority::High { deadline: 7 });
/// assert!(low.to_key_bytes() < high.to_key_bytes());
/// ```
#[proc_macro_derive(NetabaseKey)]
pub fn netabase_key(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let private = match krate::private() {
        Ok(private) => private,
        Err(error) => return error.into_compile_error().into(),
    };
    key::Key::parse(&input)
        .map_or_else(|error| fallback::key(&input, &error, &private), |key| expand::key(&key, &private))
        .into()
}

/// Describes a struct or an enum, so that programs without the type can read the values of fields
/// that have it.
///
/// The derive is for the types of a model's fields, beside `Serialize` and `Deserialize`, and
/// describes the form in which those derives write the type: a `#[serde(..)]` attribute that
/// changes its form is refused. The type may contain itself, in a `Vec`, a `Box` in an `Option` or
/// the like, and may not be generic. A field whose type is not described is no mistake until the
/// program asks for the description of the model: see `Schema::of`.
///
/// ```
/// # use netabase_store as netabase;
/// use netabase::FieldType;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(FieldType, Clone, Serialize, Deserialize)]
/// pub enum Attachment {
///     None,
///     Link(String),
///     Place { latitude: f64, longitude: f64 },
///     Several(Vec<Attachment>),
/// }
/// ```
#[proc_macro_derive(FieldType)]
pub fn field_type(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let private = match krate::private() {
        Ok(private) => private,
        Err(error) => return error.into_compile_error().into(),
    };
    described::DescribedType::parse(&input)
        .map_or_else(
            |error| fallback::described(&input, &error, &private),
            |described| expand::described(&described, &private),
        )
        .into()
}
