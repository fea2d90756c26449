//! `netabase put`, `get`, `remove` and `query`: records of a running node.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use netabase::Author;
use netabase_client::{Answer, Client, record_path};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::failure::{Failure, Outcome};
use crate::online::{ApiArguments, failed, path, with};
use crate::output::{self, Table, note, text};

/// The largest value that is read from standard input.
const MAX_INPUT_BYTES: u64 = 32 * 1024 * 1024;

/// The command line of `netabase put`.
#[derive(Debug, clap::Args)]
pub(crate) struct PutArguments {
    /// The model
    model: String,
    /// The value as JSON, or - to read it from standard input
    value: String,
    /// The number of peers that must accept the record before the command returns, 0 for none
    /// [default: the setting of the node]
    #[arg(long, value_name = "N")]
    write_concern: Option<u32>,
    #[command(flatten)]
    api: ApiArguments,
}

/// Stores a record.
pub(crate) async fn put(file: Option<&Path>, arguments: &PutArguments) -> Outcome {
    let value = value(&arguments.value)?;
    let api = arguments.api.connect(file)?;
    let target = path(&["v1", "models", &arguments.model, "records"]);
    let target = with(target, &[("write_concern", arguments.write_concern.map(|n| n.to_string()))]);
    let outcome = api.post(&target, &value).await.map_err(failed)?.json;
    say_written(&outcome, "stored", arguments.api.json)
}

/// The command line of `netabase remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArguments {
    /// The model
    model: String,
    /// The key: the text itself, or a JSON array if it has several fields
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// The number of peers that must accept the removal before the command returns, 0 for none
    /// [default: the setting of the node]
    #[arg(long, value_name = "N")]
    write_concern: Option<u32>,
    #[command(flatten)]
    api: ApiArguments,
}

/// Removes a record from the node and its peers.
pub(crate) async fn remove(file: Option<&Path>, arguments: &RemoveArguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let target = record_path(&arguments.model, &arguments.key, None);
    let target = with(target, &[("write_concern", arguments.write_concern.map(|n| n.to_string()))]);
    let outcome = api.delete(&target, None).await.map_err(failed)?.json;
    say_written(&outcome, "removed", arguments.api.json)
}

/// The nodes that a read asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Consistency {
    /// This node, then peers if it does not have the record
    First,
    /// This node alone
    Local,
    /// This node and some peers, for the newest version
    #[value(alias = "latest")]
    Newest,
    /// Every peer that should hold the record
    All,
}

/// The command line of `netabase get`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArguments {
    /// The model
    model: String,
    /// The key: the text itself, or a JSON array if it has several fields
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// The nodes to ask
    #[arg(long, value_enum, default_value = "first")]
    consistency: Consistency,
    /// The longest time to wait for the network, in milliseconds [default: the setting of the node]
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    #[command(flatten)]
    api: ApiArguments,
}

