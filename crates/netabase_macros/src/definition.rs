//! Parses the input of `#[netabase_definition_module]`.

use std::collections::{HashMap, HashSet};

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::{Attribute, DeriveInput, Ident, Item, ItemMod, Path, VisRestricted, Visibility, parse_quote};

use crate::arguments::{Arguments, Of};
use crate::mistakes::Mistakes;
use crate::model::Model;
use crate::{derives, fallback, names};

/// A definition module and the models in it.
pub(crate) struct Definition {
    /// The enum of models.
    pub(crate) ident: Ident,
    /// The enum of keys.
    pub(crate) keys: Ident,
    /// The visibility of both.
    pub(crate) vis: Visibility,
    /// The name in record keys.
    pub(crate) name: String,
    pub(crate) models: Vec<Member>,
    /// The module as the user wrote it, except that the models know their definition.
    pub(crate) module: ItemMod,
    /// The mistakes that do not prevent an expansion.
    pub(crate) mistakes: Mistakes,
}

/// A model of the definition.
pub(crate) struct Member {
    pub(crate) model: Model,
    /// The `#[cfg]` attributes that decide whether the model exists.
    pub(crate) cfg: Vec<Attribute>,
}

impl Definition {
    /// Reads the module and finds its models.
    pub(crate) fn parse(arguments: TokenStream, item: &Item) -> syn::Result<Self> {
        let mut module = inline_module(item)?;
        let mut mistakes = Mistakes::default();
        let mut given = Arguments::new(Of::Definition);
        given.read(arguments, &mut mistakes);
        let mut taken = item_names(&module);
        let (ident, keys) = match enum_names(&given.paths, &mut taken, &mut mistakes) {
            Ok(names) => names,
            Err(error) => return Err(mistakes.with(error)),
        };
        let name = mistakes.check(given.name_or(&ident)).unwrap_or_default();
        let models = members(&mut module, &ident, &mut taken, &mut mistakes);
        check_model_names(&models, &mut mistakes);
        let vis = match models.as_slice() {
            [] => parse_quote!(pub),
            some => widest(some.iter().map(|member| &member.model.vis)),
        };
        Ok(Self { ident, keys, vis, name, models, module, mistakes })
    }
}

fn inline_module(item: &Item) -> syn::Result<ItemMod> {
    const WRITE: &str = "write it on a module with a body: `mod models { .. }`";
    match item {
        Item::Mod(module) if module.content.is_some() => Ok(module.clone()),
        Item::Mod(module) => {
            Err(syn::Error::new_spanned(module, format!("the macro cannot see another file: {WRITE}")))
        }
        other => Err(syn::Error::new_spanned(other, format!("this is no module: {WRITE}"))),
    }
}

/// Returns the names of the two enums, unless the module cannot have them.
fn enum_names(
    paths: &[Path],
    taken: &mut HashSet<String>,
    mistakes: &mut Mistakes,
) -> syn::Result<(Ident, Ident)> {
    const WRITE: &str = "write `#[netabase_definition_module(Definition, Keys)]`";
    for extra in paths.iter().skip(2) {
        mistakes.add(extra, format!("two names are enough: {WRITE}"));
    }
    let Some(definition) = paths.first() else {
        return Err(syn::Error::new(Span::call_site(), format!("the generated enums need names: {WRITE}")));
    };
    let ident = enum_name(definition, taken)?;
    if let Some(keys) = paths.get(1) {
        return Ok((ident, enum_name(keys, taken)?));
    }
    mistakes.add(&ident, format!("the enum of keys needs a name, too: {WRITE}"));
    let keys = format_ident!("{}Keys", ident.unraw());
    Ok((ident, keys))
}

fn enum_name(path: &Path, taken: &mut HashSet<String>) -> syn::Result<Ident> {
    let Some(ident) = path.get_ident() else {
        return Err(syn::Error::new_spanned(path, "this names a new enum, so it must be a plain name"));
    };
    if taken.insert(ident.unraw().to_string()) {
        Ok(ident.clone())
    } else {
        Err(syn::Error::new_spanned(ident, "the module has another item of this name: rename one"))
    }
}

