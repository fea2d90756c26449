//! The report at the end of the demonstration, as a table or JSON.

use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use netabase::netabase_store::text;
use netabase::{PeerId, StorageBackend};
use serde::Serialize;
use tokio::time::timeout;

use super::input::Input;

/// The outcome of a step that gave the right answer.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The number of packages that the step used.
    pub(super) count: usize,
    /// The description of what happened.
    pub(super) detail: String,
}

/// All steps so far.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ok: bool,
    backend: StorageBackend,
    input: Summary,
    peers: Vec<String>,
    steps: Vec<Step>,
    totals: Totals,
}

/// The input, without the packages.
#[derive(Debug, Serialize)]
struct Summary {
    source: String,
    packages: usize,
    skipped: usize,
    replaced: usize,
}

#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    count: usize,
    millis: f64,
    detail: String,
}

#[derive(Debug, Default, Serialize)]
struct Totals {
    steps: usize,
    failed: usize,
    millis: f64,
}

impl Report {
    pub(super) fn new(backend: StorageBackend, input: &Input) -> Self {
        let input_summary = Summary {
            source: input.source.clone(),
            packages: input.packages.len(),
            skipped: input.skipped,
            replaced: input.replaced,
        };
        let totals = Totals::default();
        Self { ok: true, backend, input: input_summary, peers: Vec::new(), steps: Vec::new(), totals }
    }

    /// Runs a step to its end or its deadline, and adds its outcome.
    pub(super) async fn step(
        &mut self,
        name: &'static str,
        deadline: Duration,
        work: impl Future<Output = anyhow::Result<Outcome>>,
    ) {
        let start = Instant::now();
        let result = timeout(deadline, work)
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the step did not end within {} s", deadline.as_secs())));
        let ok = result.is_ok();
        let Outcome { count, detail } =
            result.unwrap_or_else(|error| Outcome { count: 0, detail: format!("{error:#}") });
        self.add(Step { name, ok, count, millis: millis(start.elapsed()), detail });
    }

    fn add(&mut self, step: Step) {
        self.ok &= step.ok;
        self.totals.steps += 1;
        self.totals.failed += usize::from(!step.ok);
        self.totals.millis += step.millis;
        self.steps.push(step);
    }

    /// Sets the ids of the peers, in their order.
    pub(super) fn name_peers(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.peers = peers.into_iter().map(PeerId::to_base58).collect();
    }

    pub(super) fn is_ok(&self) -> bool {
        self.ok
    }

    /// Writes one JSON object on one line.
    pub(super) fn write_json(&self, mut out: impl Write) -> io::Result<()> {
        writeln!(out, "{}", text::json(&serde_json::to_string(self)?))?;
        out.flush()
    }

    /// Writes a table for people.
    pub(super) fn write_table(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(self.table().as_bytes())?;
        out.flush()
    }

    fn table(&self) -> String {
        let Self { ok, backend, input, peers, steps, totals } = self;
        let mut table = String::new();
        let mut line = |line: String| {
            // Writing to a string does not fail.
            let _ = writeln!(table, "{}", text::line(line.trim_end()));
        };
        line(format!("{} packages from {} in {backend}", input.packages, input.source));
        for (peer, number) in peers.iter().zip(1..) {
            line(format!("peer {number}: {peer}"));
        }
        line(String::new());
        let width = steps.iter().map(|step| step.detail.chars().count()).max().unwrap_or_default();
        let what = "what happened";
        line(format!("{:<9} {what:<width$}  {:>7}  {:>11}  result", "step", "count", "time"));
        for Step { name, ok, count, millis, detail } in steps {
            let result = if *ok { "ok" } else { "FAILED" };
            line(format!("{name:<9} {detail:<width$}  {count:>7}  {millis:>8.1} ms  {result}"));
        }
        line(String::new());
        let verdict = if *ok { "every answer was right" } else { "NOT every answer was right" };
        let done = totals.steps - totals.failed;
        line(format!("{done} of {} steps in {:.2} s: {verdict}", totals.steps, totals.millis / 1000.0));
        table
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
