//! A large value from three holders, of which one corrupts it and another dies.
//!
//! Every holder is a process, and so is the one that fetches, whose memory is measured. The first
//! holder sends what is not of the value; the second is killed when half of the value has come.
//! What came is compared with what was sent, byte by byte. `tcp` is the same file sent from one
//! thread to another over a connection, from disk to disk.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use self::process::Child;
use super::{Effort, OURS, TCP};
use crate::dice::Dice;
use crate::node::with_runtime;
use crate::usage::mebibytes;
use crate::{Measurement, Table};

mod calls;
mod liar;
mod process;

pub use process::{FetchOptions, HoldOptions, run_fetch, run_hold};

const CASE: &str = "blob";
/// What the fetching process says when half of the value is there.
const HALF: &str = "half";
/// How much is copied at a time.
const PIECE_BYTES: usize = 1 << 16;

/// Fetches a value once, and copies it once.
pub(super) fn measure(effort: &Effort<'_>, table: &mut Table) -> anyhow::Result<()> {
    let directory = TempDir::new_in(effort.directory)?;
    let (source, copy) = (directory.path().join("source"), directory.path().join("copy"));
    let bytes = effort.blob_bytes;
    make(&source, bytes)?;
    let mut add = |system, metric, value, unit| {
        table.add(Measurement { case: CASE, system, metric, value, unit, n: 1 });
    };
    let rate = |time: Duration| mebibytes(bytes) / time.as_secs_f64();
    add(TCP, "throughput", rate(tcp(&source, &copy)?), "MiB/s");
    ensure!(is_same(&source, &copy)?, "TCP has changed the value");
    let (root, fetched) = (directory.path().to_owned(), directory.path().join("fetched"));
    let outcome = {
        let (source, fetched) = (source.clone(), fetched.clone());
        with_runtime(async move { fetch(&root, &source, &fetched).await })?
    };
    add(OURS, "throughput", rate(outcome.time), "MiB/s");
    add(OURS, "correct", f64::from(u8::from(is_same(&source, &fetched)?)) * 100.0, "%");
    add(OURS, "corrupting holders reported", f64::from(outcome.reported), "peers");
    add(OURS, "peak memory", mebibytes(outcome.peak), "MiB");
    Ok(())
}

/// What the fetching process says in the end.
struct Outcome {
    time: Duration,
    reported: u32,
    peak: u64,
}

async fn fetch(directory: &Path, source: &Path, out: &Path) -> anyhow::Result<Outcome> {
    let mut holders = Vec::new();
    for (name, corrupt) in [("corrupting", true), ("dying", false), ("honest", false)] {
        holders.push(Child::hold(&directory.join(name), source, corrupt).await?);
    }
    let peers: Vec<_> = holders.iter().map(|holder| holder.address.clone()).collect();
    let [_, dying, honest] = &mut holders[..] else { anyhow::bail!("there are three holders") };
    let mut fetcher = Child::fetch(&directory.join("fetching"), &peers, &honest.value, out)?;
    ensure!(fetcher.hear().await? == HALF, "the value came too soon");
    dying.kill().await?;
    let said = fetcher.hear().await?;
    let mut words = said.split(' ');
    let mut word = || words.next().context("the fetching process says too little");
    let outcome = Outcome {
        time: Duration::from_secs_f64(word()?.parse()?),
        reported: word()?.parse()?,
        peak: word()?.parse()?,
    };
    fetcher.end().await?;
    Ok(outcome)
}

/// Makes a file that nothing can compress.
fn make(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let (mut file, mut dice) = (io::BufWriter::new(File::create(path)?), Dice::new(&[bytes]));
    for _ in 0..bytes / 8 {
        file.write_all(&dice.next().to_le_bytes())?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

/// Sends a file over a connection, and writes it to the disk at its end.
fn tcp(source: &Path, copy: &Path) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let (mut connection, _) = listener.accept()?;
            pass(File::open(source)?, &mut connection)
        });
        let start = Instant::now();
        let mut file = File::create(copy)?;
        pass(TcpStream::connect(address)?, &mut file)?;
        file.sync_data()?;
        let time = start.elapsed();
        sender.join().ok().context("the sender panicked")??;
        Ok(time)
    })
}

/// Copies as a program would that looks at what it copies.
fn pass(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece)?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { return Ok(()) };
        to.write_all(read)?;
    }
}

fn is_same(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    for (one, other) in BufReader::new(one).bytes().zip(BufReader::new(other).bytes()) {
        if one? != other? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_the_same() {
        let directory = TempDir::new().unwrap();
        let (source, copy) = (directory.path().join("source"), directory.path().join("copy"));
        make(&source, 1 << 20).unwrap();
        tcp(&source, &copy).unwrap();
        assert!(is_same(&source, &copy).unwrap());
        let mut bytes = std::fs::read(&copy).unwrap();
        bytes[1 << 19] ^= 1;
        std::fs::write(&copy, bytes).unwrap();
        assert!(!is_same(&source, &copy).unwrap());
    }
}
