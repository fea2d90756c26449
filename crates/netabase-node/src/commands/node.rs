//! `netabase status`, `peers` and `why`: the state of a node, its peers, and the history of a
//! record.

use std::path::Path;
use std::process::ExitCode;

use netabase_client::record_path;
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::online::{ApiArguments, failed, path};
use crate::output::{self, Table, note, text};

/// The command line of `netabase status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    api: ApiArguments,
}

/// Shows the status and the warnings of the node.
pub(crate) async fn status(file: Option<&Path>, arguments: &StatusArguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let mut status = api.get("/v1/status").await.map_err(failed)?.json;
    if arguments.api.json {
        output::print_json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let [authors, warnings] = ["largest_authors", "warnings"]
        .map(|name| status.as_object_mut().and_then(|status| status.remove(name)));
    output::describe(&status)?;
    for author in authors.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let fact = |name: &str| author.get(name).map(text).unwrap_or_default();
        let (name, records, bytes) = (fact("author"), fact("records"), fact("bytes"));
        output::print_line(&format!("author {name}: {records} records, {bytes} bytes"))?;
    }
    for warning in warnings.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let [message, advice] =
            ["message", "what_to_do"].map(|name| warning.get(name).map(text).unwrap_or_default());
        output::print_line(&format!("warning: {message}; {advice}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line of `netabase peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct PeersArguments {
    #[command(subcommand)]
    action: Option<PeerAction>,
    #[command(flatten)]
    api: ApiArguments,
}

/// The subcommands of `netabase peers`.
#[derive(Debug, clap::Subcommand)]
enum PeerAction {
    /// Connect to a peer
    #[command(after_long_help = "\
Example:
  netabase peers add /ip4/192.0.2.7/tcp/4001/p2p/12D3...")]
    Add {
        /// The address of the peer, with /p2p/ and the peer id at the end
        address: String,
    },
    /// Disconnect from a peer and forget it; the peer may connect again
    #[command(after_long_help = "\
Example:
  netabase peers remove 12D3...")]
    Remove {
        /// The id of the peer
        peer: String,
    },
    /// Show the connections and the conduct of a peer
    #[command(after_long_help = "\
Example:
  netabase peers show 12D3...")]
    Show {
        /// The id of the peer
        peer: String,
    },
}

/// Lists the peers, or shows, adds or removes one.
pub(crate) async fn peers(file: Option<&Path>, arguments: &PeersArguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let (answer, done) = match &arguments.action {
        None => (api.get("/v1/peers").await, None),
        Some(PeerAction::Show { peer }) => (api.get(&path(&["v1", "peers", peer])).await, None),
        Some(PeerAction::Add { address }) => {
            (api.post("/v1/peers", &json!({ "address": address })).await, Some("connected"))
        }
        Some(PeerAction::Remove { peer }) => {
            (api.delete(&path(&["v1", "peers", peer]), None).await, Some("removed"))
        }
    };
    let answer = answer.map_err(failed)?.json;
    match (done, &arguments.action) {
        _ if arguments.api.json => output::print_json(&answer)?,
        (Some(_), Some(PeerAction::Add { .. })) => output::print_line(dialled(&answer))?,
        (Some(done), _) => output::print_line(done)?,
        (None, Some(_)) => output::describe(&answer)?,
        (None, None) => list(&answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the message after dialling a peer.
fn dialled(answer: &Value) -> &'static str {
    // A node of an earlier version does not wait for the connection, and omits the field.
    match answer.get("connected").and_then(Value::as_bool) {
        Some(true) => "connected",
        Some(false) | None => "dialling; `netabase peers` shows the peer once it is connected",
    }
}

fn list(answer: &Value) -> Result<(), Failure> {
    let peers = answer.get("peers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if peers.is_empty() {
        note!("no peers; add one with `netabase peers add ADDRESS`, or start another node on this network");
    }
    let mut table = Table::new(&["peer", "direction", "address", "since", "agent", "conduct"]);
    for peer in peers {
        let fact = |pointer: &str| peer.pointer(pointer).map_or("-".to_owned(), text);
        table.row([
            fact("/peer"),
            fact("/connections/0/direction"),
            fact("/connections/0/address"),
            fact("/connections/0/since"),
            fact("/agent"),
            fact("/report/state"),
        ]);
    }
    table.print()
}

/// The command line of `netabase why`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArguments {
    /// The model
    model: String,
    /// The key: the text itself, or a JSON array if it has several fields
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// Ask the holders of the record which version they have instead
    #[arg(long)]
    health: bool,
    /// Do the same as --health, and send the newest version to holders that lack it
    #[arg(long, conflicts_with = "health")]
    repair: bool,
    #[command(flatten)]
    api: ApiArguments,
}

/// Shows the history of a record, or the versions of its holders.
pub(crate) async fn why(file: Option<&Path>, arguments: &WhyArguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let record = |below| record_path(&arguments.model, &arguments.key, Some(below));
    let answer = match (arguments.health, arguments.repair) {
        (_, true) => api.post(&record("health"), &Value::Null).await,
        (true, false) => api.get(&record("health")).await,
        (false, false) => api.get(&record("why")).await,
    };
    let answer = answer.map_err(failed)?.json;
    match answer.get("text").and_then(Value::as_str) {
        _ if arguments.api.json => output::print_json(&answer)?,
        // The text has the content of all other fields.
        Some(report) => report.lines().try_for_each(output::print_line)?,
        None => describe_with_tables(&answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an object, with a table for each list of objects in it.
fn describe_with_tables(answer: &Value) -> Result<(), Failure> {
    let Some(object) = answer.as_object() else { return output::describe(answer) };
    let is_list = |value: &Value| value.as_array().is_some_and(|items| items.iter().any(Value::is_object));
    let (lists, facts): (Vec<_>, Vec<_>) = object.iter().partition(|(_, value)| is_list(value));
    let mut table = Table::new(&["what", "value"]);
    for (name, value) in facts {
        output::flatten(name, value, &mut table);
    }
    table.print()?;
    for (name, list) in lists {
        output::print_line("")?;
        output::print_line(&format!("{name}:"))?;
        output::records(list.as_array().map(Vec::as_slice).unwrap_or_default(), &[]).print()?;
    }
    Ok(())
}
