//! Who asks.

use anyhow::{Context, ensure};
use netabase::{GetOptions, Node, PutOptions};

use super::connection::Connection;
use super::model;

/// One of many callers.
pub(super) enum Caller {
    /// It calls the crate.
    Crate(Node),
    /// It asks the API.
    Http(Connection),
}

impl Caller {
    /// Reads a record, as JSON.
    pub(super) async fn get(&mut self, id: u64) -> anyhow::Result<()> {
        match self {
            Self::Crate(node) => {
                let found = node.get(&model::key(id)?, GetOptions::default()).await?;
                let envelope = found.record.context("a record is missing")?;
                // What a client of the API is sent.
                ensure!(model::model()?.codec.to_json(envelope.payload())? == model::json(id)?);
            }
            Self::Http(connection) => {
                let answer = connection.ask("GET", &model::path(id), "").await?;
                ensure!(answer.status == 200, "a get was answered with {}", answer.status);
                ensure!(answer.body.contains(&model::json(id)?), "another record came");
            }
        }
        Ok(())
    }

    /// Writes a record, given as JSON.
    pub(super) async fn put(&mut self, id: u64) -> anyhow::Result<()> {
        let json = model::json(id)?;
        match self {
            Self::Crate(node) => {
                let record = model::model()?.codec.from_json(1, &json)?;
                node.put(record, PutOptions::default()).await?;
            }
            Self::Http(connection) => {
                let answer = connection.ask("PUT", &model::path(id), &json).await?;
                ensure!(matches!(answer.status, 200 | 201), "a put was answered with {}", answer.status);
            }
        }
        Ok(())
    }
}
