//! `schema.toml`: what it says, and what is wrong with it.

use netabase_store::dynamic::{MAX_SCHEMA_BYTES, MAX_SCHEMA_FIELDS, Schema, SchemaProblem, Type};
use netabase_store::{NetabaseDefinition, WritePolicy, netabase_definition_module};

use super::models::*;
use super::schema;

#[test]
fn a_schema_comes_back_from_its_text() {
    let text = schema().to_toml();
    let again = Schema::from_toml(&text).unwrap();
    assert_eq!(again, schema());
    assert_eq!(again.to_toml(), text);
}

#[test]
fn there_is_one_definition_for_each_schema() {
    let again = Schema::from_toml(&schema().to_toml()).unwrap();
    assert!(std::ptr::eq(schema().definition(), again.definition()));
    let other = Schema::from_toml(&schema().to_toml().replace("ZooDefinition", "Other")).unwrap();
    assert!(!std::ptr::eq(schema().definition(), other.definition()));
    assert_eq!(Schema::of_definition(other.definition()).unwrap(), other);
    assert_eq!(Schema::of_definition(ZooDefinition::SCHEMA).unwrap(), schema());
}

#[test]
fn little_has_to_be_said() {
    let text = "name = \"A\"\n[[models]]\nname = \"B\"\nprimary_key = [\"id\"]\nfields = [{ name = \"id\", type = \" list < u8 >\" }]";
    let schema = Schema::from_toml(text).unwrap();
    let model = schema.model("B").unwrap();
    assert_eq!((model.version(), model.policy(), model.lifetime()), (1, WritePolicy::Open, None));
    assert_eq!(model.fields()[0].ty, Type::Bytes);
}

const SCHEMA: &str = r#"
name = "Chat"

[[models]]
name = "Message"
policy = "open"
primary_key = ["id"]
fields = [
  { name = "id", type = "u64" },
  { name = "room", type = "string" },
  { name = "place", type = "Place" },
]

[[models.secondary_keys]]
name = "room"
fields = ["room"]

[[types]]
name = "Place"
fields = [{ name = "at", type = "(f64, f64)" }]
"#;

/// Replaces something in the schema; returns the line and the text of the error.
fn broken(from: &str, to: &str) -> (Option<usize>, String) {
    assert!(SCHEMA.contains(from), "{from}");
    let error = Schema::from_toml(&SCHEMA.replacen(from, to, 1)).unwrap_err();
    (error.line, error.to_string())
}

#[test]
fn errors_say_where_and_what_to_do() {
    Schema::from_toml(SCHEMA).unwrap();
    let cases = [
        ("type = \"u64\"", "type = \"u65\"", 9, "model `Message`, `id`: there is no type `u65`"),
        ("type = \"u64\"", "type = \"list<u64\"", 9, "is not a type, from byte 8 on"),
        ("type = \"u64\"", "type = \"f64\", kind = 1", 9, "unknown field `kind`"),
        ("type = \"string\"", "type = \"string\", merge = \"max\"", 10, "only merged models merge"),
        ("type = \"string\"", "type = \"string\", blob = true", 10, "`string` names no blobs"),
        ("\"open\"", "\"public\"", 4, "write `open`, `owned` or `merged`"),
        ("\"open\"", "\"owned\"", 4, "make its first field an `author`"),
        ("primary_key = [\"id\"]", "", 4, "write `primary_key = [\"id\"]`"),
        ("primary_key = [\"id\"]", "primary_key = [\"id\", \"id\"]", 4, "twice in the key"),
        ("primary_key = [\"id\"]", "primary_key = [\"nr\"]", 4, "the model has no field `nr`"),
        ("primary_key = [\"id\"]", "primary_key = [\"id\"]\nlifetime = \"1w\"", 4, "`1w` is not a lifetime"),
        ("primary_key = [\"id\"]", "primary_key = [\"id\"]\nversion = 0", 4, "write `version = 1`"),
        ("fields = [\"room\"]", "fields = []", 14, "name its fields"),
        ("fields = [\"room\"]", "fields = [\"room\", \"plaice\"]", 14, "no field `plaice`"),
        ("\"(f64, f64)\"", "\"Place\"", 18, "put an `option` or a `list` in between"),
        ("\"(f64, f64)\"", "\"()\"", 20, "a tuple has 1 to 16 parts"),
        ("\"(f64, f64)\"", "\"[u8; 33]\"", 20, "write a `list` instead"),
        ("name = \"Place\"", "name = \"list\"", 11, "there is no type `Place`"),
        ("name = \"Chat\"", "name = \"Chat room\"", 0, "cannot be a name in record keys"),
        ("name = \"Chat\"", "name = \".\"", 0, "and not `.` or `..`"),
        ("name = \"Message\"", "name = \"..\"", 4, "and not `.` or `..`"),
    ];
    for (from, to, line, message) in cases {
        let (found, text) = broken(from, to);
        assert!(text.contains(message), "{to}: {text}");
        assert_eq!(found, (line > 0).then_some(line), "{to}: {text}");
    }
}

