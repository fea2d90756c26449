//! Sizes and durations in settings: `64 MiB`, `5m`. Also the token bucket, for the HTTP interface.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

pub use crate::rpc::token_bucket::TokenBucket;

/// A number of bytes, with or without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The expected form.
    pub const EXPECTED: &'static str = "a number of bytes such as 65536 or \"64 MiB\"";
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

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;

        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Bytes::EXPECTED)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                let unexpected = |_| de::Error::invalid_value(de::Unexpected::Signed(number), &self);
                u64::try_from(number).map(Bytes).map_err(unexpected)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.trim().parse().map_err(|()| de::Error::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(BytesVisitor)
    }
}

/// A duration such as `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Time {
    /// The expected form.
    pub const EXPECTED: &'static str = "a time such as \"500ms\", \"30s\", \"5m\", \"2h\" or \"30d\"";
    const UNITS: [(&'static str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    /// Returns a duration of `seconds` seconds.
    pub const fn seconds(seconds: u64) -> Self {
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

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unexpected = |()| de::Error::invalid_value(de::Unexpected::Str(&text), &Self::EXPECTED);
        text.trim().parse().map_err(unexpected)
    }
}

/// A duration, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

impl Interval {
    /// The expected form.
    pub const EXPECTED: &'static str = "a time such as \"5m\" or \"2h\", or \"never\"";
}

impl FromStr for Interval {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "never" { Ok(Self(None)) } else { text.parse().map(|Time(time)| Self(Some(time))) }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unexpected = |()| de::Error::invalid_value(de::Unexpected::Str(&text), &Self::EXPECTED);
        text.trim().parse().map_err(unexpected)
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
