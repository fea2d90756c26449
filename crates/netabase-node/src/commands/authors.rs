//! `netabase authors`: who wrote the records of a node, and whose records it refuses.

use std::path::Path;
use std::process::ExitCode;

use netabase::Author;
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::online::{ApiArguments, failed, path};
use crate::output::{self, Table, note, text};

/// The command line of `netabase authors`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    api: ApiArguments,
}

/// The subcommands of `netabase authors`.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the authors with the most bytes and the refused authors, which is the default
    #[command(after_long_help = "\
Example:
  netabase authors list --json")]
    List,
    /// Refuse the records of an author, and remove the stored ones in the background
    #[command(after_long_help = "\
Example:
  netabase authors refuse 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c

The node keeps the list. Other nodes keep the records of the author.")]
    Refuse {
        /// The public key of the author
        author: Author,
    },
    /// Accept the records of a refused author again
    #[command(after_long_help = "\
Example:
  netabase authors allow 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")]
    Allow {
        /// The public key of the author
        author: Author,
    },
    /// Remove the records of an author from this node, and wait until they are gone
    #[command(after_long_help = "\
Example:
  netabase authors remove 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c

Unless the author is refused, peers send the records again.")]
    Remove {
        /// The public key of the author
        author: Author,
    },
}

/// Lists the authors, or refuses, allows or removes one.
pub(crate) async fn run(file: Option<&Path>, arguments: &Arguments) -> Outcome {
    let api = arguments.api.connect(file)?;
    let one = |author: &Author| path(&["v1", "authors", &author.to_string()]);
    let refusal = |author: &Author| path(&["v1", "authors", &author.to_string(), "refusal"]);
    let answer = match &arguments.action {
        None | Some(Action::List) => api.get("/v1/authors").await,
        Some(Action::Refuse { author }) => api.put(&refusal(author), &json!({}), None).await,
        Some(Action::Allow { author }) => api.delete(&refusal(author), None).await,
        Some(Action::Remove { author }) => api.delete(&one(author), None).await,
    };
    let answer = answer.map_err(failed)?.json;
    let is_changed = answer.get("changed") != Some(&Value::Bool(false));
    match &arguments.action {
        _ if arguments.api.json => output::print_json(&answer)?,
        None | Some(Action::List) => list(&answer)?,
        Some(Action::Refuse { .. }) if is_changed => {
            output::print_line("refused; its stored records are being removed")?;
        }
        Some(Action::Refuse { .. }) => output::print_line("the author was refused already")?,
        Some(Action::Allow { .. }) if is_changed => output::print_line("allowed")?,
        Some(Action::Allow { .. }) => output::print_line("the author was not refused")?,
        Some(Action::Remove { author }) => removed(*author, &answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(answer: &Value) -> Result<(), Failure> {
    let items =
        |name: &str| answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let flag = |author: &Value, name: &str| author.get(name).and_then(Value::as_bool).unwrap_or_default();
    let mut table = Table::new(&["author", "records", "tombstones", "bytes", "state"]);
    for author in items("authors") {
        let fact = |name: &str| author.get(name).map_or("-".to_owned(), text);
        let state = match (flag(author, "own"), flag(author, "refused")) {
            (true, _) => "this node",
            (false, true) => "refused",
            (false, false) => "-",
        };
        table.row([fact("author"), fact("records"), fact("tombstones"), fact("bytes"), state.to_owned()]);
    }
    // The keys are there to be copied.
    table.print_wide()?;
    for fast in items("fast") {
        let fact = |name: &str| fast.get(name).map_or("-".to_owned(), text);
        output::print_line(&format!("too fast: {}, {} records refused", fact("author"), fact("refused")))?;
    }
    let is_listed =
        |author: &Value| items("authors").iter().any(|listed| listed.get("author") == Some(author));
    for author in items("refused").iter().filter(|author| !is_listed(author)) {
        output::print_line(&format!("refused: {}", text(author)))?;
    }
    Ok(())
}

fn removed(author: Author, answer: &Value) -> Result<(), Failure> {
    let count = |name: &str| answer.get(name).map_or("-".to_owned(), text);
    output::print_line(&format!(
        "removed {} records and {} tombstones",
        count("records"),
        count("tombstones")
    ))?;
    if answer.get("refused") == Some(&Value::Bool(false)) {
        note!("peers send them again unless you run `netabase authors refuse {author}`");
    }
    Ok(())
}
