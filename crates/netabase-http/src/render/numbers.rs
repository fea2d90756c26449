//! Numbers of clients whose language has only one kind of them: `7.0` is 7.

/// The largest number up to which every integer is a number of theirs.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns JSON in which whole numbers are written as integers; none if they are already.
pub(super) fn integral(json: &str) -> Option<String> {
    let (mut out, mut rest, mut changed) = (String::with_capacity(json.len()), json, false);
    while let Some(start) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (before, token) = rest.split_at(start);
        out.push_str(before);
        let (token, after) =
            token.split_at(if token.starts_with('"') { text_len(token) } else { number_len(token) });
        match whole(token) {
            Some(number) => {
                changed = true;
                out.push_str(&number);
            }
            None => out.push_str(token),
        }
        rest = after;
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Returns the length of the string that `json` starts with.
fn text_len(json: &str) -> usize {
    let mut escaped = true; // the quote that it starts with
    for (position, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position + 1,
            _ => {}
        }
    }
    json.len()
}

fn number_len(json: &str) -> usize {
    json.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(json.len())
}

fn whole(token: &str) -> Option<String> {
    if token.starts_with('"') || !token.contains(['.', 'e', 'E']) {
        return None;
    }
    let number: f64 = token.parse().ok()?;
    let is_whole =
        number.fract() == 0.0 && number.abs() <= MAX_EXACT && !(number == 0.0 && number.is_sign_negative());
    is_whole.then(|| format!("{number:.0}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_become_integers_and_nothing_else_changes() {
        let json = r#"{"a 1.0 \" 2.0":[7.0, -3.00,1.5, 2e3,-0.0,1e300], "b":"4.0"}"#;
        let integers = r#"{"a 1.0 \" 2.0":[7, -3,1.5, 2000,-0.0,1e300], "b":"4.0"}"#;
        assert_eq!(integral(json).as_deref(), Some(integers));
        assert_eq!(integral(integers), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(json: String) {
            let _ = integral(&json);
        }
    }
}
