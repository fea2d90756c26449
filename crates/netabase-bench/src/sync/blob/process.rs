//! The processes: those that have the value, and the one that fetches it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use libp2p::Multiaddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use super::super::model::SyncDefinition;
use super::super::node::{address, connect, open, quiet};
use super::liar::Liar;
use super::{HALF, calls};
use crate::node::with_runtime;
use crate::usage::peak_memory;

/// How long a process has to end by itself.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long a process may be silent.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// What a holder is told at its start.
#[derive(Debug, Args)]
pub struct HoldOptions {
    /// Where its database is put
    #[arg(long)]
    directory: PathBuf,
    /// What it holds
    #[arg(long)]
    file: PathBuf,
    /// Whether it sends something else
    #[arg(long)]
    corrupt: bool,
}

/// What the fetching process is told at its start.
#[derive(Debug, Args)]
pub struct FetchOptions {
    /// Where its database is put
    #[arg(long)]
    directory: PathBuf,
    /// The holders
    #[arg(long = "peer", required = true)]
    peers: Vec<Multiaddr>,
    /// What is fetched
    #[arg(long)]
    value: String,
    /// Where it is written when it is there
    #[arg(long)]
    out: PathBuf,
}

/// Is a holder: says its address and what it holds, until its input is closed.
pub fn run_hold(options: HoldOptions) -> anyhow::Result<()> {
    with_runtime(async move {
        if options.corrupt {
            let (liar, address) = Liar::start().await?;
            say(&format!("{address} anything")).await?;
            let (mut input, mut nothing) = (tokio::io::stdin(), Vec::new());
            return tokio::select! {
                ended = liar.lie() => ended,
                closed = input.read_to_end(&mut nothing) => Ok(closed.map(drop)?),
            };
        }
        let netabase = open::<SyncDefinition>(&options.directory, quiet())?;
        netabase.start_swarm().await?;
        let value = calls::add(&netabase, &options.file).await?;
        say(&format!("{} {value}", address(&netabase)?)).await?;
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(())
    })
}

/// Is the one that fetches: says when half is there, and in the end how long it took, how many
/// peers corrupted, and how much memory it has had at most.
pub fn run_fetch(options: FetchOptions) -> anyhow::Result<()> {
    with_runtime(async move {
        let netabase = open::<SyncDefinition>(&options.directory, quiet())?;
        netabase.start_swarm().await?;
        for peer in options.peers {
            connect(&netabase, peer).await?;
        }
        let start = Instant::now();
        let corrupting = calls::fetch(&netabase, &options.value, async || say(HALF).await).await?;
        let seconds = start.elapsed().as_secs_f64();
        let peak = peak_memory()?.unwrap_or(0);
        calls::copy(&netabase, &options.value, &options.out)?;
        say(&format!("{seconds} {corrupting} {peak}")).await
    })
}

async fn say(line: &str) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).await?;
    Ok(out.flush().await?)
}

/// One of them, as the measuring process sees it.
pub(super) struct Child {
    child: tokio::process::Child,
    output: Lines<BufReader<ChildStdout>>,
}

/// A holder, with what it has said.
pub(super) struct Holder {
    child: Child,
    pub(super) address: Multiaddr,
    pub(super) value: String,
}

impl Holder {
    /// Ends it as a crash would.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.child.kill().await?)
    }
}

impl Child {
    /// Starts a holder, and waits until it listens.
    pub(super) async fn hold(directory: &Path, file: &Path, corrupt: bool) -> anyhow::Result<Holder> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sync-hold").arg("--file").arg(file);
        if corrupt {
            command.arg("--corrupt");
        }
        let mut child = Self::start(command, directory)?;
        let said = child.hear().await?;
        let (address, value) = said.split_once(' ').context("a holder says too little")?;
        Ok(Holder { address: address.parse()?, value: value.to_owned(), child })
    }

    /// Starts the one that fetches.
    pub(super) fn fetch(
        directory: &Path,
        peers: &[Multiaddr],
        value: &str,
        out: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sync-fetch").args(["--value", value]).arg("--out").arg(out);
        for peer in peers {
            command.args(["--peer", &peer.to_string()]);
        }
        Self::start(command, directory)
    }

    fn start(mut command: Command, directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(directory)?;
        command.arg("--directory").arg(directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, output })
    }

    pub(super) async fn hear(&mut self) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.output.next_line()).await.context("a process says nothing")?;
        line?.context("a process has ended")
    }

    /// Waits until it has ended by itself.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let status = timeout(GOODBYE, self.child.wait()).await.context("a process does not end")??;
        ensure!(status.success(), "a process ended with {status}");
        Ok(())
    }
}
