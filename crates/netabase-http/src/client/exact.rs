//! JSON whose integers may be longer than those of [`Value`].

use serde_json::Value;

/// The most digits of an integer that surely has a place in a [`Value`].
const SAFE_DIGITS: usize = 18;

/// Reads JSON; integers of more than 64 bits become texts, and keep all of their digits so.
pub(super) fn parse(json: &str) -> serde_json::Result<Value> {
    match quoted(json) {
        Some(quoted) => serde_json::from_str(&quoted),
        None => serde_json::from_str(json),
    }
}

/// Returns JSON with quotes around integers that are too long; none where there are no such.
fn quoted(json: &str) -> Option<String> {
    let (mut out, mut rest, mut changed) = (String::new(), json, false);
    while let Some(start) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (before, token) = rest.split_at(start);
        let len = if token.starts_with('"') { text_len(token) } else { number_len(token) };
        let (token, after) = token.split_at(len.max(1).min(token.len()));
        out.push_str(before);
        if is_wide(token) {
            changed = true;
            out.extend(["\"", token, "\""]);
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    out.push_str(rest);
    changed.then_some(out)
}

fn is_wide(token: &str) -> bool {
    token.len() > SAFE_DIGITS
        && token.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
        && token.parse::<u64>().is_err()
        && token.parse::<i64>().is_err()
}

/// Returns the length of the string that `json` starts with.
pub(crate) fn text_len(json: &str) -> usize {
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

/// Returns the length of the number that `json` starts with.
pub(crate) fn number_len(json: &str) -> usize {
    json.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(json.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn no_digit_is_lost() {
        let json = r#"{"a":340282366920938463463374607431768211455,"b":[-170141183460469231731687303715884105728,
            18446744073709551615,-9223372036854775808],"c":"99999999999999999999","d":1e400,"e":12345678901234567890123.5}"#;
        let json = json.replace("1e400", "1e40");
        let value = parse(&json).unwrap();
        assert_eq!(value["a"], json!("340282366920938463463374607431768211455"));
        assert_eq!(value["b"][0], json!("-170141183460469231731687303715884105728"));
        assert_eq!((&value["b"][1], &value["b"][2]), (&json!(u64::MAX), &json!(i64::MIN)));
        assert_eq!((&value["c"], &value["d"]), (&json!("99999999999999999999"), &json!(1e40)));
    }

    proptest! {
        #[test]
        fn everything_else_is_read_as_ever(text: String, number: i64, float: f64) {
            let json = json!({ "text": text, "numbers": [number, float] }).to_string();
            prop_assert_eq!(parse(&json).unwrap(), serde_json::from_str::<Value>(&json).unwrap());
            let _ = parse(&text);
        }
    }
}
