//! The content of a line.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{ImportError, LineError, shorten};
use crate::admin::export::{FORMAT_NAME, FORMAT_NUMBER};
use crate::model::schema::DefinitionSchema;

/// The header of an export.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
    definition: Option<String>,
}

/// Returns whether an item is the header of an export, and checks that it is of this definition.
pub(super) fn is_header(text: &[u8], definition: &DefinitionSchema) -> Result<bool, ImportError> {
    #[derive(Deserialize)]
    struct Format<'a> {
        #[serde(borrow)]
        format: Cow<'a, str>,
    }
    if !serde_json::from_slice::<Format<'_>>(text).is_ok_and(|found| found.format == FORMAT_NAME) {
        return Ok(false);
    }
    let damaged = |message: &str| ImportError::NoHeader { message: shorten(message) };
    let header: Header = serde_json::from_slice(text).map_err(|error| damaged(&error.to_string()))?;
    debug_assert_eq!(header.format, FORMAT_NAME);
    let (found, known) = (header.version, FORMAT_NUMBER);
    if found != known {
        return Err(ImportError::UnknownFormat { found, known });
    }
    match header.definition {
        Some(found) if found == definition.name => Ok(true),
        Some(found) => {
            Err(ImportError::OtherDefinition { found: shorten(&found), expected: definition.name })
        }
        None => Err(damaged("it names no definition")),
    }
}

/// A record, or the last line of an export.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    version: Option<u32>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    signed: Option<Cow<'a, str>>,
    records: Option<u64>,
    left_out: Option<u64>,
}

/// A record as an export has it, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    version: Option<u32>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    signed: Option<Cow<'a, str>>,
    #[serde(rename = "author")]
    _author: Option<IgnoredAny>,
    #[serde(rename = "timestamp")]
    _timestamp: Option<IgnoredAny>,
    #[serde(rename = "expires")]
    _expires: Option<IgnoredAny>,
}

/// The content of a line.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Without a version it is the current one.
    Record {
        model: Cow<'a, str>,
        version: Option<u32>,
        value: &'a str,
    },
    /// A record with the version that its author has signed, both in base64.
    Signed {
        model: Cow<'a, str>,
        key: Cow<'a, str>,
        envelope: Cow<'a, str>,
    },
    End {
        records: u64,
        left_out: u64,
    },
}

impl<'a> Content<'a> {
    /// Reads a line of an export.
    pub(super) fn exported(text: &'a [u8]) -> Result<Self, LineError> {
        let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| {
            // The line number in the message is not that of the file.
            let message = error.to_string().replace(" at line 1 column", " at column");
            LineError::Json { message: shorten(&message) }
        })?;
        match fields {
            Fields { model: Some(model), key: Some(key), signed: Some(envelope), .. } => {
                Ok(Self::Signed { model, key, envelope })
            }
            Fields { model: Some(model), version, value: Some(value), .. } => {
                Ok(Self::Record { model, version, value: value.get() })
            }
            Fields { model: None, value: None, records: Some(records), left_out, .. } => {
                Ok(Self::End { records, left_out: left_out.unwrap_or_default() })
            }
            _ => Err(LineError::Form),
        }
    }

    /// Reads a line that is the value of a record of `model`, unless it is one of an export.
    pub(super) fn of_model(
        text: &'a [u8],
        model: &'static str,
        definition: &DefinitionSchema,
    ) -> Result<Self, LineError> {
        if let Ok(Exported { model, version, value, key, signed, .. }) = serde_json::from_slice(text)
            && definition.model(&model).is_some()
            && value.is_none_or(|value| value.get().starts_with('{'))
        {
            match (key, signed, value) {
                (Some(key), Some(envelope), _) => return Ok(Self::Signed { model, key, envelope }),
                (None, None, Some(value)) => {
                    return Ok(Self::Record { model, version, value: value.get() });
                }
                _ => {}
            }
        }
        let value = std::str::from_utf8(text)
            .map_err(|_| LineError::Json { message: "it is not text in UTF-8".to_owned() })?;
        Ok(Self::Record { model: model.into(), version: None, value: value.trim() })
    }
}