/// Shows a record.
pub(crate) async fn get(file: Option<&Path>, arguments: &GetArguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let consistency = arguments.consistency.to_possible_value().map(|value| value.get_name().to_owned());
    let timeout = arguments.timeout.map(|millis| millis.to_string());
    let target = record_path(&arguments.model, &arguments.key, None);
    let target = with(target, &[("consistency", consistency), ("timeout_ms", timeout)]);
    let found = api.get(&target).await.map_err(failed)?;
    if arguments.api.json {
        output::print_document(&found.text)?;
    } else {
        output::describe(&found.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The selection of records of a command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// The secondary key to select by, such as room=general, or to order by, such as room
    #[arg(long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    by: Option<String>,
    /// Only records for which that key, or else the primary key, begins with this text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Only records with this key or a later one
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only records with an earlier key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    to: Option<String>,
}

impl Selection {
    /// Returns the query parameters of the selection.
    pub(crate) fn parameters(&self) -> Result<Vec<(&'static str, Option<String>)>, Failure> {
        let (index, key) = match self.by.as_deref().map(|by| by.split_once('=').ok_or(by)) {
            Some(Ok((index, key))) => (Some(index.to_owned()), Some(key.to_owned())),
            Some(Err(index)) => (Some(index.to_owned()), None),
            None => (None, None),
        };
        if key.is_some() && (self.prefix.is_some() || self.from.is_some() || self.to.is_some()) {
            let message = "--by KEY=VALUE asks for one value; write --by KEY beside --prefix, --from or --to";
            return Err(Failure::usage(anyhow!(message)));
        }
        let (prefix, from, to) = (self.prefix.clone(), self.from.clone(), self.to.clone());
        Ok(vec![("index", index), ("key", key), ("prefix", prefix), ("from", from), ("to", to)])
    }
}

/// The command line of `netabase query`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct QueryArguments {
    /// The model
    model: String,
    #[command(flatten)]
    selection: Selection,
    /// Reverse the order
    #[arg(long)]
    reverse: bool,
    /// The most records, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show all pages, not only the first; the limit applies to each page
    #[arg(long)]
    all: bool,
    /// Continue after the page that ended with this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Also ask the peers that hold such records
    #[arg(long)]
    network: bool,
    /// Only records of this author, a public key; the option can be repeated
    #[arg(long, value_name = "AUTHOR", conflicts_with = "members")]
    author: Vec<Author>,
    /// Only records of the members of this closed network
    #[arg(long)]
    members: bool,
    #[command(flatten)]
    api: ApiArguments,
}

/// Finds records.
pub(crate) async fn query(file: Option<&Path>, arguments: &QueryArguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let mut parameters = arguments.selection.parameters()?;
    parameters.extend([
        ("reverse", arguments.reverse.then(|| "true".to_owned())),
        ("limit", Some(arguments.limit.to_string())),
        ("scope", arguments.network.then(|| "network".to_owned())),
        ("authors", authors(arguments)),
    ]);
    let mut cursor = arguments.cursor.clone();
    let mut found: Vec<Value> = Vec::new();
    loop {
        let Answer { json: mut page, text, .. } =
            page(&api, &arguments.model, &parameters, cursor.take()).await?;
        if arguments.api.json {
            let exact: Records<'_> = serde_json::from_str(&text)?;
            exact.records.iter().try_for_each(|record| output::print_document(record.get()))?;
        } else {
            let records = page.get_mut("records").and_then(Value::as_array_mut).map(std::mem::take);
            found.extend(records.unwrap_or_default());
        }
        say_report(&page);
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || !arguments.all {
            break;
        }
    }
    if !arguments.api.json {
        table(&found).print()?;
    }
    if let Some(cursor) = cursor {
        note!("there is more: add --cursor {cursor}, or --all");
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the parameter that names the authors, or `None` for all.
fn authors(arguments: &QueryArguments) -> Option<String> {
    let named: Vec<_> = arguments.author.iter().map(ToString::to_string).collect();
    let members = arguments.members.then(|| "members".to_owned());
    members.or_else(|| (!named.is_empty()).then(|| named.join(",")))
}

/// The records of a page, in the JSON of the node.
#[derive(Deserialize)]
struct Records<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

async fn page(
    api: &Client,
    model: &str,
    parameters: &[(&'static str, Option<String>)],
    cursor: Option<String>,
) -> Result<Answer, Failure> {
    let target = with(path(&["v1", "models", model, "records"]), parameters);
    api.get(&with(target, &[("cursor", cursor)])).await.map_err(failed)
}

/// Notes how many peers answered, and which ones failed, if peers were asked.
fn say_report(page: &Value) {
    let Some(report) = page.get("report").filter(|report| !report.is_null()) else { return };
    let peers = report.get("peers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let fact = |peer: &Value, name: &str| peer.get(name).map(text).unwrap_or_default();
    let answered = peers.iter().filter(|peer| fact(peer, "answer") == "answered").count();
    note!("{answered} of {} peers have answered", peers.len());
    for peer in peers.iter().filter(|peer| fact(peer, "answer") == "failed") {
        note!("peer {}: {}", fact(peer, "peer"), fact(peer, "reason"));
    }
    for peer in peers.iter().filter(|peer| fact(peer, "answer") == "cut_off") {
        let peer = fact(peer, "peer");
        note!("peer {peer} has more than is read of one peer: some of its records may be missing");
    }
}

/// Makes a table of records, with a column for each field of their values.
fn table(records: &[Value]) -> Table {
    let mut fields: Vec<&str> = Vec::new();
    let mut columns = BTreeSet::new();
    for record in records {
        for name in record.get("value").and_then(Value::as_object).into_iter().flat_map(|value| value.keys())
        {
            if columns.insert(name.as_str()) {
                fields.push(name);
            }
        }
    }
    let heads: Vec<&str> = ["key"].into_iter().chain(fields.iter().copied()).chain(["written"]).collect();
    let mut table = Table::new(&heads);
    for record in records {
        let field = |name: &&str| {
            record.pointer("/value").and_then(|value| value.get(name)).map(text).unwrap_or_default()
        };
        let written = record.pointer("/version/timestamp").map(text).unwrap_or_default();
        let key = record.get("key").map(text).unwrap_or_default();
        table.row([key].into_iter().chain(fields.iter().map(field)).chain([written]));
    }
    table
}

/// Returns the JSON of an argument or of standard input, unchanged.
fn value(given: &str) -> Result<Box<RawValue>, Failure> {
    let mut text = given.to_owned();
    if given == "-" {
        if std::io::stdin().is_terminal() {
            note!("reading the value from standard input, until its end (Ctrl-D)");
        }
        text.clear();
        let read = std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut text);
        read.context("cannot read the value from standard input")?;
    }
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(anyhow!(
            "the value is not JSON ({error}); write it like '{{\"id\":\"42\"}}', with the quotes"
        ))
    })
}

fn say_written(outcome: &Value, done: &str, json: bool) -> Outcome {
    if json {
        output::print_json(outcome)?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = |name| outcome.get(name).and_then(Value::as_array).map_or(0, Vec::len);
    let [model, key] = ["model", "key"].map(|name| outcome.get(name).map(text).unwrap_or_default());
    let peers = match (count("accepted"), count("asked")) {
        (_, 0) => "on this node; it is sent to peers when they connect".to_owned(),
        (accepted, asked) => format!("on this node, and accepted by {accepted} of {asked} peers"),
    };
    output::print_line(&format!("{done} {model} {key} {peers}"))?;
    for peer in outcome.get("peers").and_then(Value::as_array).into_iter().flatten() {
        if let Some(reason) = peer.get("reason").and_then(Value::as_str) {
            let name = peer.get("peer").map(text).unwrap_or_default();
            note!("peer {name}: {reason}");
        }
    }
    if outcome.get("overtaken_by").is_some_and(|newer| !newer.is_null()) {
        note!(
            "a holder has a newer version, which wins: read the record with --consistency newest, and write again"
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_of_a_value_has_no_range() {
        let both = Selection { by: Some("room=a".into()), prefix: Some("b".into()), ..Selection::default() };
        assert!(both.parameters().is_err());
        let range = Selection { by: Some("room".into()), from: Some("b".into()), ..Selection::default() };
        let parameters = range.parameters().unwrap();
        assert!(parameters.contains(&("index", Some("room".into()))));
        assert!(parameters.contains(&("key", None)));
    }

    #[test]
    fn a_value_may_have_an_equals_sign() {
        let selection = Selection { by: Some("room=a=b".into()), ..Selection::default() };
        assert!(selection.parameters().unwrap().contains(&("key", Some("a=b".into()))));
    }
}
