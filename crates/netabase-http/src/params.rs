//! The parameters of a query string. Repeated and unknown parameters are refused.

use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;

use crate::problem::{Answer, Problem};

/// The most parameters that a request may have.
const MAX_PARAMETERS: usize = 32;
/// The bounds of `timeout_ms`, the time for which a call waits for the network.
pub(crate) const MIN_TIMEOUT_MILLIS: u64 = 100;
pub(crate) const MAX_TIMEOUT_MILLIS: u64 = 60_000;

/// The parameters that the handler has not taken yet.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn of(uri: &Uri) -> Answer<Self> {
        let query = uri.query().unwrap_or_default();
        let decodes = percent_encoding::percent_decode_str(query).decode_utf8().is_ok();
        let params: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().take(MAX_PARAMETERS + 1).collect();
        if !decodes {
            return Err(Problem::parameter("query", "is not UTF-8"));
        }
        if params.len() > MAX_PARAMETERS {
            return Err(Problem::parameter("query", format!("has more than {MAX_PARAMETERS} parameters")));
        }
        Ok(Self(params))
    }

    /// Takes a parameter.
    pub(crate) fn take(&mut self, name: &str) -> Answer<Option<String>> {
        let Some(position) = self.0.iter().position(|(given, _)| given == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(position);
        if self.0.iter().any(|(given, _)| given == name) {
            return Err(Problem::parameter(name, "is given more than once"));
        }
        Ok(Some(value))
    }

    /// Takes a parameter that is a number or another value with a text form.
    pub(crate) fn parse<T: FromStr>(&mut self, name: &str, expected: &str) -> Answer<Option<T>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let invalid = |_| Problem::parameter(name, format!("is not {expected}"));
        text.parse().map(Some).map_err(invalid)
    }

    /// Takes a parameter that is `true` or `false`. Returns false if it is missing.
    pub(crate) fn flag(&mut self, name: &str) -> Answer<bool> {
        Ok(self.parse(name, "`true` or `false`")?.unwrap_or(false))
    }

    /// Takes a parameter that is one of the given words, and returns the value of the word.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Answer<Option<T>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*chosen));
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(Problem::parameter(name, format!("must be one of {}", words.join(", "))))
    }

    /// Takes `timeout_ms`.
    pub(crate) fn timeout(&mut self) -> Answer<Option<Duration>> {
        let millis = self.parse::<u64>("timeout_ms", "a number of milliseconds")?;
        match millis {
            Some(millis) if !(MIN_TIMEOUT_MILLIS..=MAX_TIMEOUT_MILLIS).contains(&millis) => {
                Err(Problem::parameter(
                    "timeout_ms",
                    format!("must be {MIN_TIMEOUT_MILLIS} to {MAX_TIMEOUT_MILLIS}"),
                ))
            }
            millis => Ok(millis.map(Duration::from_millis)),
        }
    }

    /// Takes the first parameter that has one of `names`, and returns its name and value.
    pub(crate) fn one_of<'a>(
        &mut self,
        mut names: impl Iterator<Item = &'a str>,
    ) -> Answer<Option<(&'a str, String)>> {
        let found = names.find(|name| self.0.iter().any(|(given, _)| given == name));
        let Some(name) = found else { return Ok(None) };
        Ok(self.take(name)?.map(|value| (name, value)))
    }

    /// Refuses the parameters that were not taken.
    pub(crate) fn finish(self) -> Answer<()> {
        match self.0.first() {
            Some((name, _)) => Err(Problem::parameter(name, "is not a parameter of this path")),
            None => Ok(()),
        }
    }
}

/// Refuses all parameters.
pub(crate) fn none(uri: &Uri) -> Answer<()> {
    Params::of(uri)?.finish()
}
