//! Counts the instructions of the store's hot paths and compares them with `limits.txt`.
//!
//! Instructions do not depend on how busy the machine is, as time does. An operation is done a number
//! of times in one process and twice as often in another; the difference is its own, without start and
//! preparation, and has the writer's thread in it. CONTRIBUTING.md says how to use it.
#![allow(clippy::print_stdout, reason = "a program that prints its findings")]

mod operations;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use operations::{OPERATIONS, Operation, Outcome};

const LIMITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/limits.txt");
/// Set, it has the counts written instead of compared.
const UPDATE: &str = "UPDATE_INSTRUCTIONS";
/// How the counts on record are renewed.
const RENEW: &str = "UPDATE_INSTRUCTIONS=1 cargo bench -p netabase_store --bench instructions";
/// Settings of the C library. Copies by `rep movsb` would count an instruction for every byte. malloc keeps
/// free pieces for each thread, since how long it searches common ones depends on the order of threads.
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=1073741824:\
    glibc.cpu.x86_rep_stosb_threshold=1073741824:glibc.malloc.mxfast=0:glibc.malloc.arena_max=1:\
    glibc.malloc.tcache_count=65535";
/// Has callgrind count in `operations::perform_rounds` only, and only on the thread that calls it.
const ONLY_ROUNDS: &str = "--toggle-collect=*perform_rounds*";
/// How much more often than a count a profile does its operation, so that the rest is little beside it.
const PROFILE_ROUNDS: usize = 10;
/// By how many percent a count may grow. Runs of one program differ by less than 1 %, for the order of threads
/// and the seeds of hash maps.
const TOLERANCE: f64 = 3.0;
/// The same where another compiler made the program than the one whose counts are on record.
const TOLERANCE_OF_COMPILERS: f64 = 15.0;

fn main() -> Outcome {
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["perform", name, times] => Operation::named(name)?.perform(times.parse()?),
        ["profile", name, "--bench"] => profile(Operation::named(name)?),
        ["--bench"] => count_all(),
        // `cargo test --all-targets` starts it, too, without optimisations.
        _ => {
            println!("usage: cargo bench -p netabase_store --bench instructions [-- profile OPERATION]");
            Ok(())
        }
    }
}

fn count_all() -> Outcome {
    if !is_comparable() {
        println!("skipped: the counts on record are of Linux on x86_64 with AVX2");
        return Ok(());
    }
    let mut counts = BTreeMap::new();
    for operation in OPERATIONS {
        counts.insert(operation.name.to_owned(), count(operation)?);
    }
    let counted = Record { compiler: compiler()?, counts };
    if env::var_os(UPDATE).is_some() {
        fs::write(LIMITS, counted.to_text())?;
        println!("{}", counted.to_text());
        return Ok(());
    }
    compare(&Record::parse(&fs::read_to_string(LIMITS)?)?, &counted)
}

/// Whether the libraries choose the same variants of their functions here as for the counts on record:
/// they ask the processor, in whose place valgrind answers alike on all that have AVX2.
fn is_comparable() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    return false;
}

/// Leaves a profile of one operation, and says how to read it.
fn profile(operation: &Operation) -> Outcome {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    let out = format!("--callgrind-out-file={}", file.display());
    let mut options = vec![out.as_str(), ONLY_ROUNDS];
    if operation.writes {
        // With it comes what the writer does for the preparation.
        options.push("--toggle-collect=*commit_group*");
    }
    let status = callgrind(&options, operation, PROFILE_ROUNDS * operation.rounds)?
        .status()
        .map_err(|error| not_started(&error))?;
    if !status.success() {
        return Err(format!("the run failed: {status}").into());
    }
    println!("callgrind_annotate --inclusive=yes {}", file.display());
    Ok(())
}

fn compiler() -> Outcome<String> {
    let version = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(version.stdout)?.trim().to_owned())
}

