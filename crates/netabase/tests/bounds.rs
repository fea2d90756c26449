//! Compares the table of bounds in `docs/design.md` with the constants in the sources.
#![allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose bounds are listed.
const CRATES: [&str; 5] = ["netabase", "netabase_store", "netabase-http", "netabase-client", "netabase-node"];
/// What only the program has: its demonstration has bounds of its own.
const PROGRAM: &str = "netabase-node";

/// A constant: the file that it is in, and its expression.
type Constants = HashMap<String, Vec<(PathBuf, String)>>;

/// A value that a constant may have.
#[derive(Debug, Clone, Copy)]
enum Value {
    Number(u128),
    Millis(u128),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read_constants(directory: &Path, constants: &mut Constants) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_constants(&path, constants);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for declared in text.split("const ").skip(1) {
                let Some((name, rest)) = declared.split_once(": ") else { continue };
                let Some((_, value)) = rest.split_once(" =") else { continue };
                let Some((value, _)) = value.split_once(';') else { continue };
                if is_constant(name) && rest.find(" =") < rest.find(';') {
                    constants.entry(name.into()).or_default().push((path.clone(), value.trim().into()));
                }
            }
        }
    }
}

fn is_constant(name: &str) -> bool {
    name.len() > 2
        && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
        && name.starts_with(|first: char| first.is_ascii_uppercase())
}

/// Returns a product of numbers; none for what is derived from other constants.
fn product(text: &str) -> Option<u128> {
    text.split('*').try_fold(1_u128, |product, factor| {
        let factor: u128 = factor.trim().replace('_', "").parse().ok()?;
        product.checked_mul(factor)
    })
}

fn value(name: &str, text: &str) -> Option<Value> {
    for (unit, millis) in
        [("millis", 1), ("secs", 1000), ("mins", 60_000), ("hours", 3_600_000), ("days", 86_400_000)]
    {
        let inner = text.strip_prefix("Duration::from_").and_then(|text| text.strip_prefix(unit));
        if let Some(inner) = inner.and_then(|text| text.strip_prefix('(')?.strip_suffix(')')) {
            return product(inner).map(|number| Value::Millis(number * millis));
        }
    }
    let number = product(text)?;
    Some(match name.rsplit('_').next() {
        Some("KIB") => Value::Number(number * 1024),
        Some("MILLIS") => Value::Millis(number),
        _ => Value::Number(number),
    })
}

fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    groups.iter().map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

/// How the table may write a value.
fn written(value: Value) -> Vec<String> {
    let multiples = |number: u128, units: &[(&str, u128)]| {
        let whole = units.iter().filter(move |(_, unit)| number > 0 && number.is_multiple_of(*unit));
        whole.map(|(name, unit)| format!("{} {name}", grouped(number / unit))).collect::<Vec<_>>()
    };
    match value {
        Value::Number(number) => {
            let words = ["", "one", "twice", "three", "a quarter", "five", "six", "seven", "an eighth"];
            let word = usize::try_from(number).ok().and_then(|number| words.get(number));
            let mut forms = multiples(
                number,
                &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("min", 60), ("%", 100)],
            );
            forms.extend([number.to_string(), grouped(number)]);
            forms.extend(word.filter(|word| !word.is_empty()).map(|word| (*word).to_owned()));
            if number == 2 {
                forms.extend(["two".into(), "half".into()]);
            }
            forms
        }
        Value::Millis(millis) => {
            let mut forms = multiples(
                millis,
                &[
                    ("ms", 1),
                    ("s", 1000),
                    ("min", 60_000),
                    ("minutes", 60_000),
                    ("h", 3_600_000),
                    ("hours", 3_600_000),
                    ("days", 86_400_000),
                ],
            );
            let alone =
                [(1000, "a second"), (60_000, "a minute"), (3_600_000, "an hour"), (86_400_000, "a day")];
            forms
                .extend(alone.iter().filter(|(unit, _)| *unit == millis).map(|(_, name)| (*name).to_owned()));
            forms
        }
    }
}

/// Whether `text` has `form`, which is no part of a longer number or word.
fn has(text: &str, form: &str) -> bool {
    text.match_indices(form).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + form.len()..]);
        let goes_on = after.starts_with(|next: char| next.is_alphanumeric())
            || after
                .strip_prefix(',')
                .is_some_and(|after| after.starts_with(|next: char| next.is_ascii_digit()));
        !goes_on && !before.ends_with(|last: char| last.is_alphanumeric() || last == ',')
    })
}

#[test]
fn the_table_of_bounds_says_what_the_constants_are() {
    let mut constants = Constants::new();
    for name in CRATES {
        read_constants(&root().join("crates").join(name).join("src"), &mut constants);
    }
    let design = fs::read_to_string(root().join("docs/design.md")).unwrap();
    let (_, table) = design.split_once("\n## Bounds\n").unwrap();
    let rows = table.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let (mut named, mut compared, mut wrong) = (Vec::new(), 0, Vec::new());
    for row in rows {
        let (column, text) = row.trim_start_matches('|').split_once('|').unwrap();
        let listed = column.split('`').skip(1).step_by(2).filter_map(|name| name.rsplit("::").next());
        for name in listed.filter(|name| is_constant(name)) {
            named.push(name.to_owned());
            let Some(declared) = constants.get(name) else {
                wrong.push(format!("{name}: there is none"));
                continue;
            };
            let values: Option<Vec<Value>> = declared.iter().map(|(_, text)| value(name, text)).collect();
            // One of them that is derived from others may be the one that is meant.
            let Some(values) = values else { continue };
            compared += 1;
            let mut forms = values.into_iter().flat_map(written);
            if !forms.any(|form| has(text, &form)) {
                wrong.push(format!("{name} is {:?}, and the table says:{text}", declared[0].1));
            }
        }
    }
    let unlisted = constants.iter().filter(|(name, declared)| {
        let is_bound =
            declared.iter().any(|(path, _)| !path.components().any(|part| part.as_os_str() == PROGRAM));
        name.starts_with("MAX_") && is_bound && !named.contains(name)
    });
    wrong.extend(
        unlisted.map(|(name, declared)| format!("{name} of {} is not listed", declared[0].0.display())),
    );
    assert!(wrong.is_empty(), "docs/design.md, Bounds:\n{}", wrong.join("\n"));
    assert!(compared > 250, "only {compared} bounds were compared");
}
