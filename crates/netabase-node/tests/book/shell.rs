//! Runs the shell blocks of a page, as a reader would who types all of them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::commands;
use crate::markdown::{Block, Page};

/// How long the blocks of a page may take together.
const LIMIT: Duration = Duration::from_secs(180);

/// Tools that readers may have, and a machine that runs the tests need not have.
const TOOLS: [&str; 2] = ["curl", "jq"];

/// The mark in the output before that of each block, followed by the line of the block.
const MARK: char = '\u{1e}';

/// The beginning of the script of every page. Background processes end with the page, by their ids.
const PRELUDE: &str = r#"
set -eu -o pipefail
end() {
    local status=$? job
    trap - EXIT
    for job in $(jobs -p); do kill "$job" 2>/dev/null || true; done
    wait
    exit "$status"
}
trap end EXIT
# Waits until the program of id $1 has written $2 into the file $3.
until_said() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        if grep -qF -- "$2" "$3"; then return; fi
        if ! kill -0 "$1" 2>/dev/null; then break; fi
        sleep 0.1
    done
    printf 'it has not said "%s", but:\n' "$2" >&2
    cat "$3" >&2
    return 1
}
"#;

/// Runs the blocks of a page in order, in one shell and in a directory of their own.
pub(crate) fn run(page: &Page) -> Result<(), String> {
    let is_run = |block: &Block| block.language == "sh" && !block.has("no_run");
    let takes_part = |block: &&Block| is_run(block) || block.file().is_some();
    let blocks = page.blocks.iter().filter(takes_part).collect::<Vec<_>>();
    let mut lines = blocks
        .iter()
        .filter(|block| is_run(block))
        .flat_map(|block| commands::runnable(&block.text).lines().map(str::to_owned).collect::<Vec<_>>());
    if lines.all(|line| line == ":") {
        return Ok(());
    }
    if let Some(missing) = missing_tool(&blocks) {
        let skipped = format!("{}: skipped: {missing} is not installed", page.path);
        eprintln!("{skipped}");
        return if std::env::var_os("CI").is_some() { Err(skipped) } else { Ok(()) };
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, script_of(&blocks, directory.path())).unwrap();
    let status = execute(&script, directory.path());
    let printed = fs::read_to_string(directory.path().join("stdout")).unwrap();
    let errors = fs::read_to_string(directory.path().join("stderr")).unwrap();
    let last = printed.rsplit(MARK).next().and_then(|rest| rest.lines().next()).unwrap_or("0").to_owned();
    match status {
        Some(status) if status.success() => check_output(page, &printed),
        Some(status) => Err(format!("{}:{last}: {status}\n{printed}\n{errors}", page.path)),
        None => Err(format!("{}:{last}: not done after {LIMIT:?}\n{printed}\n{errors}", page.path)),
    }
}

fn script_of(blocks: &[&Block], directory: &Path) -> String {
    let mut script = PRELUDE.to_owned();
    for block in blocks {
        if let Some(name) = block.file() {
            let kept = directory.join(format!("file-{}", block.line));
            fs::write(&kept, &block.text).unwrap();
            writeln!(script, "cp '{}' '{name}'", kept.display()).unwrap();
            continue;
        }
        let text = commands::runnable(&block.text);
        writeln!(script, "printf '\\036%d\\n' {}", block.line).unwrap();
        if block.has("background") {
            let log = directory.join(format!("log-{}", block.line));
            let until = block.until().unwrap();
            writeln!(script, "{{\n{text}}} >'{0}' 2>&1 &\nuntil_said $! '{until}' '{0}'", log.display())
                .unwrap();
        } else {
            script.push_str(&text);
        }
    }
    script
}

/// Runs a script in a network namespace of its own where that is allowed, so that its ports are
/// free and nobody is reached; returns nothing if it took too long.
fn execute(script: &Path, directory: &Path) -> Option<ExitStatus> {
    let programs = directory.join("bin");
    let work = directory.join("work");
    fs::create_dir(&programs).unwrap();
    fs::create_dir(&work).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_netabase"), programs.join("netabase")).unwrap();
    let mut command = if own_network() {
        let mut command = Command::new("unshare");
        command.args(["--net", "bash", "-c", "ip link set lo up && exec bash \"$0\""]);
        command
    } else {
        Command::new("bash")
    };
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    command.arg(script).current_dir(&work).env("PATH", path).env("HOME", &work).env_remove("RUST_LOG");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NETABASE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command.stdout(File::create(directory.join("stdout")).unwrap());
    command.stderr(File::create(directory.join("stderr")).unwrap());
    let mut child = command.process_group(0).spawn().unwrap();
    let group = format!("-{}", child.id());
    let (sender, receiver) = mpsc::sync_channel(1);
    let waiting = thread::spawn(move || sender.send(child.wait().unwrap()));
    let status = receiver.recv_timeout(LIMIT).ok();
    // Ends the processes that the shell did not, and all of them after the limit. The group may be
    // gone already.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    waiting.join().unwrap().ok();
    status
}

/// Returns a tool that the blocks use and that is not here.
fn missing_tool(blocks: &[&Block]) -> Option<&'static str> {
    let is_used =
        |tool: &&str| blocks.iter().any(|block| block.text.split_whitespace().any(|word| word == *tool));
    let is_here = |tool: &str| {
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    TOOLS.into_iter().filter(is_used).find(|tool| !is_here(tool))
}

/// Whether a network namespace can be made, which needs root.
fn own_network() -> bool {
    let possible = Command::new("unshare")
        .args(["--net", "ip", "link", "set", "lo", "up"])
        .stderr(Stdio::null())
        .status();
    possible.is_ok_and(|status| status.success())
}

/// Compares what blocks have printed with what the page shows of it.
fn check_output(page: &Page, printed: &str) -> Result<(), String> {
    let mut above = None;
    for block in &page.blocks {
        if block.language == "sh" {
            above = Some(block);
        }
        let (Some(above), true) = (above, block.has("output")) else { continue };
        let of_block = printed.split(MARK).filter_map(|part| part.split_once('\n'));
        let (_, output) = of_block
            .into_iter()
            .find(|(line, _)| *line == above.line.to_string())
            .ok_or_else(|| format!("{}:{}: the block above was not run", page.path, block.line))?;
        for line in block.text.lines() {
            if !output.lines().any(|said| matches(said, line)) {
                return Err(format!("{}:{}: `{line}` is not in:\n{output}", page.path, block.line));
            }
        }
    }
    Ok(())
}

/// Whether a line is what is expected of it, with `...` for anything.
fn matches(said: &str, expected: &str) -> bool {
    let mut parts = expected.trim().split("...");
    let first = parts.next().unwrap();
    let Some(mut rest) = said.trim().strip_prefix(first) else { return false };
    let mut last = "";
    let mut any = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        (last, any) = (part, true);
    }
    rest.is_empty() || (any && rest.ends_with(last))
}
