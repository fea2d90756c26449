//! Descriptions of the types of fields: those of models, and of types that derive `FieldType`.

use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Expr, ExprLit, ExprPath, ExprUnary, Fields, Ident, Lit, LitStr,
    Meta, MetaNameValue, Token, Type, UnOp, Variant,
};

use crate::mistakes::Mistakes;
use crate::tag;

/// What a field is that is absent.
#[derive(Clone)]
pub(crate) enum Absent {
    /// Nothing, if it is an option; otherwise an error.
    Missing,
    /// The default of its type.
    Default,
    /// What a function returns.
    Call(ExprPath),
    /// The same field of a struct that is the default of its type, or what a function returns.
    PartOf(Option<ExprPath>),
}

impl Absent {
    /// Says it of a field, of a struct with attributes.
    pub(crate) fn of(field: &[Attribute], of_struct: &[Attribute]) -> Self {
        match (Self::read(field), Self::read(of_struct)) {
            (Self::Missing, Self::Default) => Self::PartOf(None),
            (Self::Missing, Self::Call(path)) => Self::PartOf(Some(path)),
            (of_field, _) => of_field,
        }
    }

    /// Reads `#[serde(default)]` or `#[serde(default = "path")]`.
    fn read(attributes: &[Attribute]) -> Self {
        let mut defaults = serde_arguments(attributes).filter(|meta| meta.path().is_ident("default"));
        match defaults.next() {
            Some(meta) => {
                text(&meta).map_or(Self::Default, |path| path.parse().map_or(Self::Missing, Self::Call))
            }
            None => Self::Missing,
        }
    }
}

/// Reads `#[serde(alias = "name")]`.
pub(crate) fn aliases(attributes: &[Attribute]) -> Vec<String> {
    let aliases = serde_arguments(attributes).filter(|meta| meta.path().is_ident("alias"));
    aliases.filter_map(|meta| Some(text(&meta)?.value())).collect()
}

fn serde_arguments(attributes: &[Attribute]) -> impl Iterator<Item = Meta> {
    let serde = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    let arguments = serde.filter_map(|attribute| {
        attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()
    });
    arguments.flatten()
}

/// Returns the string of `name = "string"`.
fn text(meta: &Meta) -> Option<LitStr> {
    match meta {
        Meta::NameValue(MetaNameValue { value: Expr::Lit(ExprLit { lit: Lit::Str(text), .. }), .. }) => {
            Some(text.clone())
        }
        _ => None,
    }
}

/// The arguments of `#[serde(..)]` that leave the form of values as it is.
const HARMLESS: [&str; 6] = ["default", "alias", "deny_unknown_fields", "bound", "crate", "expecting"];

/// A field that is described.
pub(crate) struct DescribedField {
    /// Its name, or its position.
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// Whether serde writes it in another form than that of its type.
    pub(crate) has_own_form: bool,
    /// The name of the rule that it is merged by, if it has one.
    pub(crate) merge: Option<&'static str>,
    pub(crate) absent: Absent,
    /// Its former names.
    pub(crate) aliases: Vec<String>,
}

/// A type that derives `FieldType`.
pub(crate) struct DescribedType {
    pub(crate) ident: Ident,
    pub(crate) body: Body,
}

/// The parts of a described type or of one of its variants.
pub(crate) enum Body {
    Unit,
    Tuple(Vec<DescribedField>),
    Struct(Vec<DescribedField>),
    Enum(Vec<(String, Body)>),
}

impl DescribedType {
    /// Reads the struct or enum.
    pub(crate) fn parse(input: &DeriveInput) -> syn::Result<Self> {
        let mut mistakes = Mistakes::default();
        if !input.generics.params.is_empty() {
            mistakes.add(
                &input.generics,
                "a described type cannot be generic, since others know it by its name: name the types of the fields",
            );
        }
        refuse_form(&input.attrs, &mut mistakes);
        let body = match &input.data {
            Data::Struct(data) => body(&data.fields, &input.attrs, &mut mistakes),
            Data::Enum(data) => Body::Enum(variants(data, &mut mistakes)),
            Data::Union(data) => {
                mistakes.add(data.union_token, "a described type is a struct or an enum");
                Body::Unit
            }
        };
        let is_empty = match &body {
            Body::Unit => !matches!(input.data, Data::Union(_)),
            Body::Tuple(fields) | Body::Struct(fields) => fields.is_empty(),
            Body::Enum(variants) => variants.is_empty(),
        };
        if is_empty {
            mistakes.add(
                &input.ident,
                "a described type has at least one field or variant: remove the fields that have this type",
            );
        }
        mistakes.finish(Self { ident: input.ident.clone(), body })
    }
}

fn variants(data: &DataEnum, mistakes: &mut Mistakes) -> Vec<(String, Body)> {
    tag::check_idents(data.variants.iter().map(|variant| &variant.ident), mistakes);
    // The number that a variant has if none is given, and the least that it may have.
    let (mut number, mut least) = (0_i128, i128::MIN);
    let mut variant = |variant: &Variant| {
        refuse_form(&variant.attrs, mistakes);
        if let Some((_, given)) = &variant.discriminant {
            match integer(given) {
                Some(given) if given >= least => number = given,
                _ => mistakes.add(
                    given,
                    "the variants of a described type are in the order of their numbers: remove the number, or write it in that order",
                ),
            }
        }
        number = number.saturating_add(1);
        least = number;
        (variant.ident.unraw().to_string(), body(&variant.fields, &[], mistakes))
    };
    data.variants.iter().map(&mut variant).collect()
}

/// Returns the number of a literal.
fn integer(expression: &Expr) -> Option<i128> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok(),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => integer(expr).map(|number| -number),
        _ => None,
    }
}

fn body(fields: &Fields, of_struct: &[Attribute], mistakes: &mut Mistakes) -> Body {
    for field in fields {
        refuse_form(&field.attrs, mistakes);
    }
    tag::check_idents(fields.iter().filter_map(|field| field.ident.as_ref()), mistakes);
    let described = fields.iter().zip(0..).map(|(field, position)| DescribedField {
        name: field
            .ident
            .as_ref()
            .map_or_else(|| i32::to_string(&position), |ident| ident.unraw().to_string()),
        ty: field.ty.clone(),
        has_own_form: false,
        merge: None,
        absent: Absent::of(&field.attrs, of_struct),
        aliases: aliases(&field.attrs),
    });
    match fields {
        Fields::Named(_) => Body::Struct(described.collect()),
        Fields::Unnamed(_) => Body::Tuple(described.collect()),
        Fields::Unit => Body::Unit,
    }
}

fn refuse_form(attributes: &[Attribute], mistakes: &mut Mistakes) {
    if let Some(attribute) = attributes.iter().find(|attribute| changes_form(attribute)) {
        mistakes.add(
            attribute,
            "a described type has the form that serde's derives give it: remove this, or `FieldType`",
        );
    }
}

/// Returns whether an attribute makes serde write something in another form.
pub(crate) fn changes_form(attribute: &Attribute) -> bool {
    if !attribute.path().is_ident("serde") {
        return false;
    }
    let arguments = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let is_harmless = |meta: &Meta| HARMLESS.iter().any(|name| meta.path().is_ident(name));
    // An argument that cannot be read as usual is `crate`, a keyword, or a mistake for serde to
    // report.
    !arguments.is_ok_and(|arguments| arguments.iter().all(is_harmless))
}
