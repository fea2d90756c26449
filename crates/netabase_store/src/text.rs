//! Text that others chose, written so that all of it is seen.
//!
//! Peers choose values, addresses, names and the errors that quote them. Some characters are not
//! text: they move a cursor, reorder what is around them, or are invisible. Whatever shows text to
//! people or writes it to a log passes it through [`line()`], and whatever writes JSON through
//! [`json`]. The dashboard has the same list in `format.js`.
//!
//! ```
//! use netabase_store::text;
//!
//! assert_eq!(text::line("caf\u{e9} \u{1b}[2J\u{202e}"), "caf\u{e9} \\u{1b}[2J\\u{202e}");
//! assert_eq!(text::json("{\"a\":\"\u{7f}\u{e0041}\"}"), r#"{"a":"\u007f\udb40\udc41"}"#);
//! ```

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a character is a control, bidirectional, zero-width, separator or tag
/// character, or no character of Unicode at all.
pub fn is_hidden(character: char) -> bool {
    match character {
        '\0'..='\u{1f}' // C0
        | '\u{7f}'..='\u{9f}' // DEL and C1
        | '\u{ad}' // the soft hyphen
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}' // zero-width characters and marks of direction
        | '\u{2028}'..='\u{202e}' // separators, embeddings and overrides
        | '\u{2060}'..='\u{206f}' // invisible operators, isolates and deprecated controls
        | '\u{fdd0}'..='\u{fdef}'
        | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}' => true,
        // The last two of each plane are noncharacters.
        character => u32::from(character) & 0xfffe == 0xfffe,
    }
}

/// Returns a text on one line, with its hidden characters as `\u{..}`, and line feeds, carriage
/// returns and tabs as `\n`, `\r` and `\t`.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_hidden, |character, out| match character {
        '\n' | '\r' | '\t' => out.extend(character.escape_default()),
        hidden => out.extend(hidden.escape_unicode()),
    })
}

/// Returns a JSON document of the same value, with the hidden characters of its strings as
/// `\uXXXX`. JSON itself forbids C0 in strings, and has it as white space elsewhere.
pub fn json(document: &str) -> Cow<'_, str> {
    let is_escaped = |character| character > '\u{1f}' && is_hidden(character);
    escape(document, is_escaped, |character, out| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    // Most text is plain, and this is the fastest way to see that it is.
    if text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let Some(first) = text.find(&is_escaped) else { return Cow::Borrowed(text) };
    let (shown, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() * 2);
    out.push_str(shown);
    for character in rest.chars() {
        if is_escaped(character) { write(character, &mut out) } else { out.push(character) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_text_is_hidden_and_everything_else_is_not() {
        let ranges: [(u32, u32); 14] = [
            (0x00, 0x1f),
            (0x7f, 0x9f),
            (0xad, 0xad),
            (0x61c, 0x61c),
            (0x200b, 0x200f),
            (0x2028, 0x202e),
            (0x2060, 0x206f),
            (0xfdd0, 0xfdef),
            (0xfeff, 0xfeff),
            (0xfffe, 0xffff),
            (0x1_fffe, 0x1_ffff),
            (0xd_fffe, 0xe_007f),
            (0xf_fffe, 0xf_ffff),
            (0x10_fffe, 0x10_ffff),
        ];
        for (first, last) in ranges {
            assert!((first..=last).filter_map(char::from_u32).all(is_hidden), "{first:x}");
            for beside in [first.wrapping_sub(1), last + 1].into_iter().filter_map(char::from_u32) {
                assert!(!is_hidden(beside), "{:x}", u32::from(beside));
            }
        }
    }

    #[test]
    fn a_line_shows_every_character() {
        assert!(matches!(line("h\u{e9}llo \u{1f600} \\u{1b}"), Cow::Borrowed(_)));
        assert_eq!(line("a\r\n\tb\u{0}\u{9b}"), "a\\r\\n\\tb\\u{0}\\u{9b}");
        assert_eq!(line("\u{200b}\u{2066}\u{e0041}\u{10ffff}"), "\\u{200b}\\u{2066}\\u{e0041}\\u{10ffff}");
    }

    proptest! {
        #[test]
        fn json_keeps_its_value_and_its_white_space(text in any::<String>(), more in "[\u{7f}-\u{9f}\u{200b}-\u{206f}\u{fff0}-\u{e0080}]*") {
            let value = serde_json::json!({ "key": text, (more.clone()): [more] });
            for document in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let shown = json(&document);
                prop_assert!(!shown.chars().any(|character| character != '\n' && is_hidden(character)));
                prop_assert_eq!(shown.lines().count(), document.lines().count());
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&shown).unwrap(), &value);
            }
        }
    }
}
