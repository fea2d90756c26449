//! `netabase watch`: follows changes of records.

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use netabase::changes::ChangePosition;
use netabase_client::{Client, ServerEvent};
use serde_json::{Value, json};

use super::records::Selection;
use crate::failure::{Code, Failure, Outcome};
use crate::online::{ApiArguments, failed, path, with};
use crate::output::{self, note, text};
use crate::signals::Signals;

/// The command line of `netabase watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The model [default: all]
    model: Option<String>,
    #[command(flatten)]
    selection: Selection,
    /// Begin after the change with this position or number [default: with the next change]
    #[arg(long, value_name = "POSITION")]
    since: Option<ChangePosition>,
    /// Also replicate the records and their changes from peers
    #[arg(long)]
    network: bool,
    #[command(flatten)]
    api: ApiArguments,
}

/// Prints changes until interrupted.
pub(crate) async fn run(file: Option<&Path>, arguments: &Arguments) -> Outcome {
    let mut signals = Signals::catch()?;
    let mut parameters = arguments.selection.parameters()?;
    if arguments.model.is_none() && parameters.iter().any(|(_, value)| value.is_some()) {
        return Err(Failure::usage(anyhow!("--by, --prefix, --from and --to are about one model; name it")));
    }
    parameters.extend([
        ("model", arguments.model.clone()),
        ("since", arguments.since.map(|since| since.to_string())),
        ("scope", arguments.network.then(|| "network".to_owned())),
    ]);
    let api = arguments.api.connect(file)?;
    let mut last = arguments.since.map(|since| since.to_string());
    let target = with(path(&["v1", "changes"]), &parameters);
    let followed = tokio::select! {
        followed = follow(&api, &target, &mut last, arguments.api.json) => followed,
        () = signals.recv() => Ok(()),
    };
    if let Some(last) = last {
        note!("resume with --since {last}");
    }
    followed.map(|()| ExitCode::SUCCESS)
}

async fn follow(api: &Client, target: &str, last: &mut Option<String>, json: bool) -> Result<(), Failure> {
    let mut events = api.events(target, None).await.map_err(failed)?;
    while let Some(event) = events.next().await {
        let ServerEvent { id, event, data, text, .. } = event.map_err(failed)?;
        let line = line(id.as_deref(), &event, &data, json.then_some(text.as_str()));
        if json { output::print_document(&line) } else { output::print_line(&line) }?;
        *last = events.last_id().map(str::to_owned);
    }
    let message = format!("the node at {} closed the stream; start it and run the command again", api.url());
    Err(Failure { code: Code::NoNode, error: anyhow!(message) })
}

fn line(id: Option<&str>, event: &str, record: &Value, json: Option<&str>) -> String {
    let position = id.and_then(|id| id.parse::<ChangePosition>().ok());
    let sequence = position.map(|position| position.sequence().to_string());
    if let Some(record) = json {
        let sequence = sequence.as_deref().unwrap_or("null");
        let (position, event) = (json!(id), json!(event));
        return format!(
            r#"{{"sequence":{sequence},"position":{position},"event":{event},"record":{record}}}"#
        );
    }
    let field = |name: &str| record.get(name).map(text).unwrap_or_default();
    let what = match record.get("value") {
        Some(Value::Null) | None => field("reason"),
        Some(value) => value.to_string(),
    };
    let sequence = sequence.unwrap_or_default();
    format!("{sequence} {event} {} {} {what}", field("model"), field("key")).trim_end().to_owned()
}
