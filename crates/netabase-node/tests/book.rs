//! The README and the book in `docs/`, as readers meet them: what they link to exists, and what
//! they tell a reader to type does what they say.
//!
//! A fenced block is one of
//!
//! | info string | what becomes of it |
//! | --- | --- |
//! | `rust` | the page must be among the doctests of a crate, which run it |
//! | `toml`, `json` | parsed |
//! | `toml,file=schema.toml` | a file of that name for the blocks below; any language that is not run |
//! | `sh` | run; the blocks of a page in order, in one shell, with this program on the path |
//! | `sh,background` | started in that shell; the next block begins when it has said what the comment names |
//! | `text,output` | its lines must be in what the block above has printed; `...` stands for anything |
//! | `text`, `ini`, `dockerfile`, `yaml` | shown |
//!
//! `no_run` behind `rust` or `sh` needs a comment with the reason above the block; its commands are
//! compared with what there is all the same. `cargo run --release --` stands for this program,
//! other commands of cargo are compared with the packages that there are.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "book/commands.rs"]
mod commands;
#[path = "book/markdown.rs"]
mod markdown;
#[path = "book/shell.rs"]
mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use markdown::{Block, Page};

/// Languages whose blocks are only looked at: there is nothing here that could run or parse them.
const SHOWN: [&str; 4] = ["text", "ini", "dockerfile", "yaml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Returns the paths of the chapters, relative to the repository.
fn chapters() -> BTreeSet<String> {
    let names = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = names
        .map(|name| name.into_string().unwrap())
        .filter(|name| Path::new(name).extension() == Some("md".as_ref()));
    pages.filter(|name| name != "SUMMARY.md").map(|name| format!("docs/{name}")).collect()
}

/// Reads the README and every chapter.
fn pages() -> Vec<Page> {
    let paths = std::iter::once("README.md".to_owned()).chain(chapters());
    paths.map(|path| Page::read(&root(), &path)).collect()
}

/// Fails with everything that was found at once.
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut problems = Vec::new();
    let extra = ["CONTRIBUTING.md", "docs/SUMMARY.md"].map(|path| Page::read(&root(), path));
    for page in pages().iter().chain(&extra) {
        for link in &page.links {
            if let Err(problem) = follow(page, &link.target) {
                problems.push(format!("{}:{}: {}: {problem}", page.path, link.line, link.target));
            }
        }
    }
    assert_none(&problems);
}

/// Looks for what a link is to, unless it is elsewhere on the web.
fn follow(page: &Page, target: &str) -> Result<(), String> {
    if target.starts_with("https://") {
        return Ok(());
    }
    if target.contains("://") {
        return Err("neither relative nor https".into());
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let here = Path::new(&page.path);
    let path = if path.is_empty() { here.to_owned() } else { here.parent().unwrap().join(path) };
    if page.path.starts_with("docs/") && (target.contains("..") || !path.starts_with("docs")) {
        return Err("leads out of the book: name the file, or link to it from the README".into());
    }
    if !root().join(&path).exists() {
        return Err("no such file".into());
    }
    match anchor {
        Some(anchor) if !Page::read(&root(), path.to_str().unwrap()).anchors.contains(anchor) => {
            Err("no such heading".into())
        }
        _ => Ok(()),
    }
}

#[test]
fn every_chapter_is_in_the_summary_once() {
    let summary = Page::read(&root(), "docs/SUMMARY.md");
    let mut listed = Vec::new();
    for link in &summary.links {
        listed.push(format!("docs/{}", link.target));
    }
    let distinct = listed.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(distinct.len(), listed.len(), "a chapter is listed twice: {listed:?}");
    assert_eq!(distinct, chapters());
    let book = fs::read_to_string(root().join("book.toml")).unwrap().parse::<toml::Table>().unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("docs"));
}

#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    let doctests = doctests();
    let mut problems = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            if let Err(problem) = check(&page, block, &doctests) {
                problems.push(format!("{}:{}: {problem}", page.path, block.line));
            }
        }
    }
    assert_none(&problems);
}

