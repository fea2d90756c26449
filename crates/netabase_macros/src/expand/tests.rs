//! The expansion of every macro, as a file to read.
//!
//! `UPDATE_EXPANSION=1 cargo test -p netabase_macros` writes it anew.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse_quote;

use crate::definition::Definition;
use crate::described::DescribedType;
use crate::key::Key;
use crate::model::Model;
use crate::version::OldVersion;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expansion.rs.txt");

fn private() -> TokenStream {
    quote!(::netabase::__private)
}

fn definition() -> TokenStream {
    let module = parse_quote! {
        pub mod chat {
            #[netabase(ChatDefinition)]
            #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
            pub struct Message {
                #[primary_key]
                pub id: String,
            }

            #[cfg(feature = "rooms")]
            #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
            #[netabase(ChatDefinition, name = "room")]
            struct Room {
                #[primary_key]
                id: u32,
            }

            fn untouched() {}
        }
    };
    let definition = Definition::parse(quote!(ChatDefinition, ChatKeys, name = "chat"), &module).unwrap();
    super::definition(&definition, &private())
}

fn model() -> TokenStream {
    let model = Model::parse(&parse_quote! {
        #[netabase(ChatDefinition, name = "message")]
        pub struct Message {
            #[primary_key]
            pub author: AuthorId,
            #[primary_key]
            pub sent: u64,
            #[secondary_key]
            pub room: String,
            pub text: String,
        }
    });
    super::model(&model.unwrap(), &private())
}

fn model_with_every_kind_of_key() -> TokenStream {
    let model = Model::parse(&parse_quote! {
        #[netabase(ChatDefinition, version = 2, migrate_from = PostV1)]
        #[secondary_key(name = "topic_time", fields(topic, sent))]
        #[secondary_key(name = "words", type = Vec<String>, with = Post::words)]
        struct Post {
            #[primary_key]
            id: u64,
            #[secondary_key(unique)]
            reply_to: Option<u64>,
            #[secondary_key]
            tags: BTreeSet<String>,
            topic: String,
            sent: u64,
        }
    });
    super::model(&model.unwrap(), &private())
}

fn merged_model() -> TokenStream {
    let model = Model::parse(&parse_quote! {
        #[netabase(ChatDefinition)]
        struct Poll {
            #[primary_key]
            id: u64,
            title: String,
            #[merge(counter)]
            votes: i64,
            #[merge(set)]
            tags: BTreeSet<String>,
            #[merge(max)]
            closes: u64,
        }
    });
    super::model(&model.unwrap(), &private())
}

fn owned_model() -> TokenStream {
    let model = Model::parse(&parse_quote! {
        #[netabase(ChatDefinition, owned)]
        struct Profile {
            #[primary_key]
            owner: Author,
            #[blob]
            picture: Option<Blob>,
        }
    });
    super::model(&model.unwrap(), &private())
}

fn version() -> TokenStream {
    let old = OldVersion::parse(&parse_quote! {
        #[netabase(version = 1)]
        struct PostV1 {
            id: u64,
        }
    });
    let OldVersion { ident, version } = old.unwrap();
    super::old_version(&ident, &version, &private())
}

fn key() -> TokenStream {
    let key = Key::parse(&parse_quote! {
        enum Priority {
            Low,
            Middle(u32, String),
            High { deadline: u64 },
        }
    });
    super::key(&key.unwrap(), &private())
}

fn described() -> TokenStream {
    let described = DescribedType::parse(&parse_quote! {
        pub enum Attachment {
            None,
            Link(String),
            Place { latitude: f64, longitude: f64 },
            Several(Vec<Self>),
        }
    });
    super::described(&described.unwrap(), &private())
}

#[test]
fn the_expansion_is_the_one_in_the_file() {
    let sections = [
        ("#[netabase_definition_module(ChatDefinition, ChatKeys, name = \"chat\")]", definition()),
        ("#[derive(NetabaseModel)]", model()),
        ("#[derive(NetabaseModel)], with every kind of secondary key", model_with_every_kind_of_key()),
        ("#[derive(NetabaseModel)], owned", owned_model()),
        ("#[derive(NetabaseModel)], merged", merged_model()),
        ("#[derive(NetabaseVersion)]", version()),
        ("#[derive(NetabaseKey)]", key()),
        ("#[derive(FieldType)]", described()),
    ];
    let formatted = sections.map(|(title, tokens)| {
        let file = syn::parse2(tokens).unwrap();
        format!("// {title}\n\n{}", prettyplease::unparse(&file))
    });
    let expansion = formatted.join("\n");
    if std::env::var_os("UPDATE_EXPANSION").is_some() {
        std::fs::write(FILE, &expansion).unwrap();
    }
    let known = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(expansion == known, "the expansion has changed; see `git diff` after UPDATE_EXPANSION=1");
}
