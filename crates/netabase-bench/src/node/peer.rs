//! The other process: how it is started and told what to do, and what it does.
//!
//! It writes its address to its output and then obeys the lines that it reads: `put <n>` puts that
//! many records at its peer and answers `done`. It ends when its input is closed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use libp2p::Multiaddr;
use libp2p::kad::Mode;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::case::{self, CALLERS, Setup};
use super::model::WARM_UP;
use super::system::{Node, System};

/// How long the process has to end by itself.
const GOODBYE: Duration = Duration::from_secs(10);

/// What the other process is told at its start.
#[derive(Debug, Args)]
pub struct PeerOptions {
    /// What it is a node of
    #[arg(long, value_enum)]
    system: System,
    /// Where its database is put
    #[arg(long)]
    directory: PathBuf,
    /// How many records it has before it listens
    #[arg(long)]
    stored: u64,
}

/// Runs until its input is closed.
pub(crate) async fn run(options: PeerOptions) -> anyhow::Result<()> {
    let stored = WARM_UP..WARM_UP + options.stored;
    let mut node = Node::start(options.system, Mode::Server, &options.directory, stored).await?;
    say(&node.address()?.to_string()).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line?.as_deref() {
                None => return Ok(()),
                Some(line) => obey(&mut node, line).await?,
            },
            () = node.serve() => {}
        }
    }
}

async fn obey(node: &mut Node, line: &str) -> anyhow::Result<()> {
    let Some(("put", records)) = line.split_once(' ') else { bail!("what is {line:?}?") };
    let records = records.parse()?;
    case::wait_for_peer(node).await?;
    node.put_all(0..records, CALLERS).await?;
    say("done").await
}

async fn say(line: &str) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).await?;
    Ok(out.flush().await?)
}

/// The other process, as the measuring one sees it.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    pub(crate) address: Multiaddr,
}

impl Peer {
    /// Starts a process that has `stored` records, and waits until it listens.
    pub(crate) async fn start(setup: &Setup, stored: u64) -> anyhow::Result<Self> {
        let directory = setup.directory.join("peer");
        std::fs::create_dir(&directory)?;
        let system = clap::ValueEnum::to_possible_value(&setup.system).context("a hidden system")?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("node-peer")
            .args(["--system", system.get_name()])
            .args(["--stored", &stored.to_string()])
            .arg("--directory")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        let mut output = BufReader::new(output).lines();
        let address = hear(&mut output).await?.parse()?;
        Ok(Self { child, input, output, address })
    }

    /// Has it put records at its peer, which is this process, and waits until it has.
    pub(crate) async fn put(&mut self, records: u64) -> anyhow::Result<()> {
        self.input.write_all(format!("put {records}\n").as_bytes()).await?;
        let answer = hear(&mut self.output).await?;
        anyhow::ensure!(answer == "done", "the peer said {answer:?}");
        Ok(())
    }

    /// Ends the process.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        let status = timeout(GOODBYE, child.wait()).await.context("the peer does not end")??;
        anyhow::ensure!(status.success(), "the peer ended with {status}");
        Ok(())
    }
}

async fn hear(output: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<String> {
    output.next_line().await?.context("the peer has ended")
}
