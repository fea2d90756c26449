//! `#[merge(..)]`: how a field of a merged model is merged.

use syn::ext::IdentExt;
use syn::{Attribute, Ident, Type};

use crate::mistakes::Mistakes;

/// A field and how it is merged.
pub(crate) struct MergedField {
    pub(crate) field: Ident,
    pub(crate) ty: Type,
    pub(crate) rule: Rule,
}

/// The rule by which several authors' contributions to a field are merged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The latest contribution counts.
    Latest,
    Max,
    Min,
    Counter,
    Set,
}

impl Rule {
    /// Reads the attribute.
    pub(crate) fn read(attribute: &Attribute, mistakes: &mut Mistakes) -> Option<Self> {
        let name = attribute.parse_args_with(Ident::parse_any).map(|ident| ident.to_string());
        let rule = match name.unwrap_or_default().as_str() {
            "lww" => Self::Latest,
            "max" => Self::Max,
            "min" => Self::Min,
            "counter" => Self::Counter,
            "set" => Self::Set,
            _ => {
                let write = "write how the field is merged: `#[merge(lww)]`, which is the default, `#[merge(max)]`, \
                             `#[merge(min)]`, `#[merge(counter)]` or `#[merge(set)]`";
                mistakes.add(attribute, write);
                return None;
            }
        };
        Some(rule)
    }

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latest => "lww",
            Self::Max => "max",
            Self::Min => "min",
            Self::Counter => "counter",
            Self::Set => "set",
        }
    }
}