/// Returns what the libraries say of which pages are doctests.
fn doctests() -> String {
    let libraries = ["netabase", "netabase_store", "netabase-http"]
        .map(|name| root().join("crates").join(name).join("src/lib.rs"));
    libraries.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn check(page: &Page, block: &Block, doctests: &str) -> Result<(), String> {
    let attributes = block.attributes.iter().map(String::as_str).collect::<Vec<_>>();
    if attributes.contains(&"no_run") && block.comment.is_none() {
        return Err("`no_run` needs a comment above the block that says why".into());
    }
    let attributes = attributes.into_iter().filter(|own| !own.starts_with("file=")).collect::<Vec<_>>();
    if block.file().is_some() && ["rust", "sh"].contains(&block.language.as_str()) {
        return Err("what is run is no file".into());
    }
    match (block.language.as_str(), &attributes[..]) {
        ("rust", [] | ["no_run"]) => {
            let included = doctests.contains(&format!("include_str!(\"../../../{}\")", page.path));
            if included { Ok(()) } else { Err(format!("no crate has {} among its doctests", page.path)) }
        }
        ("toml", []) => block.text.parse::<toml::Table>().map(drop).map_err(|error| error.to_string()),
        ("json", []) => serde_json::from_str::<serde_json::Value>(&block.text)
            .map(drop)
            .map_err(|error| error.to_string()),
        ("sh", [] | ["no_run"]) | ("text", ["output"]) => Ok(()),
        ("sh", ["background"]) if block.until().is_some() => Ok(()),
        ("sh", ["background"]) => {
            Err("needs a comment above: until \"what it says when it is ready\"".into())
        }
        (language, []) if SHOWN.contains(&language) => Ok(()),
        (language, attributes) => {
            Err(format!("{language:?} with {attributes:?} is not tested: see tests/book.rs"))
        }
    }
}

#[test]
fn the_blocks_of_the_first_chapter_use_the_models_that_it_shows() {
    let models = fs::read_to_string(root().join("crates/netabase/tests/book/notes.rs")).unwrap();
    let (_, shown) = models.split_once('\n').unwrap();
    assert!(fs::read_to_string(root().join("docs/start.md")).unwrap().contains(shown));
}

#[test]
fn every_command_exists() {
    let mut problems = Vec::new();
    // The formats quote bytes that begin like commands.
    for page in pages().into_iter().filter(|page| page.path != "docs/formats.md") {
        let blocks = page.blocks.iter().filter(|block| block.language == "sh");
        let in_blocks =
            blocks.flat_map(|block| commands::lines(&block.text).into_iter().map(|line| (block.line, line)));
        let inline = page.code.iter().map(|code| (code.line, code.text.clone()));
        for (line, command) in in_blocks.chain(inline) {
            if let Err(problem) = commands::check(&root(), &command) {
                problems.push(format!("{}:{line}: `{command}`: {problem}", page.path));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_blocks_of_every_page_run() {
    let problems = pages().iter().filter_map(|page| shell::run(page).err()).collect::<Vec<_>>();
    assert_none(&problems);
}

#[test]
fn mistakes_in_a_page_are_found() {
    let page = |text: &str| Page::parse("docs/page.md", text);
    let block = |text: &str| {
        let page = page(text);
        check(&page, &page.blocks[0], "").unwrap_err()
    };
    assert!(block("```python\n```").contains("python"));
    assert!(block("```\n```").contains("is not tested"));
    assert!(block("```rust\nfn main() {}\n```").contains("doctests"));
    assert!(block("```sh,no_run\ntrue\n```").contains("says why"));
    assert!(block("<!-- why -->\n```sh,ignore\ntrue\n```").contains("is not tested"));
    assert!(block("```sh,background\nsleep 1\n```").contains("until"));
    assert!(block("```toml\na = \n```").contains("TOML"));
    assert!(block("```json\n{a: 1}\n```").contains("line 1"));

    let links = page(
        "# A\n\n[a](#a) [b](#b) [c](start.md#start-here) [d](gone.md) [e](../README.md) [f](http://x)\n",
    );
    let leads = links.links.iter().map(|link| follow(&links, &link.target).is_ok());
    assert_eq!(leads.collect::<Vec<_>>(), [false, false, true, false, false, false]);

    for (command, known) in [
        ("cargo run -p netabase --example two_nodes", true),
        ("cargo run -p netabase --example three_nodes", false),
        ("cargo run -p netabase-bench -- store --json", true),
        ("cargo run -p netabase-bench -- stores", false),
        ("cargo test -p netabase-nodes", false),
        ("RUST_LOG=debug cargo run --release -- serve --path node", true),
        ("cargo run --release -- serve --paths node", false),
        ("netabase served --path node", false),
        ("cargo fly", false),
        ("ls -l", true),
    ] {
        assert_eq!(commands::check(&root(), command).is_ok(), known, "{command}");
    }
}

#[test]
fn blocks_that_fail_are_found() {
    let run = |text: &str| shell::run(&Page::parse("docs/page.md", text));
    // Variables and files of one block are there in the next one, and what was started is ended.
    run("```sh\nA=1; touch a\n```\n\n```sh\nls $PWD/a; echo \"$A of 2\"\n```\n\n```text,output\n.../a\n1...2\n```").unwrap();
    run("<!-- until \"up\" -->\n```sh,background\necho up; sleep 1000\n```\n\n```sh\ntrue\n```").unwrap();
    run("```toml,file=a.toml\na = '$1'\n```\n\n```sh\ncat a.toml\n```\n```text,output\na = '$1'\n```")
        .unwrap();
    let failed = run("```sh\ntrue\n```\n\n```sh\necho here; false\necho not here\n```").unwrap_err();
    assert!(failed.contains("docs/page.md:5") && failed.contains("here") && !failed.contains("not here"));
    assert!(run("```sh\necho 12\n```\n```text,output\n1...3\n```").unwrap_err().contains("is not in"));
    let silent = run("<!-- until \"up\" -->\n```sh,background\necho down\n```").unwrap_err();
    assert!(silent.contains("it has not said \"up\"") && silent.contains("down"));
}