/// Returns the instructions of doing an operation once.
fn count(operation: &Operation) -> Outcome<u64> {
    let start = |times| -> Outcome<Child> {
        let mut options = vec!["--callgrind-out-file=/dev/null"];
        // What only reads does so on one thread, and counts to the instruction without the others.
        options.extend((!operation.writes).then_some(ONLY_ROUNDS));
        let mut command = callgrind(&options, operation, times)?;
        Ok(command.stderr(Stdio::piped()).spawn().map_err(|error| not_started(&error))?)
    };
    let (short, long) = (start(operation.rounds)?, start(2 * operation.rounds)?);
    let (short, long) = (total(short)?, total(long)?);
    let count = long.saturating_sub(short) / u64::try_from(operation.rounds)?;
    if count > 0 { Ok(count) } else { Err("nothing was counted; has the program no symbols?".into()) }
}

/// Runs this program under callgrind. Of the environment nothing is passed on that could change what is
/// counted.
fn callgrind(options: &[&str], operation: &Operation, times: usize) -> Outcome<Command> {
    let mut command = Command::new("valgrind");
    command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("GLIBC_TUNABLES", TUNABLES);
    command.args(["--tool=callgrind", "--fair-sched=yes"]).args(options);
    command.arg(env::current_exe()?).args(["perform", operation.name, &times.to_string()]);
    Ok(command)
}

fn not_started(error: &std::io::Error) -> String {
    format!("valgrind cannot be started, please install it: {error}")
}

/// Waits for a run; returns what valgrind says it has collected.
fn total(child: Child) -> Outcome<u64> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, total)) if output.status.success() => Ok(total.trim().parse()?),
        _ => Err(format!("a run failed ({}):\n{said}", output.status).into()),
    }
}

/// Counts on record, or just counted.
struct Record {
    compiler: String,
    counts: BTreeMap<String, u64>,
}

impl Record {
    fn to_text(&self) -> String {
        let mut text = format!("# Instructions of one operation, counted with\n{}\n", self.compiler);
        for (name, count) in &self.counts {
            let _ = writeln!(text, "{count:>10} {name}");
        }
        text
    }

    fn parse(text: &str) -> Outcome<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().unwrap_or_default().to_owned();
        let mut counts = BTreeMap::new();
        for line in lines {
            let (count, name) = line.trim().split_once(' ').ok_or_else(|| format!("no count: {line}"))?;
            counts.insert(name.to_owned(), count.parse()?);
        }
        Ok(Self { compiler, counts })
    }
}

/// Prints a table; fails if an operation takes more instructions than it may.
fn compare(before: &Record, now: &Record) -> Outcome {
    let same_compiler = before.compiler == now.compiler;
    let tolerance = if same_compiler { TOLERANCE } else { TOLERANCE_OF_COMPILERS };
    if !same_compiler {
        println!("on record are counts of {}, this is {}", before.compiler, now.compiler);
        println!("therefore {tolerance} % are tolerated instead of {TOLERANCE} %");
    }
    println!("{:>10} {:>10} {:>8}  operation", "was", "is", "change");
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    for (name, &is) in &now.counts {
        let Some(&was) = before.counts.get(name) else {
            println!("{:>10} {is:>10} {:>8}  {name}", "-", "-");
            worse.push(format!("{name}: not on record, is {is}"));
            continue;
        };
        let percent = change(was, is);
        println!("{was:>10} {is:>10} {percent:>+7.1}%  {name}");
        let line = format!("{name}: was {was}, is {is}, {percent:+.1} %");
        if percent > tolerance {
            worse.push(line);
        } else if percent < -tolerance {
            better.push(line);
        }
    }
    worse.extend(
        before
            .counts
            .keys()
            .filter(|name| !now.counts.contains_key(*name))
            .map(|name| format!("{name}: on record, but not counted")),
    );
    if !better.is_empty() {
        println!("\nbetter by more than {tolerance} %; keep it by {RENEW}:\n{}", better.join("\n"));
    }
    if worse.is_empty() {
        return Ok(());
    }
    println!("\nworse by more than {tolerance} %, or not on record:\n{}", worse.join("\n"));
    println!("\nfind out why: cargo bench -p netabase_store --bench instructions -- profile OPERATION");
    println!("if it is worth it: {RENEW}");
    Err(format!("{} of the instruction counts are not as they were", worse.len()).into())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn change(was: u64, is: u64) -> f64 {
    (is as f64 / was as f64 - 1.0) * 100.0
}
