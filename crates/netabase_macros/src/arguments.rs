//! The arguments of `#[netabase(..)]` and `#[netabase_definition_module(..)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Meta, Path, Token};

use crate::mistakes::Mistakes;

/// The longest lifetime of a model's records: 1000 years. `MAX_LIFETIME_MILLIS` of the store is the
/// same: a crate of macros can export no constant.
const MAX_LIFETIME_MILLIS: u64 = 365_250 * 24 * 60 * 60 * 1000;

/// The highest version of a model; `MAX_MODEL_VERSION` of the store is the same.
const MAX_MODEL_VERSION: u32 = 8191;

/// Some paths, then perhaps `name = ".."` and the like.
pub(crate) struct Arguments {
    of: Of,
    /// The paths, in order.
    pub(crate) paths: Vec<Path>,
    /// The name to use in record keys.
    pub(crate) name: Option<LitStr>,
    /// The version of a model.
    version: Option<u32>,
    /// The version of the model before this one.
    migrate_from: Option<Path>,
    /// The TTL of a model's records, in milliseconds.
    pub(crate) lifetime: Option<u64>,
    /// The argument `owned`, if it is there.
    pub(crate) owned: Option<Path>,
    /// The argument `merged`, if it is there.
    pub(crate) merged: Option<Path>,
    /// The argument that the definition module passes to a model: `in ChatDefinition`. Users cannot
    /// write it by accident, since `in` is a keyword.
    pub(crate) module: Option<Ident>,
}

/// The item that has the arguments.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Definition,
    Model,
    Version,
}

/// The version of a model, and where its earlier versions are.
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) migrate_from: Option<Path>,
}

enum Argument {
    Path(Path),
    Named(Path, Expr),
    Module(Ident),
    Unknown(Path),
}

impl Arguments {
    pub(crate) fn new(of: Of) -> Self {
        Self {
            of,
            paths: Vec::new(),
            name: None,
            version: None,
            migrate_from: None,
            lifetime: None,
            owned: None,
            merged: None,
            module: None,
        }
    }

    /// Adds the arguments of the attribute `#[netabase(..)]`.
    pub(crate) fn read_attribute(&mut self, attribute: &Attribute, mistakes: &mut Mistakes) {
        match &attribute.meta {
            // No arguments: the caller reports missing ones.
            Meta::Path(_) => {}
            Meta::List(list) => self.read(list.tokens.clone(), mistakes),
            Meta::NameValue(meta) => mistakes.add(meta, format!("write {}", self.of.example())),
        }
    }

    /// Adds the arguments in `tokens`.
    pub(crate) fn read(&mut self, tokens: TokenStream, mistakes: &mut Mistakes) {
        let parsed = syn::parse::Parser::parse2(Punctuated::<Argument, Token![,]>::parse_terminated, tokens);
        for argument in mistakes.check(parsed).into_iter().flatten() {
            match argument {
                Argument::Path(path) => {
                    mistakes.check(self.read_path(path));
                }
                Argument::Module(module) => self.module = Some(module),
                Argument::Unknown(path) => mistakes.push(self.unknown(&path)),
                Argument::Named(name, value) => {
                    mistakes.check(self.read_named(&name, value));
                }
            }
        }
    }

    /// Takes a path for a flag, if there is one of that name.
    fn read_path(&mut self, path: Path) -> syn::Result<()> {
        let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
        match (name.as_str(), self.of) {
            ("owned", Of::Model) => once(&mut self.owned, &path, path.clone()),
            ("merged", Of::Model) => once(&mut self.merged, &path, path.clone()),
            _ => {
                self.paths.push(path);
                Ok(())
            }
        }
    }

    fn read_named(&mut self, path: &Path, value: Expr) -> syn::Result<()> {
        let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
        match (name.as_str(), self.of) {
            ("name", Of::Definition | Of::Model) => once(&mut self.name, path, string(value)?),
            ("version", Of::Model | Of::Version) => once(&mut self.version, path, version(value)?),
            ("lifetime", Of::Model) => once(&mut self.lifetime, path, lifetime(value)?),
            ("migrate_from", Of::Model | Of::Version) => {
                once(&mut self.migrate_from, path, type_path(value)?)
            }
            _ => Err(self.unknown(path)),
        }
    }

    fn unknown(&self, path: &Path) -> syn::Error {
        syn::Error::new_spanned(path, format!("unknown argument: {}", self.of.known()))
    }

