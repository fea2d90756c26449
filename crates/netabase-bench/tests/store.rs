//! Every case of the `store` subject on every system, with a few records.

use std::collections::HashMap;
use std::process::Command;

use serde_json::Value;

const RECORDS: &str = "400";

#[test]
fn every_case_is_measured_on_every_system() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase-bench"));
    command.args(["store", "--json", "--repetitions", "1", "--insert-millis", "20", "--records", RECORDS]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut systems = HashMap::<_, Vec<_>>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert!(row["value"].as_f64().is_some_and(|value| value > 0.0), "{line}");
        assert_eq!(row["records"].to_string(), RECORDS);
        let text = |field: &str| row[field].as_str().unwrap().to_owned();
        systems.entry(text("case")).or_default().push(text("system"));
    }
    let all = ["netabase", "netabase-sled", "redb", "native_db", "sqlite", "raw-sled", "fjall"];
    let cases = [
        "bulk_insert",
        "insert",
        "insert_64_threads",
        "64_threads_to_1",
        "64_threads_to_bulk",
        "update",
        "delete",
        "get",
        "get_many_100",
        "find_1",
        "find_100",
        "range_1000",
        "scan",
        "open",
        "file_size",
    ];
    for case in cases {
        assert_eq!(systems[case], all, "{case}");
    }
    assert_eq!(systems["bulk_insert_10_keys"], ["netabase", "redb", "native_db", "sqlite"]);
}
