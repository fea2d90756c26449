//! The kinds of values that settings have, as text, in TOML and as JSON.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use netabase::Author;
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

/// A number of bytes, with or without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl Bytes {
    const UNITS: [(&'static str, u64); 5] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
}

impl FromStr for Bytes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).ok_or(())?;
        let unit = unit.trim();
        let factor = Self::UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit) || unit.is_empty() && *name == "B");
        let number: u64 = number.parse().map_err(|_| ())?;
        factor.and_then(|(_, factor)| number.checked_mul(*factor)).map(Self).ok_or(())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Self::UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{} {name}", self.0 / factor)
    }
}

impl Parse for Bytes {
    const EXPECTED: &'static str = "a number of bytes such as 65536 or \"64 MiB\"";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self.0)
    }
}

/// A time such as `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl Time {
    const UNITS: [(&'static str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Time {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(())?;
        let (number, unit) = text.split_at_checked(digits).ok_or(())?;
        let unit = Self::UNITS.iter().find(|(name, _)| *name == unit.trim());
        let number: u64 = number.parse().map_err(|_| ())?;
        let millis = unit.and_then(|(_, factor)| number.checked_mul(*factor)).ok_or(())?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let unit = Self::UNITS.iter().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("s", 1000));
        write!(f, "{}{name}", millis / factor)
    }
}

impl Parse for Time {
    const EXPECTED: &'static str = "a time such as \"500ms\", \"30s\", \"5m\", \"2h\" or \"30d\"";

    fn parse(given: &Given<'_>) -> Option<Self> {
        parsed(given)
    }

    fn json(&self) -> Value {
        json!(self.to_string())
    }
}

/// A time, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

impl Parse for Interval {
    const EXPECTED: &'static str = "a time such as \"5m\" or \"2h\", or \"never\"";

    fn parse(given: &Given<'_>) -> Option<Self> {
        if given.text()?.trim() == "never" {
            return Some(Self(None));
        }
        Time::parse(given).map(|time| Self(Some(time.0)))
    }

    fn json(&self) -> Value {
        self.0.map_or_else(|| json!("never"), |time| Time(time).json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_times_are_read_as_they_are_written() {
        for text in ["1 B", "1023 B", "64 KiB", "4 GiB", "3 TiB"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        for text in ["1ms", "1500ms", "90s", "5m", "36h", "30d"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        assert_eq!("4096".parse::<Bytes>().unwrap(), Bytes(4096));
        assert_eq!("64mib".parse::<Bytes>().unwrap(), Bytes(64 << 20));
    }

    #[test]
    fn what_is_no_number_of_bytes_and_no_time_is_refused() {
        for text in ["", "MiB", "-1", "1.5 MiB", "1 parsec", "99999999999 TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert!("30".parse::<Time>().is_err(), "a time has a unit");
    }
}
