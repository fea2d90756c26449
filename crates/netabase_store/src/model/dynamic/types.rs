//! The types that fields can have, and how they are written.

use std::fmt;
use std::sync::Arc;

use super::error::SchemaProblem;
use crate::model::limits::{MAX_ARRAY_ITEMS, MAX_TUPLE_PARTS, MAX_TYPE_DEPTH};

/// The type of a field, as `schema.toml` writes it.
///
/// | written | in Rust |
/// | --- | --- |
/// | `bool`, `char`, `string`, `f32`, `f64`, `u8` to `u128`, `i8` to `i128` | the types of these names, `String` |
/// | `bytes` | `Vec<u8>` |
/// | `author`, `blob` | `Author`, `Blob` |
/// | `system_time`, `duration` | `SystemTime`, `Duration` |
/// | `option<T>`, `list<T>`, `set<T>`, `map<K, V>` | `Option<T>`, `Vec<T>`, `BTreeSet<T>`, `BTreeMap<K, V>` |
/// | `(A, B)`, `[T; 4]` | a tuple, an array |
/// | any other name | a struct or an enum among the [types](super::NamedType) of the schema |
///
/// `list<u8>` is the same as `bytes`. The variants are not called like the types in Rust, or the
/// compiler would spell those out wherever it speaks of one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the table above says what they are")]
pub enum Type {
    Bool,
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
    Char,
    Text,
    Bytes,
    WallTime,
    TimeSpan,
    AuthorKey,
    BlobName,
    Optional(Box<Type>),
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Tuple(Vec<Type>),
    Array(Box<Type>, usize),
    /// A struct or an enum that the schema declares.
    Named {
        /// Its name.
        name: Arc<str>,
        /// Its position among the types of the schema.
        position: usize,
    },
}

/// The types that have neither parts nor another name.
const SIMPLE: [(&str, Type); 20] = [
    ("bool", Type::Bool),
    ("u8", Type::U8),
    ("u16", Type::U16),
    ("u32", Type::U32),
    ("u64", Type::U64),
    ("u128", Type::U128),
    ("i8", Type::I8),
    ("i16", Type::I16),
    ("i32", Type::I32),
    ("i64", Type::I64),
    ("i128", Type::I128),
    ("f32", Type::F32),
    ("f64", Type::F64),
    ("char", Type::Char),
    ("string", Type::Text),
    ("bytes", Type::Bytes),
    ("system_time", Type::WallTime),
    ("duration", Type::TimeSpan),
    ("author", Type::AuthorKey),
    ("blob", Type::BlobName),
];

/// The names of the types that have parts.
const CONTAINERS: [&str; 4] = ["option", "list", "set", "map"];

impl Type {
    /// Returns the list of a type.
    pub(super) fn list_of(item: Self) -> Self {
        if item == Self::U8 { Self::Bytes } else { Self::List(Box::new(item)) }
    }

    /// Returns whether no type of a schema may have the name.
    pub(super) fn is_reserved(name: &str) -> bool {
        CONTAINERS.contains(&name) || SIMPLE.iter().any(|(simple, _)| *simple == name)
    }

    /// Reads a type whose named types are at the positions of `names`.
    pub(super) fn parse(text: &str, names: &[Arc<str>]) -> Result<Self, SchemaProblem> {
        let mut parser = Parser { text, rest: text, names };
        let ty = parser.read(0)?;
        parser.skip_space();
        if parser.rest.is_empty() { Ok(ty) } else { Err(parser.malformed()) }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Optional(inner) => write!(f, "option<{inner}>"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Set(item) => write!(f, "set<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Self::Tuple(parts) => {
                f.write_str("(")?;
                for (position, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if position == 0 { "" } else { ", " })?;
                }
                f.write_str(if parts.len() == 1 { ",)" } else { ")" })
            }
            Self::Array(item, len) => write!(f, "[{item}; {len}]"),
            Self::Named { name, .. } => f.write_str(name),
            simple => {
                let found = SIMPLE.iter().find(|(_, ty)| ty == simple);
                f.write_str(found.map_or("", |(name, _)| name))
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    names: &'a [Arc<str>],
}

impl<'a> Parser<'a> {
    fn read(&mut self, depth: usize) -> Result<Type, SchemaProblem> {
        if depth > MAX_TYPE_DEPTH {
            return Err(SchemaProblem::TypeDepth);
        }
        if self.take('(') {
            return self.tuple(depth);
        }
        if self.take('[') {
            let item = self.read(depth + 1)?;
            self.expect(';')?;
            let len = self.word().parse().map_err(|_| self.malformed())?;
            self.expect(']')?;
            return array(item, len);
        }
        let word = self.word();
        if CONTAINERS.contains(&word) {
            return self.container(word, depth);
        }
        if let Some((_, simple)) = SIMPLE.iter().find(|(name, _)| *name == word) {
            return Ok(simple.clone());
        }
        if word.is_empty() {
            return Err(self.malformed());
        }
        let position = self.names.iter().position(|name| &**name == word);
        let position = position.ok_or_else(|| SchemaProblem::UnknownType { name: word.to_owned() })?;
        Ok(Type::Named { name: word.into(), position })
    }

    fn container(&mut self, word: &str, depth: usize) -> Result<Type, SchemaProblem> {
        self.expect('<')?;
        let first = self.read(depth + 1)?;
        let ty = match word {
            "option" => Type::Optional(Box::new(first)),
            "list" => Type::list_of(first),
            "set" => Type::Set(Box::new(first)),
            _ => {
                self.expect(',')?;
                Type::Map(Box::new(first), Box::new(self.read(depth + 1)?))
            }
        };
        self.expect('>')?;
        Ok(ty)
    }

    fn tuple(&mut self, depth: usize) -> Result<Type, SchemaProblem> {
        let mut parts = Vec::new();
        while !self.take(')') {
            if parts.len() >= MAX_TUPLE_PARTS {
                return Err(SchemaProblem::TupleParts);
            }
            parts.push(self.read(depth + 1)?);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        if parts.is_empty() { Err(SchemaProblem::TupleParts) } else { Ok(Type::Tuple(parts)) }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), SchemaProblem> {
        if self.take(wanted) { Ok(()) } else { Err(self.malformed()) }
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn malformed(&self) -> SchemaProblem {
        SchemaProblem::MalformedType { text: self.text.to_owned(), at: self.text.len() - self.rest.len() }
    }
}

/// Makes an array of a length that serde knows.
pub(super) fn array(item: Type, len: usize) -> Result<Type, SchemaProblem> {
    if (1..=MAX_ARRAY_ITEMS).contains(&len) {
        Ok(Type::Array(Box::new(item), len))
    } else {
        Err(SchemaProblem::ArrayItems)
    }
}
