//! Counts the instructions of operations and compares them with those on record.
//!
//! Instructions do not depend on how busy the machine is, as time does. An operation is done a
//! number of times in one process and twice as often in another; the difference is its own, without
//! start and preparation, and has in it what other threads do for it. CONTRIBUTING.md says how to
//! use it.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Set, it has the counts written instead of compared.
const UPDATE: &str = "UPDATE_INSTRUCTIONS";
/// Settings of the C library. Copies by `rep movsb` would count an instruction for every byte.
/// malloc keeps free pieces for each thread, since how long it searches common ones depends on the
/// order of threads.
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=1073741824:\
    glibc.cpu.x86_rep_stosb_threshold=1073741824:glibc.malloc.mxfast=0:glibc.malloc.arena_max=1:\
    glibc.malloc.tcache_count=65535";
/// How much more often than a count a profile does its operation, so that the rest is little beside
/// it.
const PROFILE_ROUNDS: usize = 10;
/// How far counts may be from those of another compiler.
const TOLERANCE_OF_COMPILERS: f64 = 15.0;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The operations that are counted.
pub(crate) struct Suite {
    /// The package that the benchmark is of.
    pub(crate) package: &'static str,
    /// The file with the counts on record.
    pub(crate) limits: &'static str,
    /// By how many percent a count may grow.
    pub(crate) tolerance: f64,
    /// How often an operation is counted at most; the least counts. One that has not grown is
    /// counted once.
    pub(crate) attempts: usize,
    pub(crate) operations: Vec<Operation>,
}

/// Something that is done a number of times.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// How often the shorter of two runs does it; the longer one does it twice as often.
    pub(crate) rounds: usize,
    /// In which functions callgrind counts, on the thread that calls them; all that every thread
    /// does if there are none. Reads are counted exactly that way.
    pub(crate) counted: &'static [&'static str],
    /// The same for a profile.
    pub(crate) profiled: &'static [&'static str],
    /// Does it so many times.
    pub(crate) perform: Box<dyn Fn(usize) -> Outcome>,
}

impl Suite {
    /// Does what the arguments of the program say.
    pub(crate) fn run(&self) -> Outcome {
        let arguments = env::args().skip(1).collect::<Vec<_>>();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["perform", name, times] => (self.named(name)?.perform)(times.parse()?),
            ["profile", name, "--bench"] => profile(self.named(name)?),
            ["--bench"] => self.count_all(),
            // `cargo test --all-targets` starts it, too, without optimisations.
            _ => {
                println!("usage: {} [-- profile OPERATION]", self.command());
                Ok(())
            }
        }
    }

    fn command(&self) -> String {
        format!("cargo bench -p {} --bench instructions", self.package)
    }

    fn named(&self, name: &str) -> Outcome<&Operation> {
        let found = self.operations.iter().find(|operation| operation.name == name);
        found.ok_or_else(|| format!("there is no operation {name:?}").into())
    }

    fn count_all(&self) -> Outcome {
        if !is_comparable() {
            println!("skipped: the counts on record are of Linux on x86_64 with AVX2");
            return Ok(());
        }
        let renews = env::var_os(UPDATE).is_some();
        let before = if renews { None } else { Some(Record::parse(&fs::read_to_string(self.limits)?)?) };
        let mut counts = BTreeMap::new();
        for operation in &self.operations {
            let was = before.as_ref().and_then(|before| before.counts.get(operation.name));
            let mut least = count(operation)?;
            for _ in 1..self.attempts {
                if was.is_some_and(|was| change(*was, least) <= self.tolerance) {
                    break;
                }
                least = least.min(count(operation)?);
            }
            counts.insert(operation.name.to_owned(), least);
        }
        let counted = Record { compiler: compiler()?, counts };
        if let Some(before) = before {
            return self.compare(&before, &counted);
        }
        fs::write(self.limits, counted.to_text())?;
        println!("{}", counted.to_text());
        Ok(())
    }

    /// Prints a table; fails if an operation takes more instructions than it may.
    fn compare(&self, before: &Record, now: &Record) -> Outcome {
        let same_compiler = before.compiler == now.compiler;
        let tolerance = if same_compiler { self.tolerance } else { TOLERANCE_OF_COMPILERS };
        if !same_compiler {
            println!("on record are counts of {}, this is {}", before.compiler, now.compiler);
            println!("therefore {tolerance} % are tolerated instead of {} %", self.tolerance);
        }
        println!("{:>10} {:>10} {:>8}  operation", "was", "is", "change");
        let renew = format!("{UPDATE}=1 {}", self.command());
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
            println!("\nbetter by more than {tolerance} %; keep it by {renew}:\n{}", better.join("\n"));
        }
        if worse.is_empty() {
            return Ok(());
        }
        println!("\nworse by more than {tolerance} %, or not on record:\n{}", worse.join("\n"));
        println!("\nfind out why: {} -- profile OPERATION", self.command());
        println!("if it is worth it: {renew}");
        Err(format!("{} of the instruction counts are not as they were", worse.len()).into())
    }
}

/// Whether the libraries choose the same variants of their functions here as for the counts on
/// record: they ask the processor, in whose place valgrind answers alike on all that have AVX2.
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
    let toggles = toggles(operation.profiled);
    let options: Vec<&str> = std::iter::once(&out).chain(&toggles).map(String::as_str).collect();
    let status = callgrind(&options, operation, PROFILE_ROUNDS * operation.rounds)?
        .status()
        .map_err(|error| not_started(&error))?;
    if !status.success() {
        return Err(format!("the run failed: {status}").into());
    }
    println!("callgrind_annotate --inclusive=yes {}", file.display());
    Ok(())
}

/// Has callgrind count in some functions only.
fn toggles(functions: &[&str]) -> Vec<String> {
    functions.iter().map(|function| format!("--toggle-collect=*{function}*")).collect()
}

fn compiler() -> Outcome<String> {
    let version = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(version.stdout)?.trim().to_owned())
}

/// Returns the instructions of doing an operation once.
fn count(operation: &Operation) -> Outcome<u64> {
    let start = |times| -> Outcome<Child> {
        let toggles = toggles(operation.counted);
        let options: Vec<&str> = std::iter::once("--callgrind-out-file=/dev/null")
            .chain(toggles.iter().map(String::as_str))
            .collect();
        let mut command = callgrind(&options, operation, times)?;
        Ok(command.stderr(Stdio::piped()).spawn().map_err(|error| not_started(&error))?)
    };
    let (short, long) = (start(operation.rounds)?, start(2 * operation.rounds)?);
    let (short, long) = (total(short)?, total(long)?);
    let count = long.saturating_sub(short) / u64::try_from(operation.rounds)?;
    if count > 0 { Ok(count) } else { Err("nothing was counted; has the program no symbols?".into()) }
}

/// Runs this program under callgrind. Of the environment nothing is passed on that could change
/// what is counted.
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

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn change(was: u64, is: u64) -> f64 {
    (is as f64 / was as f64 - 1.0) * 100.0
}
