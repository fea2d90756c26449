//! The tags under which values have their fields and variants.

use syn::Ident;
use syn::ext::IdentExt;

use crate::mistakes::Mistakes;

/// Returns the tag of a name. `tag` of the store is the same: a crate of macros can export no
/// function.
pub(crate) fn tag(name: &str) -> u16 {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [low, high, ..] = ((hash ^ hash >> 16) << 3).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Reports fields of one struct, or variants of one enum, that would have the same tag.
pub(crate) fn check<'a>(names: impl Iterator<Item = (&'a Ident, &'a str)>, mistakes: &mut Mistakes) {
    let mut met: Vec<(u16, &str)> = Vec::new();
    for (ident, name) in names {
        let tag = tag(name);
        if let Some((_, other)) = met.iter().find(|(met, _)| *met == tag) {
            let message = format!(
                "`{name}` and `{other}` have the same tag, a short hash of the name, under which they would be stored: \
                 rename one"
            );
            mistakes.add(ident, message);
        }
        met.push((tag, name));
    }
}

/// The same for names as they are.
pub(crate) fn check_idents<'a>(idents: impl Iterator<Item = &'a Ident>, mistakes: &mut Mistakes) {
    let names: Vec<(&Ident, String)> = idents.map(|ident| (ident, ident.unraw().to_string())).collect();
    check(names.iter().map(|(ident, name)| (*ident, name.as_str())), mistakes);
}
