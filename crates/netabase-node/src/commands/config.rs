//! `netabase config`: the settings and their sources.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::config::{Config, SettingFlags, one};
use crate::failure::Outcome;
use crate::output::{self, Table, note};

/// The command line of `netabase config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingFlags,
    /// The URL of the API that commands use [default: that of the setting api.listen]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints the settings.
pub(crate) fn run(file: Option<&Path>, arguments: &Arguments) -> Outcome {
    let mut flags = arguments.settings.flags()?;
    flags.extend(one("api.url", "--api", arguments.api.as_ref()));
    let config = Config::load(file, &flags)?;
    if arguments.json {
        output::print_json(&json(&config))?;
    } else {
        print(&config)?;
    }
    for variable in Config::unknown_variables() {
        note!("note: {variable} is set in the environment, and is not a setting");
    }
    Ok(ExitCode::SUCCESS)
}

fn json(config: &Config) -> Value {
    let settings = config.entries().into_iter().map(|entry| {
        json!({
            "name": entry.known.name,
            "value": entry.value,
            "source": entry.source.json(),
            "variable": entry.known.variable,
            "about": entry.known.about,
        })
    });
    json!({
        "file": config.file.as_ref().map(|path| path.display().to_string()),
        "settings": settings.collect::<Vec<_>>(),
    })
}

fn print(config: &Config) -> Result<(), crate::failure::Failure> {
    let mut table = Table::new(&["setting", "value", "from", "what it is"]);
    for entry in config.entries() {
        table.row([
            entry.known.name.to_owned(),
            output::text(&entry.value),
            entry.source.to_string(),
            entry.known.about.to_owned(),
        ]);
    }
    table.print()
}
