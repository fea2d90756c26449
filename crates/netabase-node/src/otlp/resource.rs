//! The OTLP resource: the attributes of the service and the node that sends spans.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// The standard environment variable with the name of the service.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// The standard environment variable with further attributes: `key=value,key=value`,
/// percent-encoded.
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// The attribute that identifies the node.
const INSTANCE: &str = "service.instance.id";

/// The attributes of this program and its node.
#[derive(Debug, Clone, Default)]
pub(super) struct Resource {
    attributes: BTreeMap<String, String>,
    /// The id of the node, set once the node is open.
    instance: Arc<OnceLock<String>>,
}

impl Resource {
    /// Reads the attributes from the environment.
    pub(super) fn of_environment() -> anyhow::Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::read(variable(SERVICE_NAME), variable(RESOURCE_ATTRIBUTES).as_deref())
    }

    fn read(service: Option<String>, attributes: Option<&str>) -> anyhow::Result<Self> {
        let ours = [("service.name", "netabase"), ("service.version", env!("CARGO_PKG_VERSION"))];
        let mut known: BTreeMap<String, String> =
            ours.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let pairs = attributes.unwrap_or_default().split(',').map(str::trim).filter(|pair| !pair.is_empty());
        for pair in pairs {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                bail!("{RESOURCE_ATTRIBUTES} has `{pair}`; write key=value,key=value");
            };
            known.insert(decoded(key.trim())?, decoded(value.trim())?);
        }
        known.extend(service.map(|name| ("service.name".to_owned(), name)));
        Ok(Self { attributes: known, ..Self::default() })
    }

    /// Sets the id of the node, which an attribute of the environment overrides. Later calls have
    /// no effect.
    pub(super) fn name_instance(&self, name: String) {
        let _ = self.instance.set(name);
    }

    /// Returns the attributes as OTLP JSON.
    pub(super) fn json(&self) -> Value {
        let said = self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let instance = self.instance.get().filter(|_| !self.attributes.contains_key(INSTANCE));
        let all = said.chain(instance.map(|name| (INSTANCE, name.as_str())));
        all.map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
    }
}

/// Decodes a percent-encoded text.
fn decoded(text: &str) -> anyhow::Result<String> {
    let wrong = || format!("{RESOURCE_ATTRIBUTES} has `{text}`, whose percent signs are no codes; write %25");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).with_context(wrong)?;
        let is_code = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_code).with_context(wrong)?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(resource: &Resource) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let attributes = resource.json();
        let pair = |pair: &Value| (text(&pair["key"]), text(&pair["value"]["stringValue"]));
        attributes.as_array().unwrap().iter().map(pair).collect()
    }

    #[test]
    fn the_environment_and_the_node_say_whose_spans_they_are() {
        let attributes = "service.name=hidden, deployment.environment=a%2Cb%25,service.version=7,";
        let resource = Resource::read(Some("chat".into()), Some(attributes)).unwrap();
        let expected =
            [("deployment.environment", "a,b%"), ("service.name", "chat"), ("service.version", "7")];
        assert_eq!(said(&resource), expected.map(|(key, value)| (key.into(), value.into())).into());
        resource.clone().name_instance("12D3KooW".into());
        assert_eq!(said(&resource)["service.instance.id"], "12D3KooW");
        assert_eq!(said(&Resource::read(None, None).unwrap())["service.name"], "netabase");
    }

    #[test]
    fn a_name_of_the_environment_stays() {
        let resource = Resource::read(None, Some("service.instance.id=first")).unwrap();
        resource.name_instance("12D3KooW".into());
        assert_eq!(said(&resource)["service.instance.id"], "first");
        assert_eq!(resource.json().as_array().unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_list_of_attributes_is_refused() {
        for bad in ["key", "=value", "key=%", "key=%2", "key=%+1", "key=%zz", "key=%ff", "key=%\u{e4}"] {
            assert!(Resource::read(None, Some(bad)).is_err(), "{bad}");
        }
    }
}
