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
    pub trait IntoIterator {}
    pub trait Select {}
    pub trait KeyRange {}
    pub trait ModelVersion {}
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
    #[netabase(self::ChatDefinition, version = 2, migrate_from = MessageV1)]
    #[secondary_key(name = "both", fields(id, tag))]
    #[secondary_key(name = "computed", type = ::std::vec::Vec<u8>, with = keys)]
    #[secondary_key(name = "several", type = ::std::vec::Vec<u16>, with = Self::several)]
    pub struct Message {
        #[primary_key]
        pub id: ::std::string::String,
        #[secondary_key]
        pub tag: Tag,
        #[secondary_key]
        pub reply_to: ::core::option::Option<u8>,
    }

    impl Message {
        fn several(&self) -> ::std::vec::Vec<u16> {
            ::std::vec::Vec::new()
        }
    }

    fn keys(_: &Message) -> ::std::vec::Vec<u8> {
        ::std::vec::Vec::new()
    }

    #[derive(::netabase_store::NetabaseVersion, ::serde::Deserialize)]
    #[netabase(version = 1)]
    pub struct MessageV1;

    impl ::core::convert::From<MessageV1> for Message {
        fn from(_: MessageV1) -> Self {
            Self { id: ::std::string::String::new(), tag: Tag::None, reply_to: ::core::option::Option::None }
        }
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
    let message = chat::Message { id: "1".into(), tag: chat::Tag::Some("tag".into()), reply_to: None };
    let definition = chat::ChatDefinition::from(message);
    assert_eq!(format!("{definition:?}"), r#"Message(Primary(MessagePrimaryKey("1")))"#);
}
