//! Compares the commands in the documentation with those that exist.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The command by which the documentation runs this program.
const PROGRAM: &str = "cargo run --release --";

/// Options of cargo that take no value.
const FLAGS: [&str; 9] = [
    "--release",
    "--workspace",
    "--open",
    "--all-features",
    "--locked",
    "--offline",
    "--no-deps",
    "--all-targets",
    "--doc",
];

/// Returns the commands of a block, a line each.
pub(crate) fn lines(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// Returns what of a block is run: this program for what stands for it, and nothing for other
/// commands of cargo.
pub(crate) fn runnable(block: &str) -> String {
    let joined = block.replace("\\\n", " ");
    let run = |line: &str| {
        let line = line.replace(&format!("{PROGRAM} "), "netabase ");
        if words(&line).first().is_some_and(|word| word == "cargo") { ":".to_owned() } else { line }
    };
    joined.lines().flat_map(|line| [run(line), "\n".to_owned()]).collect()
}

/// Says what is wrong with a command; of other programs than cargo and this one nothing is known.
pub(crate) fn check(root: &Path, command: &str) -> Result<(), String> {
    let words = words(command);
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    match words.as_slice() {
        ["cargo", subcommand, rest @ ..] => check_cargo(root, subcommand, rest),
        ["netabase", first, ..] if *first == "=" || command.contains('|') => Ok(()),
        ["netabase", rest @ ..] => check_program(rest),
        _ => Ok(()),
    }
}

/// Splits a command at spaces, without the assignments in front and what a shell does with its
/// output.
fn words(command: &str) -> Vec<String> {
    let unquoted = command.replace(['\'', '"'], "");
    let words = unquoted.split_whitespace().skip_while(|word| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|char| char.is_ascii_uppercase() || char == '_')
        })
    });
    words.take_while(|word| !["#", "|", "&", "&&", ";", ">", "<"].contains(word)).map(str::to_owned).collect()
}

fn check_cargo(root: &Path, subcommand: &str, arguments: &[&str]) -> Result<(), String> {
    if subcommand == "new" {
        return Ok(());
    }
    if !["build", "run", "test", "bench", "doc", "check", "add", "install"].contains(&subcommand) {
        return Err(format!("cargo {subcommand} is not among those that are compared"));
    }
    let end = arguments.iter().position(|argument| *argument == "--");
    let (own, passed) = arguments.split_at(end.unwrap_or(arguments.len()));
    let passed = passed.get(1..).unwrap_or_default();
    let mut package = None;
    let mut target = None;
    let mut own = own.iter();
    while let Some(&option) = own.next() {
        let mut value = || own.next().copied().ok_or_else(|| format!("{option} needs a value"));
        match option {
            "-p" | "--package" => package = Some(value()?),
            "--example" => target = Some(("examples", value()?)),
            "--test" => target = Some(("tests", value()?)),
            "--bench" => target = Some(("benches", value()?)),
            "--manifest-path" | "--path" => exists(root, value()?)?,
            "--bin" | "--features" | "--target-dir" => drop(value()?),
            flag if FLAGS.contains(&flag) => (),
            other => return Err(format!("{other} is not known")),
        }
    }
    if let Some(package) = package {
        exists(root, &format!("crates/{package}/Cargo.toml"))?;
    }
    match (subcommand, package, target) {
        (_, package, Some((directory, name))) => {
            let path = format!("crates/{}/{directory}/{name}", package.unwrap_or("netabase-node"));
            exists(root, &format!("{path}/main.rs")).or_else(|_| exists(root, &format!("{path}.rs")))
        }
        ("run", None | Some("netabase-node"), None) => check_program(passed),
        // Each subject is a module of its own.
        ("run", Some("netabase-bench"), None) => passed
            .first()
            .map_or(Ok(()), |subject| exists(root, &format!("crates/netabase-bench/src/{subject}.rs"))),
        _ => Ok(()),
    }
}

fn exists(root: &Path, path: &str) -> Result<(), String> {
    fs::metadata(root.join(path)).map(drop).map_err(|_| format!("there is no {path}"))
}

/// Compares a command of this program with what it says of itself.
fn check_program(arguments: &[&str]) -> Result<(), String> {
    let names = arguments.iter().take_while(|argument| {
        argument.chars().all(|char| char.is_ascii_lowercase() || char == '-') && !argument.starts_with('-')
    });
    let Some(name) = names.into_iter().next() else { return Ok(()) };
    let program = env!("CARGO_BIN_EXE_netabase");
    let output = Command::new(program).args([name, "--help"]).output().unwrap();
    if !output.status.success() {
        return Err(format!("there is no command `{name}`"));
    }
    let mut help = String::from_utf8(output.stdout).unwrap();
    // A command of a command, such as `schema check`.
    if let Some(second) = arguments.get(1).filter(|word| help.contains(&format!("\n  {word} "))) {
        let output = Command::new(program).args([name, second, "--help"]).output().unwrap();
        help.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    let options = arguments.iter().filter(|argument| argument.starts_with("--") && argument.len() > 2);
    for option in options.map(|option| option.split('=').next().unwrap()) {
        let known =
            help.split_whitespace().any(|word| word.trim_end_matches(',').split('=').next() == Some(option));
        if !known {
            return Err(format!("`{name}` has no option {option}"));
        }
    }
    Ok(())
}