#[test]
fn sizes_are_bounded() {
    let long = format!("{SCHEMA}#{}", "x".repeat(MAX_SCHEMA_BYTES));
    assert!(matches!(*Schema::from_toml(&long).unwrap_err().problem, SchemaProblem::TooLong { .. }));
    let fields = (0..MAX_SCHEMA_FIELDS).map(|at| format!("{{ name = \"f{at}\", type = \"u8\" }},"));
    let many = SCHEMA.replacen("fields = [\n", &format!("fields = [\n{}", fields.collect::<String>()), 1);
    let problem = *Schema::from_toml(&many).unwrap_err().problem;
    assert_eq!(problem, SchemaProblem::TooMany { what: "fields", limit: MAX_SCHEMA_FIELDS });
    let deep =
        SCHEMA.replacen("\"string\"", &format!("\"{}u8{}\"", "list<".repeat(9000), ">".repeat(9000)), 1);
    assert_eq!(*Schema::from_toml(&deep).unwrap_err().problem, SchemaProblem::TypeDepth);
    let nested = format!("name = {}", "[".repeat(100_000));
    assert!(Schema::from_toml(&nested).is_err());
}

#[netabase_definition_module(OddDefinition, OddKeys)]
mod odd {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(OddDefinition)]
    pub struct Odd {
        #[primary_key]
        pub id: u64,
        pub inner: Vec<super::Inner>,
    }
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Inner(u8);

#[netabase_definition_module(ComputedDefinition, ComputedKeys)]
mod computed {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ComputedDefinition)]
    #[secondary_key(name = "half", type = u64, with = Computed::half)]
    pub struct Computed {
        #[primary_key]
        pub id: u64,
    }

    impl Computed {
        fn half(&self) -> u64 {
            self.id / 2
        }
    }
}

#[netabase_definition_module(RenamedDefinition, RenamedKeys)]
mod renamed {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(RenamedDefinition)]
    pub struct Renamed {
        #[primary_key]
        pub id: u64,
        #[serde(rename = "Text")]
        pub text: String,
    }
}

#[test]
fn what_cannot_be_described_is_named() {
    let error = Schema::of::<odd::OddDefinition>().unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("model `Odd`, `inner`: the type `Vec<super::Inner>` is not described"),
        "{text}"
    );
    assert!(text.contains("#[derive(FieldType)]"), "{text}");
    let error = Schema::of::<computed::ComputedDefinition>().unwrap_err();
    assert_eq!(*error.problem, SchemaProblem::Computed { function: "Computed::half".into() });
    let error = Schema::of::<renamed::RenamedDefinition>().unwrap_err();
    assert_eq!(error.field.as_deref(), Some("text"));
}

#[test]
fn a_key_has_no_two_kinds_of_nothing() {
    let schema = |ty: &str| {
        Schema::from_toml(&format!(
            r#"
            name = "Chat"
            [[models]]
            name = "Page"
            primary_key = ["page"]
            fields = [{{ name = "page", type = "{ty}" }}]
            [[types]]
            name = "Maybe"
            tuple = ["option<u8>"]
            "#
        ))
    };
    assert!(schema("option<u8>").is_ok());
    for ty in ["option<option<u8>>", "option<Maybe>"] {
        let error = schema(ty).unwrap_err();
        assert!(error.to_string().contains("key"), "{error}");
    }
}
