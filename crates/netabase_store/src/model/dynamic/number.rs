//! Numbers that JSON may have as text, because it has no others of their kind.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};

/// Reads a number that may be written as text.
pub(super) struct NumberOrText<T>(PhantomData<T>);

impl<T> NumberOrText<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

/// A number that may be written as text.
pub(super) trait Number: FromStr {
    fn of_unsigned(value: u64) -> Option<Self>;
    fn of_signed(value: i64) -> Option<Self>;
    fn of_float(value: f64) -> Option<Self>;
}

impl Number for u128 {
    fn of_unsigned(value: u64) -> Option<Self> {
        Some(value.into())
    }

    fn of_signed(value: i64) -> Option<Self> {
        value.try_into().ok()
    }

    fn of_float(_: f64) -> Option<Self> {
        None
    }
}

impl Number for i128 {
    fn of_unsigned(value: u64) -> Option<Self> {
        Some(value.into())
    }

    fn of_signed(value: i64) -> Option<Self> {
        Some(value.into())
    }

    fn of_float(_: f64) -> Option<Self> {
        None
    }
}

macro_rules! float_numbers {
    ($($float:ty),*) => {$(
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as serde does it")]
        impl Number for $float {
            fn of_unsigned(value: u64) -> Option<Self> {
                Some(value as Self)
            }

            fn of_signed(value: i64) -> Option<Self> {
                Some(value as Self)
            }

            fn of_float(value: f64) -> Option<Self> {
                Some(value as Self)
            }
        }
    )*};
}
float_numbers!(f32, f64);

impl<'de, T: Number> Visitor<'de> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, as text if it has more than 64 bits")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        T::of_unsigned(value).ok_or_else(|| E::custom("the number is out of range"))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        T::of_signed(value).ok_or_else(|| E::custom("the number is out of range"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        T::of_float(value).ok_or_else(|| {
            E::custom("write a number of more than 64 bits as text, such as \"18446744073709551616\"")
        })
    }

    // serde_json gives numbers as maps where a crate of the program turns on `arbitrary_precision`.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let number = serde_json::Number::deserialize(MapAccessDeserializer::new(map))?;
        match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), _, _) => self.visit_u64(value),
            (None, Some(value), _) => self.visit_i64(value),
            (None, None, value) => self.visit_f64(value.unwrap_or(f64::NAN)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::custom(format_args!("`{text}` is not a number")))
    }
}
