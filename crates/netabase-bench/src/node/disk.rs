//! What the disk takes for one durable page.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::Instant;

use super::case::{Setup, latencies};
use crate::{Latencies, Measurement};

const PAGE: [u8; 4096] = [0xA5; 4096];
/// How many pages are written in turn, as a database reuses its pages.
const PAGES: u64 = 64;

pub(super) fn put(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let mut file = File::create(setup.directory.join("pages"))?;
    for _ in 0..PAGES {
        file.write_all(&PAGE)?;
    }
    file.sync_all()?;
    let mut flushes = Latencies::default();
    for id in 0..setup.records {
        let start = Instant::now();
        file.seek(SeekFrom::Start(id % PAGES * 4096))?;
        file.write_all(&PAGE)?;
        file.sync_data()?;
        flushes.push(start.elapsed());
    }
    Ok(latencies("put", setup, flushes, &["p50", "p99"]))
}
