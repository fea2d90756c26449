//! The numbers and strings of a JSON text, as they are written.

use crate::model::limits::MAX_DIGITS;

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

/// Returns the length of the number that `json` starts with.
fn number_len(json: &str) -> usize {
    json.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(json.len())
}

/// Returns JSON in which whole numbers are written as integers, `7` for `7.0`, or `None` if they
/// are already.
///
/// Many languages have only one kind of numbers.
pub(crate) fn integral(json: &str) -> Option<String> {
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

/// Returns a number that is written with a point or an exponent as an integer, if it is exactly
/// one.
fn whole(token: &str) -> Option<String> {
    if token.starts_with('"') || !token.contains(['.', 'e', 'E']) {
        return None;
    }
    let (sign, number) = token.strip_prefix('-').map_or(("", token), |number| ("-", number));
    let (number, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{before}{after}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i64::try_from(before.len()).ok()?.checked_add(exponent.parse().ok()?)?;
    let point = usize::try_from(point).ok()?;
    let (integer, fraction) = digits.split_at(point.min(digits.len()));
    let zeros = point - integer.len();
    let integer = integer.trim_start_matches('0');
    // There is no integer that is minus zero.
    if integer.is_empty() && (!sign.is_empty() || zeros > 0) || fraction.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let is_short = integer.len().checked_add(zeros).is_some_and(|len| len <= MAX_DIGITS);
    is_short.then(|| match integer {
        "" => "0".to_owned(),
        integer => format!("{sign}{integer}{:0<zeros$}", ""),
    })
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

    #[test]
    fn no_digit_is_lost() {
        let is = |number, integer: &str| assert_eq!(integral(number).as_deref(), Some(integer), "{number}");
        is("9007199254740993.0", "9007199254740993");
        is("3.40282366920938463463374607431768211455e38", "340282366920938463463374607431768211455");
        is("120e-1", "12");
        is("0.0", "0");
        for number in ["0.99999999999999999", "1e-1", "1e39", "1e99999999999999999999", "1.2.3", "1e", "."] {
            assert_eq!(integral(number), None, "{number}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(json: String) {
            let _ = integral(&json);
        }
    }
}
