//! A process that writes to a store from several threads and is killed at any moment.
//!
//! It says on a pipe what it will do before each call and that it is done after it. After the kill
//! this process opens the database and compares: every acknowledged call must be there, a call that
//! was in flight must be there whole or not at all, secondary keys must find what a scan finds, and
//! there must be nothing that nobody wrote. The next round goes on with the same database, so that
//! damage adds up. In some rounds a second process is killed while it recovers from the first kill.
//!
//! SIGKILL takes the process and leaves the operating system, which still writes what it was given.
//! What a loss of power does is tested in `netabase_store`, on a storage that forgets.
//!
//! The calls follow from the seed, and so do the delays before the kills; what the processor does
//! in the meantime does not.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use netabase_store::StorageBackend;
use serde::Serialize;
use tempfile::TempDir;

mod expected;
mod message;
mod model;
mod plan;
mod writer;

pub use expected::Faults;
use expected::{Expected, Fate};
use message::Heard;
use plan::THREADS;
pub use writer::WriterOptions;

use crate::dice::Dice;

/// How many rounds a database lives.
const ROUNDS_PER_DATABASE: u32 = 20;
/// The longest that a process writes before it is killed.
const MOST_WRITING: Duration = Duration::from_millis(40);
/// The longest that a process runs that is killed while it opens the database.
const MOST_OPENING: Duration = Duration::from_millis(10);
/// In one of so many rounds the recovery is killed.
const OPENING_ROUNDS: u64 = 4;

/// How to crash.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How often a writing process is killed
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// What keeps the database
    #[arg(long, value_enum, default_value_t = Backend::Redb)]
    backend: Backend,
    /// What the calls and the moments of the kills follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where databases are put
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// What keeps the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    /// redb, the default of a store
    Redb,
    /// sled 0.34
    Sled,
}

impl From<Backend> for StorageBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Redb => Self::Redb,
            Backend::Sled => Self::Sled,
        }
    }
}

/// What the crashes did.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    backend: Backend,
    seed: u64,
    /// How often a writing process was killed, and the database verified.
    rounds: u32,
    /// On how many databases.
    databases: u32,
    /// Calls that had returned.
    acknowledged: u64,
    /// Kills while at least one call had not returned.
    kills_in_flight: u32,
    /// Kills while the database was being opened and recovered.
    kills_while_opening: u32,
    /// Calls in flight that are there after the kill.
    in_flight_kept: u64,
    /// Calls in flight that are not.
    in_flight_dropped: u64,
    /// What was found wrong.
    #[serde(flatten)]
    pub faults: Faults,
    seconds: f64,
}

impl Report {
    fn new(options: &Options) -> Self {
        Self {
            bench: "crash",
            backend: options.backend,
            seed: options.seed,
            rounds: 0,
            databases: 0,
            acknowledged: 0,
            kills_in_flight: 0,
            kills_while_opening: 0,
            in_flight_kept: 0,
            in_flight_dropped: 0,
            faults: Faults::default(),
            seconds: 0.0,
        }
    }

    /// Writes one JSON object.
    pub fn write_json(&self, mut out: impl Write) -> anyhow::Result<()> {
        serde_json::to_writer(&mut out, self)?;
        Ok(writeln!(out)?)
    }

    /// Writes a line for each figure.
    pub fn write_text(&self, mut out: impl Write) -> anyhow::Result<()> {
        let Faults { unreadable, lost, torn, invented, index_mismatches, check_faults } = self.faults;
        let lines = [
            ("rounds", self.rounds.into()),
            ("databases", self.databases.into()),
            ("acknowledged calls", self.acknowledged),
            ("kills with calls in flight", self.kills_in_flight.into()),
            ("kills while opening", self.kills_while_opening.into()),
            ("calls in flight that were kept", self.in_flight_kept),
            ("calls in flight that were dropped", self.in_flight_dropped),
            ("unreadable databases", unreadable),
            ("lost", lost),
            ("torn", torn),
            ("invented", invented),
            ("index mismatches", index_mismatches),
            ("faults found by check", check_faults),
        ];
        for (name, value) in lines {
            writeln!(out, "{name:36}{value:>10}")?;
        }
        Ok(writeln!(out, "{:36}{:>10.1}", "seconds", self.seconds)?)
    }
}

/// Kills and verifies as often as asked.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let begin = Instant::now();
    let mut report = Report::new(options);
    while report.rounds < options.rounds {
        let rounds = ROUNDS_PER_DATABASE.min(options.rounds - report.rounds);
        let mut database = Database::create(options, report.databases)?;
        report.databases += 1;
        for _ in 0..rounds {
            let round = report.rounds;
            let readable = database.round(round, &mut report).with_context(|| format!("round {round}"))?;
            report.rounds += 1;
            if !readable {
                break;
            }
        }
    }
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}

