//! The program `netabase`, as the subjects start it that measure it from outside.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use libp2p::Multiaddr;

/// How long the program may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_micros(500);

/// Returns where the program is: at the path that was given, or beside this program.
pub(crate) fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let program = match given {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()?.with_file_name("netabase"),
    };
    ensure!(
        program.is_file(),
        "there is no {}; build it with `cargo build --release`, or name it with --program",
        program.display()
    );
    Ok(program)
}

/// Returns the schema of a definition with one model, `Message`.
pub(crate) fn schema(definition: &str) -> String {
    format!(
        r#"name = "{definition}"

[[models]]
name = "Message"
primary_key = ["id"]
fields = [
  {{ name = "id", type = "u64" }},
  {{ name = "room", type = "string" }},
  {{ name = "text", type = "string" }},
]
[[models.secondary_keys]]
name = "room"
fields = ["room"]
"#
    )
}

/// Returns the line of an import that has a message, given as JSON.
pub(crate) fn import_line(message: &str) -> String {
    format!(r#"{{"model":"Message","version":1,"value":{message}}}"#)
}

/// A node in a process of its own.
pub(crate) struct Node {
    program: PathBuf,
    process: Child,
    /// What it says beside its addresses.
    log: PathBuf,
    pub(crate) api: SocketAddr,
    /// Where it listens, with its peer id.
    pub(crate) addresses: Vec<Multiaddr>,
    /// How long it took until it was ready.
    pub(crate) ready: Duration,
}

impl Node {
    pub(crate) fn start(
        program: &Path,
        schema: &Path,
        database: &Path,
        listen: &[&str],
    ) -> anyhow::Result<Self> {
        let (start, log) = (Instant::now(), database.with_extension("log"));
        let mut process = Command::new(program)
            .arg("serve")
            .arg("--path")
            .arg(database)
            .arg("--schema")
            .arg(schema)
            .args(["--no-mdns", "--api-listen", "127.0.0.1:0"])
            .args(listen.iter().flat_map(|address| ["--listen", address]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let said = BufReader::new(process.stdout.take().context("it says nothing")?);
        let mut addresses = Vec::new();
        for line in said.lines() {
            let line = line?;
            if let Some(address) = line.strip_prefix("address ") {
                addresses.push(address.trim().parse()?);
            }
            let Some(url) = line.strip_prefix("api ") else { continue };
            let api = url.trim().trim_start_matches("http://").parse()?;
            while !is_ready(api)? {
                ensure!(start.elapsed() < PATIENCE, "the node does not become ready");
                thread::sleep(PAUSE);
            }
            let program = program.to_owned();
            return Ok(Self { program, process, log, api, addresses, ready: start.elapsed() });
        }
        let status = process.wait()?;
        bail!("the node ended with {status}")
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Has it import lines, as an operator would.
    pub(crate) fn import(&self, lines: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let mut import = Command::new(&self.program)
            .args(["import", "--api", &format!("http://{}", self.api), "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut input = BufWriter::new(import.stdin.take().context("it reads nothing")?);
        for line in lines {
            writeln!(input, "{line}")?;
        }
        drop(input.into_inner()?);
        let status = import.wait()?;
        ensure!(status.success(), "the import ended with {status}");
        Ok(())
    }

    /// Fails if it has ended by itself, or a part of it has panicked.
    pub(crate) fn ensure_runs(&mut self) -> anyhow::Result<()> {
        match (self.process.try_wait()?, first_panic(&self.log)?) {
            (None, None) => Ok(()),
            (None, Some(panic)) => bail!("the node panicked: {panic}"),
            (Some(status), None) => bail!("the node ended with {status}"),
            (Some(status), Some(panic)) => bail!("the node ended with {status}: {panic}"),
        }
    }

    /// It has nothing to lose: what it has acknowledged is on the disk.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.end();
    }
}

/// Returns where the first panic of a log was, and its message.
fn first_panic(log: &Path) -> anyhow::Result<Option<String>> {
    let mut lines = BufReader::new(File::open(log)?).split(b'\n');
    while let Some(line) = lines.next().transpose()? {
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("panicked at") {
            let message = lines.next().transpose()?.unwrap_or_default();
            return Ok(Some(format!("{line} {}", String::from_utf8_lossy(&message))));
        }
    }
    Ok(None)
}

fn is_ready(api: SocketAddr) -> anyhow::Result<bool> {
    let Ok(mut stream) = TcpStream::connect(api) else { return Ok(false) };
    write!(stream, "GET /health/ready HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_log_is_found() {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&log, b"warn \xff\nthread 't' panicked at src/a.rs:1:2:\nno way\nmore\n").unwrap();
        let panic = first_panic(log.path()).unwrap();
        assert_eq!(panic.as_deref(), Some("thread 't' panicked at src/a.rs:1:2: no way"));
        std::fs::write(&log, b"warn\n").unwrap();
        assert!(first_panic(log.path()).unwrap().is_none());
    }
}
