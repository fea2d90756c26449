//! What the program logs, on standard error.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// What a node logs unless it is told otherwise. Kademlia warns of having no peers, which is how every network
/// begins.
pub(crate) const NODE: &str = "warn,netabase=info,netabase_store=info,libp2p_kad=error";
/// What every other command logs.
pub(crate) const COMMAND: &str = "error";

/// Logs from now on what `chosen` lets through, else what `RUST_LOG` does, else `default`.
pub(crate) fn start(chosen: Option<&str>, default: &str) -> Result<(), Failure> {
    let environment = std::env::var("RUST_LOG").ok();
    let directives = chosen.or(environment.as_deref()).filter(|text| !text.is_empty()).unwrap_or(default);
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("`{directives}` is not a log filter; write RUST_LOG=netabase=debug"))
        .map_err(Failure::usage)?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    Ok(())
}
