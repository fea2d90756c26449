//! The one encoding of values whose sets and maps have no order in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::codec::DynamicCodec;
use super::of::fields_of;
use crate::model::schema::ModelSchema;

/// The codecs of the typed models that have such sets and maps, by the addresses of their schemas;
/// a program has no more of them than its code names.
static CODECS: Mutex<BTreeMap<usize, Option<Arc<DynamicCodec>>>> = Mutex::new(BTreeMap::new());

/// Returns a payload of a typed model with the elements of its sets and the entries of its maps in
/// the order of their values; `None` if the model is not described.
pub(crate) fn sorted_payload(model: &'static ModelSchema, payload: &[u8]) -> Option<Vec<u8>> {
    let address = std::ptr::from_ref(model).addr();
    let codec = CODECS
        .lock()
        .entry(address)
        .or_insert_with(|| Some(Arc::new(DynamicCodec::new(fields_of(model)?))))
        .clone();
    codec?.sorted(payload).ok()
}
