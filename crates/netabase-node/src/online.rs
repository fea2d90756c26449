//! Requests to a running node.

use std::path::Path;

use anyhow::Context;
use netabase::netabase_store::admin::ApiFile;
use netabase_client::{Client, ClientError, Token, escape};

use crate::config::{ApiFlags, Config};
use crate::failure::{Code, Failure};
use crate::schema;

/// The flags of commands that ask a node.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ApiArguments {
    #[command(flatten)]
    pub(crate) api: ApiFlags,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl ApiArguments {
    /// Makes a client of the node that the settings name, without connecting.
    pub(crate) fn connect(&self, file: Option<&Path>) -> Result<Client, Failure> {
        client(&Config::load(file, &self.api.flags())?)
    }
}

/// Makes a client of the node that the settings name: by the address of its API, or by its
/// database.
pub(crate) fn client(config: &Config) -> Result<Client, Failure> {
    let (url, token) = match served(config) {
        Some(ApiFile { url, token: written, .. }) => {
            let written = written.map(|token| token.parse()).transpose();
            (url, written.context("the token in the file beside the database cannot be used")?)
        }
        None if config.is_by_path() => return Err(not_served(config)),
        None => (config.api_url(), token(config)?),
    };
    let client = Client::new(&url).map_err(failed)?;
    Ok(match token {
        Some(token) => client.with_token(&token),
        None => client,
    })
}

/// Returns the API of the program that serves the database of the settings, or `None` if no program
/// does or the settings name the API itself.
pub(crate) fn served(config: &Config) -> Option<ApiFile> {
    if config.has_api_url() && !config.is_by_path() {
        return None;
    }
    let path = config.path.value.as_deref()?;
    // A directory may have several databases. The one of the schema has precedence.
    let named = schema::load(config).and_then(|schema| schema::database(config, &schema)).ok();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let beside = entries.filter(|path| path.extension() == Some("api".as_ref()));
    let databases = beside.map(|path| path.with_extension(""));
    named.into_iter().chain([path.to_owned()]).chain(databases).find_map(|path| ApiFile::of_running(&path))
}

fn not_served(config: &Config) -> Failure {
    let path = config.path.value.as_deref().unwrap_or(Path::new("")).display();
    let error = anyhow::anyhow!(
        "no program serves a database in {path}; start one with `netabase serve --path {path}`, or have the program \
         call `netabase_http::serve`, or say where the API is with --api"
    );
    Failure { code: Code::NoNode, error }
}

/// Reads the token that the settings name.
pub(crate) fn token(config: &Config) -> Result<Option<Token>, Failure> {
    let read = |path: &std::path::PathBuf| {
        Token::from_file(path).with_context(|| {
            format!("the token in {} cannot be used; make one with `openssl rand -hex 32`", path.display())
        })
    };
    config.token_file.value.as_ref().map(read).transpose().map_err(Failure::usage)
}

/// Returns the failure of a call, with its exit code and what to do.
pub(crate) fn failed(error: ClientError) -> Failure {
    let (code, advice) = match &error {
        ClientError::Url { .. } => (Code::Usage, None),
        ClientError::NoNode { .. } => (Code::NoNode, None),
        ClientError::TimedOut { .. } => (Code::NoNode, Some("look at its log, or try again")),
        ClientError::Silent { .. } => {
            (Code::NoNode, Some("its process may be stopped or overloaded: look at the process and its log"))
        }
        ClientError::Broken { .. } => (Code::NoNode, Some("say where the node is with --api")),
        ClientError::Problem(problem) => match problem.status {
            401 => (Code::Failed, Some("name the file with the node's token: --token-file FILE")),
            404 => (Code::NotFound, None),
            429 => (Code::Failed, Some("try again a little later")),
            _ => (Code::Failed, None),
        },
        _ => (Code::Failed, None),
    };
    let error = match advice {
        Some(advice) => anyhow::anyhow!("{error}; {advice}"),
        None => anyhow::Error::new(error),
    };
    Failure { code, error }
}

/// Returns a path with these segments, percent-encoded.
pub(crate) fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| format!("{path}/{}", escape(segment)))
}

/// Adds the parameters that have a value to a path.
pub(crate) fn with(path: String, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.fold(path, |path, (name, value)| {
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("{path}{sign}{name}={}", escape(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_key_leaves_its_segment() {
        assert_eq!(path(&["v1", "models", "A", "records", "a/b?c#d"]), "/v1/models/A/records/a%2Fb%3Fc%23d");
        let target = with("/v1".into(), &[("a", Some("1&2".into())), ("b", None), ("c", Some("x".into()))]);
        assert_eq!(target, "/v1?a=1%262&c=x");
    }
}
