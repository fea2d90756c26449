//! What iroh-docs makes of the measurements of `netabase-bench sync`.
//!
//! Two nodes in this process, on loopback, with stores on the disk, without relays, discovery or
//! port mapping. For each number of records, each of about 100 bytes under a key of its own and
//! signed by one author, a node writes them into a document; then an empty node joins, until it has
//! every entry and the content of each. Prints one JSON object per line: `case`, `metric`,
//! `records`, `seconds` and `rate`.
//!
//! A write is durable when the node's databases have been flushed, which is part of the time:
//! iroh-docs commits by itself every half second, and a caller does not wait for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use iroh::endpoint::{PortmapperConfig, presets};
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, RelayMode};
use iroh_blobs::BlobsProtocol;
use iroh_blobs::store::fs::FsStore;
use iroh_docs::api::Doc;
use iroh_docs::api::protocol::{AddrInfoOptions, ShareMode};
use iroh_docs::engine::LiveEvent;
use iroh_docs::protocol::Docs;
use iroh_docs::store::Query;
use iroh_docs::{AuthorId, ContentStatus};
use iroh_gossip::net::Gossip;
use tempfile::TempDir;

/// How many bytes a record's content has.
const CONTENT_BYTES: usize = 100;
/// How long a join may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long a node has to end by itself.
const GOODBYE: Duration = Duration::from_secs(5);
/// How many contents are looked for at a time when everything is counted.
const LOOKING: usize = 64;

/// Measures iroh-docs on this machine.
#[derive(Parser)]
struct Options {
    /// How many records there are; each number is measured by itself
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    records: Vec<u64>,
    /// What is measured; `join` writes with 64 callers first
    #[arg(long, value_delimiter = ',', default_values_t = ["one".to_owned(), "many".to_owned(), "join".to_owned()])]
    cases: Vec<String>,
    /// How many callers write at a time in the case `many`
    #[arg(long, default_value_t = 64)]
    callers: u64,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&options));
    runtime.shutdown_background();
    measured
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    for records in &options.records {
        let has = |case: &str| options.cases.iter().any(|asked| asked == case);
        if has("one") {
            write(*records, 1, &options.directory).await?;
        }
        if has("join") {
            join(*records, options.callers, &options.directory).await?;
        } else if has("many") {
            write(*records, options.callers, &options.directory).await?;
        }
    }
    Ok(())
}

/// Writes into the document of a node that has just been made.
async fn write(records: u64, callers: u64, directory: &Path) -> anyhow::Result<()> {
    let directory = TempDir::new_in(directory)?;
    let node = Node::start(directory.path()).await?;
    node.write(records, callers).await?;
    node.stop().await;
    Ok(())
}

/// Has an empty node join one that has written.
async fn join(records: u64, callers: u64, directory: &Path) -> anyhow::Result<()> {
    let (here, there) = (TempDir::new_in(directory)?, TempDir::new_in(directory)?);
    let writer = Node::start(here.path()).await?;
    let doc = writer.write(records, callers).await?;
    let mut ticket = doc.share(ShareMode::Write, AddrInfoOptions::Id).await?;
    ticket.nodes = vec![writer.address()?];
    let reader = Node::start(there.path()).await?;

    let start = Instant::now();
    let (copy, mut events) = reader.docs.import_and_subscribe(ticket).await?;
    let (mut entries, mut contents) = (0, 0);
    let arrive = async {
        while entries < records || contents < records {
            match events.next().await.context("the document is closed")?? {
                LiveEvent::InsertRemote { content_status, .. } => {
                    entries += 1;
                    contents += u64::from(content_status == ContentStatus::Complete);
                }
                LiveEvent::ContentReady { .. } => contents += 1,
                _ => {}
            }
        }
        anyhow::Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, arrive).await;
    let elapsed = start.elapsed();
    waited.with_context(|| format!("{entries} entries and {contents} contents have come"))??;
    let readable = reader.readable(&copy).await?;
    ensure!(readable == records, "{readable} of {records} can be read");
    print("join", "until readable", records, elapsed);
    drop(events);
    copy.leave().await?;
    reader.stop().await;
    writer.stop().await;
    Ok(())
}