/// Is the process that is killed.
pub fn run_writer(options: &WriterOptions) -> anyhow::Result<()> {
    writer::run(options)
}

/// A database and what must be in it.
struct Database {
    _directory: TempDir,
    path: PathBuf,
    backend: Backend,
    seed: u64,
    signed: bool,
    expected: Expected,
}

impl Database {
    /// Makes the number-th one; every other one is signed.
    fn create(options: &Options, number: u32) -> anyhow::Result<Self> {
        let directory = TempDir::new_in(&options.directory)?;
        let path = directory.path().join("database");
        let Options { backend, seed, .. } = *options;
        let (signed, expected) = (number % 2 == 1, Expected::default());
        Ok(Self { _directory: directory, path, backend, seed, signed, expected })
    }

    /// Kills and verifies once; returns whether the database can still be read.
    fn round(&mut self, round: u32, report: &mut Report) -> anyhow::Result<bool> {
        let mut dice = Dice::new(&[self.seed, round.into()]);
        let heard = self.kill_writing(round, fraction(MOST_WRITING, &mut dice))?;
        report.kills_in_flight += u32::from(heard.in_flight.contains(&true));
        if dice.below(OPENING_ROUNDS) == 0 {
            let opened = self.kill_opening(round, fraction(MOST_OPENING, &mut dice))?;
            report.kills_while_opening += u32::from(!opened);
        }
        let in_flight = self.replay(round, &heard, report);
        let mut fate = Fate::default();
        let found = match self.read() {
            Ok(found) => found,
            Err(error) => {
                eprintln!("round {round}: {error:#}");
                report.faults.unreadable += 1;
                return Ok(false);
            }
        };
        self.expected.verify(&found, &in_flight, &mut report.faults, &mut fate);
        report.in_flight_kept += fate.kept;
        report.in_flight_dropped += fate.dropped;
        Ok(true)
    }

    /// Expects what was acknowledged; returns the calls that were not.
    fn replay(&mut self, round: u32, heard: &Heard, report: &mut Report) -> Vec<plan::Call> {
        let mut in_flight = Vec::new();
        for ((thread, done), flying) in (0..THREADS).zip(heard.done).zip(heard.in_flight) {
            for n in 0..done {
                self.expected.apply(&plan::call(self.seed, round, thread, n));
            }
            report.acknowledged += u64::from(done);
            in_flight.extend(flying.then(|| plan::call(self.seed, round, thread, done)));
        }
        in_flight
    }

    fn read(&self) -> anyhow::Result<expected::Found> {
        let store =
            writer::open(&self.path, self.backend, self.signed).context("cannot open the database")?;
        expected::Found::read(&store).context("cannot read the database")
    }

    fn kill_writing(&self, round: u32, delay: Duration) -> anyhow::Result<Heard> {
        let (mut child, mut output) = self.start(round, false)?;
        let mut heard = vec![0];
        // The first byte says that the store is open.
        if output.read(&mut heard)? == 0 {
            heard.clear();
        }
        let reader = thread::spawn(move || output.read_to_end(&mut heard).map(|_| heard));
        thread::sleep(delay);
        kill(&mut child)?;
        Heard::parse(&reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
    }

    /// Returns whether the database was open by then.
    fn kill_opening(&self, round: u32, delay: Duration) -> anyhow::Result<bool> {
        let (mut child, mut output) = self.start(round, true)?;
        thread::sleep(delay);
        kill(&mut child)?;
        let mut heard = Vec::new();
        output.read_to_end(&mut heard)?;
        Ok(Heard::parse(&heard)?.ready)
    }

    fn start(&self, round: u32, idle: bool) -> anyhow::Result<(Child, ChildStdout)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("crash-writer")
            .arg("--path")
            .arg(&self.path)
            .args(["--backend", name(self.backend)])
            .args(["--seed", &self.seed.to_string()])
            .args(["--round", &round.to_string()])
            .args(self.signed.then_some("--signed"))
            .args(idle.then_some("--idle"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        Ok((child, output))
    }
}

fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Redb => "redb",
        Backend::Sled => "sled",
    }
}

/// Sends SIGKILL, which must be what ended the process.
fn kill(child: &mut Child) -> anyhow::Result<()> {
    child.kill()?;
    let status = child.wait()?;
    anyhow::ensure!(status.code().is_none(), "the writing process ended by itself, with {status}");
    Ok(())
}

/// Returns a random part of a duration.
fn fraction(most: Duration, dice: &mut Dice) -> Duration {
    Duration::from_micros(dice.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
}
