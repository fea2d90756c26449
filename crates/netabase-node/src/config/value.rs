//! The kinds of values that settings have, as text, in TOML and as JSON.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use netabase::Author;
pub(crate) use netabase::units::{Bytes, Interval, Time};
use serde_json::{Value, json};
use toml::de::DeValue;

/// A value as it was given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Given<'a> {
    /// In an environment variable; lists have commas.
    Text(&'a str),
    /// Of a flag, which may come several times.
    Flags(&'a [String]),
    /// In a file, whose directory relative paths begin at.
    Toml(&'a DeValue<'a>, &'a Path),
}

impl Given<'_> {
    /// Returns the one text that was given.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some((*text).to_owned()),
            Self::Flags(texts) => texts.last().cloned(),
            Self::Toml(value, _) => match value {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().replace('_', "")),
                DeValue::Boolean(flag) => Some(flag.to_string()),
                DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => None,
            },
        }
    }
}

/// Something that a setting can be.
pub(crate) trait Parse: Sized {
    /// What is to be written, such as `a number of bytes such as "64 MiB"`.
    const EXPECTED: &'static str;

    /// Reads the value; `None` if it is something else.
    fn parse(given: &Given<'_>) -> Option<Self>;

    /// Shows the value to programs.
    fn json(&self) -> Value;
}

/// Reads a value that is one text in each of its forms.
fn parsed<T: FromStr>(given: &Given<'_>) -> Option<T> {
    given.text()?.trim().parse().ok()
}

impl Parse for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(given: &Given<'_>) -> Option<Self> {
        match given.text()?.trim() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    fn json(&self) -> Value {
        json!(self)
    }
}

impl Parse for String {
    const EXPECTED: &'static str = "text";

    fn parse(given: &Given<'_>) -> Option<Self> {
        given.text()
    }

    fn json(&self) -> Value {
        json!(self)
    }
}

impl Parse for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn parse(given: &Given<'_>) -> Option<Self> {
        let path = Self::from(given.text().filter(|text| !text.is_empty())?);
        Some(match given {
            Given::Toml(_, directory) => directory.join(path),
            Given::Text(_) | Given::Flags(_) => path,
        })
    }

    fn json(&self) -> Value {
        json!(self.display().to_string())
    }
}

impl Parse for NonZeroUsize {
    const EXPECTED: &'static str = "a number from 1";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self)
    }
}

impl Parse for usize {
    const EXPECTED: &'static str = "a number";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self)
    }
}

impl Parse for u32 {
    const EXPECTED: &'static str = "a number";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self)
    }
}

impl Parse for SocketAddr {
    const EXPECTED: &'static str =
        "an address and a port such as 127.0.0.1:4080 (port 0 for one that is free)";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self.to_string())
    }
}

impl Parse for Author {
    const EXPECTED: &'static str = "a public key of 64 hexadecimal digits";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self.to_string())
    }
}

/// Absent unless it is given; an empty text takes back what was given elsewhere.
impl<T: Parse> Parse for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(given: &Given<'_>) -> Option<Self> {
        if given.text().is_some_and(|text| text.is_empty()) { Some(None) } else { T::parse(given).map(Some) }
    }

    fn json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Parse::json)
    }
}

impl Parse for Vec<String> {
    const EXPECTED: &'static str = "a list of texts, with commas between them in the environment";

    fn parse(given: &Given<'_>) -> Option<Self> {
        match given {
            Given::Text(text) => Some(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            ),
            Given::Flags(texts) => Some(texts.to_vec()),
            Given::Toml(DeValue::Array(items), _) => {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            Given::Toml(..) => None,
        }
    }

    fn json(&self) -> Value {
        json!(self)
    }
}

impl Parse for Bytes {
    const EXPECTED: &'static str = Self::EXPECTED;

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self.0)
    }
}

impl Parse for Time {
    const EXPECTED: &'static str = Self::EXPECTED;

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self.to_string())
    }
}

impl Parse for Interval {
    const EXPECTED: &'static str = Self::EXPECTED;

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        self.0.map_or_else(|| json!("never"), |time| Time(time).json())
    }
}