/// Returns the names that the module gives to types, where they do not depend on a `#[cfg]`.
fn item_names(module: &ItemMod) -> HashSet<String> {
    let items = module.content.iter().flat_map(|(_, items)| items);
    items.filter_map(item_name).map(|ident| ident.unraw().to_string()).collect()
}

fn item_name(item: &Item) -> Option<&Ident> {
    let (ident, attributes) = match item {
        Item::Enum(item) => (&item.ident, &item.attrs),
        Item::Mod(item) => (&item.ident, &item.attrs),
        Item::Struct(item) => (&item.ident, &item.attrs),
        Item::Trait(item) => (&item.ident, &item.attrs),
        Item::Type(item) => (&item.ident, &item.attrs),
        Item::Union(item) => (&item.ident, &item.attrs),
        _ => return None,
    };
    (!attributes.iter().any(is_cfg)).then_some(ident)
}

fn is_cfg(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
}

/// Passes the definition to the models of the module, and returns the models that can be members.
fn members(
    module: &mut ItemMod,
    definition: &Ident,
    taken: &mut HashSet<String>,
    mistakes: &mut Mistakes,
) -> Vec<Member> {
    let mut members = Vec::new();
    let mut found = false;
    for item in module.content.iter_mut().flat_map(|(_, items)| items) {
        derives::adopt_version(item);
        let Some(input) = derives::model(item) else { continue };
        found = true;
        derives::adopt(item, definition);
        let Some(member) = Member::of(&input) else { continue };
        if let Some(name) = member.claim_names(taken) {
            let message =
                format!("`{name}`, which this model generates, is already in the module: rename one");
            mistakes.add(&input.ident, message);
            derives::strip(item);
        } else {
            members.push(member);
        }
    }
    if !found {
        mistakes.add(
            &module.ident,
            "the module has no models: write `#[derive(NetabaseModel)]` on a struct in it",
        );
    }
    members
}

impl Member {
    /// Returns `None` where the derive macro will generate nothing but an error.
    fn of(input: &DeriveInput) -> Option<Self> {
        fallback::can_expand(input).then(|| Self {
            // The derive macro reports the mistakes; it sees the attributes after `#[cfg_attr]`.
            model: Model::read(input, &mut Mistakes::default()),
            cfg: input.attrs.iter().filter(|attribute| is_cfg(attribute)).cloned().collect(),
        })
    }

    /// Takes the names of all that is generated for the model, and returns one that was taken.
    fn claim_names(&self, taken: &mut HashSet<String>) -> Option<String> {
        if !self.cfg.is_empty() {
            return None;
        }
        let model = &self.model.ident;
        let keys =
            [names::primary_key(model), names::secondary_keys(model), names::key(model), names::query(model)];
        let secondary = self.model.secondary.iter().map(|key| &key.ident);
        keys.iter().chain(secondary).map(ToString::to_string).find(|name| !taken.insert(name.clone()))
    }
}

fn check_model_names(models: &[Member], mistakes: &mut Mistakes) {
    let mut taken = HashSet::new();
    for Member { model, .. } in models.iter().filter(|member| member.cfg.is_empty()) {
        // The derive macro reports a name that is not one.
        if !model.name.is_empty() && !taken.insert(&model.name) {
            let message = format!("two models are called `{}` in record keys: change one `name`", model.name);
            mistakes.add(&model.ident, message);
        }
    }
}

/// Returns the visibility that lets the enums be seen wherever one of the models is.
fn widest<'a>(visibilities: impl Iterator<Item = &'a Visibility> + Clone) -> Visibility {
    if let Some(public) = visibilities.clone().find(|vis| matches!(vis, Visibility::Public(_))) {
        return public.clone();
    }
    let restricted = visibilities.filter(|vis| match vis {
        Visibility::Restricted(VisRestricted { path, .. }) => !path.is_ident("self"),
        Visibility::Public(_) | Visibility::Inherited => false,
    });
    let distinct: HashMap<_, _> = restricted.map(|vis| (vis.to_token_stream().to_string(), vis)).collect();
    let mut distinct = distinct.into_values();
    match (distinct.next(), distinct.next()) {
        (None, _) => Visibility::Inherited,
        (Some(only), None) => only.clone(),
        // The wider path is unknown without the place of the module.
        (Some(_), Some(_)) => parse_quote!(pub(crate)),
    }
}