fn print(case: &str, metric: &str, records: u64, time: Duration) {
    let (seconds, count) = (time.as_secs_f64(), records as f64);
    let line = serde_json::json!({
        "case": case, "metric": metric, "records": records, "seconds": seconds, "rate": count / seconds,
    });
    println!("{line}");
}

/// A node with a document, an author, and stores on the disk.
struct Node {
    endpoint: Endpoint,
    blobs: FsStore,
    docs: Docs,
    router: Router,
}

impl Node {
    async fn start(directory: &Path) -> anyhow::Result<Self> {
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .bind()
            .await?;
        let blobs = FsStore::load(directory.join("blobs")).await?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let docs = directory.join("docs");
        std::fs::create_dir(&docs)?;
        let docs = Docs::persistent(docs).spawn(endpoint.clone(), (*blobs).clone(), gossip.clone()).await?;
        let router = Router::builder(endpoint.clone())
            .accept(iroh_blobs::ALPN, BlobsProtocol::new(&blobs, None))
            .accept(iroh_gossip::ALPN, gossip)
            .accept(iroh_docs::ALPN, docs.clone())
            .spawn();
        Ok(Self { endpoint, blobs, docs, router })
    }

    fn address(&self) -> anyhow::Result<EndpointAddr> {
        let socket = self.endpoint.bound_sockets().into_iter().find(|socket| socket.is_ipv4());
        Ok(EndpointAddr::new(self.endpoint.id()).with_ip_addr(socket.context("no socket")?))
    }

    /// Writes records, so many callers at a time, until all of them are durable.
    async fn write(&self, records: u64, callers: u64) -> anyhow::Result<Doc> {
        let author = self.docs.author_default().await?;
        let doc = self.docs.create().await?;
        let start = Instant::now();
        let writers: Vec<_> = (0..callers)
            .map(|first| {
                let (doc, step) = (doc.clone(), usize::try_from(callers).unwrap_or(usize::MAX));
                tokio::spawn(async move { set(&doc, author, (first..records).step_by(step)).await })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        self.flush(&doc).await?;
        let metric = if callers == 1 { "one caller" } else { "many callers" };
        print("writes", metric, records, start.elapsed());
        Ok(doc)
    }

    /// Has both databases commit what they have. A query commits what the documents have: the
    /// engine's own flush is not part of the API.
    async fn flush(&self, doc: &Doc) -> anyhow::Result<()> {
        doc.get_one(Query::all().limit(1)).await?.context("the document is empty")?;
        Ok(self.blobs.sync_db().await?)
    }

    /// Returns how many entries there are whose content is there too.
    async fn readable(&self, doc: &Doc) -> anyhow::Result<u64> {
        let entries: Vec<_> = doc.get_many(Query::all()).await?.try_collect().await?;
        let contents = stream::iter(entries).map(|entry| async move {
            let content = self.blobs.get_bytes(entry.content_hash()).await?;
            anyhow::Ok(u64::from(content.len() == CONTENT_BYTES))
        });
        contents.buffer_unordered(LOOKING).try_fold(0, |sum, one| async move { Ok(sum + one) }).await
    }

    /// Ends the node, which may be waiting for its own documents: not for long.
    async fn stop(self) {
        if tokio::time::timeout(GOODBYE, self.router.shutdown()).await.is_err() {
            eprintln!("a node does not end");
        }
    }
}

async fn set(doc: &Doc, author: AuthorId, ids: impl Iterator<Item = u64>) -> anyhow::Result<()> {
    for id in ids {
        let content: String = format!("{id:08x} ").chars().cycle().take(CONTENT_BYTES).collect();
        doc.set_bytes(author, format!("record-{id:016x}"), content).await?;
    }
    Ok(())
}