    /// Returns the given name, or else that of `ident`, if record keys can hold it.
    pub(crate) fn name_or(&self, ident: &Ident) -> syn::Result<String> {
        const RULE: &str = "a name in record keys is 1 to 64 of the characters `A-Z`, `a-z`, `0-9`, `_`, `-`, \
            `.`, and not `.` or `..`";
        let name = self.name.as_ref().map_or_else(|| ident.unraw().to_string(), LitStr::value);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        // Paths of URLs cannot have the names of directories.
        let is_directory = [".", ".."].contains(&name.as_str());
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !is_directory {
            return Ok(name);
        }
        Err(match &self.name {
            Some(given) => syn::Error::new_spanned(given, RULE),
            None => syn::Error::new_spanned(ident, format!("{RULE}: add another with `name = \"..\"`")),
        })
    }

    /// Returns the version, if one is given.
    pub(crate) fn version(&self, mistakes: &mut Mistakes) -> Option<Version> {
        if let (None | Some(1), Some(path)) = (self.version, &self.migrate_from) {
            mistakes.add(path, "version 1 has none before it: add `version = 2`, or a higher one");
        }
        self.version.map(|number| Version { number, migrate_from: self.migrate_from.clone() })
    }
}

impl Of {
    fn example(self) -> &'static str {
        match self {
            Self::Definition => "`#[netabase_definition_module(Definition, Keys)]`",
            Self::Model => "`#[netabase(Definition)]`",
            Self::Version => "`#[netabase(version = 1)]`",
        }
    }

    fn known(self) -> &'static str {
        match self {
            Self::Definition => "only `name = \"..\"` can follow here",
            Self::Model => {
                "only `name = \"..\"`, `owned`, `merged`, `lifetime = \"30d\"`, `version = 2` and `migrate_from = Old` can follow here"
            }
            Self::Version => "only `version = 1` and `migrate_from = Old` can stand here",
        }
    }
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.parse::<Option<Token![in]>>()?.is_some() {
            return input.parse().map(Self::Module);
        }
        let path = input.call(Path::parse_mod_style)?;
        if input.is_empty() || input.peek(Token![,]) {
            return Ok(Self::Path(path));
        }
        if input.parse::<Option<Token![=]>>()?.is_some() {
            return Ok(Self::Named(path, input.parse()?));
        }
        skip_argument(input)?;
        Ok(Self::Unknown(path))
    }
}

/// Skips the tokens up to the next comma, which belong to an unknown argument.
pub(crate) fn skip_argument(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<proc_macro2::TokenTree>()?;
    }
    Ok(())
}

/// Sets what can be given once.
pub(crate) fn once<T>(place: &mut Option<T>, name: &Path, value: T) -> syn::Result<()> {
    if place.is_some() {
        let name_text = name.get_ident().map(ToString::to_string).unwrap_or_default();
        return Err(syn::Error::new_spanned(name, format!("`{name_text}` is given twice: remove one")));
    }
    *place = Some(value);
    Ok(())
}

fn string(value: Expr) -> syn::Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) => Ok(name),
        other => Err(syn::Error::new_spanned(other, "write the name as a string: `name = \"..\"`")),
    }
}

fn version(value: Expr) -> syn::Result<u32> {
    const WRITE: &str = "a version is a number from 1 to 8191: write `version = 1`";
    let number = match &value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => LitInt::base10_parse(number).ok(),
        _ => None,
    };
    number
        .filter(|number| (1..=MAX_MODEL_VERSION).contains(number))
        .ok_or_else(|| syn::Error::new_spanned(value, WRITE))
}

/// Reads a time such as `30d`, in milliseconds.
fn lifetime(value: Expr) -> syn::Result<u64> {
    const WRITE: &str = "a lifetime is a number from 1 and `s`, `m`, `h` or `d`: write `lifetime = \"30d\"`";
    let parse = |text: &str| {
        let seconds = match text.bytes().last()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 60 * 60,
            b'd' => 24 * 60 * 60,
            _ => return None,
        };
        let number = text.get(..text.len() - 1)?;
        let number =
            number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok())??;
        // So that no date overflows that it is added to.
        let millis = number.checked_mul(seconds * 1000).filter(|millis| *millis <= MAX_LIFETIME_MILLIS)?;
        Some(millis).filter(|millis| *millis > 0)
    };
    let millis = match &value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => parse(&text.value()),
        _ => None,
    };
    millis.ok_or_else(|| syn::Error::new_spanned(value, WRITE))
}

fn type_path(value: Expr) -> syn::Result<Path> {
    match value {
        Expr::Path(path) if path.qself.is_none() => Ok(path.path),
        other => Err(syn::Error::new_spanned(
            other,
            "write the type of the version before: `migrate_from = MessageV1`",
        )),
    }
}
