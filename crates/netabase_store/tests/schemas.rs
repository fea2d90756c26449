//! Schemas at run time: the same bytes, keys, indexes, JSON and merges as those of types.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")]

#[path = "schemas/agree.rs"]
mod agree;
#[path = "schemas/hostile.rs"]
mod hostile;
#[path = "schemas/keys.rs"]
mod keys;
#[path = "schemas/models.rs"]
#[allow(dead_code, unreachable_pub, reason = "a definition has more than a test uses")]
mod models;
#[path = "schemas/stores.rs"]
mod stores;
#[path = "schemas/text.rs"]
#[allow(unreachable_pub, reason = "models are public in their modules")]
mod text;
#[path = "schemas/vectors.rs"]
mod vectors;

use netabase_store::NetabaseModel;
use netabase_store::dynamic::Schema;
use netabase_store::schema::ModelSchema;

fn schema() -> Schema {
    Schema::of::<models::ZooDefinition>().unwrap()
}

/// Returns the model that the run-time schema makes of `M`.
fn dynamic<M: NetabaseModel>() -> &'static ModelSchema {
    schema().definition().model(M::SCHEMA.name).unwrap()
}
