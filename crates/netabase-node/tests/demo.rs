//! The demonstration, run as users run it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;
#[cfg(unix)]
use support::{Node, program, run};

mod support;

/// Some entries of a real package index.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/sample.deb822");

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netabase"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// Runs the demonstration and checks what it prints.
fn every_answer_is_right(backend: &str) {
    let output = demo(&["--limit", "20", "--json", "--input", SAMPLE, "--backend", backend]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["ok"], true);
    assert_eq!(report["backend"], backend);
    assert_eq!(report["input"]["source"], SAMPLE);
    assert_eq!(report["input"]["packages"], 20);
    assert_eq!(report["peers"].as_array().unwrap().len(), 3);
    assert_eq!(report["totals"]["failed"], 0);
    let steps = report["steps"].as_array().unwrap();
    let counts: Vec<_> =
        steps.iter().map(|step| (step["name"].as_str().unwrap(), step["count"].as_u64().unwrap())).collect();
    let largest_section = counts[2].1;
    assert!((1..=20).contains(&largest_section));
    assert_eq!(
        counts,
        [
            ("meet", 2),
            ("import", 20),
            ("question", largest_section),
            ("join", 3),
            ("fetch", 9),
            ("outage", 9),
            ("agree", 2),
            ("return", 2)
        ]
    );
    assert!(steps.iter().all(|step| step["ok"] == true && step["millis"].as_f64().unwrap() >= 0.0));
}

#[test]
fn every_answer_is_right_with_redb() {
    every_answer_is_right("redb");
}

#[test]
fn every_answer_is_right_with_sled() {
    every_answer_is_right("sled");
}

#[test]
fn the_table_has_a_line_for_every_step() {
    let output = demo(&["--limit", "4", "--input", SAMPLE]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    assert_eq!(printed.lines().filter(|line| line.ends_with("  ok")).count(), 8, "{printed}");
    assert!(printed.contains("8 of 8 steps"), "{printed}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn input_that_cannot_be_used_is_named_with_the_reason() {
    for (file, says) in [
        ("/nonexistent", "cannot open /nonexistent: "),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "holds no packages; give a file"),
    ] {
        let output = demo(&["--input", file]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(message.starts_with("error: ") && message.contains(says), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_limit_below_what_the_steps_need_is_a_mistake_in_the_usage() {
    let output = demo(&["--limit", "3"]);
    assert_eq!(output.status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn with_web_the_three_nodes_stay_and_each_has_a_dashboard() {
    let mut demo = Node::spawn(&mut program(&["demo", "--web", "--limit", "4", "--input", SAMPLE]));
    demo.printed("8 of 8 steps");
    let urls = [1, 2, 3].map(|peer| demo.printed(&format!("dashboard of peer {peer}:")));
    for url in &urls {
        let status = run(&["status", "--json", "--api", url]).ok().json();
        assert_eq!((&status["definition"], &status["running"]), (&"packages".into(), &true.into()));
        assert_eq!(status["peers"].as_array().unwrap().len(), 2);
    }
    // A change at one shows at the others.
    let package =
        run(&["query", "Package", "--limit", "1", "--json", "--api", &urls[1]]).ok().lines()[0]["value"]
            .clone();
    let key = package["name"].as_str().unwrap();
    let watch = Node::spawn(&mut program(&["watch", "--since", "0", "--json", "--api", &urls[2]]));
    let mut changed = package.clone();
    changed["version"] = "of the test".into();
    run(&["put", "Package", &changed.to_string(), "--api", &urls[0]]).ok();
    watch.json_line(|line| {
        let record = &line["record"];
        (record["key"] == key && record["value"]["version"] == "of the test").then_some(())
    });
    demo.signal("INT");
    assert_eq!(demo.ended().code(), Some(0));
}
