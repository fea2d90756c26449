//! The names at the roots of the two libraries are few enough to be read on one page.

/// The root has fewer names than this, modules included.
const MAX_ROOT_NAMES: usize = 80;

/// Returns the public names that a `lib.rs` declares at the root, once each.
fn root_names(source: &str) -> Vec<String> {
    // Items of modules are indented, and those of the root are not.
    let mut names = Vec::new();
    let mut statement = String::new();
    for line in source.lines() {
        if let Some(module) = line.strip_prefix("pub mod ") {
            names.push(module.trim_end_matches([';', '{', ' ']).to_owned());
        }
        if line.starts_with("pub use ") || !statement.is_empty() {
            statement.push_str(line);
            if line.ends_with(';') {
                let path = statement.trim_start_matches("pub use ").trim_end_matches(';');
                let list = path.rsplit_once("::{").map(|(_, list)| list.trim_end_matches('}'));
                let list = list.or(path.rsplit("::").next()).unwrap_or(path);
                names.extend(list.split(',').map(|name| name.trim().to_owned()));
                statement.clear();
            }
        }
    }
    names.retain(|name| !name.is_empty() && name != "__private");
    names.sort();
    // A trait and the macro that implements it have one name.
    names.dedup();
    names
}

#[test]
fn the_root_has_few_names_and_no_constants() {
    let known = ["NetabaseStore", "NetabaseModel", "StoreError", "replica", "WriteTransaction"];
    check(&root_names(include_str!("../src/lib.rs")), &known);
}

#[test]
fn so_has_the_root_of_netabase() {
    let known = ["Netabase", "NetabaseConfig", "NetabaseModel", "WriteOutcome", "health", "query"];
    check(&root_names(include_str!("../../netabase/src/lib.rs")), &known);
}

fn check(names: &[String], known: &[&str]) {
    for known in known {
        assert!(names.iter().any(|name| name == *known), "`{known}` is not among {names:?}");
    }
    assert!(names.len() < MAX_ROOT_NAMES, "{} names, put the new ones in a module: {names:#?}", names.len());
    let constants: Vec<_> = names.iter().filter(|name| name.to_uppercase() == **name).collect();
    assert!(constants.is_empty(), "constants belong to a type: {constants:?}");
}
