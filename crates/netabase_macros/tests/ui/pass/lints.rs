//! Generated code is quiet under lints that are not on by default.
#![deny(warnings, missing_docs, unused, future_incompatible, nonstandard_style, rust_2018_idioms)]
#![deny(private_interfaces, private_bounds, unreachable_pub, unnameable_types, unused_qualifications)]
#![deny(missing_debug_implementations, missing_copy_implementations, unused_results, single_use_lifetimes)]
#![deny(let_underscore_drop, variant_size_differences, trivial_casts, unused_lifetimes, unsafe_code)]

use netabase_store::netabase_definition_module;

/// A model of each visibility.
#[netabase_definition_module(ChatDefinition, ChatKeys)]
pub mod chat {
    use netabase_store::{NetabaseKey, NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    /// The helper attribute may come before the derive.
    #[netabase(ChatDefinition, version = 2, migrate_from = MessageV1)]
    #[secondary_key(name = "place", fields(room, sent), unique)]
    #[secondary_key(name = "even", type = bool, with = Message::even)]
    #[secondary_key(name = "half", type = Option<u8>, with = half)]
    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    pub struct Message {
        /// Its id.
        #[primary_key]
        pub id: String,
        #[secondary_key]
        room: RoomId,
        #[secondary_key]
        sent: Option<u8>,
        #[secondary_key]
        last: Vec<u16>,
    }

    impl Message {
        fn even(&self) -> bool {
            self.last.len().is_multiple_of(2)
        }
    }

    fn half(message: &Message) -> Option<u8> {
        message.sent.map(|sent| sent / 2)
    }

    #[derive(NetabaseVersion, Debug, Deserialize)]
    #[netabase(version = 1)]
    struct MessageV1 {
        id: String,
    }

    impl From<MessageV1> for Message {
        fn from(MessageV1 { id }: MessageV1) -> Self {
            Self { id, room: RoomId(0), sent: None, last: Vec::new() }
        }
    }

    /// As visible as the model whose key it is.
    #[derive(NetabaseKey, Clone, Copy, Debug, Serialize, Deserialize)]
    pub struct RoomId(u32);

    #[derive(NetabaseKey, Clone, Debug, Serialize, Deserialize)]
    struct PrivateId(u32);

    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub(crate) struct Internal {
        #[primary_key]
        id: [u8; 32],
        large: [[u64; 32]; 32],
    }

    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    struct Private {
        #[primary_key]
        id: PrivateId,
        #[secondary_key]
        words: Vec<String>,
    }

    /// Uses what is private.
    pub fn all() -> Vec<ChatDefinition> {
        let message = Message { id: String::new(), room: RoomId(1), sent: None, last: vec![1] };
        let internal = Internal { id: [0; 32], large: [[0; 32]; 32] };
        vec![message.into(), internal.into(), Private { id: PrivateId(2), words: Vec::new() }.into()]
    }
}

#[netabase_definition_module(PrivateDefinition, PrivateKeys)]
mod private {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    #[netabase(PrivateDefinition)]
    pub(super) struct Above {
        #[primary_key]
        pub(super) id: u8,
    }

    #[derive(NetabaseModel, Clone, Debug, Serialize, Deserialize)]
    #[netabase(PrivateDefinition)]
    struct Here {
        #[primary_key]
        id: u8,
    }

    pub(super) fn here() -> PrivateDefinition {
        Here { id: 1 }.into()
    }
}

fn main() {
    let above = private::PrivateDefinition::from(private::Above { id: 0 });
    assert_eq!(format!("{above:?} {:?}", private::here()).matches("PrimaryKey").count(), 2);
    assert_eq!(chat::all().len(), 3);
}
