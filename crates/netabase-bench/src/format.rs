//! How values may be encoded: bytes, and the time to encode and to decode a record.
//!
//! The baseline is `positions`, the format of earlier versions: postcard, fields in order without
//! names, behind the number of the model's version. It is compared with
//!
//! | system | what a payload is | who reads it |
//! | --- | --- | --- |
//! | `fingerprint` | 8 bytes that name the writer's struct, and `positions` (as Avro's single-object encoding) | who has the writer's struct |
//! | `fields` | a tag for each field, which its name makes: what a store writes | everybody, as far as it knows the fields |
//!
//! Each writes into a buffer that is large enough. Records are those of the `store` subject.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use netabase_store::__private::{Encoded, Encoding, tag};
use netabase_store::NetabaseModel;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::model::{Message, Messages, Wide, wide};
use crate::{Aim, Bound, Measurement, Table};

const POSITIONS: &str = "positions";
const FINGERPRINT: &str = "fingerprint";
const FIELDS: &str = "fields";
const AIMS: [Aim; 6] = [
    aim("message", "bytes", 1.06),
    aim("message", "encode", 1.15),
    aim("message", "decode", 1.15),
    aim("wide", "bytes", 1.06),
    aim("wide", "encode", 1.15),
    aim("wide", "decode", 1.15),
];

const fn aim(case: &'static str, metric: &'static str, most: f64) -> Aim {
    Aim { case, system: FIELDS, metric: Some(metric), bound: Bound::Ratio(most) }
}

/// The version of a model by positions, and by fields: programs that know no fields take it for a
/// later version, keep the record and pass it on.
const VERSION: u32 = 1;
const VERSION_BY_FIELDS: u32 = 8192 + VERSION;
/// Enough for a record, so that none is moved while it is written.
const RECORD_BYTES: usize = 256;

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How often everything is measured
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// How many records are encoded and decoded each time
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    records: u64,
}

/// A format, for the records of one model.
struct Format<M> {
    name: &'static str,
    encode: fn(&M) -> anyhow::Result<Vec<u8>>,
    decode: fn(&[u8]) -> anyhow::Result<M>,
}

/// Measures the formats.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let mut table = Table::new("format", POSITIONS, &AIMS).with_records(options.records);
    let messages = Messages { count: options.records };
    let messages: Vec<Message> = (0..options.records).map(|n| messages.message(n)).collect();
    let wides: Vec<Wide> = (0..options.records).map(wide).collect();
    for _ in 0..options.repetitions {
        measure("message", &messages, &mut table)?;
        measure("wide", &wides, &mut table)?;
    }
    Ok(table)
}

#[expect(clippy::cast_precision_loss, reason = "sums far below 2^53")]
fn measure<M: Compared>(case: &'static str, records: &[M], table: &mut Table) -> anyhow::Result<()> {
    let formats: [Format<M>; 3] = [
        Format { name: POSITIONS, encode: positions, decode: from_positions },
        Format { name: FINGERPRINT, encode: fingerprint, decode: from_fingerprint },
        Format { name: FIELDS, encode: by_fields, decode: from_fields },
    ];
    for format in formats {
        let begin = Instant::now();
        let payloads: Vec<Vec<u8>> =
            records.iter().map(|record| (format.encode)(black_box(record))).collect::<anyhow::Result<_>>()?;
        let encode = begin.elapsed();
        let begin = Instant::now();
        for (payload, record) in payloads.iter().zip(records) {
            let decoded = (format.decode)(black_box(payload))?;
            ensure!(decoded == *record, "{} gives back another record", format.name);
        }
        let decode = begin.elapsed();
        let count = records.len();
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        let mut add = |metric, value: f64, unit| {
            let value = value / count as f64;
            table.add(Measurement { case, system: format.name, metric, value, unit, n: count });
        };
        add("bytes", bytes as f64, "B");
        add("encode", encode.as_secs_f64() * 1e9, "ns");
        add("decode", decode.as_secs_f64() * 1e9, "ns");
    }
    Ok(())
}

fn positions<M: Serialize>(record: &M) -> anyhow::Result<Vec<u8>> {
    let out = postcard::to_extend(&VERSION, Vec::with_capacity(RECORD_BYTES))?;
    Ok(postcard::to_extend(record, out)?)
}

fn from_positions<M: DeserializeOwned>(payload: &[u8]) -> anyhow::Result<M> {
    let (version, value) = postcard::take_from_bytes::<u32>(payload)?;
    ensure!(version == VERSION, "version {version}");
    let (record, rest) = postcard::take_from_bytes(value)?;
    ensure!(rest.is_empty(), "{} bytes are left over", rest.len());
    Ok(record)
}

fn fingerprint<M: Compared>(record: &M) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(RECORD_BYTES);
    out.extend_from_slice(&M::FINGERPRINT.to_be_bytes());
    Ok(postcard::to_extend(record, out)?)
}

fn from_fingerprint<M: Compared>(payload: &[u8]) -> anyhow::Result<M> {
    let (found, value) = payload.split_first_chunk().unwrap_or((&[0; 8], &[]));
    ensure!(u64::from_be_bytes(*found) == M::FINGERPRINT, "the struct of the writer is not known");
    let (record, rest) = postcard::take_from_bytes(value)?;
    ensure!(rest.is_empty(), "{} bytes are left over", rest.len());
    Ok(record)
}

fn by_fields<M: Compared>(record: &M) -> anyhow::Result<Vec<u8>> {
    let out = postcard::to_extend(&VERSION_BY_FIELDS, Vec::with_capacity(RECORD_BYTES))?;
    Ok(record.encode_value(Encoding::Fields, out)?)
}

fn from_fields<M: Compared>(payload: &[u8]) -> anyhow::Result<M> {
    let (version, value) = postcard::take_from_bytes::<u32>(payload)?;
    ensure!(version == VERSION_BY_FIELDS, "version {version}");
    Ok(M::decode_version(VERSION, Encoded::Fields(value))?)
}

/// A record of which values in all formats are compared.
trait Compared: NetabaseModel + Serialize + DeserializeOwned + PartialEq {
    /// The hash of the names of the fields, which stands for one of names and types.
    const FINGERPRINT: u64 = {
        let (mut fields, mut hash) = (Self::SCHEMA.fields, 0_u64);
        while let [first, rest @ ..] = fields {
            hash = hash.rotate_left(5) ^ tag(first.name) as u64;
            fields = rest;
        }
        hash
    };
}

impl Compared for Message {}
impl Compared for Wide {}

#[cfg(test)]
mod tests {
    use netabase_store::schema::EncodedRecord;

    use super::*;

    #[test]
    fn the_format_by_fields_is_that_of_a_store() {
        for n in 0..100 {
            let message = Messages { count: 100 }.message(n);
            assert_eq!(by_fields(&message).unwrap(), EncodedRecord::of(&message).unwrap().payload);
            assert_eq!(by_fields(&wide(n)).unwrap(), EncodedRecord::of(&wide(n)).unwrap().payload);
        }
    }
}
