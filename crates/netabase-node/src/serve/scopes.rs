//! The scopes of the setting `replicate`.

use anyhow::anyhow;
use netabase::Scope;
use netabase::netabase_store::dynamic::Schema;
use netabase::sync::ScopePart;

use crate::failure::Failure;

/// The name of the scope of all models.
const ALL: &str = "all";

/// Parses scopes: `all`, a model, or `Model.key=value`.
pub(super) fn named(names: &[String], schema: &Schema) -> Result<Vec<Scope>, Failure> {
    let part = |name: &String| {
        let definition = schema.name().to_owned();
        part(name, schema).map(|part| Scope { definition, part }).map_err(Failure::usage)
    };
    names.iter().map(part).collect()
}

fn part(name: &str, schema: &Schema) -> anyhow::Result<ScopePart> {
    if name == ALL {
        return Ok(ScopePart::All);
    }
    let (model, value) = match name.split_once('.') {
        Some((model, value)) => (model, Some(value)),
        None => (name, None),
    };
    let Some(described) = schema.model(model) else {
        let models =
            schema.models().iter().map(netabase::dynamic::Model::name).collect::<Vec<_>>().join(", ");
        return Err(anyhow!(
            "replicate: the schema `{}` has no model `{model}`; write `{ALL}`, or some of {models}",
            schema.name()
        ));
    };
    let Some(value) = value else { return Ok(ScopePart::Model(model.to_owned())) };
    let Some((index, text)) = value.split_once('=') else {
        return Err(anyhow!("replicate: write {model}.key=value instead of {name}"));
    };
    let key = described
        .index_key_from_text(index, text)
        .map_err(|error| anyhow!("replicate: {name} names no value of a secondary key: {error}"))?;
    Ok(ScopePart::Value { model: model.to_owned(), index: index.to_owned(), key })
}
