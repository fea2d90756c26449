//! `netabase man`: the manual pages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::output;

/// The command line of `netabase man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write a page for the program and for every command into this directory
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints or writes the pages.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut command = Cli::command();
    command.build();
    match &arguments.output {
        Some(directory) => write(&command, directory)?,
        None => output::write_all(&mut io::stdout().lock(), &page(&command)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

/// Writes the pages of a command and its subcommands.
fn write(command: &clap::Command, directory: &Path) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, page(command)?)
        .with_context(|| format!("cannot write {}; name a directory that exists", path.display()))?;
    command
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .try_for_each(|command| write(command, directory))
}
