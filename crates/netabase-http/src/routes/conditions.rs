//! Conditional requests (`If-Match`, `If-None-Match`).

use axum::http::{HeaderMap, HeaderName, header};
use netabase::RecordKey;
use netabase::netabase_store::replica::ExpectedVersion;

use crate::app::App;
use crate::problem::{Answer, Kind, Problem};
use crate::render::tag;

/// Returns the version that a write expects by its headers. Refuses the write if the current
/// version is another one.
pub(super) fn condition(app: &App, key: &RecordKey, headers: &HeaderMap) -> Answer<Option<ExpectedVersion>> {
    let wanted = Named::of(headers, &header::IF_MATCH)?;
    let unwanted = Named::of(headers, &header::IF_NONE_MATCH)?;
    if wanted.is_none() && unwanted.is_none() {
        return Ok(None);
    }
    let current = app.node.store().envelope(key)?.filter(|current| !current.is_tombstone());
    let known = current.as_ref().map(tag);
    if wanted.is_some_and(|wanted| !wanted.names(known.as_deref(), Comparison::Strong))
        || unwanted.is_some_and(|unwanted| unwanted.names(known.as_deref(), Comparison::Weak))
    {
        let has = match known {
            Some(tag) => format!("the record has the version \"{tag}\""),
            None => "there is no record".to_owned(),
        };
        return Err(Problem::new(Kind::PreconditionFailed, has));
    }
    let expected = current.map(|current| ExpectedVersion::Content(current.content_hash()));
    Ok(Some(expected.unwrap_or(ExpectedVersion::Absent)))
}

/// The comparison of entity tags (RFC 9110): the weak one ignores the mark `W/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Strong,
    Weak,
}

/// The versions that a header names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Any version, written `*`.
    Any,
    /// The versions with these tags, each with whether it is weak.
    Tags(Vec<(bool, String)>),
}

impl Named {
    /// Parses a header. Returns `None` if the request does not have it.
    pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Answer<Option<Self>> {
        let mut values = headers.get_all(name).iter().peekable();
        if values.peek().is_none() {
            return Ok(None);
        }
        let texts: Option<Vec<_>> = values.map(|value| value.to_str().ok()).collect();
        let named = texts.and_then(|texts| Self::parse(&texts.join(",")));
        let invalid = || Problem::parameter(name.as_str(), "must be `*` or entity tags in quotes");
        named.map(Some).ok_or_else(invalid)
    }

    /// Parses a list. Tags may contain commas, and elements of the list may be empty.
    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let (mut tags, mut rest) = (Vec::new(), text);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return Some(Self::Tags(tags));
            }
            let (is_weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
            tags.push((is_weak, tag.to_owned()));
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
    }

    /// Returns whether the version with this tag is named. `None` means that there is no version.
    pub(super) fn names(&self, tag: Option<&str>, how: Comparison) -> bool {
        let Some(tag) = tag else { return false };
        match self {
            Self::Any => true,
            Self::Tags(tags) => {
                let is_it =
                    |(is_weak, named): &(bool, String)| (how == Comparison::Weak || !is_weak) && named == tag;
                tags.iter().any(is_it)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags_are_read_as_they_are_defined() {
        assert_eq!(Named::parse(" * "), Some(Named::Any));
        assert_eq!(Named::parse(""), Some(Named::Tags(Vec::new())));
        let tags = vec![(false, "a,b".to_owned()), (true, "c".to_owned())];
        assert_eq!(Named::parse(r#""a,b" ,, W/"c""#), Some(Named::Tags(tags)));
        for text in ["a", "\"a", "\"a\" \"b\"", "*, \"a\"", "w/\"a\"", "\"a\"b"] {
            assert_eq!(Named::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_weak_tag_is_not_enough_to_write() {
        let named = Named::parse(r#"W/"a""#).unwrap();
        assert!(named.names(Some("a"), Comparison::Weak));
        assert!(!named.names(Some("a"), Comparison::Strong));
        assert!(!Named::Any.names(None, Comparison::Weak));
    }
}
