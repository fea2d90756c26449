//! Generated code names everything by its path, whatever the user calls his own things.

mod user {
    #![allow(dead_code)]

    pub enum Option {
        Some,
        None,
    }
    pub enum Result {
        Ok,
        Err,
    }
    pub struct String;
    pub struct Vec;
    pub trait Clone {}
    pub trait Debug {}
    pub trait From {}
    pub trait TryFrom {}
    pub trait Hash {}
    pub trait KeyField {}
    pub trait NetabaseDefinition {}
    pub mod core {}
    pub mod std {}
    pub mod netabase_store {}
}

#[::netabase_store::netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    #![allow(unused_imports)]
    use super::user::Option::*;
    use super::user::Result::*;
    use super::user::*;

    #[derive(
        ::netabase_store::NetabaseModel, ::core::clone::Clone, ::serde::Serialize, ::serde::Deserialize,
    )]
    #[netabase(self::ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: ::std::string::String,
        #[secondary_key]
        pub tag: Tag,
    }

    #[derive(
        ::netabase_store::NetabaseKey,
        ::core::clone::Clone,
        ::core::fmt::Debug,
        ::serde::Serialize,
        ::serde::Deserialize,
    )]
    pub enum Tag {
        None,
        Some(::std::string::String),
    }
}

fn main() {
    let message = chat::Message { id: "1".into(), tag: chat::Tag::Some("tag".into()) };
    let definition = chat::ChatDefinition::from(message);
    assert_eq!(format!("{definition:?}"), r#"Message(Primary(MessagePrimaryKey("1")))"#);
}
