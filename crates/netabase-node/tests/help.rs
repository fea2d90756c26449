//! Help texts, completions and manual pages.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use support::run;

mod support;

/// All commands, in the order of the help.
const COMMANDS: [&str; 20] = [
    "serve",
    "demo",
    "put",
    "get",
    "remove",
    "query",
    "watch",
    "peers",
    "authors",
    "status",
    "import",
    "export",
    "backup",
    "check",
    "compact",
    "why",
    "config",
    "schema",
    "completions",
    "man",
];

#[test]
fn the_help_lists_every_command_with_what_it_does() {
    let help = run(&["--help"]).ok().out;
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: Vec<(&str, &str)> = listed.filter_map(|line| line.trim().split_once("  ")).collect();
    let names: Vec<_> = listed.iter().map(|(name, _)| *name).filter(|name| *name != "help").collect();
    assert_eq!(names, COMMANDS);
    assert!(listed.iter().all(|(_, about)| about.trim().len() > 10), "{listed:?}");
    assert!(help.contains("Exit codes: 0 done, 1 failed"), "{help}");
}

#[test]
fn every_command_has_an_example_and_explains_every_option() {
    for command in COMMANDS {
        let help = run(&[command, "--help"]).ok().out;
        assert!(
            help.contains(&format!("Example:\n  netabase {command}"))
                || help.contains("  NETABASE")
                || help.contains(&format!("netabase {command}")),
            "{help}"
        );
        assert!(help.contains("Example:"), "{help}");
        assert!(!help.lines().next().unwrap().is_empty());
        let lines: Vec<_> = help.lines().collect();
        for pair in lines.windows(2) {
            if pair[0].trim_start().starts_with("--") && !pair[0].trim().contains("   ") {
                assert!(
                    pair[1].starts_with("          "),
                    "`{}` is not explained in {command}",
                    pair[0].trim()
                );
            }
        }
    }
}

#[test]
fn completions_know_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ok().out;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
        assert!(script.contains("replicate"), "{shell} does not know options");
    }
    assert_eq!(run(&["completions", "tcl"]).code, Some(2));
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let page = run(&["man"]).ok().out;
    assert!(page.contains(".TH netabase 1"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    run(&["man", "--output", directory.path().to_str().unwrap()]).ok();
    for command in COMMANDS {
        let path = directory.path().join(format!("netabase-{command}.1"));
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(page.contains(".SH OPTIONS") && page.contains("Example:"), "{page}");
    }
    run(&["man", "--output", "/nowhere/at/all"]).failed(1, "name a directory that exists");
}
