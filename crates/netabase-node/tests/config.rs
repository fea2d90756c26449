//! Settings: their sources, their precedence, and refused values.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn netabase(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase"));
    for (name, _) in std::env::vars() {
        if name.starts_with("NETABASE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied()).current_dir(directory).output().unwrap()
}

/// Returns a setting's value and source, as `config --json` tells them.
fn setting(directory: &Path, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Value, Value) {
    let output = netabase(directory, &[&["config", "--json"], arguments].concat(), variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = printed["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["name"] == name).unwrap();
    (setting["value"].clone(), setting["source"].clone())
}

fn refused(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = netabase(directory, arguments, variables);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty());
    message
}

#[test]
fn flags_are_stronger_than_the_environment_and_that_than_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = |arguments: &[&str], variables: &[(&str, &str)]| {
        setting(directory.path(), "network", arguments, variables)
    };
    assert_eq!(at(&[], &[]), (Value::Null, json!({ "kind": "default" })));
    std::fs::write(directory.path().join("netabase.toml"), "# mine\n\nnetwork = \"file\"\n").unwrap();
    let file = json!({ "kind": "file", "path": "netabase.toml", "line": 3 });
    assert_eq!(at(&[], &[]), (json!("file"), file));
    let variables = [("NETABASE_NETWORK", "environment")];
    let environment = json!({ "kind": "environment", "variable": "NETABASE_NETWORK" });
    assert_eq!(at(&[], &variables), (json!("environment"), environment));
    let set = ["--set", "network=set"];
    assert_eq!(at(&set, &variables), (json!("set"), json!({ "kind": "flag", "flag": "--set" })));
    let flag = ["--set", "network=set", "--network", "flag"];
    assert_eq!(at(&flag, &variables), (json!("flag"), json!({ "kind": "flag", "flag": "--network" })));
}

#[test]
fn every_setting_can_be_given_in_each_of_the_three_ways() {
    let directory = tempfile::tempdir().unwrap();
    let output = netabase(directory.path(), &["config", "--json"], &[]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = printed["settings"].as_array().unwrap();
    assert!(settings.len() > 30);
    let mut file = String::new();
    let mut flags = vec!["config".to_owned(), "--json".to_owned()];
    let mut variables = Vec::new();
    for setting in settings {
        let name = setting["name"].as_str().unwrap();
        // The value is that of the default where there is one, in the form that `config` shows.
        let value = match &setting["value"] {
            Value::Null if name == "root" => "ab".repeat(32),
            Value::Null => "text".to_owned(),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(",")
            }
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let toml = match &setting["value"] {
            value @ (Value::Array(_) | Value::Number(_) | Value::Bool(_)) => value.to_string(),
            _ => format!("{value:?}"),
        };
        file = format!("{file}{name} = {toml}\n");
        flags.extend(["--set".to_owned(), format!("{name}={value}")]);
        variables.push((setting["variable"].as_str().unwrap().to_owned(), value));
    }
    let sources = |output: Output| {
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let settings = printed["settings"].as_array().unwrap().iter();
        settings.map(|setting| setting["source"]["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(sources(netabase(directory.path(), &flags, &[])).iter().all(|kind| kind == "flag"));
    let by_variables = netabase(directory.path(), &["config", "--json"], &variables);
    assert!(sources(by_variables).iter().all(|kind| kind == "environment"));
    let path = directory.path().join("all.toml");
    std::fs::write(&path, file).unwrap();
    let by_file = netabase(directory.path(), &["config", "--json", "--config", "all.toml"], &[]);
    assert!(sources(by_file).iter().all(|kind| kind == "file"));
}

#[test]
fn what_is_no_setting_is_refused_with_the_nearest_that_is_one() {
    let directory = tempfile::tempdir().unwrap();
    for (text, says) in [
        (
            "path = \"a\"\n\n[api]\nlissten = \"x\"\n",
            "bad.toml:4: there is no setting `api.lissten`; did you mean `api.listen`?",
        ),
        (
            "cache_bytes = 1\n",
            "bad.toml:1: there is no setting `cache_bytes`; did you mean `store.cache_bytes`?",
        ),
        ("[colours]\nred = 1\n", "there is no setting `colours`; `netabase config` lists the settings"),
        ("mdns = true\n", "bad.toml:1: there is no setting `mdns`"),
        ("path = \"a\"\nlisten = 4\n", "bad.toml:2: `listen` must be a list of texts"),
        (
            "[store]\ncache_bytes = \"much\"\n",
            "bad.toml:2: `store.cache_bytes` must be a number of bytes such as",
        ),
        ("path = \"a\"\npath = \"b\"\n", "bad.toml:2: invalid TOML: duplicate key"),
    ] {
        std::fs::write(directory.path().join("bad.toml"), text).unwrap();
        let message = refused(directory.path(), &["config", "--config", "bad.toml"], &[]);
        assert!(message.contains(says), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let message = refused(directory.path(), &["config", "--set", "paht=x"], &[]);
    assert!(message.contains("there is no setting `paht`; did you mean `path`?"), "{message}");
    let message = refused(directory.path(), &["config"], &[("NETABASE_API_LISTEN", "here")]);
    assert!(
        message.contains("NETABASE_API_LISTEN=here: it must be an address and a port such as"),
        "{message}"
    );
    let message = refused(directory.path(), &["config", "--root", "0123"], &[]);
    assert!(message.contains("--root 0123: it must be a public key of 64 hexadecimal digits"), "{message}");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let says = "cannot read the configuration other.toml; name another file with --config";
    assert!(refused(directory.path(), &["config", "--config", "other.toml"], &[]).contains(says));
    let message = refused(directory.path(), &["config"], &[("NETABASE_CONFIG", "other.toml")]);
    assert!(message.contains(says), "{message}");
}

#[test]
fn a_path_in_a_file_begins_where_the_file_is() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("etc")).unwrap();
    std::fs::write(directory.path().join("etc/netabase.toml"), "path = \"node\"\n").unwrap();
    let (value, _) = setting(directory.path(), "path", &["--config", "etc/netabase.toml"], &[]);
    assert_eq!(value, "etc/node");
}

/// Returns a file of the project.
fn project(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

#[test]
fn the_settings_that_are_delivered_and_explained_are_settings() {
    let directory = tempfile::tempdir().unwrap();
    let guide = project("docs/operating.md");
    let explained = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let delivered = project("packaging/netabase.toml");
    let whole = delivered.replace("\n#", "\n");
    let whole = whole.split_once("\n\n").unwrap().1;
    let comments = ["Paths begin", "Settings of", " Fixed ports", " What to keep"];
    let whole: String = whole
        .split_inclusive('\n')
        .filter(|line| !comments.iter().any(|start| line.starts_with(start)))
        .collect();
    for text in [explained, &delivered, &whole] {
        std::fs::write(directory.path().join("netabase.toml"), text).unwrap();
        let output = netabase(directory.path(), &["config"], &[]);
        assert_eq!(output.status.code(), Some(0), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
    let known = netabase(directory.path(), &["config", "--json"], &[]);
    let known = String::from_utf8(known.stdout).unwrap();
    for file in ["packaging/Containerfile", "packaging/netabase.service", "docs/operating.md", "README.md"] {
        let text = project(file);
        for name in text.split(|c: char| !c.is_ascii_uppercase() && c != '_') {
            let is_setting =
                name.starts_with("NETABASE_") && !["NETABASE_", "NETABASE_CONFIG"].contains(&name);
            assert!(!is_setting || known.contains(&format!("\"{name}\"")), "{file} has {name}");
        }
    }
}

#[test]
fn a_variable_that_is_no_setting_is_noted() {
    let directory = tempfile::tempdir().unwrap();
    let output = netabase(directory.path(), &["config"], &[("NETABASE_NETWROK", "chat")]);
    assert_eq!(output.status.code(), Some(0));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message, "note: NETABASE_NETWROK is set in the environment, and is not a setting\n");
}

#[test]
fn the_table_says_what_people_ask() {
    let directory = tempfile::tempdir().unwrap();
    let output = netabase(directory.path(), &["config", "--path", "node", "--no-mdns"], &[]);
    let table = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(table.starts_with("SETTING"), "{table}");
    assert_eq!(
        line("path"),
        ["path", "node", "flag --path", "The directory of the database and of the node's identity"]
    );
    assert_eq!(line("mdns.enabled")[..3], ["mdns.enabled", "false", "flag --no-mdns"]);
    assert_eq!(line("api.listen")[..3], ["api.listen", "127.0.0.1:4080", "default"]);
    assert!(!table.contains('\u{1b}'), "a program gets no colours");
}
