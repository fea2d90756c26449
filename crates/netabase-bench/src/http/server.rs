//! The process that answers.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use clap::Args;
use netabase_http::{ApiConfig, Server as Api};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::{bare, model};

/// What it is told.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    directory: PathBuf,
    records: u64,
    /// Answer without a node
    #[arg(long)]
    bare: bool,
}

/// Answers until its input is closed.
pub(super) async fn run(options: ServerOptions) -> anyhow::Result<()> {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let closed = async {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    if options.bare {
        let listener = TcpListener::bind(bind).await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?)?;
        tokio::select! {
            ended = bare::run(listener) => return ended,
            () = closed => return Ok(()),
        }
    }
    let node = model::open(&options.directory, options.records)?;
    let server = Api::bind(node, ApiConfig { bind, ..ApiConfig::default() }).await?;
    writeln!(io::stdout(), "{}", server.local_addr())?;
    server.run(closed).await;
    Ok(())
}

/// The process, from outside.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    pub(super) async fn start(directory: &Path, records: u64, bare: bool) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("http-server")
            .arg(directory)
            .arg(records.to_string())
            .args(bare.then_some("--bare"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = child.stdout.take().context("it says nothing")?;
        let mut address = String::new();
        BufReader::new(said).read_line(&mut address).await?;
        let address = address.trim().parse().context("the server did not start")?;
        Ok(Self { child, address })
    }

    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}
