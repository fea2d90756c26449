//! The arguments of `#[netabase(..)]` and `#[netabase_definition_module(..)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path, Token};

use crate::mistakes::Mistakes;

/// Some paths, then perhaps `name = ".."`.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The paths, in order.
    pub(crate) paths: Vec<Path>,
    /// The name to use in record keys.
    pub(crate) name: Option<LitStr>,
    /// What the definition module says to a model: `in ChatDefinition`. Users cannot write it by
    /// accident, `in` being a keyword.
    pub(crate) module: Option<Ident>,
}

enum Argument {
    Path(Path),
    Name(LitStr),
    Module(Ident),
    Wrong(syn::Error),
}

impl Arguments {
    /// Adds the arguments of the attribute `#[netabase(..)]`.
    pub(crate) fn read_attribute(&mut self, attribute: &Attribute, mistakes: &mut Mistakes) {
        match &attribute.meta {
            // No arguments: what is missing is reported by who needs it.
            Meta::Path(_) => {}
            Meta::List(list) => self.read(list.tokens.clone(), mistakes),
            Meta::NameValue(meta) => mistakes.add(meta, "write `#[netabase(Definition)]`"),
        }
    }

    /// Adds the arguments in `tokens`.
    pub(crate) fn read(&mut self, tokens: TokenStream, mistakes: &mut Mistakes) {
        let parsed = syn::parse::Parser::parse2(Punctuated::<Argument, Token![,]>::parse_terminated, tokens);
        for argument in mistakes.check(parsed).into_iter().flatten() {
            match argument {
                Argument::Path(path) => self.paths.push(path),
                Argument::Module(module) => self.module = Some(module),
                Argument::Wrong(error) => mistakes.push(error),
                Argument::Name(name) if self.name.is_some() => {
                    mistakes.add(name, "the name is given twice: remove one");
                }
                Argument::Name(name) => self.name = Some(name),
            }
        }
    }

    /// Returns the given name, or else that of `ident`, if record keys can hold it.
    pub(crate) fn name_or(&self, ident: &Ident) -> syn::Result<String> {
        const RULE: &str =
            "a name in record keys is 1 to 64 of the characters `A-Z`, `a-z`, `0-9`, `_`, `-`, `.`";
        let name = self.name.as_ref().map_or_else(|| ident.unraw().to_string(), LitStr::value);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(name);
        }
        Err(match &self.name {
            Some(given) => syn::Error::new_spanned(given, RULE),
            None => syn::Error::new_spanned(ident, format!("{RULE}: add another with `name = \"..\"`")),
        })
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
            let value = input.parse()?;
            return Ok(named(&path, value));
        }
        // Whatever follows, up to the next comma, belongs to the argument that nobody knows.
        while !input.is_empty() && !input.peek(Token![,]) {
            input.parse::<proc_macro2::TokenTree>()?;
        }
        Ok(Self::Wrong(unknown(&path)))
    }
}

fn named(path: &Path, value: Expr) -> Argument {
    if !path.is_ident("name") {
        return Argument::Wrong(unknown(path));
    }
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) => Argument::Name(name),
        other => {
            Argument::Wrong(syn::Error::new_spanned(other, "write the name as a string: `name = \"..\"`"))
        }
    }
}

fn unknown(path: &Path) -> syn::Error {
    syn::Error::new_spanned(path, "unknown argument: only `name = \"..\"` can follow here")
}
