//! `netabase schema`: shows and checks schemas.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use netabase::netabase_store::dynamic::Schema;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::online::{ApiArguments, failed};
use crate::output;
use crate::schema;

/// The command line of `netabase schema`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Show this file instead of the schema of a running node
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArguments,
}

/// The subcommands of `netabase schema`.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a schema.toml, and list its models
    #[command(after_long_help = "\
Example:
  netabase schema check schema.toml")]
    Check {
        /// The file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Shows or checks a schema.
pub(crate) async fn run(config: Option<&Path>, arguments: &Arguments) -> Outcome {
    match (&arguments.action, &arguments.file) {
        (Some(Action::Check { file, json }), _) => check(file, *json),
        (None, Some(file)) => show(&schema::read(file)?, arguments.api.json),
        (None, None) => {
            let api = arguments.api.connect(config)?;
            let mut lines = api.lines("/v1/schema?format=toml").await.map_err(failed)?;
            let mut text = String::new();
            while let Some(line) = lines.next().await {
                text = text + &line.map_err(failed)? + "\n";
            }
            let schema =
                Schema::from_toml(&text).context("this program does not know all of the node's schema")?;
            show(&schema, arguments.api.json)
        }
    }
}

fn check(file: &Path, as_json: bool) -> Outcome {
    let schema = schema::read(file)?;
    if as_json {
        output::print_json(&summary(&schema))?;
    } else {
        let mut table =
            output::Table::new(&["model", "version", "policy", "fields", "primary key", "secondary keys"]);
        for model in schema.models() {
            let names = |names: Vec<&str>| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
            table.row([
                model.name().to_owned(),
                model.version().to_string(),
                format!("{:?}", model.policy()).to_lowercase(),
                model.fields().len().to_string(),
                names(model.primary_key().map(|field| field.name.as_ref()).collect()),
                names(model.indexes().iter().map(|index| index.name.as_ref()).collect()),
            ]);
        }
        output::print_line(&format!("{}: the schema `{}` is right", file.display(), schema.name()))?;
        output::print_line("")?;
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(schema: &Schema, as_json: bool) -> Outcome {
    if as_json {
        let document: toml::Table = schema.to_toml().parse()?;
        output::print_json(&document)?;
    } else {
        output::write_all(&mut std::io::stdout().lock(), schema.to_toml().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(schema: &Schema) -> Value {
    let models = schema.models().iter().map(|model| {
        json!({
            "name": model.name(),
            "version": model.version(),
            "policy": format!("{:?}", model.policy()).to_lowercase(),
            "fields": model.fields().len(),
            "primary_key": model.primary_key().map(|field| field.name.as_ref()).collect::<Vec<&str>>(),
            "secondary_keys": model.indexes().iter().map(|index| index.name.as_ref()).collect::<Vec<&str>>(),
        })
    });
    json!({ "ok": true, "name": schema.name(), "models": models.collect::<Vec<_>>() })
}
