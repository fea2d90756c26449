//! The schema of a node: a `schema.toml`, or the built-in one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use netabase::netabase_store::dynamic::{MAX_SCHEMA_BYTES, Schema};

use crate::config::Config;
use crate::failure::Failure;

/// The built-in schema.
const PACKAGES: &str = include_str!("packages.toml");

/// Returns the schema of the settings.
pub(crate) fn load(config: &Config) -> Result<Schema, Failure> {
    match &config.schema.value {
        Some(path) => read(path),
        None => Ok(Schema::from_toml(PACKAGES)?),
    }
}

/// Reads a schema file.
pub(crate) fn read(path: &Path) -> Result<Schema, Failure> {
    read_inner(path).map_err(Failure::usage)
}

fn read_inner(path: &Path) -> anyhow::Result<Schema> {
    let shown = path.display();
    let file = File::open(path)
        .with_context(|| format!("cannot read the schema {shown}; name a file that exists"))?;
    let mut text = String::new();
    // One byte more than the limit, so that the parser refuses a longer file.
    let limit = u64::try_from(MAX_SCHEMA_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).with_context(|| format!("cannot read the schema {shown}"))?;
    Schema::from_toml(&text).map_err(|error| anyhow!("{shown}: {error}"))
}

/// Returns the path of a schema's database in the directory of the settings. If the settings name a
/// file, returns that.
pub(crate) fn database(config: &Config, schema: &Schema) -> Result<PathBuf, Failure> {
    if config.directory()?.is_file() {
        return Ok(config.directory()?.to_owned());
    }
    let backend = netabase::StorageBackend::from(config.backend.value);
    Ok(config.directory()?.join(format!("{}.{backend}", schema.name())))
}

#[cfg(test)]
mod tests {
    use netabase::NetabaseDefinition;

    use super::*;
    use crate::models::{Package, PackageDefinition};

    #[test]
    fn the_built_in_schema_is_that_of_the_typed_models() {
        let schema = Schema::from_toml(PACKAGES).unwrap();
        let (ours, typed) = (schema.definition(), PackageDefinition::SCHEMA);
        assert_eq!(ours.name, typed.name);
        let package = Package {
            name: "coreutils".into(),
            section: "utils".into(),
            priority: "required".into(),
            version: "9.1-1".into(),
            architecture: "amd64".into(),
            installed_size: Some(18062),
            depends: vec!["libc6 (>= 2.34)".into(), "libselinux1".into()],
            description: "GNU core utilities".into(),
        };
        let json = serde_json::to_string(&package).unwrap();
        let [ours, typed] = [ours, typed].map(|schema| {
            let model = schema.model("Package").unwrap();
            let indexes: Vec<_> = model.indexes.iter().map(|index| (index.name, index.unique)).collect();
            (model.version, indexes, model.codec.from_json(model.version, &json).unwrap())
        });
        assert_eq!((ours.0, ours.1), (typed.0, typed.1));
        assert_eq!(ours.2.payload, typed.2.payload);
        assert_eq!(ours.2.keys, typed.2.keys);
    }
}
