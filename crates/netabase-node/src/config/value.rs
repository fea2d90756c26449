//! The types of settings, parsed from text and TOML and printed as JSON.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use netabase::Author;
pub(crate) use netabase::units::{Bytes, Interval, Time};
use serde_json::{Value, json};
use toml::de::DeValue;

/// A value in the form of its source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Given<'a> {
    /// The text of an environment variable, in which the items of a list are separated by commas.
    Text(&'a str),
    /// The texts of a flag, which can be repeated.
    Flags(&'a [String]),
    /// A value in a file, and the directory of the file, to which paths are relative.
    Toml(&'a DeValue<'a>, &'a Path),
}

impl Given<'_> {
    /// Returns the value as one text, or `None` if it has another form.
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

/// A type that a setting can have.
pub(crate) trait Parse: Sized {
    /// The description of valid values, such as `a number of bytes such as "64 MiB"`.
    const EXPECTED: &'static str;

    /// Parses the value, or returns `None` if it is invalid.
    fn parse(given: &Given<'_>) -> Option<Self>;

    /// Returns the value as JSON.
    fn json(&self) -> Value;
}

/// Parses a value that is one text in each form.
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

/// `None` unless the setting is given. An empty text undoes the value of an earlier source.
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

impl Parse for Vec<Author> {
    const EXPECTED: &'static str =
        "a list of public keys of 64 hexadecimal digits, with commas between them in the environment";

    fn parse(given: &Given<'_>) -> Option<Self> {
        // An empty text is an empty list.
        let texts = Vec::<String>::parse(given)?.into_iter().filter(|text| !text.is_empty());
        texts.map(|text| text.parse().ok()).collect()
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
