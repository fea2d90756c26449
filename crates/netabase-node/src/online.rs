//! Talking to a running node.

use std::path::Path;

use anyhow::Context;
use netabase_http::Token;
use netabase_http::client::{Client, ClientError, escape};

use crate::config::{ApiFlags, Config};
use crate::failure::{Code, Failure};

/// Where the node is, and how its answer is shown.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ApiArguments {
    #[command(flatten)]
    pub(crate) api: ApiFlags,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl ApiArguments {
    /// Makes a client of the node that the settings name; does not connect yet.
    pub(crate) fn connect(&self, file: Option<&Path>) -> Result<Client, Failure> {
        client(&Config::load(file, &self.api.flags())?)
    }
}

/// Makes a client of the node that the settings name.
pub(crate) fn client(config: &Config) -> Result<Client, Failure> {
    let client = Client::new(&config.api_url()).map_err(failed)?;
    Ok(match token(config)? {
        Some(token) => client.with_token(&token),
        None => client,
    })
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

/// Says what it means that a call has failed, and what to do.
pub(crate) fn failed(error: ClientError) -> Failure {
    let (code, advice) = match &error {
        ClientError::Url { .. } => (Code::Usage, None),
        ClientError::NoNode { .. } => (Code::NoNode, None),
        ClientError::TimedOut { .. } => (Code::NoNode, Some("look at its log, or try again")),
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

/// Returns a path of these segments.
pub(crate) fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| format!("{path}/{}", escape(segment)))
}

/// Adds those parameters to a path that have a value.
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
